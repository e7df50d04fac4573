//! Random right histories, and one random wrong in each: what no author of tests thought of.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::history::{Event, Line, To};
use super::story::Story;

/// What happens to alice's phone next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Publish,
    PublishWithRetry,
    Refuse,
    Deliver,
    Ack,
    Redeliver,
    TakeOver,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Publish),
        1 => Just(Step::PublishWithRetry),
        1 => Just(Step::Refuse),
        6 => Just(Step::Deliver),
        4 => Just(Step::Ack),
        1 => Just(Step::Redeliver),
        1 => Just(Step::TakeOver),
    ]
}

/// A small engine that keeps its promise: tells what happens, and delivers everything in the end.
fn tell(steps: &[Step]) -> Story {
    let mut story = Story::with_alice();
    let (mut connection, mut published, mut delivered, mut acked) = (1, 0, 0, 0);
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Publish => {
                published += 1;
                story.accept(&tag(published), published);
            }
            Step::PublishWithRetry => {
                published += 1;
                let tag = tag(published);
                story.publish_keyed(&tag).unknown(&tag).publish_keyed(&tag).published(&tag, published);
            }
            Step::Refuse => {
                let tag = format!("refused-{number}");
                story.publish(&tag).refused(&tag);
            }
            Step::Deliver if delivered < published => {
                delivered += 1;
                story.message(connection, &tag(delivered), delivered, 1);
            }
            Step::Ack if acked < delivered => {
                acked += 1;
                story.ack(connection, acked).acked(connection, acked);
            }
            Step::Redeliver if acked < delivered => {
                story.message(connection, &tag(delivered), delivered, 2);
            }
            Step::TakeOver => {
                story.closed(connection);
                connection += 1;
                story.connect(connection, "alice", "phone").ready(connection, "e1", false);
                for id in acked + 1..=delivered {
                    story.message(connection, &tag(id), id, 2);
                }
            }
            Step::Deliver | Step::Ack | Step::Redeliver => {}
        }
    }
    for id in delivered + 1..=published {
        story.message(connection, &tag(id), id, 1);
    }
    // One more that is acked, so that there is something to do wrong.
    published += 1;
    story.accept(&tag(published), published).message(connection, &tag(published), published, 1);
    story.ack(connection, published).acked(connection, published).drained_and_over();
    story
}

pub(crate) fn tag(id: u64) -> String {
    format!("t{id}")
}

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    /// All deliveries of one message vanish.
    Dropped,
    /// A new message comes twice as new.
    Doubled,
    /// Two neighbouring new messages change places.
    Swapped,
    AnotherUser,
    AnotherTag,
    AnotherId,
    AfterAck,
    RefusedCame,
}

fn wrong() -> impl Strategy<Value = Wrong> {
    use Wrong::{AfterAck, AnotherId, AnotherTag, AnotherUser, Doubled, Dropped, RefusedCame, Swapped};
    prop::sample::select(vec![Dropped, Doubled, Swapped, AnotherUser, AnotherTag, AnotherId, AfterAck, RefusedCame])
}

/// Plants a wrong at a random place. Says which kinds of violation would name it; `None` if there is no such place.
fn plant(lines: &mut Vec<Line>, wrong: Wrong, place: Index) -> Option<&'static [&'static str]> {
    let new = |line: &Line| matches!(line.event, Event::Message { attempt: 1, .. });
    let places: Vec<usize> = (0..lines.len()).filter(|index| new(&lines[*index])).collect();
    let at = places[place.index(places.len())];
    let message = lines[at].clone();
    let Event::Message { connection, tag: hit, id: hit_id, .. } = message.event.clone() else { return None };
    let edit = |line: &mut Line, change: &dyn Fn(&mut String, &mut String, &mut To)| {
        if let Event::Message { id, tag, to, .. } = &mut line.event {
            change(id, tag, to);
        }
    };
    match wrong {
        Wrong::Dropped => {
            lines.retain(|line| !matches!(&line.event, Event::Message { tag, .. } if *tag == hit));
            Some(&["lost"])
        }
        Wrong::Doubled => {
            lines.insert(at + 1, message);
            Some(&["repeated_as_new"])
        }
        Wrong::Swapped => {
            let next = *places.get(places.iter().position(|index| *index == at)? + 1)?;
            if !matches!(&lines[next].event, Event::Message { connection: other, .. } if *other == connection) {
                return None;
            }
            // Where the later one came, so that both were published; the repeated ones between them stay.
            let earlier = lines.remove(at);
            lines.insert(next, earlier);
            // If it passes its own redelivery or ack on the way, that is what shows.
            Some(&["out_of_order", "repeated_as_new", "repeated_after_ack"])
        }
        Wrong::AnotherUser => {
            edit(&mut lines[at], &|_, _, to| *to = To::User("bob".to_owned()));
            Some(&["foreign_user"])
        }
        Wrong::AnotherTag => {
            edit(&mut lines[at], &|_, tag, _| "from nowhere".clone_into(tag));
            Some(&["never_published"])
        }
        Wrong::AnotherId => {
            edit(&mut lines[at], &|id, _, _| id.push('7'));
            Some(&["wrong_id", "several_ids"])
        }
        Wrong::AfterAck => repeat_after_ack(lines, message, &hit_id),
        Wrong::RefusedCame => {
            let refused = lines.iter().position(|line| matches!(line.event, Event::Refused { .. }))?;
            let Event::Refused { tag: refused_tag, .. } = lines[refused].event.clone() else { return None };
            let at = at.max(refused) + 1;
            let mut came = message;
            edit(&mut came, &|id, tag, _| (*id, *tag) = (format!("{id}5"), refused_tag.clone()));
            lines.insert(at, came);
            Some(&["refused_but_delivered"])
        }
    }
}

/// Repeats a message behind the confirmation of its ack, on the same connection.
pub(crate) fn repeat_after_ack(lines: &mut Vec<Line>, message: Line, id: &String) -> Option<&'static [&'static str]> {
    let confirmed = |line: &Line| matches!(&line.event, Event::Acked { ids, .. } if ids.contains(id));
    let acked = lines.iter().position(confirmed)?;
    let Event::Acked { connection, .. } = lines[acked].event else { return None };
    let mut again = message;
    if let Event::Message { connection: on, attempt, .. } = &mut again.event {
        (*on, *attempt) = (connection, 2);
    }
    lines.insert(acked + 1, again);
    Some(&["repeated_after_ack"])
}

proptest! {
    #[test]
    fn a_random_right_history_passes(steps in vec(step(), 0..60)) {
        let verdict = tell(&steps).verdict();
        prop_assert!(verdict.is_clean() && verdict.complete, "{}", verdict);
    }

    #[test]
    fn a_random_wrong_in_a_random_history_is_found(steps in vec(step(), 0..60), wrong in wrong(), place: Index) {
        let mut story = tell(&steps);
        let Some(names) = plant(&mut story.lines, wrong, place) else { return Err(TestCaseError::reject("no place")) };
        let verdict = story.verdict();
        let found = names.iter().any(|name| verdict.violations_by_kind.contains_key(name));
        prop_assert!(found, "{:?} at {:?} should show as {:?}: {}", wrong, place, names, verdict);
    }
}
