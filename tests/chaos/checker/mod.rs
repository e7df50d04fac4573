//! The checker: reads a history and says of every message what became of it, and whether that is what was promised.
//!
//! It knows the promise (docs/GUARANTEES.md) and nothing of the engine, none of whose code it uses. Invariant: it
//! accuses only where the history proves it. Where two events may have happened in either order, both are allowed.
//!
//! What a history must say for that:
//! - `fault.loses_from_us` is the time from which accepted messages may be lost; what is older must be delivered. If
//!   `target` is a user, nobody else may lose anything.
//! - `left`, `log` and `behind` follow `drained`, for every device that still exists: what is neither delivered nor held
//!   is lost.
//! - A fault that loses everybody's data loses what users follow as well, somewhere between its begin and its `healed`.
//! - Baseline samples come before the first fault or calm period, end samples after `drained`.

mod account;
pub(crate) mod bounds;
mod device;
mod devices;
mod entry_id;
pub(crate) mod faults;
mod follows;
mod latency;
mod messages;
mod names;
mod receipts;
mod resources;
mod rivals;
pub(crate) mod verdict;
pub(crate) mod violation;

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead};

use self::bounds::{Bounds, HEALTHY, KINDS_THAT_SPARE_THE_HEALTHY};
use self::devices::{Delivery, Devices, Judged, Place};
use self::entry_id::{EntryId, MessageId};
use self::faults::Faults;
use self::follows::Follows;
use self::latency::Latency;
use self::messages::{Messages, Stream};
use self::names::Names;
use self::resources::{Resources, Usage};
use self::rivals::{Rivals, Wrong};
use self::verdict::Verdict;
use self::violation::{Violation, Whose};
use super::history::{Event, Heard, Line, To, Via};

/// Judges a history that is at hand.
#[allow(dead_code, reason = "short histories are made up by the checker's own tests")]
pub(crate) fn check(lines: &[Line]) -> Verdict {
    let mut checker = Checker::new(Bounds::default());
    lines.iter().for_each(|line| checker.line(line));
    checker.finish(false)
}

/// Judges a recorded history, line by line. Its last line may be cut.
pub(crate) fn check_reader(mut reader: impl BufRead, bounds: Bounds) -> io::Result<Verdict> {
    let mut checker = Checker::new(bounds);
    let mut text = Vec::new();
    loop {
        text.clear();
        if reader.read_until(b'\n', &mut text)? == 0 {
            return Ok(checker.finish(false));
        }
        match serde_json::from_slice::<Line>(&text) {
            Ok(line) => checker.line(&line),
            Err(_) if text.last() != Some(&b'\n') => return Ok(checker.finish(true)),
            Err(error) => checker.unreadable(&error.to_string()),
        }
    }
}

/// The broadcast topic, which every device follows.
const EVERYBODY: &str = "*";

struct Checker {
    bounds: Bounds,
    names: Names,
    epochs: Names,
    messages: Messages,
    devices: Devices,
    follows: Follows,
    rivals: Rivals,
    /// What topics' logs hold in the end.
    logs: HashMap<u32, HashSet<EntryId>>,
    faults: Faults,
    latency: Latency,
    resources: Resources,
    verdict: Verdict,
    healthy: u32,
    everybody: u32,
}

impl Checker {
    fn new(bounds: Bounds) -> Self {
        let mut names = Names::default();
        let (healthy, everybody) = (names.number(HEALTHY), names.number(EVERYBODY));
        Self {
            faults: Faults::new(bounds.settle_us),
            follows: Follows::new(bounds.settle_us),
            rivals: Rivals::default(),
            logs: HashMap::new(),
            bounds,
            healthy,
            everybody,
            names,
            epochs: Names::default(),
            messages: Messages::default(),
            devices: Devices::default(),
            latency: Latency::default(),
            resources: Resources::default(),
            verdict: Verdict::default(),
        }
    }

    fn unreadable(&mut self, why: &str) {
        self.verdict.counts.lines += 1;
        self.bad(why);
    }

    fn bad(&mut self, why: &str) {
        let line = self.verdict.counts.lines;
        self.verdict.violate(Violation::BadHistory { line, why: why.to_owned() });
    }

    fn require(&mut self, holds: bool, why: &str) {
        if !holds {
            self.bad(why);
        }
    }

