//! Counts the instructions of the pure hot paths by valgrind, and fails if one grew by more than a tenth over
//! `benches/instructions.txt`. Instructions are repeatable where times are not: the same binary takes the same number
//! on a busy machine.
//!
//! `make instructions` compares; `make instructions-record` writes the file anew, in the commit that explains it.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

mod workloads;

/// Growth that fails, in percent.
const GROWTH_PERCENT_MAX: u64 = 10;
/// Runs of a workload in the two measurements: their difference is free of what preparing and the process cost.
const RUNS_FEW: u64 = 10;
const RUNS_MANY: u64 = 210;
/// Names the workload that this process runs, and how often.
const WORKLOAD: &str = "HOMING_WORKLOAD";
const RUNS: &str = "HOMING_WORKLOAD_RUNS";
/// Asks for the file to be written.
const RECORD: &str = "HOMING_RECORD_INSTRUCTIONS";

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(WORKLOAD) {
        let workload =
            workloads::ALL.iter().find(|workload| workload.name == name).expect("the parent knows the names");
        let runs: u64 = std::env::var(RUNS).ok().and_then(|text| text.parse().ok()).expect("the parent says how often");
        let mut run = (workload.prepare)();
        (0..runs).for_each(|_| run());
        return ExitCode::SUCCESS;
    }
    match compare() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn baseline_path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.txt")
}

/// False if a workload grew too much, or stands in one place only.
fn compare() -> Result<bool, String> {
    let mut counts = BTreeMap::new();
    for workload in workloads::ALL {
        counts.insert(workload.name, count(workload.name)?);
    }
    if std::env::var_os(RECORD).is_some() {
        let mut text =
            String::from("# Instructions of one run of each hot path, written by `make instructions-record`.\n");
        for (name, count) in &counts {
            let _ = writeln!(text, "{name} {count}");
        }
        std::fs::write(baseline_path(), text).map_err(|error| error.to_string())?;
        println!("recorded {} counts", counts.len());
        return Ok(true);
    }
    let baseline = baseline(&std::fs::read_to_string(baseline_path()).map_err(|error| error.to_string())?)?;
    let mut good = true;
    println!("{:<34} {:>10} {:>10} {:>8}", "hot path", "recorded", "now", "change");
    for (name, now) in &counts {
        let Some(before) = baseline.get(*name) else {
            println!("{name:<34} {:>10} {now:>10}   not recorded: run make instructions-record", "-");
            good = false;
            continue;
        };
        let grown = has_grown(*before, *now);
        good &= !grown;
        let change = (*now as f64 / *before as f64 - 1.0) * 100.0;
        let verdict = if grown { "  GREW by more than a tenth" } else { "" };
        println!("{name:<34} {before:>10} {now:>10} {change:>+7.1}%{verdict}");
    }
    for name in baseline.keys().filter(|name| !counts.contains_key(name.as_str())) {
        println!("{name}: recorded, but there is no such workload");
        good = false;
    }
    Ok(good)
}

fn has_grown(before: u64, now: u64) -> bool {
    now * 100 > before * (100 + GROWTH_PERCENT_MAX)
}

fn baseline(text: &str) -> Result<BTreeMap<String, u64>, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let parse = |line: &str| {
        let (name, count) = line.split_once(' ')?;
        Some((name.to_owned(), count.parse().ok().filter(|count| *count > 0)?))
    };
    lines.map(|line| parse(line).ok_or_else(|| format!("instructions.txt: {line:?} is no name and count"))).collect()
}

/// Instructions of one run.
fn count(name: &str) -> Result<u64, String> {
    let (few, many) = (collected(name, RUNS_FEW)?, collected(name, RUNS_MANY)?);
    Ok(many.saturating_sub(few) / (RUNS_MANY - RUNS_FEW))
}

/// Instructions of this program with so many runs, as valgrind counts them.
fn collected(name: &str, runs: u64) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .env(WORKLOAD, name)
        .env(RUNS, runs.to_string())
        .output()
        .map_err(|error| format!("valgrind is needed: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    collected.filter(|_| output.status.success()).ok_or_else(|| format!("{name}: valgrind says\n{text}"))
}
