//! What Redis answers, at the decoders, and then at a session that believes it.

use std::collections::VecDeque;
use std::sync::Arc;

use homing_protocol::frame::Connect;
use homing_protocol::id::EntryId;
use homing_protocol::message::Entry;
use homing_protocol::name::Name;
use homing_protocol::session::{
    AckBatch, Attachment, Command, Confirmation, Failure, Now, Open, Reply, Session, SessionConfig, Terms,
};
use homing_protocol::topic::TopicPatterns;

use super::cursor::Cursor;
use super::entries::check_message;
use super::redis_values::{self, Given};
use super::session::check_frames;
use crate::delivery::{Control, GapRecord, Heartbeat, decode};
use crate::store::replies::{self as decoders, Value};
use crate::store::resp::Replies;
use crate::store::{StoreError, view};

/// Commands whose replies are made up before the input ends.
const COMMANDS_MAX: usize = 24;

/// Replies to whatever a session asks, from a Redis that keeps no promise.
pub fn replies(data: &[u8]) {
    let mut cursor = Cursor::new(data);
    check_control(cursor.until(b'\n'));
    let mut session = opened(&mut cursor);
    let mut now = Now { mono_ms: 1, unix_ms: 1_700_000_000_000 };
    let mut waiting = VecDeque::from([odd_command(&mut cursor)]);
    for _ in 0..COMMANDS_MAX {
        let Some(command) = waiting.pop_front() else {
            now = Now { mono_ms: now.mono_ms + 20_000, unix_ms: now.unix_ms + 20_000 };
            session.handle_timeout(now, &mut Vec::new());
            session.handle_sign_of_life(now, &mut Vec::new());
            session.handle_wake();
            let mut commands = Vec::new();
            session.poll_commands(now, false, &mut commands);
            waiting.extend(commands);
            if waiting.is_empty() || cursor.is_empty() {
                break;
            }
            continue;
        };
        let given = redis_values::replies(&mut cursor);
        let read = match &given {
            Given::Bytes(bytes) => Replies::scanned(*bytes).ok(),
            Given::Trees(_) => None,
        };
        let values: Vec<Value<'_>> = match (&given, &read) {
            (Given::Trees(trees), _) => trees.iter().map(Value::from).collect(),
            (Given::Bytes(bytes), Some(replies)) => {
                check_straight(replies);
                check_parsed(bytes, replies.reader().collect())
            }
            (Given::Bytes(_), None) => Vec::new(),
        };
        if let Given::Trees(trees) = &given {
            let _ = Heartbeat::parse(trees.clone());
        }
        check_decoders(&values);
        let reply = decode_any(&command, &values);
        let reply = match reply {
            Ok(reply) => {
                check_reply(&reply, &values);
                reply
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                Reply::Failed(if matches!(error, StoreError::NoGroup) { Failure::NoGroup } else { Failure::Refused })
            }
        };
        let mut actions = Vec::new();
        session.handle_reply(now, command, reply, &mut actions);
        check_frames(&actions);
    }
}

/// New entries come for many sessions at once, and the shard hands them out; all else is each session's.
fn decode_any<'a>(command: &Command, values: &[Value<'a>]) -> Result<Reply<&'a [u8]>, StoreError> {
    if !matches!(command, Command::ReadNew { .. }) {
        return decode("node:random.0", command, values.iter().cloned());
    }
    let streams = decoders::group_reads(values.first().cloned().unwrap_or(Value::Nil))?;
    Ok(Reply::NewRead(streams.into_iter().next().map(|(_, entries)| entries).unwrap_or_default()))
}

fn opened(cursor: &mut Cursor<'_>) -> Session {
    let config = SessionConfig {
        window: 1 + u16::from(cursor.byte()),
        in_flight_bytes_max: 1 << 20,
        ack_timeout_ms: 30_000,
        ack_timeout_max_ms: 300_000,
        heartbeat_ms: 25_000,
        sweep_ms: 60_000,
        touch_ms: 60_000,
        payload_bytes_max: 1 << 16,
        frame_bytes_max: 1 << 16,
        frames_per_second: 1_000,
        frames_burst: 1_000,
        topics: false,
        cursor_flush_ms: 1_000,
    };
    let now = Now { mono_ms: 1, unix_ms: 1_700_000_000_000 };
    let open = Open {
        user: Name::default_device(),
        device: Name::default_device(),
        connect: Connect { confirm: true, ..Connect::default() },
        terms: Terms::until(u64::MAX),
        primary: 1,
        topics: TopicPatterns::default(),
    };
    let mut session = Session::new(now, Arc::new(config), open);
    session.handle_subscribed();
    if cursor.below(4) > 0 {
        // The first attach works, so that the input is not used up before the session lives.
        let mut commands = Vec::new();
        session.poll_commands(now, false, &mut commands);
        let attachment = Attachment {
            generation: 7,
            created: false,
            incarnation: 1,
            pending: None,
            last_delivered: EntryId::MIN,
            start: EntryId::MIN,
            gap: None,
            length: 1,
            ..Attachment::default()
        };
        for command in commands {
            session.handle_reply(
                now,
                command,
                Reply::<Vec<u8>>::Attached(Box::new(Ok(attachment.clone()))),
                &mut Vec::new(),
            );
        }
    }
    session
}