    fn line(&mut self, line: &Line) {
        self.verdict.counts.lines += 1;
        let (number, now_us) = (self.verdict.counts.lines, line.at_us);
        match &line.event {
            Event::Begin { seed, .. } => self.verdict.seed = *seed,
            Event::Publish { tag, to, via, key, receipt } => {
                let stream = self.stream(to);
                // Raw XADD does not dedupe.
                let keyed = key.is_some() && *via != Via::Xadd;
                let faults = self.faults.around(now_us);
                self.messages.publish(number, now_us, tag, stream, (keyed, *receipt), faults);
            }
            Event::Published { tag, id, created } => self.published(now_us, tag, id, *created),
            Event::Refused { tag, .. } => match self.messages.find(tag) {
                Some(message) => self.messages.refused(message),
                None => self.bad("an answer to what nobody sent"),
            },
            Event::Unknown { tag, .. } => {
                let known = self.messages.find(tag).is_some();
                self.require(known, "an answer to what nobody sent");
            }
            Event::Connect { connection, user, device, group, returns, .. } => {
                let device = (self.names.number(user), self.names.number(device));
                self.rivals.connect(now_us, *connection, device, group);
                let group = self.names.number(group);
                let fresh = self.devices.connect((number, now_us), *connection, device, (group, *returns));
                self.require(fresh, "a connection's number came twice");
            }
            Event::Ready { connection, epoch, generation, created } => {
                let epoch = self.epochs.number(epoch);
                let since_us = self.devices.known_since(*connection).filter(|_| *created);
                if since_us.is_some_and(|since_us| !self.faults.may_have_lost_everything(since_us)) {
                    self.made_anew(*connection);
                }
                let known = self.devices.ready((number, now_us), *connection, epoch, *generation, *created);
                self.rivals.ready(now_us, *connection, *generation);
                self.require(known, "ready without a connect");
            }
            Event::Follow { request, user, topic, follow, connection } => {
                let what = (self.names.number(user), self.names.number(topic));
                let fresh = self.follows.ask(now_us, *request, what, *follow, *connection);
                self.require(fresh, "a request's number came twice");
            }
            Event::Followed { request, outcome } => {
                let known = self.follows.answered(now_us, *request, *outcome);
                self.require(known, "an answer to what nobody asked for");
            }
            Event::Message { connection, id, tag, to, attempt, late_us } => {
                match (self.devices.place(*connection), self.message_id(id)) {
                    (None, _) => self.bad("a message before ready"),
                    (_, None) => self.bad("an id that is none of a stream"),
                    (Some(place), Some(id)) => {
                        let received = Received { connection: *connection, id, tag, to, attempt: *attempt };
                        self.message(now_us, &received, *late_us, place);
                    }
                }
            }
            Event::Ack { connection, ids } => {
                let ids: Vec<MessageId> = ids.iter().filter_map(|id| self.message_id(id)).collect();
                let known = self.devices.ack(now_us, *connection, ids.into_iter());
                self.require(known, "an ack before ready");
            }
            Event::Acked { connection, ids } => {
                let ids: Vec<MessageId> = ids.iter().filter_map(|id| self.message_id(id)).collect();
                let known = self.devices.acked(now_us, *connection, ids.into_iter());
                self.require(known, "a confirmed ack before ready");
            }
            Event::Receipt { heard, user, device, id, event } if event == "acked" => {
                self.receipt(now_us, *heard, (user, device), id);
            }
            // That a message was put into a frame or set aside is not judged: its client may never have seen it.
            Event::Receipt { .. } => {}
            Event::Gap { connection, id, epoch, reason, count } => {
                let epoch = self.epochs.number(epoch);
                let known = self.devices.gap(now_us, *connection, id, epoch, reason, *count);
                self.require(known, "a gap before ready");
            }
            Event::Closed { connection, code, .. } => {
                let known = self.devices.closed(now_us, *connection);
                self.require(known, "the end of a connection that nobody began");
                let wrong = self.rivals.closed(now_us, *connection, *code, &self.bounds);
                if let Some((wrong, (user, device))) = wrong.zip(self.devices.of(*connection)) {
                    self.wrong_session(wrong, *connection, user, device);
                }
            }
            Event::Forgotten { user, device } => {
                let (user, device) = (self.names.number(user), self.names.number(device));
                self.devices.forgotten(number, user, device);
            }
            Event::Fault { number, kind, target, loses, loses_from_us } => {
                self.resources.run_begins();
                let (user, loses_from_us) = (self.names.find(target), loses.then_some(*loses_from_us));
                self.faults.begin(now_us, *number, kind, user, loses_from_us);
            }
            Event::Healed { number } => {
                let known = self.faults.heal(now_us, *number);
                self.require(known, "healed without a fault");
                if let Some(from_us) = self.faults.has_lost_everything(*number) {
                    self.follows.forget(from_us, now_us);
                    self.rivals.everything_lost(now_us);
                }
            }
            Event::Calm { number } => {
                self.resources.run_begins();
                self.latency.calm(now_us, *number);
            }
            Event::CalmEnds { number } => {
                let known = self.latency.calm_ends(now_us, *number);
                self.require(known, "the end of a calm period that did not begin");
            }
            Event::Sample { process, rss_bytes, descriptors, threads, sessions } => {
                let usage =
                    Usage { rss_bytes: *rss_bytes, descriptors: *descriptors, threads: *threads, sessions: *sessions };
                self.resources.sample(process, usage, self.devices.begun());
            }
            Event::Baseline => {}
            Event::Drained => {
                self.devices.drained();
                self.resources.drained(self.devices.begun());
            }
            Event::Left { user, device, ids } => self.left(user, device, ids),
            Event::Log { topic, ids } => {
                let topic = self.names.number(topic);
                self.logs.entry(topic).or_default().extend(ids.iter().filter_map(|id| EntryId::parse(id)));
            }
            Event::Behind { user, device, topic, after } => {
                let names = self.names.find(user).zip(self.names.find(device));
                let at = self.names.find(topic).zip(EntryId::parse(after));
                let known = names
                    .zip(at)
                    .is_some_and(|((user, device), (topic, after))| self.devices.behind(user, device, topic, after));
                self.require(known, "a device that does not exist is behind");
            }
            Event::End => {
                self.verdict.complete = true;
                let outstayed: Vec<_> = self.rivals.outstayed(now_us, self.bounds.outstay_us).collect();
                outstayed.into_iter().for_each(|(user, device, wrong)| self.wrong_session(wrong, 0, user, device));
                self.verdict.counts.replaced = self.rivals.replaced;
            }
        }
    }

