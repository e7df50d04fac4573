//! The pure hot paths, one function each: what a node computes for every message, without any I/O.
//!
//! Criterion times them (`hot_paths.rs`), valgrind counts their instructions (`instructions.rs`).

use std::hint::black_box;
use std::sync::Arc;

use homing::store::resp::Replies;
use homing_protocol::frame::{ClientFrame, Incoming, MessagesFrame};
use homing_protocol::id::EntryId;
use homing_protocol::message::Entry;
use homing_protocol::name::Name;
use homing_protocol::session::{Action, Attachment, Command, Now, Open, Reply, Session, SessionConfig, Terms};
use homing_protocol::topic::TopicPatterns;

/// A hot path: its name, and how it is made ready to run any number of times.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) prepare: fn() -> Box<dyn FnMut()>,
}

/// All of them.
pub(crate) const ALL: &[Workload] = &[
    Workload { name: "decode_ack_of_one", prepare: || decode(ack(1)) },
    Workload { name: "decode_ack_of_64", prepare: || decode(ack(64)) },
    Workload { name: "decode_connect", prepare: || decode(CONNECT.to_owned()) },
    Workload { name: "encode_frame_of_one", prepare: || encode_frame(1) },
    Workload { name: "encode_frame_of_64", prepare: || encode_frame(64) },
    Workload { name: "encode_text_that_needs_escapes", prepare: encode_escapes },
    Workload { name: "parse_read_of_one", prepare: || parse_read(1) },
    Workload { name: "parse_read_of_64", prepare: || parse_read(64) },
    Workload { name: "session_delivers_and_acks_one", prepare: || session(1, false) },
    Workload { name: "session_delivers_and_acks_64", prepare: || session(64, false) },
    Workload { name: "session_confirms_one", prepare: || session(1, true) },
];

const CONNECT: &str = r#"{"type":"connect","token":"eyJhbGciOiJIUzI1NiJ9.e30.c2ln","device":"web-1","window":64,"confirm":true,"epoch":"1700000000.1700000001","instance":"b2c9","seq":7}"#;
const PAYLOAD: &str =
    r#"{"kind":"order","number":48151623,"lines":[{"sku":"A-1","count":2},{"sku":"B-7","count":1}],"total":"129.90"}"#;
const BEGIN_MS: u64 = 1_700_000_000_000;

fn id(number: u64) -> EntryId {
    EntryId { ms: BEGIN_MS + number, seq: 0 }
}

