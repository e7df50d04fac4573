//! Small scenarios: where each begins, and what may happen in it how often. Each is explored exhaustively.

mod topics;

use homing_protocol::simulation::fault::Fault;
use stateright::{Model, Property};

use crate::world::{Step, Way, World};
pub(crate) use topics::*;

/// How often each thing may still happen; what is not listed may happen whenever it can.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Left {
    /// Device and node of the connections to come, in this order.
    pub(crate) connects: &'static [(usize, usize)],
    pub(crate) publish: u8,
    pub(crate) publish_along: u8,
    pub(crate) refuse: u8,
    pub(crate) ack: u8,
    pub(crate) hang_up: u8,
    pub(crate) forget: u8,
    pub(crate) drop_hint: u8,
    pub(crate) repeat_hint: u8,
    pub(crate) lose_link: u8,
    pub(crate) break_data: u8,
    pub(crate) crash: u8,
    pub(crate) pass: u8,
    pub(crate) delete_group: u8,
    pub(crate) delete_inbox: u8,
    pub(crate) delete_records: u8,
    pub(crate) rewind: u8,
    pub(crate) flags_off: u8,
    pub(crate) strike: u8,
    pub(crate) publish_to_topic: u8,
    pub(crate) ack_newest: u8,
    pub(crate) follow: u8,
    pub(crate) unfollow: u8,
    pub(crate) follow_call: u8,
    pub(crate) unfollow_call: u8,
    pub(crate) retain: u8,
}

impl Left {
    fn count(&mut self, step: Step) -> Option<&mut u8> {
        Some(match step {
            Step::Publish => &mut self.publish,
            Step::PublishAlong(_) => &mut self.publish_along,
            Step::Refuse(_) => &mut self.refuse,
            Step::Ack(_) => &mut self.ack,
            Step::HangUp(_) => &mut self.hang_up,
            Step::Forget(_) => &mut self.forget,
            Step::DropHint(_) => &mut self.drop_hint,
            Step::RepeatHint(_) => &mut self.repeat_hint,
            Step::LoseLink(_) => &mut self.lose_link,
            Step::BreakData(_) => &mut self.break_data,
            Step::Crash(_) => &mut self.crash,
            Step::Pass => &mut self.pass,
            Step::DeleteGroup(_) => &mut self.delete_group,
            Step::DeleteInbox => &mut self.delete_inbox,
            Step::DeleteRecords => &mut self.delete_records,
            // The copy is of use only if a rewind may follow.
            Step::Rewind | Step::Save => &mut self.rewind,
            Step::FlagsOff => &mut self.flags_off,
            Step::Strike(_) => &mut self.strike,
            Step::PublishToTopic => &mut self.publish_to_topic,
            Step::AckNewest(_) => &mut self.ack_newest,
            Step::Follow(Way::Frame) => &mut self.follow,
            Step::Unfollow(Way::Frame) => &mut self.unfollow,
            Step::Follow(Way::Call) => &mut self.follow_call,
            Step::Unfollow(Way::Call) => &mut self.unfollow_call,
            Step::Retain => &mut self.retain,
            _ => return None,
        })
    }

    pub(crate) fn allows(&self, step: Step) -> bool {
        match step {
            Step::Connect { device, node } => self.connects.first() == Some(&(device, node)),
            step => self.clone().count(step).is_none_or(|count| *count > 0),
        }
    }

    pub(crate) fn take(&mut self, step: Step) {
        match step {
            Step::Connect { .. } => self.connects = self.connects.get(1..).unwrap_or_default(),
            Step::Save => {}
            step => {
                if let Some(count) = self.count(step) {
                    *count = count.saturating_sub(1);
                }
            }
        }
    }

    /// More messages and acks, and more of everything else that may happen at all.
    fn more(&mut self, more: u8, topic: bool) {
        let publish = if topic { &mut self.publish_to_topic } else { &mut self.publish };
        *publish += more;
        self.ack += more;
        let counts = [
            &mut self.hang_up,
            &mut self.drop_hint,
            &mut self.repeat_hint,
            &mut self.lose_link,
            &mut self.break_data,
            &mut self.crash,
            &mut self.ack_newest,
        ];
        counts.into_iter().filter(|count| **count > 0).for_each(|count| *count += more);
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) nodes: usize,
    pub(crate) window: usize,
    /// Its name, if there is one.
    pub(crate) topic: Option<&'static str>,
    /// Whether clients ask for confirmed acks.
    pub(crate) confirm: bool,
    /// With older data, the topic's log is missing.
    pub(crate) loses_log: bool,
    /// Entries that retention leaves in the topic.
    pub(crate) kept: usize,
    /// What others do may come between the parts of a pipeline.
    pub(crate) torn: bool,
    /// So many messages of the topic came in this millisecond before.
    pub(crate) came_before: u64,
    /// Pipelines leave as soon as there is something to send; else they may wait, and carry more.
    pub(crate) eager: bool,
    /// Subscriptions are confirmed as soon as they are sent.
    pub(crate) follows: bool,
    /// Lets every state come to rest to see what is wrong then, not only those in which nothing is under way. Those
    /// follow from all others, but for clients that ack more often than the scenario says.
    pub(crate) thorough: bool,
    /// Done first, one after another.
    pub(crate) begin: &'static [Step],
    pub(crate) left: Left,
    pub(crate) fault: Option<Fault>,
    /// What must be seen somewhere, lest the rest be true of nothing.
    pub(crate) sights: &'static [Sight],
}

