//! WebSocket frames (RFC 6455) and the few shapes of the protocol that a load client has to see, by hand.
//!
//! A client that parses all that it gets costs as much as the node that it measures. This one looks at ids, `attempt`
//! and the first bytes of `data`, and skips over the rest.

/// Opcodes of RFC 6455, section 11.8.
const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// A frame of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    Text(&'a [u8]),
    /// With the close code; 1005 if the server gave none.
    Close(u16),
    Ping(&'a [u8]),
    Pong,
    /// A continuation or binary frame: this server sends none.
    Odd,
}

/// The next frame of `bytes` and how many bytes it takes; `None` if it has not arrived completely.
pub(crate) fn next(bytes: &[u8]) -> Option<(Frame<'_>, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (length, head): (usize, usize) = match second & 0x7F {
        126 => (usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])), 4),
        127 => {
            let length: [u8; 8] = bytes.get(2..10)?.try_into().ok()?;
            (usize::try_from(u64::from_be_bytes(length)).ok()?, 10)
        }
        short => (usize::from(short), 2),
    };
    let end = head.checked_add(length)?;
    let payload = bytes.get(head..end)?;
    let frame = match first & 0x0F {
        TEXT if first & 0x80 != 0 => Frame::Text(payload),
        CLOSE => Frame::Close(payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code))),
        PING => Frame::Ping(payload),
        PONG => Frame::Pong,
        _ => Frame::Odd,
    };
    Some((frame, end))
}

/// Appends a client's frame. Its mask is zero, which leaves the payload as it is: no proxy cache that a random mask
/// would protect is between a load client and its server.
pub(crate) fn push_text(output: &mut Vec<u8>, payload: &[u8]) {
    push(output, TEXT, payload);
}

/// Appends the answer to a [`Frame::Ping`].
pub(crate) fn push_pong(output: &mut Vec<u8>, payload: &[u8]) {
    push(output, PONG, payload);
}

