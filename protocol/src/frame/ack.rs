//! The `ack` frame as clients usually write it, read without building its JSON.
//!
//! Invariant: what is read here reads as the general parser reads it; whatever is written otherwise is left to it.

use super::client::{AckId, ClientFrame, Incoming};
use crate::id::EntryId;
use crate::limits::{IDS_PER_FRAME_MAX, NAME_BYTES_MAX};
use crate::topic::Topic;

/// What stands before the ids: as JavaScript, Rust and Go write it, and as Python does.
const HEADS: [&[u8]; 2] = [br#"{"type":"ack","ids":["#, br#"{"type": "ack", "ids": ["#];
/// Bytes of the shortest id with its quotation marks and comma.
const ID_BYTES_MIN: usize = 6;

/// The frame, if it acks messages and holds nothing else.
pub(super) fn parse(text: &str) -> Option<Incoming> {
    let bytes = text.as_bytes();
    let mut rest = HEADS.iter().find_map(|head| bytes.strip_prefix(*head))?;
    let mut ids = Vec::with_capacity((rest.len() / ID_BYTES_MIN).min(IDS_PER_FRAME_MAX));
    loop {
        let quoted = rest.strip_prefix(b"\"")?;
        if ids.len() == IDS_PER_FRAME_MAX {
            return None;
        }
        let after = if let Ok((id, after @ [b'"', ..])) = EntryId::parse_first(quoted) {
            ids.push(AckId::Message(id));
            after
        } else {
            let (topic, id, after) = parse_of_topic(quoted)?;
            ids.push(AckId::Topic(topic, id));
            after
        };
        match after {
            b"\"]}" => return Some(Incoming { reference: None, frame: ClientFrame::Ack(ids) }),
            [b'"', b',', b' ', after @ ..] | [b'"', b',', after @ ..] => rest = after,
            _ => return None,
        }
    }
}

/// The message of a topic that a text begins with, and what stands behind its id. No topic's name has a character that
/// JSON escapes.
fn parse_of_topic(text: &[u8]) -> Option<(Topic, EntryId, &[u8])> {
    let slash = text.iter().take(NAME_BYTES_MAX + 1).position(|byte| *byte == b'/')?;
    let topic = std::str::from_utf8(text.get(..slash)?).ok()?;
    let (id, after) = EntryId::parse_first(text.get(slash + 1..)?).ok()?;
    Some((Topic::parse(topic).ok()?, id, after))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_piece() -> impl Strategy<Value = String> {
        prop_oneof![
            6 => (any::<u64>(), any::<u64>()).prop_map(|(ms, seq)| format!("\"{ms}-{seq}\"")),
            3 => Just(",".to_owned()),
            1 => Just(", ".to_owned()),
            1 => "[\"\\]},0-9 -]{0,3}",
            1 => Just("\"gap-1\"".to_owned()),
            2 => ("([*]|gap-[a-z]|[a-z0-9._:*-]{1,9}|[0-9]{1,3}-[0-9]{1,3}|\\PC{0,3})", any::<u64>(), any::<u64>())
                .prop_map(|(topic, ms, seq)| format!("\"{topic}/{ms}-{seq}\"")),
        ]
    }

    fn any_id() -> impl Strategy<Value = AckId> {
        let entry = (any::<u64>(), any::<u64>()).prop_map(|(ms, seq)| EntryId { ms, seq });
        (proptest::option::of("[*]|[0-9]{1,3}-[0-9]{1,3}|gap-[0-9]{1,9}|[a-z][a-z0-9._-]{0,40}|[a-z]{255}"), entry)
            .prop_map(|(topic, id)| match topic {
                Some(topic) => AckId::Topic(Topic::parse(&topic).unwrap(), id),
                None => AckId::Message(id),
            })
    }

    fn text_of(id: &AckId) -> String {
        match id {
            AckId::Message(id) => id.to_string(),
            AckId::Topic(topic, id) => format!("{topic}/{id}"),
            AckId::Gap(id) => id.to_string(),
        }
    }

    proptest! {
        // An ack that is understood otherwise than it was meant loses a message.
        #[test]
        fn what_is_read_reads_as_the_general_parser_reads_it(
            python: bool, pieces in proptest::collection::vec(any_piece(), 0..6), end in prop_oneof![4 => Just("]}"), 1 => Just("],\"ref\":\"r\"}")],
        ) {
            let head = std::str::from_utf8(HEADS[usize::from(python)]).unwrap();
            let text = format!("{head}{}{end}", pieces.concat());
            if let Some(frame) = parse(&text) {
                prop_assert_eq!(Ok(frame), Incoming::parse_generally(&text));
            }
        }

        #[test]
        fn acks_as_clients_write_them_need_no_other_way(ids in proptest::collection::vec(any_id(), 1..80)) {
            for (head, comma) in HEADS.iter().zip([",", ", "]) {
                let list = ids.iter().map(|id| format!("\"{}\"", text_of(id))).collect::<Vec<_>>().join(comma);
                let text = format!("{}{list}]}}", std::str::from_utf8(head).unwrap());
                let frame = parse(&text).expect("it is an ack");
                prop_assert_eq!(&frame.frame, &ClientFrame::Ack(ids.clone()));
                prop_assert_eq!(Ok(frame), Incoming::parse_generally(&text));
            }
        }
    }

    #[test]
    fn too_many_ids_are_refused_as_ever() {
        let list = vec!["\"1-0\""; IDS_PER_FRAME_MAX + 1].join(",");
        let text = format!("{{\"type\":\"ack\",\"ids\":[{list}]}}");
        assert_eq!(parse(&text), None);
        assert!(Incoming::parse(&text).is_err());
    }
}
