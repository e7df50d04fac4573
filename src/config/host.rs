//! What the configuration takes from the machine: the environment, the number of cores, the descriptor limit.

use std::collections::HashMap;

use homing_protocol::name::Name;

/// The surroundings of this process, as values, so that a test can make its own.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Environment variables.
    pub variables: HashMap<String, String>,
    /// Processor cores.
    pub cores: usize,
    /// Files and sockets that the process may have open; `None` if unlimited.
    pub descriptors_max: Option<u64>,
    /// The machine's name, as the system says it.
    pub hostname: String,
    /// Random hexadecimal digits, new in each process.
    pub random: String,
}

/// Longest part of the machine's name that becomes part of the node's.
const HOSTNAME_BYTES_MAX: usize = 48;
/// Random digits that tell nodes on the same machine apart.
const RANDOM_DIGITS: usize = 6;

impl Host {
    /// The real surroundings.
    #[must_use]
    pub fn current() -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self {
            variables,
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            descriptors_max: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
            hostname: hostname(),
            random: random(),
        }
    }

    /// An environment variable that is set and not empty: compose files like to set empty ones.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).filter(|value| !value.is_empty()).cloned()
    }

    /// `<machine>-<random>`, a valid name.
    #[must_use]
    pub fn node_id(&self) -> Name {
        let machine: String = self
            .hostname
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c))
            .take(HOSTNAME_BYTES_MAX)
            .collect();
        let machine = if machine.is_empty() { "node" } else { machine.as_str() };
        let random: String = self.random.chars().take(RANDOM_DIGITS).collect();
        Name::parse(&format!("{machine}-{random}")).unwrap_or_else(|_| Name::default_device())
    }
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// 64 random hexadecimal digits (244 random bits).
#[must_use]
pub fn random() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_gets_a_valid_name_from_any_host_name() {
        for hostname in ["", "büro {1}", "db-1.example.org", &"x".repeat(300)] {
            let host = Host { hostname: hostname.to_owned(), random: random(), ..Host::default() };
            assert!(host.node_id().as_str().contains('-'), "{hostname:?}");
        }
    }
}
