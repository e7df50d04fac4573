//! One fault planted into a history that is otherwise right: it is found, and nothing else is.

use super::history::{Event, Via};
use super::story::Story;

#[test]
fn a_message_that_vanished() {
    let verdict =
        Story::with_alice().accept("a", 1).accept("b", 2).message(1, "b", 2, 1).drained_and_over().shows("lost");
    assert_eq!((verdict.counts.lost, verdict.counts.delivered), (1, 1), "{verdict}");
}

#[test]
fn a_message_that_vanished_for_one_of_two_devices() {
    let mut story = Story::with_alice();
    story.connect(2, "alice", "laptop").ready(2, "e1", true).accept("a", 1).message(1, "a", 1, 1);
    story.drained_and_over().shows("lost");
}

#[test]
fn a_message_from_before_the_first_device_that_vanished() {
    let mut story = Story::new();
    story.accept("a", 1).connect(1, "alice", "phone").ready(1, "e1", true).drained_and_over().shows("lost");
}

#[test]
fn a_message_that_was_lost_before_the_declared_window() {
    let mut story = Story::with_alice();
    story.accept("a", 1);
    let from_us = story.now_us() + 1;
    story.losing_fault(1, "all", from_us).healed(1).gap(1, "e2", "epoch", 0).drained_and_over().shows("lost");
}

#[test]
fn a_message_that_was_lost_after_the_fault_was_healed() {
    let mut story = Story::with_alice();
    story.losing_fault(1, "all", 0).healed(1).gap(1, "e2", "epoch", 0).accept("a", 1).drained_and_over().shows("lost");
}

#[test]
fn a_message_that_was_lost_in_a_fault_which_hit_somebody_else() {
    let mut story = Story::with_alice();
    story.connect(2, "bob", "phone").ready(2, "e1", true).accept("a", 1).losing_fault(1, "bob", 0).healed(1);
    story.gap(1, "e2", "epoch", 0).drained_and_over().shows("lost");
}

#[test]
fn a_declared_loss_of_which_the_device_was_not_told() {
    let mut story = Story::with_alice();
    story.gap(1, "e1", "epoch", 0).accept("a", 1).losing_fault(1, "all", 0).healed(1).drained_and_over();
    story.shows("lost_untold");
}

#[test]
fn a_declared_loss_of_which_a_device_that_came_back_was_not_told() {
    let mut story = Story::with_alice();
    story.closed(1).accept("a", 1).losing_fault(1, "all", 0).healed(1);
    story.connect(2, "alice", "phone").ready(2, "e2", false).closed(2).drained_and_over().shows("lost_untold");
}

#[test]
fn more_was_dropped_than_told() {
    let mut story = Story::with_alice();
    story.accept("a", 1).accept("b", 2).gap(1, "e1", "retention", 1).drained_and_over().shows("lost");
}

#[test]
fn a_healthy_device_to_which_a_message_never_came_although_redis_holds_it() {
    let mut story = Story::with_alice();
    story.accept("a", 1).drained().left("alice", "phone", 1).closed(1).event(Event::End).shows("stuck");
}

#[test]
fn two_new_messages_in_the_wrong_order() {
    let mut story = Story::with_alice();
    story.accept("a", 1).accept("b", 2).message(1, "b", 2, 1).message(1, "a", 1, 1).drained_and_over();
    story.shows("out_of_order");
}

#[test]
fn the_wrong_order_over_two_connections() {
    let mut story = Story::with_alice();
    story.accept("a", 1).accept("b", 2).message(1, "b", 2, 1).closed(1);
    story.connect(2, "alice", "phone").ready(2, "e1", false).message(2, "a", 1, 1).drained_and_over();
    story.shows("out_of_order");
}

#[test]
fn ids_are_compared_as_numbers() {
    let mut story = Story::with_alice();
    story.accept("a", 9).accept("b", 10).message(1, "b", 10, 1).message(1, "a", 9, 1).drained_and_over();
    story.shows("out_of_order");
}

#[test]
fn a_message_that_came_as_new_twice() {
    let mut story = Story::with_alice();
    story.accept("a", 1).message(1, "a", 1, 1).message(1, "a", 1, 1).drained_and_over().shows("repeated_as_new");
}

#[test]
fn a_message_that_came_as_new_on_two_connections() {
    let mut story = Story::with_alice();
    story.accept("a", 1).message(1, "a", 1, 1).closed(1).connect(2, "alice", "phone").ready(2, "e1", false);
    story.message(2, "a", 1, 1).drained_and_over().shows("repeated_as_new");
}

#[test]
fn a_message_that_came_again_after_its_ack_was_confirmed() {
    let mut story = Story::with_alice();
    story.accept("a", 1).message(1, "a", 1, 1).ack(1, 1).acked(1, 1).message(1, "a", 1, 2).drained_and_over();
    story.shows("repeated_after_ack");
}

#[test]
fn a_message_that_came_again_to_the_next_connection_after_its_ack_was_confirmed() {
    let mut story = Story::with_alice();
    story.accept("a", 1).message(1, "a", 1, 1).ack(1, 1).acked(1, 1).closed(1);
    story.connect(2, "alice", "phone").ready(2, "e1", false).message(2, "a", 1, 2).drained_and_over();
    story.shows("repeated_after_ack");
}