fn ack(count: u64) -> String {
    let ids: Vec<String> = (1..=count).map(|number| format!("\"{}\"", id(number))).collect();
    format!(r#"{{"type":"ack","ids":[{}]}}"#, ids.join(","))
}

fn decode(text: String) -> Box<dyn FnMut()> {
    Box::new(move || {
        black_box(Incoming::parse(black_box(&text)).is_ok());
    })
}

fn entry(number: u64) -> Entry<Vec<u8>> {
    Entry { id: id(number), fields: vec![(b"data".to_vec(), PAYLOAD.as_bytes().to_vec())] }
}

fn encode_frame(count: u64) -> Box<dyn FnMut()> {
    let entries: Vec<_> = (1..=count).map(entry).collect();
    Box::new(move || {
        let mut frame = MessagesFrame::new(256 * 1_024);
        for entry in &entries {
            black_box(frame.push(|text| entry.encode_into(1, text)));
        }
        black_box(frame.finish());
    })
}

fn encode_escapes() -> Box<dyn FnMut()> {
    let text = "She said \"no\".\n\tThen: \u{1} — naïve. ".repeat(8);
    let entry = Entry { id: id(1), fields: vec![(b"data".to_vec(), text.into_bytes())] };
    Box::new(move || {
        black_box(entry.encode(1));
    })
}

fn bulk(bytes: &[u8], into: &mut Vec<u8>) {
    into.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
    into.extend_from_slice(bytes);
    into.extend_from_slice(b"\r\n");
}

/// The reply of `XREADGROUP` over one stream, as it comes over the wire.
fn read_reply(count: u64) -> Vec<u8> {
    let mut reply = b"*1\r\n*2\r\n".to_vec();
    bulk(b"homing:{alice}:inbox", &mut reply);
    reply.extend_from_slice(format!("*{count}\r\n").as_bytes());
    for number in 1..=count {
        reply.extend_from_slice(b"*2\r\n");
        bulk(id(number).to_string().as_bytes(), &mut reply);
        reply.extend_from_slice(b"*2\r\n");
        bulk(b"data", &mut reply);
        bulk(PAYLOAD.as_bytes(), &mut reply);
    }
    reply
}

fn parse_read(count: u64) -> Box<dyn FnMut()> {
    let reply = read_reply(count);
    Box::new(move || {
        let replies = Replies::scanned(black_box(&reply)).expect("the reply is well-formed");
        black_box(replies.reader().next_group_reads().expect("it is a group read"));
    })
}

fn session_config() -> SessionConfig {
    SessionConfig {
        window: 64,
        in_flight_bytes_max: 1_024 * 1_024,
        ack_timeout_ms: 30_000,
        ack_timeout_max_ms: 300_000,
        heartbeat_ms: 25_000,
        sweep_ms: 60_000,
        touch_ms: 86_400_000,
        payload_bytes_max: 64 * 1_024,
        frame_bytes_max: 256 * 1_024,
        // Time stands still here, so no number of frames may be too many.
        frames_per_second: u32::MAX / 2,
        frames_burst: u32::MAX / 2,
        topics: false,
        cursor_flush_ms: 1_000,
    }
}

/// A live session with nothing pending.
fn live(now: Now, confirm: bool) -> Session {
    let text = format!(r#"{{"type":"connect","device":"web-1","confirm":{confirm}}}"#);
    let Ok(Incoming { frame: ClientFrame::Connect(connect), .. }) = Incoming::parse(&text) else {
        panic!("the frame is a connect frame");
    };
    let name = |text| Name::parse(text).expect("a valid name");
    let (user, device) = (name("alice"), name("web-1"));
    let (terms, topics) = (Terms::until(u64::MAX), TopicPatterns::default());
    let open = Open { user, device, connect: *connect, terms, primary: 1, topics };
    let mut session = Session::new(now, Arc::new(session_config()), open);
    session.handle_subscribed();
    let mut driver = Driver::default();
    driver.turn(&mut session, now, &[]);
    driver.turn(&mut session, now, &[]);
    driver.turn(&mut session, now, &[]);
    assert!(session.is_live());
    session
}

/// Answers a session's commands as an obliging Redis would.
#[derive(Default)]
struct Driver {
    commands: Vec<Command>,
    actions: Vec<Action>,
    acked: u32,
}

impl Driver {
    fn turn(&mut self, session: &mut Session, now: Now, entries: &[Entry<Vec<u8>>]) {
        let mut commands = std::mem::take(&mut self.commands);
        session.poll_commands(now, false, &mut commands);
        for command in commands.drain(..) {
            let reply = match &command {
                Command::Attach(_) => Reply::Attached(Box::new(Ok(Attachment {
                    generation: 1,
                    created: false,
                    incarnation: 1,
                    pending: Some(0),
                    last_delivered: EntryId::MIN,
                    start: EntryId::MIN,
                    gap: None,
                    length: 0,
                    ..Attachment::default()
                }))),
                Command::ReadPending { .. } => Reply::PendingRead(Vec::new()),
                Command::ReadNew { .. } => Reply::NewRead(entries.to_vec()),
                Command::Ack(batch) => {
                    self.acked += batch.own.len() as u32;
                    Reply::Acked {
                        own: batch.own.len() as u32,
                        removed: Vec::new(),
                        withheld: Vec::new(),
                        generation: Some(1),
                    }
                }
                other => panic!("no {other:?} is due"),
            };
            session.handle_reply(now, command, reply, &mut self.actions);
        }
        self.commands = commands;
        black_box(&self.actions);
        self.actions.clear();
    }
}

/// Wake-up, read, delivery, the client's ack, and Redis's reply to it.
fn session(count: u64, confirm: bool) -> Box<dyn FnMut()> {
    let now = Now { mono_ms: 1, unix_ms: BEGIN_MS };
    let entries: Vec<_> = (1..=count).map(entry).collect();
    let ack = ack(count);
    let mut session = live(now, confirm);
    let mut driver = Driver::default();
    Box::new(move || {
        session.handle_wake();
        driver.turn(&mut session, now, &entries);
        assert_eq!(session.in_flight(), entries.len());
        session.handle_frame(now, Incoming::parse(&ack), &mut driver.actions);
        driver.turn(&mut session, now, &[]);
        assert_eq!(std::mem::take(&mut driver.acked), entries.len() as u32);
    })
}
