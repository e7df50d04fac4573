//! Random right histories of a follower, and one random wrong in each: what no author of tests thought of.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::history::{Event, Heard, Line, Outcome};
use super::random::{repeat_after_ack, tag};
use super::story::Story;

const NEWS: &str = "news";

/// What happens to alice's phone next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Publish,
    Broadcast,
    Deliver,
    /// All that came until now, if that is confirmed; else the ack may have been in vain.
    Ack {
        confirmed: bool,
    },
    /// The cursor in Redis is where it was: what was not confirmed comes again as new.
    TakeOver,
    Leave,
    Follow,
    /// It takes effect, but its answer is lost.
    FollowWithoutAnswer,
    Asking,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Publish),
        2 => Just(Step::Broadcast),
        8 => Just(Step::Deliver),
        5 => any::<bool>().prop_map(|confirmed| Step::Ack { confirmed }),
        2 => Just(Step::TakeOver),
        1 => Just(Step::Leave),
        2 => Just(Step::Follow),
        1 => Just(Step::FollowWithoutAnswer),
        1 => Just(Step::Asking),
    ]
}

/// A topic as a small engine that keeps its promise knows it.
struct Topic {
    name: &'static str,
    followed: bool,
    /// What it holds for the phone, in order.
    log: Vec<u64>,
    /// How many of these are done with, by Redis's word, and were handed out on this connection.
    cursor: usize,
    position: usize,
}

impl Topic {
    fn new(name: &'static str, followed: bool) -> Self {
        Self { name, followed, log: Vec::new(), cursor: 0, position: 0 }
    }

    fn deliver(&mut self, story: &mut Story, connection: u64) {
        let Some(id) = self.log.get(self.position) else { return };
        story.message_in(self.name, connection, &tag(*id), *id, 1);
        self.position += 1;
    }

    fn ack(&mut self, story: &mut Story, connection: u64, confirmed: bool) {
        for id in &self.log[self.cursor..self.position] {
            story.ack_in(self.name, connection, *id);
            if confirmed {
                story.acked_in(self.name, connection, *id);
            }
        }
        if confirmed {
            self.cursor = self.position;
        }
    }
}

/// Tells what happens, and delivers everything in the end.
fn tell(steps: &[Step]) -> Story {
    let mut story = Story::with_alice();
    story.follows(NEWS);
    let mut topics = [Topic::new("*", true), Topic::new(NEWS, true)];
    let (mut connection, mut last) = (1, 0);
    for step in steps.iter().chain([&Step::Follow, &Step::Publish, &Step::Asking]) {
        // Whoever begins at a millisecond is given all of it.
        story.pass(10_000);
        let [everybody, news] = &mut topics;
        match step {
            Step::Publish | Step::Broadcast => {
                let topic = if matches!(step, Step::Publish) { news } else { everybody };
                last += 1;
                story.accept_to(topic.name, &tag(last), last);
                if topic.followed {
                    topic.log.push(last);
                }
            }
            Step::Deliver => topics.iter_mut().for_each(|topic| topic.deliver(&mut story, connection)),
            Step::Ack { confirmed } => {
                topics.iter_mut().for_each(|topic| topic.ack(&mut story, connection, *confirmed));
            }
            Step::TakeOver => {
                story.closed(connection);
                connection += 1;
                story.connect(connection, "alice", "phone").ready(connection, "e1", false);
                topics.iter_mut().for_each(|topic| topic.position = topic.cursor);
            }
            Step::Leave => {
                let request = story.ask("alice", NEWS, false, Some(connection));
                story.answer(request, Outcome::Done);
                *news = Topic::new(NEWS, false);
            }
            Step::Follow | Step::FollowWithoutAnswer => {
                let request = story.ask("alice", NEWS, true, None);
                let known = matches!(step, Step::Follow);
                story.answer(request, if known { Outcome::Done } else { Outcome::Unknown });
                news.followed = true;
            }
            Step::Asking => {
                last += 1;
                story.accept_asking(&tag(last), last).message(connection, &tag(last), last, 1).ack(connection, last);
                story.receipt(Heard::Stream, last).acked(connection, last);
            }
        }
    }
    for topic in &mut topics {
        topic.log[topic.position..].to_vec().iter().for_each(|_| topic.deliver(&mut story, connection));
        topic.ack(&mut story, connection, true);
    }
    story.drained_and_over();
    story
}

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    /// All deliveries of one message vanish.
    Dropped,
    /// One that came is never acked, and does not come again.
    Skipped,
    /// It comes twice as new on one connection.
    Doubled,
    /// An earlier message of the topic comes as new, later on the same connection.
    Misordered,
    /// It comes again after its ack was confirmed.
    AfterAck,
    /// It comes to somebody who follows nothing.
    Foreign,
    ReceiptWithoutAck,
    AckWithoutReceipt,
}

const ALL_WRONG: [Wrong; 8] = [
    Wrong::Dropped,
    Wrong::Skipped,
    Wrong::Doubled,
    Wrong::Misordered,
    Wrong::AfterAck,
    Wrong::Foreign,
    Wrong::ReceiptWithoutAck,
    Wrong::AckWithoutReceipt,
];

