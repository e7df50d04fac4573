//! The process between a node and its redis-server: locks the data directory, and sees to it that redis-server ends.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, Read as _, Seek as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::address::Address;
use super::error::EmbeddedError;
use super::settings::{self, LOCK_FILE, LOG_FILE};

/// The first line of the guard's standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) data_dir: PathBuf,
    pub(super) server: PathBuf,
    pub(super) address: Address,
}

/// One line of the guard's standard output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Word {
    Running { pid: u32 },
    InUse { pid: Option<u32> },
    Unusable { reason: String },
    Ended { status: String },
}

/// How long redis-server may take to write its log to the end.
const STOP_MAX: Duration = Duration::from_secs(10);
/// How long to wait for the lock when its node is dead: its redis-server has [`STOP_MAX`] to end.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(12);
/// Time between two tries to get the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// `homing embedded-redis guard`: runs redis-server until standard input ends or it ends by itself.
///
/// # Errors
/// Whatever goes wrong, said to the supervisor on standard output before it is returned.
pub fn guard() -> Result<(), EmbeddedError> {
    let outcome = run();
    match &outcome {
        Ok(()) => {}
        Err(EmbeddedError::InUse { pid, .. }) => say(&Word::InUse { pid: *pid }),
        Err(EmbeddedError::Unusable(reason)) => say(&Word::Unusable { reason: reason.clone() }),
        Err(error) => say(&Word::Unusable { reason: error.to_string() }),
    }
    outcome
}

/// Steps of nice(2) by which redis-server has precedence over the node. On a busy machine everybody waits for it, and it
/// would get no larger share of the processors than each of those who wait.
const PRECEDENCE: i32 = 10;

/// `homing embedded-redis exec`: becomes redis-server, which then dies with the guard, `parent`.
///
/// # Errors
/// [`EmbeddedError::Unusable`] if this process cannot become redis-server.
pub fn exec(parent: u32, server: &Path, settings: &Path) -> Result<Infallible, EmbeddedError> {
    die_with_parent()?;
    // If the guard died before that call, the signal will never come.
    if rustix::process::getppid() != i32::try_from(parent).ok().and_then(Pid::from_raw) {
        return Err(EmbeddedError::Unusable("the guard is gone".to_owned()));
    }
    // Where that is not permitted, it is one among all.
    let _ = rustix::process::nice(-PRECEDENCE);
    let error = std::process::Command::new(server).arg(settings).exec();
    Err(EmbeddedError::io(server)(error))
}

/// The signal comes when the *thread* that made this process ends: the guard makes redis-server from its main thread,
/// the supervisor makes the guard from a thread that waits for it.
#[cfg(target_os = "linux")]
fn die_with_parent() -> Result<(), EmbeddedError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|error| EmbeddedError::Unusable(format!("parent-death signal: {error}")))
}

/// Elsewhere only the watched pipe ends redis-server, unless the guard itself is killed.
#[cfg(not(target_os = "linux"))]
fn die_with_parent() -> Result<(), EmbeddedError> {
    Ok(())
}

fn run() -> Result<(), EmbeddedError> {
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    let order: Order = match read.ok().and_then(|_| serde_json::from_str(&line).ok()) {
        Some(order) => order,
        None => return Err(EmbeddedError::Unusable("no order on standard input; this is not for people".to_owned())),
    };
    let lock = lock(&order.data_dir)?;
    let settings = settings::write(&order.data_dir, &order.address)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| EmbeddedError::Unusable(error.to_string()))?;
    runtime.block_on(attend(&order, &settings, lock))
}

/// Runs redis-server on the main thread's behalf, until it or the node ends.
async fn attend(order: &Order, settings: &Path, lock: File) -> Result<(), EmbeddedError> {
    let io = |error: std::io::Error| EmbeddedError::Unusable(error.to_string());
    let mut terminate = signal(SignalKind::terminate()).map_err(io)?;
    die_with_parent()?;
    let node_is_gone = end_of_input();
    let mut server = spawn(order, settings, lock)?;
    say(&Word::Running { pid: server.id().unwrap_or(0) });
    tokio::select! {
        // All arms only watch; none has an effect that dropping it would lose.
        status = server.wait() => {
            say(&Word::Ended { status: status.map_err(io)?.to_string() });
            return Ok(());
        }
        _ = node_is_gone => {}
        _ = terminate.recv() => {}
    }
    stop(&mut server).await.map_err(io)
}

async fn stop(server: &mut Child) -> std::io::Result<()> {
    if let Some(pid) = server.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) {
        // It may have ended in this moment; then there is nothing to signal.
        let _ = rustix::process::kill_process(pid, Signal::TERM);
    }
    match tokio::time::timeout(STOP_MAX, server.wait()).await {
        Ok(status) => status.map(|_| ()),
        Err(_) => server.kill().await,
    }
}

fn spawn(order: &Order, settings: &Path, lock: File) -> Result<Child, EmbeddedError> {
    let log_path = order.data_dir.join(LOG_FILE);
    let log = OpenOptions::new().append(true).create(true).open(&log_path).map_err(EmbeddedError::io(&log_path))?;
    let errors = log.try_clone().map_err(EmbeddedError::io(&log_path))?;
    let program = super::this_program();
    Command::new(&program)
        .arg0("homing")
        .args(["embedded-redis", "exec", "--parent"])
        .arg(std::process::id().to_string())
        .arg("--server")
        .arg(&order.server)
        .arg("--settings")
        .arg(settings)
        .stdin(Stdio::from(lock))
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(EmbeddedError::io(&program))
}

/// Takes the lock on the data directory. If the node that had it is dead, its redis-server is just ending: waits.
fn lock(data_dir: &Path) -> Result<File, EmbeddedError> {
    let path = data_dir.join(LOCK_FILE);
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = open.map_err(EmbeddedError::io(&path))?;
    let me = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    let deadline = Instant::now() + LOCK_WAIT_MAX;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let pid = holder(&mut file);
                let is_elsewhere = pid.is_some() && pid != me && pid.is_some_and(is_alive);
                if is_elsewhere || Instant::now() > deadline {
                    return Err(EmbeddedError::InUse { data_dir: data_dir.to_owned(), pid });
                }
                #[expect(clippy::disallowed_methods, reason = "before this process has a runtime")]
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(error) => return Err(EmbeddedError::io(&path)(error.into())),
        }
    }
    let note = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", me.unwrap_or(0))
    };
    note(&mut file).map_err(EmbeddedError::io(&path))?;
    Ok(file)
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn is_alive(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}

/// Resolves when the node's end of the pipe is closed.
fn end_of_input() -> oneshot::Receiver<()> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = sender.send(());
    });
    receiver
}

fn say(word: &Word) {
    // The supervisor may be gone; then nobody needs to hear it.
    if let Ok(line) = serde_json::to_string(word) {
        let mut output = std::io::stdout().lock();
        let _ = writeln!(output, "{line}").and_then(|()| output.flush());
    }
}