/// Something that must be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    StaleEntries,
    Redelivery,
    TrimForTwo,
    TopicAgain,
    LateCursor,
    RetentionTold,
}

impl Scenario {
    pub(crate) fn with(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }

    /// The same with larger bounds.
    pub(crate) fn larger(mut self, more: u8) -> Self {
        self.left.more(more, self.topic.is_some());
        self.thorough = true;
        self
    }
}

const PHONE: Step = Step::Connect { device: 0, node: 0 };
const WEB: Step = Step::Connect { device: 1, node: 1 };
/// The same at the phone's node.
const BESIDE: Step = Step::Connect { device: 1, node: 0 };

/// All of them.
pub(crate) fn all() -> Vec<Scenario> {
    vec![
        takeover(),
        late_acks(),
        sweep(),
        two_devices(),
        links(),
        queued_attach(),
        subscription(),
        repair(),
        moved_repair(),
        lost_records(),
        rewind(),
        forget(),
        crash(),
        flags(),
        rolled_back(),
        struck(),
        along(),
        along_refused(),
        along_links(),
        topic_takeover(),
        topic_crash(),
        topic_links(),
        topic_window(),
        topic_hints(),
        topic_subscription(),
        topic_devices(),
        topic_follows(),
        topic_calls(),
        topic_moved_follow(),
        topic_retention(),
        topic_rewind(),
        topic_fan_out(),
        topic_lost_log(),
        topic_unconfirmed(),
        topic_millisecond(),
        broadcast(),
    ]
}

fn base(name: &'static str, begin: &'static [Step], left: Left) -> Scenario {
    Scenario {
        name,
        nodes: 2,
        window: 4,
        topic: None,
        confirm: true,
        kept: 0,
        loses_log: false,
        torn: false,
        came_before: 0,
        eager: true,
        follows: true,
        thorough: true,
        begin,
        left,
        fault: None,
        sights: &[],
    }
}

/// A → B → C, with messages that were read by whom.
pub(crate) fn takeover() -> Scenario {
    let left = Left { connects: &[(0, 1), (0, 2)], publish: 1, ..Left::default() };
    Scenario { thorough: false, nodes: 3, sights: &[Sight::StaleEntries], ..base("take-over A B C", &[PHONE], left) }
}

/// What the old owner still acknowledges while a new one reads.
pub(crate) fn late_acks() -> Scenario {
    let left = Left { connects: &[(0, 1)], publish: 1, ack: 1, repeat_hint: 1, ..Left::default() };
    Scenario { thorough: false, ..base("late acks", &[PHONE, Step::Publish], left) }
}

/// Hints are lost unnoticed: only sweeps are left.
pub(crate) fn sweep() -> Scenario {
    let left = Left { connects: &[(0, 1)], publish: 1, drop_hint: 2, pass: 1, ..Left::default() };
    Scenario { thorough: false, sights: &[Sight::Redelivery], ..base("lost hints", &[PHONE], left) }
}

pub(crate) fn two_devices() -> Scenario {
    let left = Left { publish: 1, ack: 2, delete_group: 1, ..Left::default() };
    Scenario { sights: &[Sight::TrimForTwo], ..base("two devices", &[PHONE, WEB, Step::Publish], left) }
}

/// Connections to Redis are lost, and a device moves meanwhile.
pub(crate) fn links() -> Scenario {
    let left = Left { connects: &[(0, 1)], publish: 1, ack: 1, lose_link: 1, break_data: 1, ..Left::default() };
    Scenario { thorough: false, ..base("lost links", &[PHONE], left) }
}

/// An attach waits while its client has long gone elsewhere; another one's reply is lost.
pub(crate) fn queued_attach() -> Scenario {
    let left = Left { connects: &[(0, 0), (0, 1)], publish: 1, hang_up: 1, break_data: 1, ..Left::default() };
    Scenario { thorough: false, ..base("queued attach", &[], left) }
}

/// The first session of an inbox on its node: messages come before wake-ups do.
pub(crate) fn subscription() -> Scenario {
    let left = Left { connects: &[(0, 0), (0, 1)], publish: 1, hang_up: 1, ..Left::default() };
    Scenario { follows: false, ..base("subscription", &[], left) }
}

/// A group or the inbox is deleted under a live session.
pub(crate) fn repair() -> Scenario {
    let left = Left { publish: 1, ack: 1, break_data: 1, delete_group: 1, ..Left::default() };
    base("repair", &[PHONE, Step::Publish], left)
}

/// The same while the device moves.
pub(crate) fn moved_repair() -> Scenario {
    let left = Left { connects: &[(0, 1)], ack: 1, delete_group: 1, ..Left::default() };
    base("repair and take-over", &[PHONE, Step::Publish], left)
}

