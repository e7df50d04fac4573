//! The promise as a property: no interleaving breaks it, and planted bugs do.

use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use super::play::{Op, Play, ops};
use crate::simulation::fault::Fault;

/// Plays of the property test. `HOMING_PROMISE_CASES` asks for more.
const CASES: u32 = 500;
/// Plays within which each planted bug must be found.
const CASES_WITH_FAULT: u32 = 5_000;
/// First byte of the seed. `HOMING_PROMISE_SEED` asks for others.
const SEED: u8 = 2;

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn plays(cases: u32, seed: u8, fault: Option<Fault>, shrinks: u32) -> Result<(), TestError<Vec<Op>>> {
    runner(cases, seed, shrinks).run(&ops(), |ops| Play::new(fault).run(&ops))
}

fn runner(cases: u32, seed: u8, shrinks: u32) -> TestRunner {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: shrinks, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]))
}

/// If this fails, some interleaving loses, repeats or reorders messages, or closes the wrong client.
#[test]
fn any_interleaving_keeps_the_promise() {
    let (cases, seed) = (setting("HOMING_PROMISE_CASES", CASES), setting("HOMING_PROMISE_SEED", SEED));
    if let Err(TestError::Fail(reason, ops)) = plays(cases, seed, None, 20_000) {
        panic!("seed {seed}: {reason} by {} steps: {ops:#?}", ops.len());
    }
}

/// If this fails, some interleaving leaves more devices connected than are allowed, or none.
#[test]
fn any_interleaving_leaves_no_more_sessions_than_are_allowed() {
    let (cases, seed) = (setting("HOMING_PROMISE_CASES", CASES), setting("HOMING_PROMISE_SEED", SEED));
    if let Err(TestError::Fail(reason, ops)) = limited_plays(cases, seed, None, 20_000) {
        panic!("seed {seed}: {reason} by {} steps: {ops:#?}", ops.len());
    }
}

#[test]
fn a_dismissal_that_the_sweep_does_not_see_is_found() {
    let outcome =
        limited_plays(CASES_WITH_FAULT, setting("HOMING_PROMISE_SEED", SEED), Some(Fault::DismissalUnseen), 0);
    let Err(TestError::Fail(reason, _)) = outcome else { panic!("not found: {outcome:?}") };
    assert!(reason.to_string().contains("goes on"), "{reason}");
}

fn limited_plays(cases: u32, seed: u8, fault: Option<Fault>, shrinks: u32) -> Result<(), TestError<Vec<Op>>> {
    runner(cases, seed, shrinks).run(&ops(), |ops| Play::limited(fault, 1).run(&ops))
}

/// What a play with a planted bug fails with.
fn found(fault: Fault) -> String {
    match plays(CASES_WITH_FAULT, setting("HOMING_PROMISE_SEED", SEED), Some(fault), 0) {
        Err(TestError::Fail(reason, _)) => reason.to_string(),
        outcome => panic!("{fault:?} was not found: {outcome:?}"),
    }
}

#[test]
fn reading_before_the_subscription_is_confirmed_is_found() {
    assert!(found(Fault::ReadBeforeSubscribe).starts_with("undelivered"));
}

#[test]
fn a_trim_by_one_device_is_found() {
    assert!(found(Fault::TrimByOneDevice).starts_with("trimmed"));
}

#[test]
fn not_reading_again_on_release_or_sweep_is_found() {
    assert!(found(Fault::DeafToReleases).starts_with("undelivered"));
}

#[test]
fn not_reading_again_after_a_lost_link_is_found() {
    // A word of a take-over that was lost with the link leaves two owners, another hint leaves a message behind.
    let reason = found(Fault::ForgetfulLink);
    assert!(reason.starts_with("undelivered") || reason.starts_with("owned twice"), "{reason}");
}

#[test]
fn a_read_on_a_lost_connection_that_is_not_killed_is_found() {
    assert!(found(Fault::OldConnectionLives).starts_with("undelivered"));
}

#[test]
fn an_ack_without_the_receipt_that_was_asked_for_is_found() {
    assert!(found(Fault::AckWithoutReceipt).starts_with("untold"));
}
