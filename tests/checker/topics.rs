//! Topics and broadcasts: what the promise allows passes, and of each planted fault that one is found and nothing else.

use super::history::{Event, Outcome};
use super::story::Story;

/// Longer than it may take until what is unknown has taken effect, and until sessions know what their users follow.
const LONG_US: u64 = 200_000_000;

/// Alice's phone on connection 1; alice follows `news`.
fn following() -> Story {
    let mut story = Story::with_alice();
    story.follows("news");
    story
}

#[test]
fn a_topics_message_is_owed_to_every_device_of_a_follower_and_to_nobody_else() {
    let mut story = following();
    story.connect(2, "alice", "laptop").ready(2, "e1", true).connect(3, "bob", "phone").ready(3, "e1", true);
    story.accept_to("news", "a", 1).message_in("news", 1, "a", 1, 1).message_in("news", 2, "a", 1, 1);
    let verdict = story.drained_and_over().passes();
    assert_eq!((verdict.counts.accepted_to_topics, verdict.counts.delivered_of_topics), (1, 2), "{verdict}");
}

#[test]
fn a_broadcast_is_owed_to_every_device_that_had_begun() {
    let mut story = Story::with_alice();
    story.connect(2, "bob", "phone").ready(2, "e1", true).accept_to("*", "a", 1);
    story.connect(3, "carol", "phone").ready(3, "e1", true).message_in("*", 1, "a", 1, 1).message_in("*", 2, "a", 1, 1);
    assert_eq!(story.drained_and_over().passes().counts.delivered_of_topics, 2);
}

#[test]
fn what_is_not_acked_may_come_again_as_new_on_the_next_connection_and_what_is_acked_may_if_that_was_not_confirmed() {
    let mut story = following();
    story.accept_to("news", "a", 1).accept_to("news", "b", 2).accept_to("news", "c", 3);
    story.message_in("news", 1, "a", 1, 1).message_in("news", 1, "b", 2, 1).message_in("news", 1, "c", 3, 1);
    story.ack_in("news", 1, 1).acked_in("news", 1, 1).ack_in("news", 1, 2).closed(1);
    story.connect(2, "alice", "phone").ready(2, "e1", false);
    story.message_in("news", 2, "b", 2, 1).message_in("news", 2, "c", 3, 1).drained_and_over().passes();
}

// Cursors are written by whoever has them, whatever their generation.
#[test]
fn an_older_connection_may_confirm_what_a_newer_one_was_about_to_be_given() {
    let mut story = following();
    story.accept_to("news", "a", 1).message_in("news", 1, "a", 1, 1).ack_in("news", 1, 1);
    story.connect(2, "alice", "phone").acked_in("news", 1, 1).ready(2, "e1", false).message_in("news", 2, "a", 1, 1);
    story.drained_and_over().passes();
}

#[test]
fn topics_and_the_inbox_have_an_order_each() {
    let mut story = following();
    story.accept_to("news", "a", 1).accept_to("*", "b", 2).accept("c", 3);
    story.message(1, "c", 3, 1).message_in("*", 1, "b", 2, 1).message_in("news", 1, "a", 1, 1);
    story.drained_and_over().passes();
}

#[test]
fn nobody_is_judged_by_what_was_published_while_a_follow_was_under_way() {
    let mut story = Story::with_alice();
    let request = story.ask("alice", "news", true, None);
    story.accept_to("news", "a", 1).answer(request, Outcome::Done).drained_and_over().passes();
    let mut story = Story::with_alice();
    let request = story.ask("alice", "news", true, None);
    story.accept_to("news", "a", 1).message_in("news", 1, "a", 1, 1).answer(request, Outcome::Done);
    story.drained_and_over().passes();
}

#[test]
fn a_follow_of_which_nobody_knows_the_outcome_makes_nothing_owed_and_nothing_wrong() {
    let mut story = Story::with_alice();
    let request = story.ask("alice", "news", true, None);
    story.answer(request, Outcome::Unknown).accept_to("news", "a", 1).accept_to("news", "b", 2);
    story.message_in("news", 1, "b", 2, 1).pass(LONG_US).accept_to("news", "c", 3).drained_and_over().passes();
}

#[test]
fn a_refused_follow_follows_nothing_and_a_refused_unfollow_leaves_nothing() {
    let mut story = Story::with_alice();
    let request = story.ask("alice", "news", true, None);
    story.answer(request, Outcome::Refused).accept_to("news", "a", 1).drained_and_over().passes();
    story = Story::with_alice();
    let request = story.ask("alice", "news", true, None);
    story.answer(request, Outcome::Refused).accept_to("news", "a", 1).message_in("news", 1, "a", 1, 1);
    story.drained_and_over().shows("not_followed");
    story = following();
    let request = story.ask("alice", "news", false, None);
    story.accept_to("news", "a", 1).answer(request, Outcome::Refused).drained_and_over().shows("lost");
}

