//! The signals that end a node.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::exit::{Exit, Failure, OrExit as _, note};

/// How urgently the node should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Not at all.
    Run,
    /// SIGTERM: red `/readyz`, a pause for the balancer, closes spread over the drain time.
    Drain,
    /// SIGINT, somebody waits at a terminal: the same without pause and spread.
    DrainFast,
}

/// Told to everything that has to end. Cloning is cheap.
#[derive(Clone, Debug)]
pub(super) struct Shutdown(watch::Receiver<Stage>);

impl Shutdown {
    /// Listens for signals from now on. The second one ends the process at once.
    pub(super) fn on_signals() -> Result<Self, Failure> {
        let mut terminate = signal(SignalKind::terminate()).or_exit(Exit::Other)?;
        let mut interrupt = signal(SignalKind::interrupt()).or_exit(Exit::Other)?;
        let (sender, receiver) = watch::channel(Stage::Run);
        tokio::spawn(async move {
            for count in 1.. {
                let stage = tokio::select! {
                    _ = terminate.recv() => Stage::Drain,
                    _ = interrupt.recv() => Stage::DrainFast,
                };
                if count > 1 {
                    note("second signal: ending at once");
                    // The private redis-server sees its pipe close and ends in good order.
                    std::process::exit(Exit::Other as i32);
                }
                sender.send_replace(stage);
            }
        });
        Ok(Self(receiver))
    }

    /// Resolves when the node should end, and says how.
    pub(super) async fn begins(&mut self) -> Stage {
        match self.0.wait_for(|stage| *stage > Stage::Run).await {
            Ok(stage) => *stage,
            // The task that listens ends only with the runtime.
            Err(_) => Stage::DrainFast,
        }
    }
}
