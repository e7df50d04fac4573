//! `homing bench suite`: the standard set, several runs of each, and the document about it.
//!
//! Each run is a process of its own, so that none finds what another has left in memory.

use std::fmt;
use std::path::Path;
use std::process::Stdio;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::BenchError;
use super::options::SuiteOptions;
use super::report::Unit;
use super::suite_document::document;
use crate::store::embedded::this_program;

/// One measurement of the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standard {
    /// Of its heading and its files.
    pub(crate) name: String,
    /// Arguments of `homing bench`.
    pub(crate) arguments: Vec<String>,
}

/// What is read of a run's JSON.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Run {
    pub(crate) title: String,
    pub(crate) circumstances: Vec<(String, String)>,
    #[serde(deserialize_with = "in_order")]
    pub(crate) figures: Vec<(String, Value)>,
    pub(crate) notes: Vec<String>,
}

/// A figure of a run.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Value {
    pub(crate) group: String,
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: Unit,
}

/// The members of an object in the order in which they stand.
fn in_order<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, Value)>, D::Error> {
    struct Members;
    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(String, Value)>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object of figures")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(members)
        }
    }
    deserializer.deserialize_map(Members)
}

/// A measurement with its runs.
#[derive(Clone, Debug)]
pub(crate) struct Measurement {
    pub(crate) standard: Standard,
    pub(crate) runs: Vec<Run>,
}

/// The median of some runs, and between what they lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Spread {
    /// `None` without values.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Self { median, low, high })
    }
}

/// Runs the set and writes the document.
pub(crate) async fn run(options: &SuiteOptions) -> Result<(), BenchError> {
    if let Some(folder) = &options.html {
        std::fs::create_dir_all(folder).map_err(BenchError::broken(folder.display()))?;
    }
    let mut set = standards(options);
    if let Some(only) = &options.only {
        set.retain(|standard| standard.name.to_lowercase().contains(&only.to_lowercase()));
    }
    if set.is_empty() {
        return Err(BenchError::Usage("no measurement of the set has --only in its name".to_owned()));
    }
    let mut measurements: Vec<Measurement> = Vec::new();
    // One round of all after the other: what changes on the machine in the meantime spreads over all of them.
    for round in 1..=options.runs.get() {
        for (number, standard) in set.iter().enumerate() {
            tell(&format!("run {round} of {}, {} of {}: {}", options.runs, number + 1, set.len(), standard.name));
            let run = run_one(standard, round, options.html.as_deref()).await?;
            match measurements.get_mut(number) {
                Some(measurement) => measurement.runs.push(run),
                None => measurements.push(Measurement { standard: standard.clone(), runs: vec![run] }),
            }
        }
    }
    std::fs::write(&options.out, document(&measurements, options))
        .map_err(BenchError::broken(options.out.display()))?;
    tell(&format!("written: {}", options.out.display()));
    Ok(())
}

/// The standard set.
pub(crate) fn standards(options: &SuiteOptions) -> Vec<Standard> {
    let time = format!("{}s", options.seconds);
    let scaled = |count: u32| (count * options.scale / 100).max(10).to_string();
    let standard = |name: &str, arguments: &[&str]| Standard {
        name: name.to_owned(),
        arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
    };
    let (thousand, ten_thousand) = (scaled(1_000), scaled(10_000));
    let users = ["--users", &thousand];
    let deliver =
        |name: &str, further: &[&str]| standard(name, &[&["deliver", "--time", &time], &users[..], further].concat());
    let mut set = vec![
        standard("Idle sessions", &["idle", "--users", &ten_thousand, "--time", &time]),
        deliver("1,000 messages a second by HTTP", &["--rate", "1000"]),
        deliver("2,000 messages a second by HTTP", &["--rate", "2000"]),
        deliver("4,000 messages a second by HTTP", &["--rate", "4000"]),
        deliver("10,000 messages a second by XADD", &["--rate", "10000", "--via", "xadd", "--producers", "1"]),
        deliver("1,000 messages of 4 KiB a second by HTTP", &["--rate", "1000", "--size", "4KiB"]),
        deliver("1,000 messages a second to five devices each", &["--rate", "1000", "--devices", "5"]),
        deliver("As fast as possible, one message a request", &["--rate", "max", "--producers", "64"]),
        deliver(
            "As fast as possible, 100 messages a request",
            &["--rate", "max", "--batch", "100", "--producers", "16"],
        ),
        // One message to a user at a time: in flight are as many as there are users.
        deliver("As fast as possible by XADD", &["--rate", "max", "--via", "xadd", "--producers", "1"]),
        deliver(
            "As fast as possible by XADD, 10,000 in flight",
            &["--rate", "max", "--via", "xadd", "--producers", "1", "--in-flight", "10000"],
        ),
        standard(
            "A broadcast every second",
            &["broadcast", "--users", &ten_thousand, "--every", "1s", "--time", &time],
        ),
        standard("Many topics", &[&["topics", "--time", &time], &users[..]].concat()),
        standard(
            "Replay of 100 messages each",
            &[&["replay"], &users[..], &["--queued", "100", "--via", "xadd"]].concat(),
        ),
        standard("Storm of reconnecting clients", &["storm", "--users", &ten_thousand]),
    ];
    if options.sockets > 0 {
        let sockets = options.sockets.to_string();
        set.push(standard("Many sockets", &["sockets", "--users", &sockets, "--time", &time]));
    }
    set
}

async fn run_one(standard: &Standard, round: u32, html: Option<&Path>) -> Result<Run, BenchError> {
    let mut command = Command::new(this_program());
    command.arg("bench").args(&standard.arguments).arg("--json");
    if let Some(folder) = html {
        let name: String =
            standard.name.to_lowercase().chars().filter(|c| c.is_ascii_alphanumeric() || *c == ' ').collect();
        command.arg("--html").arg(folder.join(format!("{}-{round}.html", name.replace(' ', "-"))));
    }
    // Its progress bar and its errors go where ours would.
    let running = command.stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true).output();
    let output = running.await.map_err(BenchError::broken(&standard.name))?;
    if !output.status.success() {
        return Err(BenchError::Failed(format!("{}: {}", standard.name, output.status)));
    }
    serde_json::from_slice(&output.stdout).map_err(BenchError::broken(&standard.name))
}

/// A line for people. Nothing can be done if nobody reads it.
fn tell(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr().lock(), "homing: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_stands_between_the_others() {
        let spread = |values: &[f64]| Spread::of(values.to_vec());
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, low: 1.0, high: 3.0 }));
        assert_eq!(spread(&[4.0, 1.0]), Some(Spread { median: 2.5, low: 1.0, high: 4.0 }));
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn figures_are_read_in_their_order() {
        let text = r#"{"title":"t","circumstances":[["a","b"]],"notes":[],"charts":[],"figures":{
            "z":{"group":"g","name":"n","value":1.5,"unit":"per_second"},
            "a":{"group":"g","name":"m","value":2.0,"unit":"microseconds"}}}"#;
        let run: Run = serde_json::from_str(text).unwrap();
        let keys: Vec<&str> = run.figures.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["z", "a"]);
        assert_eq!((run.figures[0].1.unit, run.figures[0].1.value), (Unit::PerSecond, 1.5));
    }
}
