//! Which scenario finds which planted bug.

use homing_protocol::simulation::fault::Fault;

use crate::scenario::{self, Scenario};

pub(crate) fn all() -> Vec<(Fault, Scenario)> {
    vec![
        (Fault::TrimByOneDevice, scenario::two_devices()),
        (Fault::TrimWithoutGroup, scenario::two_devices()),
        (Fault::ReadBeforeSubscribe, scenario::subscription()),
        (Fault::DeafToReleases, scenario::takeover()),
        (Fault::ReleaseToSuccessor, scenario::takeover()),
        (Fault::SupersededInAttach, scenario::takeover()),
        (Fault::ConfirmForAnyGeneration, scenario::late_acks()),
        (Fault::WakeLostInRead, scenario::takeover()),
        (Fault::NoSweep, scenario::sweep()),
        (Fault::KnownDeviceAtEnd, scenario::repair()),
        (Fault::RepairSilently, scenario::repair()),
        (Fault::ConfirmBeforeXack, scenario::links()),
        (Fault::ForgetfulLink, scenario::links()),
        (Fault::OldConnectionLives, scenario::links()),
        (Fault::StaleAttachWins, scenario::queued_attach()),
        (Fault::ReleaseWithoutNonce, scenario::queued_attach()),
        (Fault::EpochUnnoticed, scenario::rewind()),
        (Fault::ForgetAnyGeneration, scenario::forget()),
        (Fault::FlagsSilently, scenario::flags()),
        (Fault::RepairRaises, scenario::repair()),
        (Fault::OwnGenerationCloses, scenario::repair()),
        (Fault::TouchDoesNotClaim, scenario::struck()),
        (Fault::RolledBackIsNew, scenario::rolled_back()),
        (Fault::AppendBehindRead, scenario::along()),
        (Fault::OwnEventsOutliveLink, scenario::along_links()),
        (Fault::RefusedAppendExpected, scenario::along_refused()),
        (Fault::RefusedAppendWakesNobody, scenario::along_refused()),
        (Fault::CursorWithoutGt, scenario::topic_takeover()),
        (Fault::CursorRoundedUp, scenario::topic_millisecond()),
        (Fault::CursorPassesUnacked, scenario::topic_takeover()),
        (Fault::CursorBeginsAtEnd, scenario::topic_subscription()),
        (Fault::ConfirmBeforeCursor, scenario::topic_crash()),
        (Fault::ConfirmCursorForAnyGeneration, scenario::topic_takeover()),
        (Fault::ReadPassesWhatCameBack, scenario::topic_window()),
        // A session that reads at once what it missed is given nothing before that came.
        (Fault::BatchWithoutPlace, Scenario { eager: false, ..scenario::topic_window() }),
        (Fault::FollowSilently, scenario::topic_hints()),
        (Fault::CursorsForgottenLate, scenario::topic_calls()),
        (Fault::AnswerOfAnotherFeed, scenario::topic_links()),
        (Fault::FanOutOutlivesEpoch, scenario::topic_fan_out()),
        (Fault::RewindsBlindly, scenario::topic_lost_log()),
        (Fault::TrimForgotten, scenario::broadcast()),
        (Fault::TrimUnseenByNode, scenario::topic_retention()),
        (Fault::TrimUnseen, scenario::topic_retention()),
    ]
}
