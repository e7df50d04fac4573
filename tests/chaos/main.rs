//! Chaos: three nodes and a Redis under load, everything that can go wrong, and a checker that knows what was promised.
//!
//! A seed makes a plan of calm and faults; everybody records what they see; the history is judged at the end. How to run
//! it and how to read its report stands in docs/GUARANTEES.md.

// It tells what it does, for minutes or hours.
#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "../integration/harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the integration tests use more of it")]
mod harness;

mod checker;
mod client;
mod cluster;
mod followers;
mod frames;
mod history;
mod nemesis;
mod owed;
mod plan;
mod population;
mod producers;
mod receipts;
mod recorder;
mod report;
mod resources;
mod run;
mod settings;
mod whims;

use settings::Settings;

/// A fault of each family within a minute: if it failed, something that is promised does not hold in the plainest way.
#[tokio::test]
async fn a_short_run_of_faults_breaks_no_promise() {
    run::run(Settings::short()).await;
}

/// Minutes or hours; `make chaos`.
#[tokio::test]
#[ignore = "runs for minutes: make chaos"]
async fn a_campaign_of_faults_breaks_no_promise() {
    run::run(Settings::campaign()).await;
}
