//! The faults of a run: their windows, what may be lost in them, and the table of what they did.

use std::collections::BTreeMap;
use std::ops::Range;

use super::device::Device;
use super::messages::{Message, Stream};

/// One injected fault.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) number: u32,
    pub(crate) kind: String,
    /// From when on accepted messages may be lost, if they may.
    loses_from_us: Option<u64>,
    /// The only user whom it can hit, if its target is one.
    user: Option<u32>,
    pub(crate) from_us: u64,
    /// The end of time until it is healed.
    pub(crate) healed_us: u64,
    /// Until when what happens is still put down to it: for a while after it was healed, unless another one begins.
    effects_until_us: u64,
    effect: Effect,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Effect {
    messages: u64,
    lost: u64,
    duplicated: u64,
    longest_us: u64,
}

impl Fault {
    fn is_on(&self, at_us: u64) -> bool {
        self.from_us <= at_us && at_us <= self.healed_us
    }

    fn has_effect(&self, at_us: u64) -> bool {
        self.from_us <= at_us && at_us <= self.effects_until_us
    }

    /// When it is over for a device.
    fn over_us(&self, device: &Device) -> u64 {
        self.healed_us.max(device.unknown_until(self.from_us, self.healed_us))
    }

    fn may_hit(&self, stream: Stream) -> bool {
        self.user.is_none_or(|target| stream == Stream::Inbox(target))
    }
}

/// All faults of one kind in a run: a row of the table in docs/GUARANTEES.md.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) kind: String,
    pub(crate) times: u64,
    pub(crate) messages: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) longest_us: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Faults {
    all: Vec<Fault>,
    /// Those whose effects may not be over, by index.
    active: Vec<usize>,
    settle_us: u64,
}

impl Faults {
    pub(crate) fn new(settle_us: u64) -> Self {
        Self { settle_us, ..Self::default() }
    }

    /// `loses_from_us` is for faults that may lose something.
    pub(crate) fn begin(
        &mut self,
        now_us: u64,
        number: u32,
        kind: &str,
        user: Option<u32>,
        loses_from_us: Option<u64>,
    ) {
        for index in &self.active {
            let before = &mut self.all[*index];
            if before.healed_us != u64::MAX {
                before.effects_until_us = before.effects_until_us.min(now_us);
            }
        }
        self.active.push(self.all.len());
        self.all.push(Fault {
            number,
            kind: kind.to_owned(),
            loses_from_us,
            user,
            from_us: now_us,
            healed_us: u64::MAX,
            effects_until_us: u64::MAX,
            effect: Effect::default(),
        });
    }

    /// False if no such fault was going on.
    pub(crate) fn heal(&mut self, now_us: u64, number: u32) -> bool {
        let found = self.all.iter_mut().rev().find(|fault| fault.number == number && fault.healed_us == u64::MAX);
        let settled_us = now_us.saturating_add(self.settle_us);
        found.map(|fault| (fault.healed_us, fault.effects_until_us) = (now_us, settled_us)).is_some()
    }

    /// When it began, if this fault may have lost whatever there was.
    pub(crate) fn has_lost_everything(&self, number: u32) -> Option<u64> {
        let fault = self.all.iter().rev().find(|fault| fault.number == number)?;
        (fault.loses_from_us.is_some() && fault.user.is_none()).then_some(fault.from_us)
    }

    /// Whether everything may have been lost since a moment.
    pub(crate) fn may_have_lost_everything(&self, since_us: u64) -> bool {
        let everything = |fault: &Fault| fault.loses_from_us.is_some() && fault.user.is_none();
        self.all.iter().any(|fault| everything(fault) && fault.healed_us >= since_us)
    }

    /// Indexes among which are all faults that cover this moment, which must be the latest that was asked for.
    pub(crate) fn around(&mut self, now_us: u64) -> Range<u32> {
        let all = &self.all;
        self.active.retain(|index| all[*index].has_effect(now_us));
        let index = |index: usize| u32::try_from(index).expect("a run has fewer than 2^32 faults");
        let first = self.active.first().map_or(all.len(), |first| *first);
        index(first)..index(all.len())
    }

