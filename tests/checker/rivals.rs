//! Users of whom one device may be connected: of each planted fault that one is found, and nothing else.

use super::history::Event;
use super::story::Story;

/// Longer than a session may be there after another one has replaced it.
const LONG_US: u64 = 130_000_000;

/// Alice's phone on connection 1, of whom one device may be connected.
fn phone() -> Story {
    let mut story = Story::new();
    story.connect_as("rival", 1, "alice", "phone").ready(1, "e1", true).event(Event::Baseline);
    story
}

impl Story {
    fn laptop(&mut self, connection: u64) -> &mut Self {
        self.connect_as("rival", connection, "alice", "laptop").ready(connection, "e1", true)
    }

    fn replaced(&mut self, connection: u64) -> &mut Self {
        self.event(Event::Closed { connection, code: Some(4010), why: "replaced".to_owned() })
    }
}

#[test]
fn two_devices_that_take_turns() {
    let mut story = phone();
    story.laptop(2).replaced(1).connect_as("rival", 3, "alice", "phone").ready(3, "e1", false).replaced(2);
    assert_eq!(story.drained_and_over().passes().counts.replaced, 2);
}

#[test]
fn a_session_may_be_replaced_by_one_that_never_heard_that_it_was() {
    let mut story = phone();
    story.connect_as("rival", 2, "alice", "laptop").closed(2).replaced(1).drained_and_over().passes();
}

#[test]
fn after_all_data_was_lost_nobody_knows_who_was_the_later_one() {
    let mut story = phone();
    story.laptop(2).losing_fault(1, "all", 0).healed(1).replaced(2).drained_and_over().passes();
}

#[test]
fn a_session_that_was_replaced_may_be_there_for_a_while() {
    phone().laptop(2).pass(LONG_US / 2).replaced(1).drained_and_over().passes();
}

#[test]
fn a_session_that_was_replaced_by_nobody() {
    phone().replaced(1).drained_and_over().shows("replaced_by_nobody");
}

#[test]
fn a_session_that_was_replaced_by_an_older_one() {
    phone().laptop(2).replaced(2).drained_and_over().shows("replaced_by_nobody");
}

#[test]
fn a_session_that_was_replaced_by_one_that_had_ended() {
    let mut story = Story::new();
    story.laptop(2).closed(2).connect_as("rival", 1, "alice", "phone").ready(1, "e1", true).replaced(1);
    story.drained_and_over().shows("replaced_by_nobody");
}

#[test]
fn a_session_that_was_replaced_by_its_own_device() {
    let mut story = phone();
    story.connect_as("rival", 2, "alice", "phone").ready(2, "e1", false).replaced(1).drained_and_over();
    story.shows("replaced_by_nobody");
}

#[test]
fn a_session_of_a_user_with_any_number_that_was_replaced() {
    let mut story = Story::with_alice();
    story.connect(2, "alice", "laptop").ready(2, "e1", true).replaced(1).drained_and_over();
    story.shows("replaced_by_nobody");
}

#[test]
fn a_session_that_went_on_long_after_it_was_replaced() {
    phone().laptop(2).pass(LONG_US).replaced(1).drained_and_over().shows("outstayed");
    phone().laptop(2).pass(LONG_US).drained_and_over().shows("outstayed");
}
