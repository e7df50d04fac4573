//! The thread of a node that keeps a guard, and with it a redis-server, running.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::error::EmbeddedError;
use super::guard::{Order, Word};
use super::settings::{self, LOG_FILE};

/// Pause before the first restart; doubles with each.
const RESTART_PAUSE: Duration = Duration::from_millis(100);
/// The longest that this pause grows to.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(5);
/// After running this long, a death counts as the first again.
const RUN_LONG: Duration = Duration::from_secs(30);

/// Where redis-server stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Starting,
    Running,
    Failed(EmbeddedError),
    Stopped,
}

/// A handle to the thread.
pub(super) struct Supervisor {
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_stopping: bool,
    /// It has answered once: from now on it is restarted, until then a failure is the caller's to tell.
    is_up: bool,
    /// Closing it ends the guard and redis-server.
    guard_input: Option<ChildStdin>,
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // No code that holds the lock can panic; and the state would be whole even then.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps, unless a stop begins; says whether one did.
    fn pause(&self, pause: Duration) -> bool {
        let wait = self.changed.wait_timeout_while(self.state(), pause, |state| !state.is_stopping);
        wait.unwrap_or_else(PoisonError::into_inner).0.is_stopping
    }
}

impl Supervisor {
    pub(super) fn start(program: PathBuf, order: Order) -> Result<Self, EmbeddedError> {
        let shared = Arc::new(Shared::default());
        let (sender, phase) = watch::channel(Phase::Starting);
        let thread = Thread { program, order, shared: Arc::clone(&shared), phase: sender };
        // A thread of its own, since the guard's parent-death signal follows the thread that made it.
        let spawned = std::thread::Builder::new().name("embedded-redis".to_owned()).spawn(move || thread.run());
        match spawned {
            Ok(_) => Ok(Self { shared, phase }),
            Err(error) => Err(EmbeddedError::Unusable(error.to_string())),
        }
    }

    /// From now on it is restarted when it ends.
    pub(super) fn keep_up(&self) -> Result<(), EmbeddedError> {
        let mut state = self.shared.state();
        state.is_up = true;
        // With the lock held, either the thread has given up before, or it sees the flag.
        match &*self.phase.borrow() {
            Phase::Failed(error) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    pub(super) fn begin_stop(&self) {
        let mut state = self.shared.state();
        state.is_stopping = true;
        state.guard_input = None;
        self.shared.changed.notify_all();
    }

    pub(super) async fn reaches(&mut self, is_it: impl FnMut(&Phase) -> bool) {
        // An error means that the thread is gone, and redis-server with it.
        let _ = self.phase.wait_for(is_it).await;
    }

    /// Resolves when redis-server does not start.
    pub(super) fn first_failure(&mut self) -> impl Future<Output = EmbeddedError> + Send + 'static {
        let mut phase = self.phase.clone();
        async move {
            match phase.wait_for(|phase| matches!(phase, Phase::Failed(_))).await.as_deref() {
                Ok(Phase::Failed(error)) => error.clone(),
                _ => EmbeddedError::Unusable("its supervisor ended".to_owned()),
            }
        }
    }
}

/// Begins a stop without waiting for the end of it.
impl Drop for Supervisor {
    fn drop(&mut self) {
        self.begin_stop();
    }
}

struct Thread {
    program: PathBuf,
    order: Order,
    shared: Arc<Shared>,
    phase: watch::Sender<Phase>,
}

impl Thread {
    fn run(self) {
        let mut pause = RESTART_PAUSE;
        loop {
            let began = Instant::now();
            let outcome = self.run_guard();
            {
                let state = self.shared.state();
                if state.is_stopping {
                    break;
                }
                if !state.is_up {
                    // The last word of this thread, so that it cannot be missed.
                    self.phase.send_replace(Phase::Failed(outcome));
                    return;
                }
            }
            if began.elapsed() > RUN_LONG {
                pause = RESTART_PAUSE;
            }
            let reason = match &outcome {
                // Not the end of its log: that has many lines.
                EmbeddedError::Ended { status, .. } => status.clone(),
                error => error.to_string(),
            };
            tracing::error!(reason, pause_ms = pause.as_millis() as u64, "the private Redis ended; restarting it");
            self.phase.send_replace(Phase::Failed(outcome));
            if self.shared.pause(pause) {
                break;
            }
            pause = (pause * 2).min(RESTART_PAUSE_MAX);
        }
        self.phase.send_replace(Phase::Stopped);
    }

    /// Runs one guard to its end, and says why it ended.
    fn run_guard(&self) -> EmbeddedError {
        let mut guard = match self.spawn() {
            Ok(guard) => guard,
            Err(error) => return error,
        };
        let mut outcome = None;
        let output = guard.stdout.take().map(BufReader::new);
        // The output ends with the guard.
        for line in output.into_iter().flat_map(|output| output.lines().map_while(Result::ok)) {
            match serde_json::from_str(&line) {
                Ok(Word::Running { pid }) => {
                    tracing::info!(pid, log = %self.order.data_dir.join(LOG_FILE).display(), "private Redis started");
                    self.phase.send_replace(Phase::Running);
                }
                Ok(word) => outcome = Some(self.error_of(word)),
                Err(_) => tracing::warn!(line, "unexpected word of the private Redis's guard"),
            }
        }
        let status = guard.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        outcome.unwrap_or_else(|| self.ended(format!("its guard ended: {status}")))
    }

    fn spawn(&self) -> Result<Child, EmbeddedError> {
        // A group of its own: Ctrl-C in a terminal must reach the node alone, which then ends redis-server last.
        let mut guard = Command::new(&self.program)
            .arg0("homing")
            .args(["embedded-redis", "guard", "--data-dir"])
            .arg(&self.order.data_dir)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(EmbeddedError::io(&self.program))?;
        let order = serde_json::to_string(&self.order).map_err(|error| EmbeddedError::Unusable(error.to_string()))?;
        if let Some(mut input) = guard.stdin.take() {
            // If the guard is dead already, its output says so.
            let _ = writeln!(input, "{order}");
            let mut state = self.shared.state();
            if !state.is_stopping {
                state.guard_input = Some(input);
            }
        }
        Ok(guard)
    }

    fn error_of(&self, word: Word) -> EmbeddedError {
        match word {
            Word::InUse { pid } => EmbeddedError::InUse { data_dir: self.order.data_dir.clone(), pid },
            Word::Unusable { reason } => EmbeddedError::Unusable(reason),
            Word::Running { .. } => self.ended("its guard ended".to_owned()),
            Word::Ended { status } => self.ended(status),
        }
    }

    fn ended(&self, status: String) -> EmbeddedError {
        let data_dir = &self.order.data_dir;
        EmbeddedError::Ended { status, log: data_dir.join(LOG_FILE), tail: settings::log_tail(data_dir) }
    }
}
