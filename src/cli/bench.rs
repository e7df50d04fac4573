//! `homing bench`: exit codes of measurements.

use super::descriptors;
use super::exit::{Exit, Failure, print};
use crate::bench::options::BenchCommand;
use crate::bench::{self, BenchError};

pub(super) const AFTER_HELP: &str = "\
Without --url, a measurement starts its own Redis (on tmpfs, where there is one) and its own
nodes, and throws them away afterwards. Use a release build, on a machine that does nothing
else. docs/BENCHMARKING.md says what each figure means.

Examples:
  homing bench deliver --rate 5000 --html report.html
  homing bench deliver --rate max --via xadd
  homing bench idle --users 10000
  homing bench deliver --url https://push.example.org --jwt-secret-file jwt --api-key-file key";

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        let exit = match error {
            BenchError::Usage(_) => Exit::Usage,
            BenchError::Configuration(_) => Exit::Configuration,
            BenchError::Unreachable(_) => Exit::Unreachable,
            BenchError::Refused(_) => Exit::Refused,
            BenchError::Failed(_) | BenchError::Broken(_) => Exit::Other,
        };
        Self { exit, error: error.into() }
    }
}

/// Runs a measurement and prints what it found.
pub(super) async fn bench(command: BenchCommand) -> Result<(), Failure> {
    descriptors::raise_limit();
    bench::run(command, |text: String| print(text)).await
}