/// Commands that a session sends rarely.
fn odd_command(cursor: &mut Cursor<'_>) -> Command {
    let ids = |cursor: &mut Cursor<'_>| -> Vec<EntryId> {
        (0..cursor.below(4)).map(|_| EntryId { ms: u64::from(cursor.byte()), seq: 0 }).collect()
    };
    match cursor.below(7) {
        0 => Command::Sweep { expected: None },
        1 => Command::Claim { ids: ids(cursor) },
        2 => Command::ReadPending { after: EntryId::MIN, count: 10 },
        3 => Command::ReadNew { count: 10 },
        4 => Command::AckGap { id: Box::from("gap-1"), reference: None },
        5 => Command::Forget { generation: 7 },
        _ => Command::Ack(Box::new(AckBatch {
            own: ids(cursor),
            own_bytes: 128,
            foreign: ids(cursor),
            confirmations: vec![Confirmation { reference: Some(Box::from("r")), ids: ids(cursor) }],
        })),
    }
}

fn check_control(text: &[u8]) {
    if let Ok(control) = serde_json::from_slice::<Control>(text) {
        let written = serde_json::to_string(&control).expect("a control message is JSON");
        assert_eq!(serde_json::from_str::<Control>(&written).ok(), Some(control));
    }
    if let Ok(text) = std::str::from_utf8(text) {
        GapRecord::parse(text);
    }
}

/// What our parser makes of bytes, beside what the client library makes of them.
fn check_parsed<'a>(bytes: &[u8], values: Vec<Value<'a>>) -> Vec<Value<'a>> {
    let by_crate = redis::parse_redis_value(bytes);
    if let (Some(ours), Ok(theirs)) = (values.first(), &by_crate) {
        // It reads RESP3 as well, and texts otherwise where they are no UTF-8.
        if !matches!(ours, Value::Simple(_) | Value::Error(..))
            && bytes.is_ascii()
            && !bytes.contains(&b'+')
            && !bytes.contains(&b'-')
        {
            assert_eq!(*ours, Value::from(theirs));
        }
    }
    values
}

/// Entries that are read straight are those that are read the general way.
fn check_straight(replies: &Replies<&[u8]>) {
    let (mut straight, mut general) = (replies.reader(), replies.reader());
    if let Some(streams) = straight.next_group_reads() {
        let read = general.next().map(decoders::group_reads);
        assert_eq!(streams, read.and_then(Result::ok).expect("what was read straight can be read"));
        assert_eq!(straight.collect::<Vec<_>>(), general.collect::<Vec<_>>());
    }
}

/// Decoders that no session's command leads to.
fn check_decoders(values: &[Value<'_>]) {
    for value in values {
        if let Ok(ms) = view::read_time_ms(value.clone()) {
            assert!(ms <= i64::MAX as u64);
        }
        let _ = view::read_records(value.clone());
        let _ = view::read_heartbeats(value.clone());
        let _ = view::read_groups(value.clone());
        let _ = view::oldest(value.clone(), values[0].clone());
        if let Ok((count, first, last)) = decoders::pending_summary(value.clone()) {
            assert!(count <= i64::MAX as u64, "a pending list of {count} entries");
            assert!(count > 0 || (first, last) == (EntryId::MIN, EntryId::MIN));
        }
        if let Ok(number) = decoders::integer(value.clone()) {
            assert_eq!(decoders::text(value.clone()).ok().flatten().and_then(|text| text.parse().ok()), Some(number));
        }
    }
}

fn check_reply(reply: &Reply<&[u8]>, values: &[Value<'_>]) {
    match reply {
        Reply::NewRead(entries) => check_entries(entries.iter(), read_by_hand(values.first())),
        Reply::PendingRead(entries) => {
            check_entries(entries.iter().map(|(entry, _, _)| entry), read_by_hand(values.get(1)));
        }
        Reply::Claimed { entries, .. } => entries.iter().for_each(check_entry),
        _ => {}
    }
}

fn elements<'v, 'a>(value: Option<&'v Value<'a>>) -> &'v [Value<'a>] {
    match value {
        Some(Value::Array(values)) => values,
        _ => &[],
    }
}

/// The entries of a group read over one stream, taken apart another way.
fn read_by_hand<'v, 'a>(value: Option<&'v Value<'a>>) -> Vec<(&'a [u8], &'v [Value<'a>])> {
    let entries = elements(elements(elements(value).first()).get(1));
    let parts = entries.iter().map(|entry| {
        let [Value::Bulk(id), fields, ..] = elements(Some(entry)) else { panic!("{entry:?} became an entry") };
        (*id, elements(Some(fields)))
    });
    parts.collect()
}

fn check_entries<'a>(decoded: impl ExactSizeIterator<Item = &'a Entry<&'a [u8]>>, by_hand: Vec<(&[u8], &[Value<'_>])>) {
    assert_eq!(decoded.len(), by_hand.len());
    for (entry, (id, fields)) in decoded.zip(by_hand) {
        assert_eq!(entry.id.to_string().as_bytes(), id);
        let flat = entry.fields.iter().flat_map(|(field, value)| [field, value]);
        for (decoded, given) in flat.zip(fields) {
            assert_eq!(Value::Bulk(decoded), *given);
        }
        check_entry(entry);
    }
}

fn check_entry(entry: &Entry<&[u8]>) {
    check_message(entry, 1, &entry.encode(1));
}
