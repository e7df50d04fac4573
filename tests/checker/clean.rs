//! Histories with everything that the promise allows: they must pass, or each run would accuse the engine in vain.

use super::history::{Event, Via};
use super::story::Story;

#[test]
fn a_message_that_is_delivered_and_acked_is_counted_as_delivered() {
    let verdict =
        Story::with_alice().accept("a", 1).message(1, "a", 1, 1).ack(1, 1).acked(1, 1).drained_and_over().passes();
    assert_eq!((verdict.counts.accepted, verdict.counts.delivered, verdict.counts.duplicated), (1, 1, 0), "{verdict}");
}

#[test]
fn a_delivery_may_be_recorded_before_its_answer() {
    Story::with_alice().publish("a").message(1, "a", 1, 1).published("a", 1).drained_and_over().passes();
}

#[test]
fn a_take_over_may_repeat_what_was_not_acked_and_feed_the_old_socket_for_a_while() {
    let mut story = Story::with_alice();
    story.accept("a", 1).accept("b", 2).accept("c", 3).accept("d", 4);
    story.message(1, "a", 1, 1).message(1, "b", 2, 1).ack(1, 1).acked(1, 1).ack(1, 2);
    story.connect(2, "alice", "phone").ready(2, "e1", false).message(2, "b", 2, 2).message(2, "d", 4, 1);
    // The old node had read it before it was superseded, and the new one hands it out again when it is released.
    story.message(1, "c", 3, 1).closed(1).message(2, "c", 3, 2);
    let verdict = story.drained_and_over().passes();
    assert_eq!((verdict.counts.superseded, verdict.counts.duplicated), (1, 2), "{verdict}");
}

#[test]
fn what_two_nodes_read_may_be_recorded_before_the_new_ready_is() {
    let mut story = Story::with_alice();
    story.accept("a", 1).accept("b", 2).connect(2, "alice", "phone").message(1, "b", 2, 1).ready(2, "e1", false);
    story.message(2, "a", 1, 1).message(2, "b", 2, 2).closed(1).drained_and_over().passes();
}

#[test]
fn a_new_epoch_may_begin_again_with_what_was_acked() {
    let mut story = Story::with_alice();
    story.accept("a", 1).accept("b", 2).message(1, "a", 1, 1).message(1, "b", 2, 1).ack(1, 1).acked(1, 1);
    let from_us = story.now_us();
    story.losing_fault(1, "all", from_us).healed(1).gap(1, "e2", "epoch", 0);
    story.message(1, "a", 1, 1).message(1, "b", 2, 1).drained_and_over().passes();
}

#[test]
fn what_is_lost_in_a_declared_window_and_told_is_no_violation() {
    let mut story = Story::with_alice();
    let from_us = story.now_us();
    story.accept("a", 1).losing_fault(1, "all", from_us).healed(1).gap(1, "e2", "epoch", 0);
    let verdict = story.drained_and_over().passes();
    assert_eq!(verdict.counts.lost_in_declared_window, 1, "{verdict}");
    assert_eq!((verdict.faults[0].times, verdict.faults[0].lost), (1, 1), "{verdict}");
}

// Redis has forgotten the device until it attaches again, and the user's other devices may have acked meanwhile.
#[test]
fn what_is_lost_between_the_fault_and_the_word_of_it_is_declared() {
    let mut story = Story::with_alice();
    let from_us = story.now_us();
    story.losing_fault(1, "all", from_us).healed(1).accept("a", 1).gap(1, "e2", "epoch", 0);
    assert_eq!(story.drained_and_over().passes().counts.lost_in_declared_window, 1);
}

#[test]
fn a_device_that_never_came_back_could_not_be_told_of_a_loss() {
    let mut story = Story::with_alice();
    let from_us = story.now_us();
    story.closed(1).accept("a", 1).losing_fault(1, "all", from_us).healed(1).drained_and_over().passes();
}

#[test]
fn a_retry_with_a_key_is_one_message() {
    let mut story = Story::with_alice();
    story.publish_keyed("a").unknown("a").publish_keyed("a");
    story.event(Event::Published { tag: "a".to_owned(), id: "1700000000000-1".to_owned(), created: false });
    let verdict = story.message(1, "a", 1, 1).drained_and_over().passes();
    assert_eq!((verdict.counts.accepted, verdict.counts.delivered), (1, 1), "{verdict}");
}

#[test]
fn a_key_that_was_lost_may_give_a_second_id() {
    let mut story = Story::with_alice();
    let from_us = story.now_us();
    story.publish_keyed("a").message(1, "a", 1, 1).losing_fault(1, "all", from_us).unknown("a").healed(1);
    story
        .gap(1, "e2", "epoch", 0)
        .publish_keyed("a")
        .published("a", 2)
        .message(1, "a", 2, 1)
        .drained_and_over()
        .passes();
}

