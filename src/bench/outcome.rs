//! How a measurement ended.

use super::report::Findings;

/// What was found, and what should not have been.
pub(crate) struct Outcome {
    pub(crate) findings: Findings,
    /// Messages were lost, or clients did not come back.
    pub(crate) failure: Option<String>,
}