#[test]
fn a_refused_message_that_was_delivered() {
    let mut story = Story::with_alice();
    story.publish("a").message(1, "a", 1, 1).refused("a").drained_and_over().shows("refused_but_delivered");
}

#[test]
fn a_message_that_nobody_published() {
    Story::with_alice().message(1, "a", 1, 1).drained_and_over().shows("never_published");
}

#[test]
fn a_message_with_another_id_than_was_said() {
    Story::with_alice().accept("a", 1).message(1, "a", 2, 1).drained_and_over().shows("wrong_id");
}

#[test]
fn a_keyed_message_with_two_ids() {
    let mut story = Story::with_alice();
    story.publish_keyed("a").unknown("a").publish_keyed("a").published("a", 2);
    story.message(1, "a", 1, 1).message(1, "a", 2, 1).drained_and_over().shows("several_ids");
}

#[test]
fn a_key_that_was_answered_with_two_ids() {
    let mut story = Story::with_alice();
    story.publish_keyed("a").published("a", 1).publish_keyed("a").published("a", 2);
    story.message(1, "a", 1, 1).drained_and_over().shows("several_ids");
}

#[test]
fn a_message_sent_once_that_exists_twice() {
    let mut story = Story::with_alice();
    story.publish("a").unknown("a").message(1, "a", 1, 1).message(1, "a", 2, 1).drained_and_over().shows("several_ids");
}

#[test]
fn a_message_of_another_user() {
    let mut story = Story::with_alice();
    story.connect(2, "bob", "phone").ready(2, "e1", true);
    story.publish_by(Via::Http, "a", "bob", None).published("a", 1).message_of("bob", 2, "a", 1, 1);
    story.message_of("bob", 1, "a", 1, 1).drained_and_over().shows("foreign_user");
}

#[test]
fn a_message_whose_payload_names_the_right_user_and_was_published_to_another() {
    let mut story = Story::with_alice();
    story.connect(2, "bob", "phone").ready(2, "e1", true);
    story.publish_by(Via::Http, "a", "bob", None).published("a", 1).message_of("bob", 2, "a", 1, 1);
    story.message_of("alice", 1, "a", 1, 1).drained_and_over().shows("foreign_user");
}

#[test]
fn memory_that_did_not_come_back() {
    let mut story = Story::with_alice();
    story.fault(1, "node_killed").healed(1).drained().sample("node-1", 183, 0).event(Event::End);
    story.shows("resource_not_returned");
}

#[test]
fn memory_of_a_process_that_was_started_again_and_did_not_come_back() {
    let mut story = Story::with_alice();
    story.fault(1, "node_killed").healed(1).drained().sample("node-1#2", 183, 0).event(Event::End);
    story.shows("resource_not_returned");
}

#[test]
fn descriptors_and_threads_that_did_not_come_back() {
    for (descriptors, threads) in [(67, 4), (50, 13)] {
        let mut story = Story::with_alice();
        let (process, rss_bytes) = ("node-1".to_owned(), 100 << 20);
        story.fault(1, "node_killed").healed(1).drained();
        story.event(Event::Sample { process, rss_bytes, descriptors, threads, sessions: 0 }).event(Event::End);
        story.shows("resource_not_returned");
    }
}

#[test]
fn sessions_without_a_connection() {
    let mut story = Story::with_alice();
    story.fault(1, "node_killed").healed(1).drained().sample("node-1", 100, 10).event(Event::End);
    story.shows("sessions_leaked");
}

#[test]
fn a_healthy_client_that_waited_too_long_in_calm() {
    let mut story = Story::with_alice();
    story.event(Event::Calm { number: 1 }).accept("a", 1).message_late(1, "a", 1, 1_000_001);
    story.event(Event::CalmEnds { number: 1 }).drained_and_over().shows("too_late");
}

#[test]
fn a_healthy_client_that_waited_too_long_while_others_misbehaved() {
    let mut story = Story::with_alice();
    story.fault(1, "never_acks").accept("a", 1).healed(1).message_late(1, "a", 1, 1_000_001).drained_and_over();
    story.shows("too_late");
}

#[test]
fn a_history_that_contradicts_itself() {
    Story::with_alice().message(9, "a", 1, 1).over().shows("bad_history");
    Story::with_alice().published("a", 1).drained_and_over().shows("bad_history");
    Story::with_alice().healed(1).drained_and_over().shows("bad_history");
}

#[test]
fn a_device_that_is_said_to_be_new_although_nothing_had_lost_it() {
    for returns in [true, false] {
        let mut story = Story::with_alice();
        story.closed(1);
        if returns {
            story.connect(2, "alice", "phone")
        } else {
            story.connect_anew(2, "alice", "phone")
        };
        story.ready(2, "e1", true).drained_and_over().shows("made_anew");
    }
    let mut story = Story::with_alice();
    story.closed(1).losing_fault(1, "all", 0).healed(1).connect(2, "alice", "phone").ready(2, "e2", true);
    story.gap(2, "e2", "epoch", 0).closed(2).connect(3, "alice", "phone").ready(3, "e2", true);
    story.drained_and_over().shows("made_anew");
}
