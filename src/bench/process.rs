//! CPU time and memory of processes, and of the kernel's sockets, as Linux tells them in `/proc`.

use std::time::Duration;

/// CPU time that a process has used, all threads, in user and kernel mode; `None` if it is gone or not Linux.
pub(crate) fn cpu(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_cpu(&stat, rustix::param::clock_ticks_per_second())
}

/// Fields 14 and 15 of proc_pid_stat(5), in ticks.
fn parse_cpu(stat: &str, ticks_per_second: u64) -> Option<Duration> {
    // The second field is the program's name in parentheses, which may hold spaces and parentheses itself.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let (user, kernel): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(time_of(user + kernel, ticks_per_second))
}

fn time_of(ticks: u64, ticks_per_second: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / ticks_per_second.max(1) as f64)
}

/// Time of all cores in which this virtual machine had work, and its host ran something else; `None` if not Linux.
pub(crate) fn stolen() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    parse_stolen(&stat, rustix::param::clock_ticks_per_second())
}

/// The eighth number of the first line of proc_stat(5), in ticks.
fn parse_stolen(stat: &str, ticks_per_second: u64) -> Option<Duration> {
    let ticks = stat.strip_prefix("cpu ")?.split_ascii_whitespace().nth(7)?.parse().ok()?;
    Some(time_of(ticks, ticks_per_second))
}

/// Memory of a process in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// In RAM, all of it.
    pub(crate) resident: u64,
    /// In RAM, without the program's file and other shared pages.
    pub(crate) anonymous: u64,
}

/// Memory of a process; zero if it is gone or not Linux.
pub(crate) fn memory(pid: u32) -> Memory {
    // `smaps_rollup` is exact to the page, but walks through all of them with each look, and keeps the machine busy.
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    Memory { resident: kib(&status, "VmRSS:"), anonymous: kib(&status, "RssAnon:") }
}

/// Bytes that the kernel keeps, on the whole machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// Buffers of TCP sockets.
    pub(crate) tcp_buffers: u64,
    /// Objects that it cannot give back: sockets, files, poll items among them.
    pub(crate) slab: u64,
    /// TCP sockets in use.
    pub(crate) tcp_sockets: u64,
}

/// What the kernel keeps now.
pub(crate) fn kernel() -> Kernel {
    let sockets = std::fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let (tcp_sockets, pages) = parse_sockstat(&sockets);
    Kernel { tcp_buffers: pages * rustix::param::page_size() as u64, slab: kib(&memory, "SUnreclaim:"), tcp_sockets }
}

/// TCP sockets in use, and pages of their buffers: `TCP: inuse 5 orphan 0 tw 0 alloc 7 mem 2`.
fn parse_sockstat(text: &str) -> (u64, u64) {
    let line = text.lines().find_map(|line| line.strip_prefix("TCP:")).unwrap_or_default();
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let value = |name: &str| words.chunks_exact(2).find(|pair| pair[0] == name).and_then(|pair| pair[1].parse().ok());
    (value("inuse").unwrap_or(0), value("mem").unwrap_or(0))
}

/// A line as `VmRSS:     1234 kB`, in bytes; 0 if it is not there.
fn kib(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.split_ascii_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Which machine this is: processor, cores, memory, kernel.
pub(crate) fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':')).map(|(_, name)| name.trim());
    let memory = kib(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal:");
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let system = rustix::system::uname();
    format!(
        "{}, {cores} {}, {:.0} GiB, {} {}",
        model.unwrap_or(std::env::consts::ARCH),
        if cores == 1 { "core" } else { "cores" },
        memory as f64 / f64::from(1 << 30),
        system.sysname().to_string_lossy(),
        system.release().to_string_lossy(),
    )
}

/// The type of the file system that holds a folder, as `/proc/self/mounts` says; empty if it is not known.
pub(crate) fn file_system(folder: &std::path::Path) -> String {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    parse_mounts(&mounts, &folder)
}

fn parse_mounts(mounts: &str, folder: &std::path::Path) -> String {
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let holding = fields.filter(|fields| fields.len() > 2 && folder.starts_with(fields[1]));
    // The last of equals is mounted over the others.
    holding.max_by_key(|fields| fields[1].len()).map(|fields| fields[2].to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "12 (a) b (c) S 1 12 12 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 100 1000 10 1844";
        assert_eq!(parse_cpu(stat, 100), Some(Duration::from_secs(3)));
        assert_eq!(parse_cpu("12 (a", 100), None);
        assert_eq!(parse_cpu("12 (a) S 1", 100), None);
    }

    #[test]
    fn time_that_the_host_took_is_that_of_all_cores() {
        let stat = "cpu  2618243 51725 658626 2811172 26165 0 143936 109037 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        assert_eq!(parse_stolen(stat, 100), Some(Duration::from_millis(1_090_370)));
        assert_eq!(parse_stolen("cpu  1 2 3", 100), None);
        assert_eq!(parse_stolen("", 100), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_used_cpu_and_memory() {
        let mut sum = 0_u64;
        while cpu(std::process::id()).unwrap() == Duration::ZERO {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let memory = memory(std::process::id());
        assert!(memory.anonymous > 0 && memory.resident >= memory.anonymous);
        assert_eq!(cpu(u32::MAX), None);
    }

    #[test]
    fn the_kernels_sockets_are_read() {
        let text = "sockets: used 30\nTCP: inuse 5 orphan 0 tw 3 alloc 7 mem 21\nUDP: inuse 9 mem 4\n";
        assert_eq!(parse_sockstat(text), (5, 21));
        assert_eq!(parse_sockstat(""), (0, 0));
        assert_eq!(kib("VmRSS:   12 kB\nRssAnon: 3 kB\n", "RssAnon:"), 3 * 1024);
    }

    #[test]
    fn a_folder_belongs_to_the_deepest_mount() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\n";
        assert_eq!(parse_mounts(mounts, std::path::Path::new("/dev/shm/x")), "tmpfs");
        assert_eq!(parse_mounts(mounts, std::path::Path::new("/dev/shmx")), "ext4");
    }
}
