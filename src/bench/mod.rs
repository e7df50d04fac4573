//! `homing bench`: measures Homing from outside, as its users would feel it.
//!
//! Owns the measurements, the processes that carry the load, and how figures are shown. It must not know how a node
//! works inside: it sees sockets, `/proc`, and Redis. Invariants: latency counts from the time at which a message was
//! *meant* to be sent, so a slow server cannot hide by slowing its load down; and a figure is shown together with what
//! was lost.

mod appends;
mod broadcast;
mod calls;
mod clock;
mod cluster;
mod costs;
mod crew;
mod crowd;
mod deliver;
mod error;
mod floor;
mod follows;
mod frames;
mod idle;
mod latency;
mod load;
mod node;
pub mod options;
mod outcome;
mod process;
mod progress;
mod replay;
mod report;
mod slow;
mod sockets;
mod sockets_floor;
mod stage;
mod storm;
mod suite;
mod suite_document;
mod timeline;
mod topics;
pub mod values;
mod worker;

use std::os::unix::process::CommandExt as _;

pub use error::BenchError;
use tokio::signal::unix::{SignalKind, signal};

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
    // A load shows what it found when it is interrupted; a worker ends with its orders.
    let ends_itself = matches!(command, BenchCommand::Load(_) | BenchCommand::Worker);
    let interrupted = async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt()).ok()?, signal(SignalKind::terminate()).ok()?);
        tokio::select! {
            _ = interrupt.recv() => Some(()),
            _ = terminate.recv() => Some(()),
        }
    };
    let measurement = async {
        let (outcome, output) = match command {
            BenchCommand::Worker => return worker::run().await.map(|()| None),
            BenchCommand::Node(options) => return Err(become_node(&options)),
            BenchCommand::Suite(options) => return suite::run(&options).await.map(|()| None),
            BenchCommand::Idle(options) => (idle::run(&options).await?, options.output),
            BenchCommand::Deliver(options) => (deliver::run(&options).await?, options.output),
            BenchCommand::Replay(options) => (replay::run(&options).await?, options.output),
            BenchCommand::Storm(options) => (storm::run(&options).await?, options.output),
            BenchCommand::Sockets(options) => (sockets::run(&options).await?, options.output),
            BenchCommand::Broadcast(options) => (broadcast::run(&options).await?, options.output),
            BenchCommand::Topics(options) => (topics::run(&options).await?, options.output),
            BenchCommand::Load(options) => (load::run(&options).await?, options.output),
            BenchCommand::Floor(options) => (floor::run(&options).await?, options.output),
        };
        Ok(Some((outcome, output)))
    };
    let outcome = tokio::select! {
        outcome = measurement => outcome?,
        // The measurement is dropped, and its processes and folders with it.
        Some(()) = interrupted, if !ends_itself => return Err(BenchError::Failed("interrupted".to_owned()).into()),
    };
    match outcome {
        None => Ok(()),
        Some((outcome, output)) => show(&outcome, &output, print),
    }
}

fn show<E: From<BenchError>>(
    outcome: &Outcome,
    output: &OutputOptions,
    print: impl FnOnce(String) -> Result<(), E>,
) -> Result<(), E> {
    print(outcome.findings.show(output)?)?;
    match &outcome.failure {
        None => Ok(()),
        Some(failure) => Err(BenchError::Failed(failure.clone()).into()),
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
