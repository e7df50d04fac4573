//! Small bounds, in full; and every planted bug.

use homing_protocol::simulation::fault::Fault;

use crate::explore::explore;
use crate::faults;
use crate::scenario::Scenario;

/// More than any scenario has, generated again or not: reaching it means that something was not looked at.
const STATES_MAX: usize = 1_000_000;

/// Explores all that a scenario's bounds allow.
fn explored(scenario: Scenario) {
    let outcome = explore(&scenario, STATES_MAX);
    super::print(scenario.name, &outcome);
    let broken: Vec<_> = outcome.failures.iter().map(|failure| (failure.property, &failure.reasons)).collect();
    assert!(broken.is_empty(), "{}: {broken:?} by {:?}", scenario.name, outcome.failures[0].steps);
    assert!(outcome.unseen.is_empty(), "{}: never seen: {:?}", scenario.name, outcome.unseen);
    assert!(outcome.complete, "{}: more than {STATES_MAX} states", scenario.name);
}

macro_rules! keeps_the_promise {
    ($($name:ident)+) => {
        mod in_full {
            $(
                #[test]
                fn $name() {
                    super::explored(crate::scenario::$name());
                }
            )+

            #[test]
            fn every_scenario_has_its_test() {
                let tested = [$(crate::scenario::$name().name),+];
                let all: Vec<_> = crate::scenario::all().iter().map(|scenario| scenario.name).collect();
                assert_eq!(tested.as_slice(), all);
            }
        }
    };
}

keeps_the_promise! {
    takeover late_acks sweep two_devices links queued_attach subscription repair moved_repair lost_records rewind forget crash flags
    rolled_back struck along along_refused along_links
    topic_takeover topic_crash topic_links topic_window topic_hints topic_subscription topic_devices topic_follows topic_calls
    topic_moved_follow topic_retention topic_rewind topic_fan_out topic_lost_log topic_unconfirmed topic_millisecond
    broadcast
}

fn found(fault: Fault) -> Vec<String> {
    let planted = faults::all().into_iter().find(|(planted, _)| *planted == fault);
    let (_, scenario) = planted.expect("every fault has its scenario");
    let outcome = explore(&scenario.with(fault), STATES_MAX);
    super::print(&format!("{fault:?}"), &outcome);
    assert!(!outcome.failures.is_empty(), "{fault:?} was not found in {} states", outcome.states);
    outcome.failures.into_iter().flat_map(|failure| failure.reasons).collect()
}

macro_rules! finds {
    ($($name:ident: $fault:ident => $($reason:literal)|+;)+) => {
        $(
            #[test]
            fn $name() {
                let reasons = found(Fault::$fault);
                let expected = [$($reason),+];
                let fits = |reason: &String| expected.iter().any(|expected| reason.starts_with(expected));
                assert!(reasons.iter().any(fits), "{reasons:?}");
            }
        )+
    };
}

finds! {
    a_trim_by_one_device_is_found: TrimByOneDevice => "trimmed";
    a_trim_while_a_known_device_lacks_its_group_is_found: TrimWithoutGroup => "trimmed";
    a_read_before_the_subscription_is_found: ReadBeforeSubscribe => "undelivered";
    not_reading_again_after_a_take_over_is_found: DeafToReleases => "undelivered";
    a_release_to_the_previous_owner_is_found: ReleaseToSuccessor => "undelivered";
    a_superseded_that_is_forgotten_in_an_attach_is_found: SupersededInAttach => "owned twice";
    an_ack_that_is_confirmed_for_any_generation_is_found: ConfirmForAnyGeneration => "redelivered";
    a_wake_that_is_lost_in_a_read_is_found: WakeLostInRead => "undelivered";
    a_missing_sweep_is_found: NoSweep => "undelivered" | "owned twice";
    a_known_device_that_begins_at_the_end_is_found: KnownDeviceAtEnd => "undelivered";
    a_repair_that_tells_nobody_is_found: RepairSilently => "untold" | "redelivered";
    an_ack_that_is_confirmed_before_xack_is_found: ConfirmBeforeXack => "redelivered";
    a_link_that_forgets_what_was_lost_is_found: ForgetfulLink => "undelivered" | "owned twice";
    a_read_left_behind_on_an_old_connection_is_found: OldConnectionLives => "undelivered";
    a_queued_attach_that_wins_late_is_found: StaleAttachWins => "closed" | "owned twice";
    a_release_that_does_not_name_its_attach_is_found: ReleaseWithoutNonce => "left online";
    a_rewind_that_nobody_notices_is_found: EpochUnnoticed => "untold";
    a_forget_of_any_generation_is_found: ForgetAnyGeneration => "closed";
    a_repair_that_supersedes_itself_is_found: RepairRaises => "closed";
    a_session_that_closes_for_its_own_generation_is_found: OwnGenerationCloses => "closed" | "node-";
    a_touch_that_does_not_name_the_owner_again_is_found: TouchDoesNotClaim => "unnamed";
    a_rolled_back_attach_that_begins_as_new_is_found: RolledBackIsNew => "untold";
    a_cursor_that_is_written_without_gt_is_found: CursorWithoutGt => "redelivered" | "unwritten";
    a_cursor_that_is_rounded_up_is_found: CursorRoundedUp => "skipped";
    a_cursor_that_passes_what_is_not_acked_is_found: CursorPassesUnacked => "skipped";
    a_follower_that_begins_at_the_end_of_the_log_is_found: CursorBeginsAtEnd => "undelivered";
    an_ack_that_is_confirmed_before_its_cursor_is_found: ConfirmBeforeCursor => "redelivered";
    an_ack_that_is_confirmed_for_any_generation_after_its_cursor_is_found: ConfirmCursorForAnyGeneration => "redelivered";
    a_read_that_passes_what_came_back_is_found: ReadPassesWhatCameBack => "undelivered" | "skipped";
    a_batch_that_is_handed_out_anywhere_is_found: BatchWithoutPlace => "undelivered" | "skipped";
    a_follow_that_is_told_to_nobody_is_found: FollowSilently => "undelivered";
    a_cursor_that_is_forgotten_late_is_found: CursorsForgottenLate => "redelivered" | "unwritten";
    an_answer_for_followers_who_are_gone_is_found: AnswerOfAnotherFeed => "undelivered";
    a_fan_out_that_outlives_its_epoch_is_found: FanOutOutlivesEpoch => "undelivered" | "redelivered";
    a_cursor_that_is_taken_back_blindly_is_found: RewindsBlindly => "redelivered" | "unwritten";
    a_trim_that_is_forgotten_with_its_log_is_found: TrimForgotten => "untold";
    a_trim_that_a_node_does_not_see_is_found: TrimUnseenByNode => "untold";
    a_trim_that_sessions_do_not_see_is_found: TrimUnseen => "untold";
    an_append_behind_the_read_of_its_pipeline_is_found: AppendBehindRead => "undelivered";
    events_that_are_expected_on_the_next_link_are_found: OwnEventsOutliveLink => "undelivered";
    an_event_that_is_expected_of_a_refused_append_is_found: RefusedAppendExpected => "undelivered";
    a_refused_append_behind_which_nobody_looks_is_found: RefusedAppendWakesNobody => "undelivered";
    flags_that_are_restored_silently_are_found: FlagsSilently => "undelivered";
}