fn push(output: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    output.push(0x80 | opcode);
    match payload.len() {
        length @ 0..=125 => output.push(0x80 | length as u8),
        length @ 126..=0xFFFF => {
            output.push(0x80 | 126);
            output.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            output.push(0x80 | 127);
            output.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    output.extend_from_slice(&[0; 4]);
    output.extend_from_slice(payload);
}

/// What a text frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said<'a> {
    Ready,
    Messages(Messages<'a>),
    /// So many acks were confirmed.
    Acked(u64),
    /// With its id, to be acked.
    Gap(&'a [u8]),
    Ping,
    /// The whole frame, for people.
    Error(&'a [u8]),
    /// Nothing that matters here.
    Else,
}

/// Reads a text frame.
pub(crate) fn read(text: &[u8]) -> Said<'_> {
    let Some(rest) = text.strip_prefix(br#"{"type":""#) else { return Said::Else };
    if let Some(rest) = rest.strip_prefix(br#"messages","messages":["#) {
        return Said::Messages(Messages { rest });
    }
    if let Some(rest) = rest.strip_prefix(br#"acked","ids":["#) {
        // Ids hold no quotes.
        return Said::Acked(
            rest.iter().take_while(|byte| **byte != b']').filter(|byte| **byte == b'"').count() as u64 / 2,
        );
    }
    if let Some(rest) = rest.strip_prefix(br#"gap","id":""#) {
        return Said::Gap(until_quote(rest));
    }
    if rest.starts_with(b"ready\"") {
        Said::Ready
    } else if rest.starts_with(b"ping\"") {
        Said::Ping
    } else if rest.starts_with(b"error\"") {
        Said::Error(text)
    } else {
        Said::Else
    }
}

fn until_quote(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| *byte == b'"').unwrap_or(text.len());
    &text[..end]
}

/// A message, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) id: &'a [u8],
    /// JSON text, as it was published.
    pub(crate) data: &'a [u8],
    /// Whether it was delivered before.
    pub(crate) is_again: bool,
}

/// The messages of a `messages` frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let rest = self.rest.strip_prefix(b",").unwrap_or(self.rest).strip_prefix(br#"{"id":""#)?;
        let id = until_quote(rest);
        let rest = rest.get(id.len()..)?;
        let rest = match rest.strip_prefix(br#"","topic":""#) {
            Some(rest) => rest.get(until_quote(rest).len()..)?,
            None => rest,
        };
        let rest = rest.strip_prefix(br#"","data":"#)?;
        let data = &rest[..value_length(rest)];
        let rest = &rest[data.len()..];
        // `encoding` may stand before `attempt`, `key`, `meta` and `exp` after it: the first level's end ends all.
        let tail = &rest[..tail_length(rest)];
        self.rest = rest.get(tail.len() + 1..)?;
        let attempt = find(tail, br#""attempt":"#).map(|start| &tail[start + br#""attempt":"#.len()..]);
        let is_again = attempt.is_some_and(|attempt| !matches!(attempt, [b'1'] | [b'1', b',', ..]));
        Some(Message { id, data, is_again })
    }
}

/// Bytes of the JSON value at the start of `text`.
fn value_length(text: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut position = 0;
    while let Some(byte) = text.get(position) {
        match byte {
            b'"' => {
                position = string_end(text, position);
                if depth == 0 {
                    return position;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth <= 1 => return position + depth,
            b'}' | b']' => depth -= 1,
            b',' if depth == 0 => return position,
            _ => {}
        }
        position += 1;
    }
    text.len()
}

/// Bytes up to the `}` that ends the object that `text` is inside of.
fn tail_length(text: &[u8]) -> usize {
    let mut position = 0;
    while position < text.len() && text[position] != b'}' {
        // A comma or a name with its colon; then a value.
        let is_value = text[position] == b':';
        position += 1;
        if is_value {
            position += value_length(&text[position..]);
        } else if text.get(position - 1) == Some(&b'"') {
            position = string_end(text, position - 1);
        }
    }
    position
}

/// The position after the string that starts at `start`.
fn string_end(text: &[u8], start: usize) -> usize {
    let mut position = start + 1;
    while let Some(byte) = text.get(position) {
        match byte {
            b'"' => return position + 1,
            b'\\' => position += 2,
            _ => position += 1,
        }
    }
    text.len()
}

/// Where `what` begins in `text`.
fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use homing_protocol::frame::client::{ClientFrame, Incoming};
    use homing_protocol::frame::server::{AckedId, Gap, GapReason, MessagesFrame, ServerFrame};
    use homing_protocol::id::EntryId;
    use homing_protocol::message::Entry;
    use homing_protocol::topic::Topic;
    use proptest::prelude::*;

    fn frame_of(entries: &[Entry<Vec<u8>>], attempt: u32) -> String {
        let mut frame = MessagesFrame::new(usize::MAX);
        for entry in entries {
            assert!(frame.push(|text| entry.encode_into(attempt, text)).is_none());
        }
        frame.finish().unwrap()
    }

    fn entry(ms: u64, fields: &[(&str, &str)]) -> Entry<Vec<u8>> {
        let bytes = |text: &str| text.as_bytes().to_vec();
        Entry {
            id: EntryId { ms, seq: 0 },
            fields: fields.iter().map(|(name, value)| (bytes(name), bytes(value))).collect(),
        }
    }

    fn messages(text: &str) -> Vec<Message<'_>> {
        match read(text.as_bytes()) {
            Said::Messages(messages) => messages.collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_message_is_found_whatever_stands_in_and_behind_its_data() {
        let odd = r#"{"a":"}],{\"id\":\"9-9\"","b":[{"attempt":7},[]],"c":"\\"}"#;
        let meta = r#"{"attempt":5,"x":"}"}"#;
        let frame = frame_of(
            &[
                entry(1, &[("data", odd), ("meta", meta), ("key", "k\"}"), ("exp", "99")]),
                entry(2, &[("data", "plain, text}")]),
            ],
            1,
        );
        let found = messages(&frame);
        assert_eq!(found.len(), 2, "{frame}");
        assert_eq!((found[0].id, found[0].data, found[0].is_again), (&b"1-0"[..], odd.as_bytes(), false));
        assert_eq!((found[1].id, found[1].data), (&b"2-0"[..], &br#""plain, text}""#[..]));
        assert!(
            messages(&frame_of(&[entry(1, &[("data", odd), ("meta", meta)])], 10))
                .iter()
                .all(|message| message.is_again)
        );
        assert!(messages(&frame_of(&[entry(1, &[("data", odd)])], 2))[0].is_again);
    }

    #[test]
    fn a_message_of_a_topic_is_found_as_well() {
        let mut frame = MessagesFrame::new(usize::MAX);
        for ms in [1, 2] {
            let entry = entry(ms, &[("data", "[7]")]);
            assert!(frame.push(|text| entry.encode_topic_into(&Topic::Broadcast, 1, text)).is_none());
        }
        let frame = frame.finish().unwrap();
        let found: Vec<_> = messages(&frame).iter().map(|message| (message.id, message.data)).collect();
        assert_eq!(found, [(&b"*/1-0"[..], &b"[7]"[..]), (b"*/2-0", b"[7]")]);
    }

    #[test]
    fn the_other_frames_are_told_apart() {
        let text = |frame: ServerFrame| frame.encode(None);
        let ids = [1, 2].map(|ms| AckedId::Message(EntryId { ms, seq: 0 })).to_vec();
        assert_eq!(read(text(ServerFrame::Acked(ids)).as_bytes()), Said::Acked(2));
        assert_eq!(read(text(ServerFrame::Acked(Vec::new())).as_bytes()), Said::Acked(0));
        assert_eq!(read(text(ServerFrame::Ping).as_bytes()), Said::Ping);
        assert_eq!(read(text(ServerFrame::Pong).as_bytes()), Said::Else);
        let gap = Gap { id: "gap-7".into(), reason: GapReason::Epoch, count: 1 };
        assert_eq!(read(text(ServerFrame::Gap { gap, epoch: "e".into() }).as_bytes()), Said::Gap(b"gap-7"));
        assert_eq!(read(br#"{"type":"ready","user":"a"}"#), Said::Ready);
        assert!(matches!(read(br#"{"type":"error","code":"x"}"#), Said::Error(_)));
        assert_eq!(read(b"["), Said::Else);
    }

    #[test]
    fn a_frame_is_complete_or_not_there_yet() {
        for length in [0_usize, 125, 126, 65_535, 65_536] {
            let mut sent = Vec::new();
            push_text(&mut sent, &vec![b'x'; length]);
            // As the server's frames are: without mask.
            let mask = sent.len() - length - 4;
            sent.drain(mask..mask + 4);
            sent[1] &= 0x7F;
            assert_eq!(next(&sent), Some((Frame::Text(&vec![b'x'; length]), sent.len())));
            assert!((0..sent.len().min(20)).chain([sent.len() - 1]).all(|end| next(&sent[..end]).is_none()));
        }
        assert_eq!(next(&[0x88, 2, 0x0F, 0xA9]), Some((Frame::Close(4009), 4)));
        assert_eq!(next(&[0x88, 0]), Some((Frame::Close(1005), 2)));
    }

    #[test]
    fn the_server_reads_what_the_client_writes() {
        let mut sent = Vec::new();
        push_text(&mut sent, br#"{"type":"ack","ids":["1-0"]}"#);
        assert_eq!(sent[2..6], [0; 4]);
        let text = std::str::from_utf8(&sent[6..]).unwrap();
        assert!(matches!(Incoming::parse(text).unwrap().frame, ClientFrame::Ack(ids) if ids.len() == 1));
    }

    proptest! {
        #[test]
        fn any_entry_is_found_in_its_frame(fields in proptest::collection::vec(("data|key|meta|type|exp|[a-z]{1,4}", ".{0,30}|\\{\"[a\\\\]{0,4}\":[0-9\\[\\]{}]{0,5}\\}"), 0..5), count in 1_usize..4) {
            let entries: Vec<_> = (0..count as u64).map(|ms| Entry {
                id: EntryId { ms, seq: 0 },
                fields: fields.iter().map(|(name, value)| (name.clone().into_bytes(), value.clone().into_bytes())).collect(),
            }).collect();
            let frame = frame_of(&entries, 1);
            let parsed: serde_json::Value = serde_json::from_str(&frame).unwrap();
            let found = messages(&frame);
            prop_assert_eq!(found.len(), count);
            for (index, message) in found.iter().enumerate() {
                let data: serde_json::Value = serde_json::from_slice(message.data).unwrap();
                prop_assert_eq!(&data, &parsed["messages"][index]["data"]);
                prop_assert!(!message.is_again);
            }
        }

        #[test]
        fn no_bytes_panic_the_scanner(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = next(&bytes);
            let mut text = br#"{"type":"messages","messages":[{"id":"1-0","data":"#.to_vec();
            text.extend(bytes);
            if let Said::Messages(messages) = read(&text) {
                let _ = messages.count();
            }
        }
    }
}
