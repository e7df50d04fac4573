//! The model: explores the take-over and ack protocol of inboxes and topics exhaustively within small bounds.
//!
//! The sessions in it are the real ones; clients, driver and Redis are those of the protocol crate's simulation. It
//! must hold no rule of the protocol itself, only what may happen and what must be true. `make test` explores small
//! bounds, and shows for each planted bug that it is found; `make model` explores larger ones and prints what it saw.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this program's output is its purpose")]

mod client;
mod explore;
mod faults;
mod follower;
mod scenario;
#[cfg(test)]
mod tests;
mod world;

use std::process::ExitCode;

use explore::{Outcome, explore};

/// States of one scenario at most, for memory's sake. `HOMING_MODEL_STATES` sets another number.
const STATES_MAX: usize = 2_000_000;
/// How much more of everything than in `make test`. `HOMING_MODEL_MORE` sets another number.
const MORE: u8 = 1;

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    let parse = |text: String| text.parse().unwrap_or_else(|_| panic!("{name}={text} cannot be understood"));
    std::env::var(name).map_or(default, parse)
}

fn main() -> ExitCode {
    let (states_max, more) = (setting("HOMING_MODEL_STATES", STATES_MAX), setting("HOMING_MODEL_MORE", MORE));
    // Only scenarios with this in their name, and no planted bugs.
    let only: Option<String> = std::env::var("HOMING_MODEL_ONLY").ok();
    let (mut sound, mut explored) = (true, false);
    for scenario in scenario::all() {
        if only.as_ref().is_some_and(|only| !scenario.name.contains(only)) {
            continue;
        }
        explored = true;
        let scenario = scenario.larger(more);
        let outcome = explore(&scenario, states_max);
        print(scenario.name, &outcome);
        sound &= outcome.failures.is_empty() && outcome.unseen.is_empty();
    }
    for (fault, scenario) in if only.is_some() { Vec::new() } else { faults::all() } {
        let outcome = explore(&scenario.with(fault), states_max);
        println!("\nplanted: {fault:?}");
        print("", &outcome);
        sound &= !outcome.failures.is_empty();
    }
    if !explored {
        let names: Vec<&str> = scenario::all().iter().map(|scenario| scenario.name).collect();
        eprintln!("HOMING_MODEL_ONLY names no scenario; there are {}", names.join(", "));
    }
    if sound && explored { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(name: &str, outcome: &Outcome) {
    let Outcome { states, depth, took, complete, failures, unseen } = outcome;
    let end = if *complete { "" } else { ", not all" };
    println!("{name}: {states} states{end}, {depth} steps deep, {:.1} s", took.as_secs_f64());
    for failure in failures {
        println!("  broken: {}: {}", failure.property, failure.reasons.join("; "));
        failure.steps.iter().for_each(|step| println!("    {step:?}"));
    }
    unseen.iter().for_each(|sight| println!("  never seen: {sight}"));
}
