//! Scenarios about a topic: a log, a cursor for each device, and who follows.

use super::{Left, PHONE, Scenario, Sight, WEB, base};
use crate::world::{Step, Way};

const FOLLOW: Step = Step::Follow(Way::Call);

fn on_topic(name: &'static str, begin: &'static [Step], left: Left) -> Scenario {
    Scenario { topic: Some("news"), thorough: false, ..base(name, begin, left) }
}

/// What the old owner still writes while a new one reads on from the cursor.
pub(crate) fn topic_takeover() -> Scenario {
    let left = Left { connects: &[(0, 1)], publish_to_topic: 1, ack: 2, ack_newest: 1, ..Left::default() };
    let begin = &[FOLLOW, PHONE, Step::PublishToTopic];
    Scenario { sights: &[Sight::TopicAgain, Sight::LateCursor], ..on_topic("topic: take-over", begin, left) }
}

/// A node dies with cursors that were not written, or are written later.
pub(crate) fn topic_crash() -> Scenario {
    let left = Left { connects: &[(0, 1)], ack: 2, ack_newest: 1, crash: 1, ..Left::default() };
    let begin = &[FOLLOW, PHONE, Step::PublishToTopic, Step::PublishToTopic];
    Scenario { sights: &[Sight::TopicAgain, Sight::LateCursor], ..on_topic("topic: crash", begin, left) }
}

/// Connections to Redis are lost, with pipelines in flight.
pub(crate) fn topic_links() -> Scenario {
    let left =
        Left { connects: &[(0, 0)], publish_to_topic: 2, ack: 1, lose_link: 1, break_data: 1, ..Left::default() };
    Scenario { nodes: 1, ..on_topic("topic: lost links", &[FOLLOW, PHONE], left) }
}

/// With room for one message, a session often reads the log itself, while its node goes on.
pub(crate) fn topic_window() -> Scenario {
    let left = Left { publish: 1, publish_to_topic: 3, ack: 3, ..Left::default() };
    Scenario { nodes: 1, window: 1, torn: true, ..on_topic("topic: small window", &[FOLLOW, PHONE], left) }
}

/// Hints are lost unnoticed: only sweeps are left.
pub(crate) fn topic_hints() -> Scenario {
    let left = Left { publish_to_topic: 2, ack: 1, follow_call: 1, drop_hint: 2, pass: 1, ..Left::default() };
    on_topic("topic: lost hints", &[PHONE], left)
}

/// The first follower on its node: messages come before events of the log do.
pub(crate) fn topic_subscription() -> Scenario {
    let left = Left { connects: &[(0, 0)], publish_to_topic: 2, ..Left::default() };
    Scenario { follows: false, ..on_topic("topic: subscription", &[FOLLOW], left) }
}

/// Two devices, each with its cursor, at two nodes.
pub(crate) fn topic_devices() -> Scenario {
    let left = Left { publish_to_topic: 2, ack: 2, ack_newest: 1, ..Left::default() };
    on_topic("topic: two devices", &[FOLLOW, PHONE, WEB], left)
}

/// The client follows, leaves and follows again while messages come.
pub(crate) fn topic_follows() -> Scenario {
    let left = Left { publish_to_topic: 2, ack: 1, follow: 2, unfollow: 1, ..Left::default() };
    on_topic("topic: follow and unfollow", &[PHONE], left)
}

/// Producers make the user leave and follow again; what they write second comes at any time, or never.
pub(crate) fn topic_calls() -> Scenario {
    let left = Left { publish_to_topic: 2, ack: 1, unfollow_call: 1, follow_call: 1, ..Left::default() };
    on_topic("topic: calls", &[FOLLOW, PHONE], left)
}

/// They make the user follow while the device moves: whoever owns it must be told.
pub(crate) fn topic_moved_follow() -> Scenario {
    let left = Left { connects: &[(0, 1)], publish_to_topic: 1, ack: 1, follow_call: 1, ..Left::default() };
    on_topic("topic: follow and take-over", &[PHONE], left)
}

/// Retention takes what was not acknowledged.
pub(crate) fn topic_retention() -> Scenario {
    let left = Left { connects: &[(0, 1)], publish_to_topic: 1, ack: 1, retain: 1, ..Left::default() };
    let begin = &[FOLLOW, PHONE, Step::PublishToTopic];
    Scenario { sights: &[Sight::RetentionTold], torn: true, ..on_topic("topic: retention", begin, left) }
}

/// Redis comes back with older data, in which the log ends before what was acknowledged.
pub(crate) fn topic_rewind() -> Scenario {
    let left = Left { connects: &[(0, 0)], publish_to_topic: 1, ack: 2, rewind: 1, ..Left::default() };
    let begin = &[FOLLOW, Step::Pass, PHONE, Step::Save, Step::PublishToTopic];
    Scenario { nodes: 1, ..on_topic("topic: rewind", begin, left) }
}

/// It does so while what a node has read is handed out.
pub(crate) fn topic_fan_out() -> Scenario {
    let left = Left { publish_to_topic: 2, ack: 1, rewind: 1, ..Left::default() };
    Scenario { nodes: 1, ..on_topic("topic: rewind in a fan-out", &[FOLLOW, Step::Pass, PHONE, Step::Save], left) }
}

/// The same without the log, in which there is a cursor still: it must go back, and only once.
pub(crate) fn topic_lost_log() -> Scenario {
    let left = Left { connects: &[(0, 1)], publish_to_topic: 1, ack: 1, rewind: 1, ..Left::default() };
    let begin = &[FOLLOW, Step::Pass, PHONE, Step::PublishToTopic, Step::Ack(0), Step::Save];
    Scenario { loses_log: true, ..on_topic("topic: lost log", begin, left) }
}

/// Acks that nobody waits for: cursors gather them.
pub(crate) fn topic_unconfirmed() -> Scenario {
    let left = Left { connects: &[(0, 1)], ack: 1, pass: 1, crash: 1, break_data: 1, ..Left::default() };
    let begin = &[FOLLOW, PHONE, Step::PublishToTopic, Step::PublishToTopic];
    Scenario { confirm: false, ..on_topic("topic: unconfirmed acks", begin, left) }
}

/// More messages in a millisecond than a cursor can tell apart.
pub(crate) fn topic_millisecond() -> Scenario {
    let left = Left { connects: &[(0, 1)], publish_to_topic: 1, ack: 2, ..Left::default() };
    let begin = &[FOLLOW, PHONE, Step::PublishToTopic, Step::PublishToTopic];
    Scenario { came_before: 1_023, ..on_topic("topic: full millisecond", begin, left) }
}

/// Everybody's topic: each device begins when it is first seen.
pub(crate) fn broadcast() -> Scenario {
    let left = Left { connects: &[(1, 1)], publish_to_topic: 1, ack: 1, retain: 1, ..Left::default() };
    Scenario { topic: Some("*"), ..on_topic("broadcast", &[PHONE, Step::PublishToTopic], left) }
}
