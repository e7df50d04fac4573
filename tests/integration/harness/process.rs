//! A child process that cannot outlive its test, with its output in a file.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::wait::{DEADLINE, eventually_within};

/// Lines of output that a failed test shows of each of its processes.
const SHOWN_LINES: usize = 200;

/// A running (or ended) child process.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with its output appended to `log`.
    pub(crate) fn start(name: &str, program: &str, args: &[String], env: &[(String, String)], log: &Path) -> Self {
        // The parent-death signal covers what `Drop` cannot: a test process that is itself killed.
        let mut command = if Path::new("/usr/bin/setpriv").exists() {
            let mut command = Command::new("/usr/bin/setpriv");
            command.args(["--pdeathsig", "KILL", "--", program]);
            command
        } else {
            Command::new(program)
        };
        let output = File::options().create(true).append(true).open(log).expect("the test's folder can be written to");
        let errors = output.try_clone().expect("a file descriptor can be copied");
        // A test must not depend on what its caller has set for a server of their own.
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("HOMING_") {
                command.env_remove(key);
            }
        }
        let child = command
            .args(args)
            .envs(env.iter().map(|(key, value)| (key, value)))
            .current_dir(log.parent().expect("a log file stands in a folder"))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("{program} cannot be started: {error}"));
        Self { name: name.to_owned(), child, log: log.to_owned() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its pid, for calls of the system.
    pub(crate) fn handle(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.handle().expect("a child has a positive pid");
        // The child was not waited for, so its pid is still its own.
        kill_process(pid, signal).unwrap_or_else(|error| panic!("{} cannot be signalled: {error}", self.name));
    }

    /// Ends the process as a crash would and reaps it. Works on a stopped process too.
    pub(crate) fn kill9(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether it has ended, and how.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits for it to end by itself.
    pub(crate) async fn wait_exit(&mut self) -> ExitStatus {
        self.wait_exit_within(DEADLINE).await
    }

    /// Waits for it to end by itself within a time that the test claims.
    pub(crate) async fn wait_exit_within(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("{} exits", self.name);
        eventually_within(deadline, &what, async || self.exited()).await
    }

    /// Panics if the process has ended, with its output: a start that failed is not a time-out.
    pub(crate) fn assert_running(&mut self) {
        if let Some(status) = self.exited() {
            panic!("{} ended with {status} (signal {:?}):\n{}", self.name, status.signal(), self.output());
        }
    }

    /// Everything that it printed so far.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            let output = self.output();
            let lines: Vec<&str> = output.lines().collect();
            let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
            eprintln!("--- last output of {} ---\n{}\n--- end ---", self.name, shown.join("\n"));
        }
    }
}
