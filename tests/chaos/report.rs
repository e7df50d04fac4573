//! What a run ends in: the checker's verdict, printed and kept beside the history.

use std::fmt::Write;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

use super::checker::bounds::Bounds;
use super::checker::check_reader;
use super::recorder::micros;
use super::settings::Settings;

/// The bound of healthy clients' p99. Everything of a run shares one small machine, often with other work; the figures
/// of an idle one are in the report, this only catches that others' misbehaviour becomes everybody's.
const HEALTHY_P99_US: u64 = 1_000_000;
/// The same for the short run: a debug build, beside whatever `make test` compiles.
const HEALTHY_P99_SHORT_US: u64 = 3_000_000;
/// Until a node of the short run has found by its sweep, every 5 s, what no hint told it: its faults take a few seconds.
const FOUND_SHORT_US: u64 = 25_000_000;
/// From a producer to a client, with proxies in between, so many processes have to wake up one after the other.
const STEPS: u32 = 16;

/// Judges a finished run. Panics if a promise is broken, or if something failed that no history shows.
pub(crate) fn judge(settings: &Settings, folder: &Path, history: &Path, lag: Duration, failures: &[String]) {
    let healthy_p99_us = if settings.short { HEALTHY_P99_SHORT_US } else { HEALTHY_P99_US };
    // A machine that lets processes wait for a processor says nothing of the engine.
    let healthy_p99_us = healthy_p99_us + micros(lag * STEPS);
    let mut bounds = Bounds { healthy_p99_us, ..Bounds::default() };
    if settings.short {
        (bounds.notice_us, bounds.outstay_us) = (FOUND_SHORT_US, FOUND_SHORT_US);
    }
    let file = File::open(history).unwrap_or_else(|error| panic!("{}: {error}", history.display()));
    let verdict = check_reader(BufReader::new(file), bounds).expect("what was just written can be read");
    let mut report = format!("# Chaos with seed {}\n\n{settings:?}\n\n{verdict}", settings.seed);
    writeln!(report, "\nThe machine: this process woke up {lag:?} late (p99).").expect("a text takes text");
    for failure in failures {
        writeln!(report, "FAILURE {failure}").expect("a text takes text");
    }
    println!("{report}\nhistory, logs and report: {}", folder.display());
    std::fs::write(folder.join("report.md"), &report).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let good = verdict.is_clean() && verdict.complete && failures.is_empty();
    assert!(good, "seed {}: promises were broken, or the run failed; see above", settings.seed);
}