#[test]
fn an_unknown_message_may_exist_or_not_and_without_a_key_as_often_as_it_was_sent() {
    let mut story = Story::with_alice();
    story.publish("a").unknown("a").publish("b").unknown("b").message(1, "b", 1, 1);
    story.publish("c").unknown("c").publish("c").published("c", 3).message(1, "c", 2, 1).message(1, "c", 3, 1);
    let verdict = story.drained_and_over().passes();
    assert_eq!((verdict.counts.unknown, verdict.counts.unknown_but_delivered), (2, 1), "{verdict}");
}

#[test]
fn one_refusal_does_not_forbid_what_another_attempt_may_have_written() {
    let mut story = Story::with_alice();
    story
        .publish_keyed("a")
        .unknown("a")
        .publish_keyed("a")
        .refused("a")
        .message(1, "a", 1, 1)
        .drained_and_over()
        .passes();
}

#[test]
fn a_second_device_is_not_owed_the_past_and_the_first_one_is() {
    let mut story = Story::new();
    story.publish_by(Via::Http, "a", "alice", None).published("a", 1);
    story.connect(1, "alice", "phone").ready(1, "e1", true).message(1, "a", 1, 1);
    story.connect(2, "alice", "laptop").ready(2, "e1", true).accept("b", 2).message(1, "b", 2, 1).message(2, "b", 2, 1);
    let verdict = story.drained_and_over().passes();
    assert_eq!(verdict.counts.delivered, 3, "{verdict}");
}

#[test]
fn a_forgotten_device_is_owed_nothing_and_its_next_life_begins_anew() {
    let mut story = Story::with_alice();
    story.connect(2, "alice", "laptop").ready(2, "e1", true).accept("a", 1).message(2, "a", 1, 1);
    story.forgotten("alice", "phone").closed(1).connect(3, "alice", "phone").ready(3, "e2", true);
    story
        .gap(2, "e2", "epoch", 0)
        .accept("b", 2)
        .message(2, "b", 2, 1)
        .message(3, "b", 2, 1)
        .drained_and_over()
        .passes();
}

#[test]
fn what_redis_holds_for_a_device_that_is_away_is_pending() {
    let mut story = Story::with_alice();
    let verdict = story.closed(1).accept("a", 1).drained().left("alice", "phone", 1).event(Event::End).passes();
    assert_eq!(verdict.counts.pending, 1, "{verdict}");
}

#[test]
fn what_retention_dropped_and_a_gap_told_is_no_violation() {
    let mut story = Story::with_alice();
    // Repeated until it is acked, so it counts once.
    story.accept("a", 1).gap(1, "e1", "retention", 1).gap(1, "e1", "retention", 1);
    let verdict = story.drained_and_over().passes();
    assert_eq!(verdict.counts.dropped_and_told, 1, "{verdict}");
}

#[test]
fn a_late_message_of_a_fault_that_hits_everybody_is_its_interruption() {
    let mut story = Story::with_alice();
    story.fault(1, "node_killed").accept("a", 1).healed(1).message_late(1, "a", 1, 9_000_000);
    let verdict = story.drained_and_over().passes();
    assert_eq!((verdict.faults[0].messages, verdict.faults[0].longest_us), (1, 9_000_000), "{verdict}");
    assert!(verdict.markdown().ends_with("| node killed | 1 | 1 | 0 | 0 | 9.000 s | 7 |\n"), "{verdict}");
}

#[test]
fn what_follows_is_put_down_to_the_next_fault_and_not_to_the_one_before() {
    let mut story = Story::with_alice();
    story.fault(1, "node_killed").healed(1).fault(2, "redis_paused").accept("a", 1).healed(2);
    let verdict = story.message_late(1, "a", 1, 9_000_000).drained_and_over().passes();
    let longest: Vec<_> = verdict.faults.iter().map(|row| (row.kind.as_str(), row.longest_us)).collect();
    assert_eq!(longest, [("node_killed", 0), ("redis_paused", 9_000_000)], "{verdict}");
}

#[test]
fn processes_that_use_what_they_used_are_compared_and_pass_also_after_a_restart() {
    let mut story = Story::with_alice();
    story.fault(1, "node_killed").sample("node-1", 900, 0).healed(1).drained();
    let verdict = story.sample("node-1#2", 110, 1).event(Event::End).passes();
    assert_eq!(verdict.processes_compared, 1, "{verdict}");
}

#[test]
fn an_unfinished_history_says_so_and_accuses_nobody_of_loss() {
    let verdict = Story::with_alice().accept("a", 1).verdict();
    assert!(verdict.is_clean() && !verdict.complete, "{verdict}");
    assert_eq!(verdict.counts.undecided, 1, "{verdict}");
}

// A client that names no epoch is not told of what it does not know: it looks like a new one, and is one.
#[test]
fn a_client_that_has_forgotten_everything_begins_anew_if_redis_has_as_well() {
    let mut story = Story::with_alice();
    let from_us = story.now_us();
    story.closed(1).accept("a", 1).losing_fault(1, "all", from_us).healed(1).accept("b", 2);
    story.connect_anew(2, "alice", "phone").ready(2, "e2", true).accept("c", 3).message(2, "c", 3, 1);
    assert_eq!(story.drained_and_over().passes().counts.delivered, 1);
}
