//! How a run is asked for: environment variables, with defaults for the short run of `make test` and for campaigns.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::plan::Kind;

/// Seed of the short run: the same faults every time, so that `make test` does not fail by bad luck.
const SHORT_SEED: u64 = 5;
const MINUTE: u64 = 60;

/// What a run is like.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    /// For the periods of the plan; start, recovery and drain come on top.
    pub(crate) length: Duration,
    /// Clients that stay for the whole run.
    pub(crate) clients: usize,
    pub(crate) users: usize,
    /// Messages a second.
    pub(crate) rate: u32,
    /// `appendfsync` of Redis.
    pub(crate) fsync: &'static str,
    /// Histories and reports, a folder for each seed.
    pub(crate) folder: PathBuf,
    /// Every fault as short as it can be, none that needs minutes.
    pub(crate) short: bool,
    /// Only faults of these kinds; all if it is empty. For hunting one bug.
    pub(crate) only: Vec<String>,
}

impl Settings {
    /// For `make test`: half a minute, a fault of each family.
    pub(crate) fn short() -> Self {
        Self::from_environment(Self {
            seed: SHORT_SEED,
            length: Duration::from_secs(28),
            clients: 150,
            users: 90,
            rate: 80,
            short: true,
            ..Self::campaign_defaults()
        })
    }

    /// For `make chaos`: minutes or hours, every fault.
    pub(crate) fn campaign() -> Self {
        Self::from_environment(Self::campaign_defaults())
    }

    fn campaign_defaults() -> Self {
        Self {
            seed: fastrand::u64(..1_000_000),
            length: Duration::from_secs(5 * MINUTE),
            clients: 500,
            users: 300,
            rate: 120,
            fsync: "everysec",
            folder: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/chaos"),
            short: false,
            only: Vec::new(),
        }
    }

    fn from_environment(defaults: Self) -> Self {
        let hours = read("HOURS").map(|hours: f64| Duration::from_secs_f64(hours * 3600.0));
        Self {
            seed: read("SEED").unwrap_or(defaults.seed),
            length: read("SECONDS").map(Duration::from_secs).or(hours).unwrap_or(defaults.length),
            clients: read("CLIENTS").unwrap_or(defaults.clients),
            users: read("USERS").unwrap_or(defaults.users),
            rate: read("RATE").unwrap_or(defaults.rate),
            fsync: match read::<String>("FSYNC").as_deref() {
                Some("always") => "always",
                Some("everysec") => "everysec",
                Some(other) => panic!("HOMING_CHAOS_FSYNC={other} is neither always nor everysec"),
                None => defaults.fsync,
            },
            folder: read("FOLDER").unwrap_or(defaults.folder),
            only: read::<String>("ONLY").map(|kinds| known_kinds(&kinds)).unwrap_or(defaults.only),
            short: defaults.short,
        }
    }
}

/// Names of kinds with commas between. A run without the fault that was meant would pass for a clean one.
fn known_kinds(text: &str) -> Vec<String> {
    let known: Vec<&str> = Kind::all().map(Kind::name).collect();
    let kinds: Vec<String> = text.split(',').map(|kind| kind.trim().to_owned()).collect();
    for kind in &kinds {
        assert!(
            known.contains(&kind.as_str()),
            "HOMING_CHAOS_ONLY: there is no {kind}; there are {}",
            known.join(", ")
        );
    }
    kinds
}

/// `HOMING_CHAOS_<name>`; an empty one counts as not set.
fn read<T: FromStr>(name: &str) -> Option<T> {
    let name = format!("HOMING_CHAOS_{name}");
    let text = std::env::var(&name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} cannot be understood")))
}