// Its request may still be on the way when a later one has been answered.
#[test]
fn an_unfollow_of_which_nobody_knows_the_outcome_may_come_after_a_later_follow() {
    let mut story = following();
    let request = story.ask("alice", "news", false, None);
    story.answer(request, Outcome::Unknown).follows("news").accept_to("news", "a", 1);
    assert_eq!(story.drained_and_over().passes().counts.delivered_of_topics, 0);
    story = following();
    let request = story.ask("alice", "news", false, None);
    story.answer(request, Outcome::Unknown).pass(LONG_US).follows("news").accept_to("news", "a", 1);
    story.drained_and_over().shows("lost");
}

#[test]
fn what_had_not_come_when_its_topic_was_left_is_waived() {
    let mut story = following();
    let verdict = story.accept_to("news", "a", 1).unfollows("news").drained_and_over().passes();
    assert_eq!((verdict.counts.waived, verdict.counts.delivered), (1, 0), "{verdict}");
}

#[test]
fn a_session_that_was_there_may_hear_late_that_its_user_has_left_a_topic() {
    let mut story = following();
    story.unfollows("news").accept_to("news", "a", 1).message_in("news", 1, "a", 1, 1).drained_and_over().passes();
}

#[test]
fn what_retention_took_from_a_follower_is_told_by_one_gap_however_much_it_was() {
    let mut story = following();
    story.accept_to("news", "a", 1).accept_to("news", "b", 2).gap(1, "e1", "retention", 1);
    assert_eq!(story.drained_and_over().passes().counts.dropped_and_told, 2);
}

#[test]
fn what_was_lost_with_all_data_is_declared_and_nobody_follows_anything_until_they_do_again() {
    let mut story = following();
    let from_us = story.now_us();
    story.accept_to("news", "a", 1).losing_fault(1, "all", from_us).healed(1).accept_to("news", "b", 2);
    story.gap(1, "e2", "epoch", 0).follows("news").accept_to("news", "c", 3).message_in("news", 1, "c", 3, 1);
    let verdict = story.drained_and_over().passes();
    assert_eq!((verdict.counts.lost_in_declared_window, verdict.counts.delivered), (1, 1), "{verdict}");
}

#[test]
fn what_the_log_holds_behind_the_cursor_of_a_device_that_is_away_is_pending() {
    let mut story = following();
    story.closed(1).accept_to("news", "a", 1).accept_to("news", "b", 2).drained().log("news", &[1, 2]);
    let verdict = story.behind("news", 0).event(Event::End).passes();
    assert_eq!(verdict.counts.pending, 2, "{verdict}");
}

#[test]
fn a_topics_message_that_vanished() {
    let mut story = following();
    story.accept_to("news", "a", 1).accept_to("news", "b", 2).message_in("news", 1, "b", 2, 1);
    story.drained_and_over().shows("lost");
}

#[test]
fn a_topics_message_that_vanished_for_one_of_two_devices() {
    let mut story = following();
    story.connect(2, "alice", "laptop").ready(2, "e1", true);
    story.accept_to("news", "a", 1).message_in("news", 1, "a", 1, 1).drained_and_over().shows("lost");
}

#[test]
fn a_broadcast_that_vanished() {
    Story::with_alice().accept_to("*", "a", 1).drained_and_over().shows("lost");
}

#[test]
fn a_topics_message_that_vanished_in_a_fault_of_one_inbox() {
    let mut story = following();
    story.accept_to("news", "a", 1).losing_fault(1, "alice", 0).healed(1).gap(1, "e2", "epoch", 0);
    story.drained_and_over().shows("lost");
}

#[test]
fn a_topics_message_that_was_lost_before_the_gap_was_told() {
    let mut story = following();
    story.gap(1, "e1", "retention", 1).accept_to("news", "a", 1).drained_and_over().shows("lost");
}

#[test]
fn a_topics_message_that_was_lost_with_all_data_untold() {
    let mut story = following();
    story.accept_to("news", "a", 1).losing_fault(1, "all", 0).healed(1).drained_and_over().shows("lost_untold");
}

// A cursor that has passed it, although the ack never came: the node was killed before it knew.
#[test]
fn a_topics_message_that_was_not_acked_and_is_skipped_on_the_next_connection() {
    let mut story = following();
    story.accept_to("news", "a", 1).accept_to("news", "b", 2);
    story.message_in("news", 1, "a", 1, 1).message_in("news", 1, "b", 2, 1).ack_in("news", 1, 2);
    story.fault(1, "node_killed").closed(1).healed(1).connect(2, "alice", "phone").ready(2, "e1", false);
    story.over().shows("not_repeated");
}

#[test]
fn a_topics_message_that_was_trimmed_under_a_device_that_stands_before_it() {
    let mut story = following();
    story.closed(1).accept_to("news", "a", 1).accept_to("news", "b", 2).drained().log("news", &[2]);
    story.behind("news", 0).event(Event::End).shows("lost");
}

#[test]
fn a_healthy_device_to_which_a_topics_message_never_came_although_the_log_holds_it() {
    let mut story = following();
    story.accept_to("news", "a", 1).drained().log("news", &[1]).behind("news", 0).event(Event::End).shows("stuck");
}