/// Plants a wrong at the delivery of a random message that nobody can have left before it came. Says which kinds of
/// violation would name it; `None` if there is no such place.
fn plant(lines: &mut Vec<Line>, wrong: Wrong, place: Index) -> Option<&'static [&'static str]> {
    let left = |line: &Line| matches!(line.event, Event::Follow { follow: false, .. });
    let begin = lines.iter().rposition(left).map_or(0, |left| left + 1);
    let of_topic = |line: &Line| matches!(&line.event, Event::Message { id, .. } if id.contains('/'));
    // Those that were owed: published after an answered follow.
    let followed = begin + lines[begin..].iter().position(|line| is_done(line, lines))?;
    let owed: Vec<String> = lines[followed..].iter().filter_map(published_to_news).collect();
    let places: Vec<usize> = (followed..lines.len())
        .filter(|index| of_topic(&lines[*index]) && tag_of(&lines[*index]).is_some_and(|tag| owed.contains(&tag)))
        .collect();
    let at = *places.get(place.index(places.len().max(1)))?;
    let message = lines[at].clone();
    let Event::Message { connection, id: hit, tag, .. } = message.event.clone() else { return None };
    match wrong {
        Wrong::Dropped => {
            lines.retain(|line| tag_of(line).as_ref() != Some(&tag));
            Some(&["lost"])
        }
        Wrong::Skipped => {
            for line in lines.iter_mut() {
                if let Event::Ack { ids, .. } | Event::Acked { ids, .. } = &mut line.event {
                    ids.retain(|id| *id != hit);
                }
            }
            Some(&["not_repeated"])
        }
        Wrong::Doubled => {
            lines.insert(at + 1, message);
            Some(&["repeated_as_new"])
        }
        Wrong::Misordered => {
            let later = places.iter().find(|index| {
                **index > at
                    && matches!(&lines[**index].event, Event::Message { connection: other, id, .. }
                        if *other == connection && id.split('/').next() == hit.split('/').next())
            });
            let later = *later?;
            let earlier = lines.remove(at);
            lines.insert(later, earlier);
            Some(&["out_of_order", "repeated_as_new", "repeated_after_ack"])
        }
        Wrong::AfterAck => repeat_after_ack(lines, message, &hit),
        Wrong::Foreign => {
            let mut story = Story::new();
            story.connect(99, "bob", "phone").ready(99, "e1", true);
            let mut foreign = message;
            if let Event::Message { connection, .. } = &mut foreign.event {
                *connection = 99;
            }
            let mut planted = story.lines.split_off(1);
            planted.iter_mut().for_each(|line| line.at_us = foreign.at_us);
            planted.push(foreign);
            lines.splice(at..at, planted);
            Some(&["not_followed"])
        }
        Wrong::ReceiptWithoutAck => {
            let receipt = lines.iter().position(|line| matches!(line.event, Event::Receipt { .. }))?;
            let Event::Receipt { id: told, .. } = lines[receipt].event.clone() else { return None };
            let of_message = |line: &Line| matches!(&line.event, Event::Message { id, .. } if *id == told);
            let came = lines.iter().position(of_message)?;
            let early = lines.remove(receipt);
            lines.insert(came + 1, early);
            Some(&["receipt_unfounded"])
        }
        Wrong::AckWithoutReceipt => {
            let receipt = lines.iter().position(|line| matches!(line.event, Event::Receipt { .. }))?;
            lines.remove(receipt);
            Some(&["receipt_missing"])
        }
    }
}

/// Whether this line tells that alice follows the news.
fn is_done(line: &Line, lines: &[Line]) -> bool {
    let Event::Followed { request, outcome: Outcome::Done } = line.event else { return false };
    lines
        .iter()
        .any(|asked| matches!(asked.event, Event::Follow { request: number, follow: true, .. } if number == request))
}

fn published_to_news(line: &Line) -> Option<String> {
    match &line.event {
        Event::Publish { tag, to: super::history::To::Topic(topic), .. } if topic == NEWS => Some(tag.clone()),
        _ => None,
    }
}

fn tag_of(line: &Line) -> Option<String> {
    match &line.event {
        Event::Message { tag, .. } => Some(tag.clone()),
        _ => None,
    }
}

proptest! {
    #[test]
    fn a_random_right_history_of_a_follower_passes(steps in vec(step(), 0..60)) {
        let verdict = tell(&steps).verdict();
        prop_assert!(verdict.is_clean() && verdict.complete, "{}", verdict);
    }

    #[test]
    fn a_random_wrong_in_a_followers_history_is_found(steps in vec(step(), 0..60), wrong in prop::sample::select(ALL_WRONG.to_vec()), place: Index) {
        let mut story = tell(&steps);
        let Some(names) = plant(&mut story.lines, wrong, place) else { return Err(TestCaseError::reject("no place")) };
        let verdict = story.verdict();
        let found = names.iter().any(|name| verdict.violations_by_kind.contains_key(name));
        prop_assert!(found, "{:?} at {:?} should show as {:?}: {}", wrong, place, names, verdict);
    }
}

// Else a wrong that never finds a place would pass for one that is found.
#[test]
fn every_wrong_finds_a_place_in_a_plain_history() {
    let steps = [Step::Publish, Step::Publish, Step::Deliver, Step::Deliver, Step::Ack { confirmed: true }];
    let placed = std::cell::RefCell::new(std::collections::BTreeSet::new());
    proptest!(|(place: Index)| {
        let found = ALL_WRONG.into_iter().filter(|wrong| plant(&mut tell(&steps).lines, *wrong, place).is_some());
        placed.borrow_mut().extend(found.map(|wrong| format!("{wrong:?}")));
    });
    assert_eq!(placed.into_inner().len(), ALL_WRONG.len());
}
