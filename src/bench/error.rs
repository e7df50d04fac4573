//! Why a measurement failed.

use thiserror::Error;

/// A measurement that did not come to its end, by what its caller can do about it.
#[derive(Debug, Error)]
pub enum BenchError {
    /// Options that do not fit together, or have no meaning.
    #[error("{0}")]
    Usage(String),
    /// A secret or setting that is missing or unusable.
    #[error("{0}")]
    Configuration(String),
    /// The cluster or Redis cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// The cluster answers, and refuses us.
    #[error("{0}")]
    Refused(String),
    /// It ran, but what it measured is not right: messages were lost, or clients did not come back.
    #[error("{0}")]
    Failed(String),
    /// A process of our own ended, or a file cannot be written.
    #[error("{0}")]
    Broken(String),
}

impl BenchError {
    /// For `map_err`, with what was being done.
    pub(crate) fn broken<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> Self {
        move |error| Self::Broken(format!("{what}: {error}"))
    }

    /// For `map_err`, with what was being done.
    pub(crate) fn unreachable<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> Self {
        move |error| Self::Unreachable(format!("{what}: {error}"))
    }
}