    fn published(&mut self, now_us: u64, tag: &str, id: &str, created: bool) {
        let (Some(message), Some(id)) = (self.messages.find(tag), self.message_id(id)) else {
            return self.bad("an answer to what nobody sent, or an id that is none of a stream");
        };
        if self.messages.published(message, now_us, id.entry, created) {
            let message = self.messages.message(message);
            self.faults.accepted(&message.faults, message.publish_us);
        }
    }

    fn left(&mut self, user: &str, device: &str, ids: &[String]) {
        let names = self.names.find(user).zip(self.names.find(device));
        let ids = ids.iter().filter_map(|id| EntryId::parse(id));
        let known = names.is_some_and(|(user, device)| self.devices.left(user, device, ids));
        self.require(known, "something left for a device that does not exist");
    }

    fn receipt(&mut self, now_us: u64, heard: Heard, (user, device): (&str, &str), id: &str) {
        let names = self.names.find(user).zip(self.names.find(device));
        let known = names.zip(EntryId::parse(id)).is_some_and(|((user, device), id)| {
            // A look at what Redis has forgotten reads as acked, if later messages were.
            let forgotten_us = now_us.saturating_sub(self.bounds.settle_us);
            let lost = self.faults.losses_between(Stream::Inbox(user), forgotten_us, now_us) > 0;
            self.devices.told_of_ack(user, device, id, heard == Heard::Stream) || heard == Heard::Wait && lost
        });
        self.verdict.counts.receipts += u64::from(known);
        if !known {
            let whose = Whose { user: user.to_owned(), device: device.to_owned() };
            self.verdict.violate(Violation::ReceiptUnfounded { whose, id: id.to_owned() });
        }
    }

    fn made_anew(&mut self, connection: u64) {
        let Some((user, device)) = self.devices.of(connection) else { return };
        let whose = Whose { user: self.names.name(user).to_owned(), device: self.names.name(device).to_owned() };
        self.verdict.violate(Violation::MadeAnew { whose, connection });
    }

    fn wrong_session(&mut self, wrong: Wrong, connection: u64, user: u32, device: u32) {
        let whose = Whose { user: self.names.name(user).to_owned(), device: self.names.name(device).to_owned() };
        self.verdict.violate(match wrong {
            Wrong::ReplacedByNobody => Violation::ReplacedByNobody { whose, connection },
            Wrong::Outstayed { us } => Violation::Outstayed { whose, us },
        });
    }

    fn stream(&mut self, to: &To) -> Stream {
        match to {
            To::User(user) => Stream::Inbox(self.names.number(user)),
            To::Topic(topic) => Stream::Topic(self.names.number(topic)),
        }
    }

    fn message_id(&mut self, text: &str) -> Option<MessageId> {
        match text.rsplit_once('/') {
            None => Some(MessageId { topic: None, entry: EntryId::parse(text)? }),
            Some((topic, entry)) => {
                Some(MessageId { topic: Some(self.names.number(topic)), entry: EntryId::parse(entry)? })
            }
        }
    }