pub(crate) fn lost_records() -> Scenario {
    let left = Left { connects: &[(0, 1)], publish: 1, ack: 1, delete_records: 1, ..Left::default() };
    Scenario { thorough: false, ..base("lost records", &[PHONE, Step::Publish], left) }
}

/// Redis comes back with older data.
pub(crate) fn rewind() -> Scenario {
    let left = Left { connects: &[(0, 1)], publish: 1, ack: 1, rewind: 1, ..Left::default() };
    Scenario { thorough: false, ..base("rewind", &[PHONE, Step::Save, Step::Publish], left) }
}

pub(crate) fn forget() -> Scenario {
    let left = Left { connects: &[(0, 1)], publish: 1, ack: 1, forget: 1, ..Left::default() };
    base("forget", &[PHONE], left)
}

/// A node dies at any step and starts again under the same id.
pub(crate) fn crash() -> Scenario {
    let left = Left { connects: &[(0, 1)], publish: 1, ack: 1, crash: 1, ..Left::default() };
    base("crash", &[PHONE], left)
}

/// Keyspace events are switched off, and one node notices.
pub(crate) fn flags() -> Scenario {
    let left = Left { publish: 1, ack: 1, lose_link: 1, flags_off: 1, ..Left::default() };
    base("cleared flags", &[PHONE, WEB], left)
}

/// Redis comes back as it was before the phone attached.
pub(crate) fn rolled_back() -> Scenario {
    let left = Left { connects: &[(0, 0)], publish: 1, ack: 1, rewind: 1, ..Left::default() };
    base("rolled-back attach", &[WEB, Step::Save], left)
}

/// The janitor takes a live node for dead, and the device moves.
pub(crate) fn struck() -> Scenario {
    let left = Left { connects: &[(0, 1)], publish: 1, ack: 1, strike: 1, ..Left::default() };
    base("struck owner", &[PHONE], left)
}

/// Producers leave messages at the nodes that read the inbox, others append by themselves: whose event is whose, nobody
/// knows.
pub(crate) fn along() -> Scenario {
    let left = Left { connects: &[(0, 1)], publish: 1, publish_along: 2, ..Left::default() };
    Scenario { thorough: false, torn: true, ..base("appends along", &[PHONE], left) }
}

/// Redis refuses some of them.
pub(crate) fn along_refused() -> Scenario {
    let left = Left { publish: 2, publish_along: 2, ack: 1, refuse: 1, ..Left::default() };
    Scenario { nodes: 1, thorough: false, torn: true, ..base("appends along, refused", &[PHONE, BESIDE], left) }
}

/// Connections are lost, and keyspace events switched off, while such appends are on their way.
pub(crate) fn along_links() -> Scenario {
    let left = Left { publish: 1, publish_along: 2, lose_link: 1, break_data: 1, flags_off: 1, ..Left::default() };
    Scenario { nodes: 1, thorough: false, torn: true, ..base("appends along, lost links", &[PHONE], left) }
}

fn is_about_delivery(wrong: &str) -> bool {
    ["redelivered", "trimmed", "skipped", "confirmed", "disordered"].iter().any(|start| wrong.starts_with(start))
}

impl Model for Scenario {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, state: &World, steps: &mut Vec<Step>) {
        state.steps(steps);
    }

    fn next_state(&self, before: &World, step: Step) -> Option<World> {
        let mut after = before.clone();
        after.step(step);
        Some(after)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("nothing acked is lost or redelivered within an epoch", |_, world: &World| {
                !world.verdict().iter().any(|wrong| is_about_delivery(wrong))
            }),
            Property::always("nothing published is lost outside a rewind", |_, world: &World| {
                world.verdict().iter().all(|wrong| is_about_delivery(wrong) || wrong.starts_with("untold"))
            }),
            Property::always("a rewind, and what retention took of a topic, is always told", |_, world: &World| {
                !world.verdict().iter().any(|wrong| wrong.starts_with("untold"))
            }),
        ];
        properties.extend(self.sights.iter().map(|sight| match sight {
            Sight::StaleEntries => Property::sometimes("a take-over with stale entries", |_, world: &World| {
                world.clients.iter().any(|client| client.saw_stale)
            }),
            Sight::Redelivery => Property::sometimes("a redelivery", |_, world: &World| {
                world.clients.iter().any(|client| client.saw_redelivery)
            }),
            Sight::TrimForTwo => Property::sometimes("a trim with two devices", |_, world: &World| {
                world.pair.world.redis.trimmed_for_two
            }),
            Sight::TopicAgain => Property::sometimes("a topic's message on two connections", |_, world: &World| {
                world.clients.iter().any(|client| client.follower.saw_again)
            }),
            Sight::LateCursor => Property::sometimes("a cursor that another one had passed", |_, world: &World| {
                world.pair.world.redis.topics.wrote_late
            }),
            Sight::RetentionTold => Property::sometimes("a gap for what retention took", |_, world: &World| {
                world.clients.iter().any(|client| client.told_of_retention)
            }),
        }));
        properties
    }
}