    fn among(&mut self, around: &Range<u32>) -> impl Iterator<Item = &mut Fault> {
        self.all[around.start as usize..around.end as usize].iter_mut()
    }

    pub(crate) fn accepted(&mut self, around: &Range<u32>, publish_us: u64) {
        self.among(around).filter(|fault| fault.is_on(publish_us)).for_each(|fault| fault.effect.messages += 1);
    }

    pub(crate) fn late(&mut self, around: &Range<u32>, publish_us: u64, late_us: u64) {
        for fault in self.among(around).filter(|fault| fault.has_effect(publish_us)) {
            fault.effect.longest_us = fault.effect.longest_us.max(late_us);
        }
    }

    pub(crate) fn duplicated(&mut self, now_us: u64) {
        let around = self.around(now_us);
        self.among(&around).filter(|fault| fault.has_effect(now_us)).for_each(|fault| fault.effect.duplicated += 1);
    }

    /// The kinds at work when a message was published.
    pub(crate) fn kinds(&self, around: &Range<u32>, publish_us: u64) -> impl Iterator<Item = &str> {
        let around = around.start as usize..around.end as usize;
        self.all[around].iter().filter(move |fault| fault.is_on(publish_us)).map(|fault| fault.kind.as_str())
    }

    /// Counts a loss for the first fault that may have caused it. A message was appended somewhere between its publish
    /// and its answer; a fault may lose it if that can have been within its window. What is older must have been
    /// delivered, unless the device was away. For a device that window ends when it is told of the new epoch, since Redis
    /// has forgotten it until it attaches again: what comes before may be trimmed when the user's other devices have
    /// acknowledged it.
    pub(crate) fn blame(&mut self, message: &Message, device: &Device) -> Option<&Fault> {
        let may_lose = |fault: &&mut Fault| {
            fault.loses_from_us.is_some_and(|from_us| from_us <= message.accepted_us || device.was_away(fault.from_us))
                && message.publish_us <= fault.over_us(device)
                && fault.may_hit(message.stream)
        };
        let fault = self.all.iter_mut().find(may_lose)?;
        fault.effect.lost += u64::from(!device.is_absent_since(message.publish_us));
        Some(fault)
    }

    /// How many faults between two moments may have lost something, and with it the keys of idempotent publishes.
    pub(crate) fn losses_between(&self, stream: Stream, from_us: u64, until_us: u64) -> usize {
        let may_lose = |fault: &&Fault| {
            fault.loses_from_us.is_some()
                && fault.from_us <= until_us
                && from_us <= fault.healed_us
                && fault.may_hit(stream)
        };
        self.all.iter().filter(may_lose).count()
    }

    /// Whether a fault may have lost something of a stream that was written between two moments.
    pub(crate) fn may_have_lost(&self, stream: Stream, (from_us, until_us): (u64, u64), device: &Device) -> bool {
        let may_lose = |fault: &Fault| {
            fault.loses_from_us.is_some()
                && fault.may_hit(stream)
                && fault.from_us <= until_us
                && from_us <= fault.over_us(device)
        };
        self.all.iter().any(may_lose)
    }

    pub(crate) fn table(&self) -> Vec<Row> {
        let mut rows = BTreeMap::<&str, Row>::new();
        for Fault { kind, effect, .. } in &self.all {
            let row = rows.entry(kind).or_insert_with(|| Row {
                kind: kind.clone(),
                times: 0,
                messages: 0,
                lost: 0,
                duplicated: 0,
                longest_us: 0,
            });
            row.times += 1;
            row.messages += effect.messages;
            row.lost += effect.lost;
            row.duplicated += effect.duplicated;
            row.longest_us = row.longest_us.max(effect.longest_us);
        }
        rows.into_values().collect()
    }
}
