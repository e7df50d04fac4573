//! How a command ends: an exit code by cause, and a line on standard error.

use std::fmt::Display;
use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

/// Why a command failed, as scripts see it. `homing --help` lists the codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Other = 1,
    Usage = 2,
    Configuration = 3,
    Unreachable = 4,
    Refused = 5,
    Rejected = 6,
    UnsuitableRedis = 7,
    InUse = 8,
    Ended = 9,
}

/// A failed command.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    pub(super) error: anyhow::Error,
}

impl Failure {
    pub(super) fn new(exit: Exit, text: impl Display) -> Self {
        Self { exit, error: anyhow::anyhow!("{text}") }
    }

    /// Says what went wrong, causes included, and gives the exit code.
    pub(super) fn report(&self) -> ExitCode {
        note(format_args!("{:#}", self.error));
        ExitCode::from(self.exit as u8)
    }
}

pub(super) trait OrExit<T> {
    /// Gives an error its exit code.
    fn or_exit(self, exit: Exit) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, exit: Exit) -> Result<T, Failure> {
        self.map_err(|error| Failure { exit, error: error.into() })
    }
}

/// A line of what was asked for, on standard output. If nobody reads it any more (`| head`), the program ends.
pub(super) fn print(line: impl Display) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    match writeln!(output, "{line}").and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        outcome => outcome.or_exit(Exit::Other),
    }
}

/// A line for people, on standard error. Nothing can be done if that is closed.
pub(super) fn note(line: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "homing: {line}");
}
