//! The last account: when a history is over, what became of each message that each device was owed.

use std::collections::HashMap;

use super::Checker;
use super::device::Device;
use super::faults::Faults;
use super::messages::{Message, Stream};
use super::names::Names;
use super::receipts::Untold;
use super::verdict::Verdict;
use super::violation::{Violation, Whose};

/// What became of an owed message.
enum Fate {
    Delivered,
    Pending,
    Stuck,
    Undecided,
    /// Neither acked nor held.
    Gone(Seen),
}

/// Whether a message that nobody acked came at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Never,
    Unacked,
}

impl Checker {
    pub(super) fn finish(mut self, truncated: bool) -> Verdict {
        self.verdict.truncated = truncated;
        self.count_messages();
        self.account_for_devices();
        self.verdict.percentiles = self.latency.percentiles();
        let percentiles = self.verdict.percentiles.iter();
        let mut violations: Vec<Violation> =
            percentiles.filter_map(|percentile| percentile.judge(self.bounds.healthy_p99_us)).collect();
        if self.verdict.complete {
            self.verdict.processes_compared = self.resources.compared();
            violations.extend(self.resources.judge(&self.bounds));
        }
        violations.into_iter().for_each(|violation| self.verdict.violate(violation));
        self.verdict.faults = self.faults.table();
        self.verdict
    }

    fn count_messages(&mut self) {
        let Self { verdict, messages, faults, .. } = self;
        for (number, message) in (0_u32..).zip(messages.all()) {
            let counts = &mut verdict.counts;
            if message.was_accepted() {
                counts.accepted += 1;
                counts.accepted_to_topics += u64::from(matches!(message.stream, Stream::Topic(_)));
            } else if message.was_refused() {
                counts.refused += 1;
            } else {
                counts.unknown += 1;
                counts.unknown_but_delivered += u64::from(message.was_delivered());
            }
            if let Some(violation) = messages.judge(number, faults) {
                verdict.violate(violation);
            }
        }
    }

    fn account_for_devices(&mut self) {
        let mut lives = HashMap::<u32, Vec<usize>>::new();
        for (index, device) in self.devices.all().iter().enumerate() {
            lives.entry(device.user).or_default().push(index);
        }
        let counts = &mut self.verdict.counts;
        counts.users = lives.len() as u64;
        counts.devices = self.devices.all().len() as u64;
        counts.epochs = self.epochs.len() as u64;
        for index in 0..self.devices.all().len() {
            let user = self.devices.all()[index].user;
            self.account_for(index, &lives[&user]);
            if self.verdict.complete {
                self.account_for_receipts(index);
            }
        }
    }

    /// Of each ack that was executed the stream must have told, unless Redis has lost that.
    fn account_for_receipts(&mut self, index: usize) {
        let Self { devices, faults, bounds, names, verdict, .. } = self;
        let device = &devices.all()[index];
        for Untold { id, from_us, until_us } in device.receipts.untold() {
            // Its ack did not arrive.
            if device.holds([id].into_iter()) {
                continue;
            }
            let when = (from_us, until_us.saturating_add(bounds.receipt_us));
            if faults.may_have_lost(Stream::Inbox(device.user), when, device) {
                verdict.counts.receipts_lost += 1;
            } else {
                verdict.violate(Violation::ReceiptMissing { whose: whose(names, device), id });
            }
        }
    }

    fn account_for(&mut self, index: usize, lives: &[usize]) {
        let user = self.devices.all()[index].user;
        let mut gone = Vec::new();
        let inbox = self.messages.of(Stream::Inbox(user)).to_vec();
        for number in inbox {
            if self.is_owed(number, index, lives) {
                self.settle(number, index, &mut gone);
            }
        }
        let topics: Vec<u32> = self.follows.topics_of(user).chain([self.everybody]).collect();
        for topic in topics {
            for number in self.messages.of(Stream::Topic(topic)).to_vec() {
                if !self.is_followed_and_owed(number, topic, index, lives) {
                    continue;
                }
                let device = &self.devices.all()[index];
                let publish_us = self.messages.message(number).publish_us;
                if !device.acked(number) && self.follows.may_end(user, topic, publish_us, u64::MAX) {
                    self.verdict.counts.waived += 1;
                } else {
                    self.settle(number, index, &mut gone);
                }
            }
        }
        let mut dropped_and_told = self.devices.all()[index].told_of_drops();
        for (number, seen) in gone {
            self.account_for_loss(number, seen, index, &mut dropped_and_told);
        }
    }

    fn is_owed(&self, number: u32, index: usize, lives: &[usize]) -> bool {
        let (message, devices) = (self.messages.message(number), self.devices.all());
        let others = lives.iter().map(|index| &devices[*index]);
        message.was_accepted() && devices[index].is_owed(message.line, others)
    }