#[test]
fn messages_of_a_topic_in_the_wrong_order() {
    let mut story = following();
    story.accept_to("news", "a", 1).accept_to("news", "b", 2);
    story.message_in("news", 1, "b", 2, 1).message_in("news", 1, "a", 1, 1).drained_and_over().shows("out_of_order");
}

#[test]
fn a_topics_message_that_came_as_new_twice_on_one_connection() {
    let mut story = following();
    story.accept_to("news", "a", 1).message_in("news", 1, "a", 1, 1).message_in("news", 1, "a", 1, 1);
    story.drained_and_over().shows("repeated_as_new");
}

#[test]
fn a_topics_message_that_came_again_after_its_ack_was_confirmed() {
    let mut story = following();
    story.accept_to("news", "a", 1).message_in("news", 1, "a", 1, 1).ack_in("news", 1, 1).acked_in("news", 1, 1);
    story.message_in("news", 1, "a", 1, 2).drained_and_over().shows("repeated_after_ack");
}

#[test]
fn a_topics_message_that_came_again_to_the_next_connection_after_its_ack_was_confirmed() {
    let mut story = following();
    story.accept_to("news", "a", 1).message_in("news", 1, "a", 1, 1).ack_in("news", 1, 1).acked_in("news", 1, 1);
    story.closed(1).connect(2, "alice", "phone").ready(2, "e1", false).message_in("news", 2, "a", 1, 1);
    story.drained_and_over().shows("repeated_after_ack");
}

#[test]
fn a_topics_message_to_somebody_who_never_followed_it() {
    let mut story = Story::with_alice();
    story.accept_to("news", "a", 1).message_in("news", 1, "a", 1, 1).drained_and_over().shows("not_followed");
}

#[test]
fn a_topics_message_from_before_the_follow() {
    let mut story = Story::with_alice();
    story.accept_to("news", "a", 1).pass(10_000).follows("news").message_in("news", 1, "a", 1, 1);
    story.drained_and_over().shows("not_followed");
}

// Redis's clock counts milliseconds, and a follow is given all of the one it begins in.
#[test]
fn a_topics_message_of_the_moment_of_the_follow_may_come() {
    let mut story = Story::with_alice();
    story.accept_to("news", "a", 1).follows("news").message_in("news", 1, "a", 1, 1).drained_and_over().passes();
}

#[test]
fn a_topics_message_after_the_client_was_told_that_it_is_left() {
    let mut story = following();
    let request = story.ask("alice", "news", false, Some(1));
    story.accept_to("news", "a", 1).answer(request, Outcome::Done).message_in("news", 1, "a", 1, 1);
    story.drained_and_over().shows("not_followed");
}

#[test]
fn a_topics_message_to_a_session_that_began_after_its_user_had_left() {
    let mut story = following();
    story.unfollows("news").closed(1).connect(2, "alice", "phone").ready(2, "e1", false);
    story.accept_to("news", "a", 1).message_in("news", 2, "a", 1, 1).drained_and_over().shows("not_followed");
}

#[test]
fn a_topics_message_long_after_its_user_had_left() {
    let mut story = following();
    story.unfollows("news").pass(LONG_US).accept_to("news", "a", 1).message_in("news", 1, "a", 1, 1);
    story.drained_and_over().shows("not_followed");
}

#[test]
fn a_broadcast_to_a_device_that_came_after_it() {
    let mut story = Story::with_alice();
    story.accept_to("*", "a", 1).message_in("*", 1, "a", 1, 1).pass(10_000);
    story.connect(2, "bob", "phone").ready(2, "e1", true).message_in("*", 2, "a", 1, 1);
    story.drained_and_over().shows("not_followed");
}

#[test]
fn a_message_of_another_topic() {
    let mut story = following();
    story.follows("sport").accept_to("sport", "a", 1).message_in("sport", 1, "a", 1, 1);
    story.message_in("news", 1, "a", 1, 1).drained_and_over().shows("foreign_user");
}

#[test]
fn an_answer_to_a_request_that_nobody_made() {
    Story::with_alice().answer(9, Outcome::Done).drained_and_over().shows("bad_history");
}

// Its clients do not come back: a storm that is over.
#[test]
fn what_a_device_that_is_away_had_not_got_before_all_data_was_lost_or_would_have_got_after_is_declared() {
    let mut story = Story::with_alice();
    story.closed(1).accept_to("*", "a", 1).pass(10_000);
    let from_us = story.now_us();
    story.losing_fault(1, "all", from_us).healed(1).accept_to("*", "b", 2);
    let verdict = story.drained_and_over().passes();
    assert_eq!((verdict.counts.lost_to_absent, verdict.counts.lost_in_declared_window), (2, 0), "{verdict}");
    assert_eq!(verdict.faults[0].lost, 0, "{verdict}");
}

#[test]
fn a_broadcast_that_vanished_for_a_device_that_came_back_after_all_data_was_lost() {
    let mut story = Story::with_alice();
    let from_us = story.now_us();
    story.closed(1).losing_fault(1, "all", from_us).healed(1);
    story.connect(2, "alice", "phone").ready(2, "e2", true).gap(2, "e2", "epoch", 0).accept_to("*", "a", 1);
    story.drained_and_over().shows("lost");
}
