//! Receipts: of each planted fault that one is found, and nothing else.

use super::history::{Event, Heard};
use super::story::Story;

/// Longer than a receipt may be in Redis before it is in the history.
const LONG_US: u64 = 10_000_000;

/// A message that asks for receipts and came to alice's phone.
fn asked() -> Story {
    let mut story = Story::with_alice();
    story.accept_asking("a", 1).message(1, "a", 1, 1);
    story
}

#[test]
fn an_ack_is_told_once_or_more_and_before_it_is_confirmed_or_after() {
    let mut story = asked();
    story.ack(1, 1).receipt(Heard::Stream, 1).receipt(Heard::Wait, 1).acked(1, 1).receipt(Heard::Stream, 1);
    assert_eq!(story.drained_and_over().passes().counts.receipts, 3);
}

#[test]
fn an_ack_that_never_arrived_is_told_by_nobody() {
    let mut story = asked();
    story.ack(1, 1).closed(1).drained().left("alice", "phone", 1).event(Event::End).passes();
}

#[test]
fn a_receipt_that_was_lost_with_all_data_is_declared() {
    let mut story = asked();
    let from_us = story.now_us();
    story.ack(1, 1).acked(1, 1).losing_fault(1, "all", from_us).healed(1).gap(1, "e2", "epoch", 0);
    assert_eq!(story.drained_and_over().passes().counts.receipts_lost, 1);
}

// The inbox is gone, and with it what the ack could be executed on, until the client is told.
#[test]
fn an_ack_on_what_was_lost_is_told_by_nobody() {
    let mut story = asked();
    let from_us = story.now_us();
    story.losing_fault(1, "alice", from_us).healed(1).ack(1, 1).gap(1, "e2", "epoch", 0).drained_and_over().passes();
}

#[test]
fn who_waits_may_be_told_anything_after_all_data_was_lost() {
    let mut story = Story::with_alice();
    let from_us = story.now_us();
    story.accept_asking("a", 1).losing_fault(1, "all", from_us).healed(1).receipt(Heard::Wait, 1);
    story.gap(1, "e2", "epoch", 0).drained_and_over().passes();
}

#[test]
fn a_receipt_without_an_ack() {
    for heard in [Heard::Stream, Heard::Wait] {
        asked().receipt(heard, 1).ack(1, 1).receipt(Heard::Stream, 1).drained_and_over().shows("receipt_unfounded");
    }
}

#[test]
fn a_receipt_of_a_message_that_asked_for_none() {
    let mut story = Story::with_alice();
    story.accept("a", 1).message(1, "a", 1, 1).ack(1, 1).receipt(Heard::Stream, 1).drained_and_over();
    story.shows("receipt_unfounded");
}

#[test]
fn a_receipt_of_another_device() {
    let mut story = Story::with_alice();
    story.connect(2, "alice", "laptop").ready(2, "e1", true).accept_asking("a", 1);
    story.message(2, "a", 1, 1).ack(2, 1).receipt(Heard::Stream, 1).message(1, "a", 1, 1).ack(1, 1);
    let verdict = story.drained_and_over().verdict();
    let found: Vec<_> = verdict.violations_by_kind.iter().collect();
    assert_eq!(found, [(&"receipt_missing", &2), (&"receipt_unfounded", &1)], "{verdict}");
}

#[test]
fn an_ack_without_a_receipt() {
    asked().ack(1, 1).acked(1, 1).drained_and_over().shows("receipt_missing");
}

#[test]
fn an_ack_that_only_the_one_who_waited_was_told_of() {
    asked().ack(1, 1).receipt(Heard::Wait, 1).drained_and_over().shows("receipt_missing");
}

#[test]
fn a_receipt_that_was_lost_long_before_all_data_was() {
    let mut story = asked();
    story.ack(1, 1).acked(1, 1).pass(LONG_US);
    let from_us = story.now_us();
    story.losing_fault(1, "all", from_us).healed(1).gap(1, "e2", "epoch", 0).drained_and_over();
    story.shows("receipt_missing");
}

#[test]
fn a_receipt_that_was_lost_with_somebody_elses_inbox() {
    let mut story = asked();
    story.connect(2, "bob", "phone").ready(2, "e1", true).ack(1, 1).losing_fault(1, "bob", 0).healed(1);
    story.drained_and_over().shows("receipt_missing");
}
