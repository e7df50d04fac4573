//! The last account: when a history is over, what became of each message that each device was owed.

use std::collections::HashMap;

use super::Checker;
use super::devices::Device;
use super::faults::Faults;
use super::messages::{Message, Messages};
use super::names::Names;
use super::verdict::Verdict;
use super::violation::{Violation, Whose};

/// What became of an owed message.
enum Fate {
    Delivered,
    Pending,
    Stuck,
    Undecided,
    /// Neither delivered nor held.
    Gone,
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
        }
    }

    fn account_for(&mut self, index: usize, lives: &[usize]) {
        let Self { devices, messages, .. } = self;
        let device = &devices.all()[index];
        let (mut dropped_and_told, mut gone) = (device.told_of_drops(), Vec::new());
        for number in messages.of_user(device.user) {
            let message = messages.message(*number);
            let others = lives.iter().map(|index| &devices.all()[*index]);
            if !message.was_accepted() || !device.is_owed(message.line, others) {
                continue;
            }
            let counts = &mut self.verdict.counts;
            match fate(*number, device, self.healthy, messages, self.verdict.complete) {
                Fate::Delivered => counts.delivered += 1,
                Fate::Pending => counts.pending += 1,
                Fate::Undecided => counts.undecided += 1,
                Fate::Gone => gone.push(*number),
                Fate::Stuck => {
                    counts.pending += 1;
                    let (whose, tag) = (whose(&self.names, device), message.tag.to_string());
                    self.verdict.violate(Violation::Stuck { whose, tag });
                }
            }
        }
        for number in gone {
            let message = messages.message(number);
            let violation = account_for_loss(&mut self.faults, device, message, &mut dropped_and_told);
            let counts = &mut self.verdict.counts;
            match violation {
                Loss::Declared => counts.lost_in_declared_window += 1,
                Loss::Told => counts.dropped_and_told += 1,
                Loss::Untold { fault, kind } => {
                    counts.lost_in_declared_window += 1;
                    let (whose, tag) = (whose(&self.names, device), message.tag.to_string());
                    self.verdict.violate(Violation::LostUntold { whose, tag, fault, kind });
                }
                Loss::Undeclared => {
                    counts.lost += 1;
                    let (whose, tag) = (whose(&self.names, device), message.tag.to_string());
                    let accepted_us = message.accepted_us;
                    self.verdict.violate(Violation::Lost { whose, tag, accepted_us });
                }
            }
        }
    }
}

fn fate(number: u32, device: &Device, healthy: u32, messages: &Messages, complete: bool) -> Fate {
    if device.got(number) {
        return Fate::Delivered;
    }
    if !complete {
        return Fate::Undecided;
    }
    if !device.holds(messages.ids_said(number)) {
        return Fate::Gone;
    }
    if device.group == healthy && device.stayed() { Fate::Stuck } else { Fate::Pending }
}

enum Loss {
    Declared,
    Told,
    Untold { fault: u32, kind: String },
    Undeclared,
}

fn account_for_loss(faults: &mut Faults, device: &Device, message: &Message, told_of_drops: &mut u64) -> Loss {
    let told_since = |from_us| device.told_since(from_us);
    if let Some(fault) = faults.blame(message.user, message.publish_us, message.accepted_us, told_since) {
        if device.was_told(fault.from_us, fault.healed_us) {
            return Loss::Declared;
        }
        return Loss::Untold { fault: fault.number, kind: fault.kind.clone() };
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