    /// Of a topic: whether the user surely followed it all the time in which it was appended, too.
    fn is_followed_and_owed(&self, number: u32, topic: u32, index: usize, lives: &[usize]) -> bool {
        let (message, device) = (self.messages.message(number), &self.devices.all()[index]);
        if topic == self.everybody {
            return message.was_accepted() && device.existed(message.line);
        }
        self.is_owed(number, index, lives)
            && self.follows.surely(device.user, topic, message.publish_us, message.accepted_us)
    }

    /// Counts what became of an owed message; what is gone is still to be accounted for.
    fn settle(&mut self, number: u32, index: usize, gone: &mut Vec<(u32, Seen)>) {
        let device = &self.devices.all()[index];
        let of_topic = matches!(self.messages.message(number).stream, Stream::Topic(_));
        let fate = fate(number, device, self);
        let counts = &mut self.verdict.counts;
        match fate {
            Fate::Delivered => {
                counts.delivered += 1;
                counts.delivered_of_topics += u64::from(of_topic);
            }
            Fate::Pending => counts.pending += 1,
            Fate::Undecided => counts.undecided += 1,
            Fate::Gone(seen) => gone.push((number, seen)),
            Fate::Stuck => {
                counts.pending += 1;
                let (whose, tag) = (whose(&self.names, device), self.messages.message(number).tag.to_string());
                self.verdict.violate(Violation::Stuck { whose, tag });
            }
        }
    }

    fn account_for_loss(&mut self, number: u32, seen: Seen, index: usize, told_of_drops: &mut u64) {
        let (message, device) = (self.messages.message(number), &self.devices.all()[index]);
        let counts = &mut self.verdict.counts;
        let (whose, tag) = (whose(&self.names, device), message.tag.to_string());
        let violation = match blame_loss(&mut self.faults, device, message, told_of_drops) {
            Loss::Declared if device.is_absent_since(message.publish_us) => return counts.lost_to_absent += 1,
            Loss::Declared => return counts.lost_in_declared_window += 1,
            Loss::Told => return counts.dropped_and_told += 1,
            Loss::Untold { fault, kind } => {
                counts.lost_in_declared_window += 1;
                Violation::LostUntold { whose, tag, fault, kind }
            }
            Loss::Undeclared => {
                counts.lost += 1;
                match seen {
                    Seen::Never => Violation::Lost { whose, tag, accepted_us: message.accepted_us },
                    Seen::Unacked => Violation::NotRepeated { whose, tag },
                }
            }
        };
        self.verdict.violate(violation);
    }
}

fn fate(number: u32, device: &Device, checker: &Checker) -> Fate {
    let messages = &checker.messages;
    let seen = if device.got(number) { Seen::Unacked } else { Seen::Never };
    if device.acked(number) || !checker.verdict.complete && seen == Seen::Unacked {
        return Fate::Delivered;
    }
    if !checker.verdict.complete {
        return Fate::Undecided;
    }
    let is_held = match messages.message(number).stream {
        Stream::Inbox(_) => device.holds(messages.ids_said(number)),
        Stream::Topic(topic) => checker
            .logs
            .get(&topic)
            .is_some_and(|log| device.is_behind(topic, messages.ids_said(number).filter(|id| log.contains(id)))),
    };
    match seen {
        _ if !is_held => Fate::Gone(seen),
        Seen::Unacked => Fate::Delivered,
        Seen::Never if device.group == checker.healthy && device.stayed() => Fate::Stuck,
        Seen::Never => Fate::Pending,
    }
}

enum Loss {
    Declared,
    Told,
    Untold { fault: u32, kind: String },
    Undeclared,
}

fn blame_loss(faults: &mut Faults, device: &Device, message: &Message, told_of_drops: &mut u64) -> Loss {
    if let Some(fault) = faults.blame(message, device) {
        if device.was_told(fault.from_us, fault.healed_us) {
            return Loss::Declared;
        }
        return Loss::Untold { fault: fault.number, kind: fault.kind.clone() };
    }
    if matches!(message.stream, Stream::Topic(_)) {
        // Of topics, a gap says that something was lost, and not how much.
        return if device.was_told_of_a_drop(message.publish_us) { Loss::Told } else { Loss::Undeclared };
    }
    if *told_of_drops > 0 {
        *told_of_drops -= 1;
        return Loss::Told;
    }
    Loss::Undeclared
}

fn whose(names: &Names, device: &Device) -> Whose {
    Whose { user: names.name(device.user).to_owned(), device: names.name(device.name).to_owned() }
}
