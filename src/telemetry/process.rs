//! What the operating system knows about this process, by the names that Prometheus's own clients use.
//!
//! Linux tells it in `/proc`; elsewhere the lines are missing.

use std::fmt::{Display, Write};
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// Names of the metrics that this module writes.
pub const ALL: &[&str] = &[
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_max_fds",
    "process_cpu_seconds_total",
    "process_start_time_seconds",
];

/// `USER_HZ`: Linux shows CPU times to user space in hundredths of a second, whatever the kernel's own clock is.
const TICKS_PER_SECOND: f64 = 100.0;

/// This process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process {
    started_seconds: f64,
}

impl Process {
    /// Takes now as the start of the process.
    pub(super) fn starting_now() -> Self {
        // A clock before 1970 is shown as 1970.
        Self { started_seconds: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() }
    }

    /// Appends the metrics in Prometheus's text format.
    pub(super) fn render(self, text: &mut String) {
        line(text, ALL[0], "gauge", "Resident memory.", resident_bytes());
        line(text, ALL[1], "gauge", "Open file descriptors.", open_descriptors());
        line(text, ALL[2], "gauge", "File descriptors that may be open.", descriptors_max());
        line(text, ALL[3], "counter", "CPU time used, in user and system mode.", cpu_seconds());
        line(text, ALL[4], "gauge", "Start of the process, as Unix time.", Some(self.started_seconds));
    }
}

fn line(text: &mut String, name: &str, kind: &str, help: &str, value: Option<impl Display>) {
    if let Some(value) = value {
        // Writing to a String cannot fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n");
    }
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Since Linux 6.2 the folder's size is the number of descriptors; before, it is 0 and they must be counted.
fn open_descriptors() -> Option<u64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64),
        count => Some(count),
    }
}

fn descriptors_max() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in brackets and may hold anything, so count from its end: user and
    // system time are fields 14 and 15 of all, 12 and 13 after the name.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user = fields.next()?.parse::<u64>().ok()?;
    let system = fields.next()?.parse::<u64>().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn every_process_metric_is_rendered_with_a_plausible_number() {
        let mut text = String::new();
        Process::starting_now().render(&mut text);
        for name in ALL {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).expect(name);
            assert!(value.parse::<f64>().unwrap() >= 0.0, "{name} {value}");
        }
        assert!(resident_bytes().unwrap() > 100_000);
        assert!(open_descriptors().unwrap() >= 3 && open_descriptors() <= descriptors_max());
    }
}
