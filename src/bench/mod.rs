//! `homing bench`: measures Homing from outside, as its users would feel it.
//!
//! Owns the measurements, the processes that carry the load, and how figures are shown. It must not know how a node
//! works inside: it sees sockets, `/proc`, and Redis. Invariants: latency counts from the time at which a message was
//! *meant* to be sent, so a slow server cannot hide by slowing its load down; and a figure is shown together with what
//! was lost.

mod clock;
mod cluster;
mod crew;
mod deliver;
mod error;
mod floor;
mod frames;
mod idle;
mod latency;
pub mod options;
mod outcome;
mod process;
mod progress;
mod report;
mod stage;
mod timeline;
mod worker;

use std::os::unix::process::CommandExt as _;

pub use error::BenchError;
use options::{BenchCommand, NodeOptions, OutputOptions};
use outcome::Outcome;

/// Runs a measurement; gives what goes to standard output.
///
/// # Errors
/// Any [`BenchError`]. With [`BenchError::Failed`], there is output as well: `print` gets it first.
pub async fn run<E: From<BenchError>>(
    command: BenchCommand,
    print: impl FnOnce(String) -> Result<(), E>,
) -> Result<(), E> {
    match command {
        BenchCommand::Worker => Ok(worker::run().await?),
        BenchCommand::Node(options) => Err(become_node(&options).into()),
        BenchCommand::Idle(options) => show(idle::run(&options).await?, &options.output, print),
        BenchCommand::Deliver(options) => show(deliver::run(&options).await?, &options.output, print),
    }
}

fn show<E: From<BenchError>>(
    outcome: Outcome,
    output: &OutputOptions,
    print: impl FnOnce(String) -> Result<(), E>,
) -> Result<(), E> {
    print(outcome.findings.show(output)?)?;
    match outcome.failure {
        None => Ok(()),
        Some(failure) => Err(BenchError::Failed(failure).into()),
    }
}

/// Becomes `homing serve`, to be killed by the kernel when the measuring process ends, however that happens.
fn become_node(options: &NodeOptions) -> BenchError {
    #[cfg(target_os = "linux")]
    {
        let signal = Some(rustix::process::Signal::KILL);
        if let Err(error) = rustix::process::set_parent_process_death_signal(signal) {
            return BenchError::Broken(format!("parent-death signal: {error}"));
        }
    }
    // If the parent died before that call, the signal will never come.
    let parent = i32::try_from(options.parent).ok().and_then(rustix::process::Pid::from_raw);
    if rustix::process::getppid() != parent {
        return BenchError::Broken("the measuring process is gone".to_owned());
    }
    let program = crate::store::embedded::this_program();
    let error = std::process::Command::new(&program).arg0("homing").arg("serve").args(&options.arguments).exec();
    BenchError::Broken(format!("{}: {error}", program.display()))
}