    fn message(&mut self, now_us: u64, received: &Received<'_>, late_us: u64, place: Place) {
        let Received { connection, id, tag, to, attempt } = *received;
        let whose = |names: &Names| Whose {
            user: names.name(place.user).to_owned(),
            device: names.name(place.device).to_owned(),
        };
        let number = self.messages.find(tag);
        let stream = id.topic.map_or(Stream::Inbox(place.user), Stream::Topic);
        let claimed = self.stream(to);
        let published_to = number.map_or(stream, |number| self.messages.message(number).stream);
        if let Some(other) = [published_to, claimed].into_iter().find(|other| *other != stream) {
            let (Stream::Inbox(owner) | Stream::Topic(owner)) = other;
            let (whose, owner) = (whose(&self.names), self.names.name(owner).to_owned());
            self.verdict.counts.foreign += 1;
            return self.verdict.violate(Violation::ForeignUser { whose, connection, tag: tag.to_owned(), owner });
        }
        let Some(number) = number else {
            let whose = whose(&self.names);
            self.verdict.counts.never_sent += 1;
            return self.verdict.violate(Violation::NeverPublished { whose, connection, tag: tag.to_owned() });
        };
        if let Some(topic) = id.topic
            && !self.may_be_given(now_us, connection, number, topic, place)
        {
            let (whose, topic) = (whose(&self.names), self.names.name(topic).to_owned());
            self.verdict.violate(Violation::NotFollowed { whose, connection, tag: tag.to_owned(), topic });
        }
        self.messages.seen(number, now_us, id.entry);
        let asks = self.messages.message(number).asks;
        let delivery = Delivery { connection, message: number, id, is_new: attempt == 1, asks };
        let Some(judged) = self.devices.delivered(delivery) else { return };
        if judged.is_first() {
            self.note_latency(number, late_us, place);
        }
        let counts = &mut self.verdict.counts;
        match judged {
            Judged::First => return,
            Judged::Superseded { .. } => return counts.superseded += 1,
            Judged::Again => {
                counts.duplicated += 1;
                return self.faults.duplicated(now_us);
            }
            Judged::RepeatedAsNew | Judged::RepeatedAfterAck => counts.duplicated_against_the_promise += 1,
            Judged::OutOfOrder { .. } => counts.out_of_order += 1,
        }
        let (whose, epoch, tag) = (whose(&self.names), self.epochs.name(place.epoch).to_owned(), tag.to_owned());
        let id = id.entry;
        self.verdict.violate(match judged {
            Judged::OutOfOrder { after, .. } => Violation::OutOfOrder { whose, epoch, connection, tag, id, after },
            Judged::RepeatedAfterAck => Violation::RepeatedAfterAck { whose, epoch, connection, tag, id },
            _ => Violation::RepeatedAsNew { whose, epoch, connection, tag, id },
        });
    }

    /// Whether the device may be given a message of a topic: its user may have followed it when it was appended, or this
    /// session need not know yet that they do not.
    fn may_be_given(&self, now_us: u64, connection: u64, number: u32, topic: u32, place: Place) -> bool {
        let message = self.messages.message(number);
        let append_us = if message.was_accepted() { message.accepted_us.min(now_us) } else { now_us };
        // Redis's clock counts whole milliseconds, and who begins at one is given all of it.
        let until_us = append_us + CLOCK_GRAIN_US;
        if topic == self.everybody {
            return place.device_connect_us <= until_us;
        }
        if self.follows.was_told(place.user, topic, connection, now_us) {
            return false;
        }
        let Some(unfollowed) = self.follows.surely_not(place.user, topic, message.publish_us, until_us) else {
            return true;
        };
        let heard_us = unfollowed.done_us.saturating_add(self.bounds.notice_us);
        place.connect_us < unfollowed.done_us && message.publish_us <= heard_us
    }

    /// A first delivery tells how late messages are, if the client was healthy and the message sent once: the time of
    /// one that was sent again counts from nobody knows when.
    fn note_latency(&mut self, number: u32, late_us: u64, place: Place) {
        let message = self.messages.message(number);
        let publish_us = message.publish_us;
        if place.group != self.healthy || !message.was_sent_once() || place.device_ready_us > publish_us {
            return;
        }
        self.faults.late(&message.faults, publish_us, late_us);
        if place.ready_us > publish_us {
            return;
        }
        if self.latency.is_calm(publish_us) {
            self.latency.delivered("in calm", late_us);
        }
        let mut kinds = self.faults.kinds(&message.faults, publish_us).peekable();
        let spared = |kind: &str| KINDS_THAT_SPARE_THE_HEALTHY.contains(&kind);
        if let Some(kind) = kinds.peek().copied().filter(|_| kinds.all(spared)) {
            self.latency.delivered(&format!("during {}", kind.replace('_', " ")), late_us);
        }
    }
}

/// See [`Checker::may_be_given`].
const CLOCK_GRAIN_US: u64 = 5_000;

/// A message as a client got it.
struct Received<'a> {
    connection: u64,
    id: MessageId,
    tag: &'a str,
    to: &'a To,
    attempt: u32,
}
