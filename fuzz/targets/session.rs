//! A whole session: frames of a client, a node's events, time, and a Redis that keeps its promises or is away.

use std::collections::BTreeSet;
use std::sync::Arc;

use homing_protocol::close::CloseCode;
use homing_protocol::code::ErrorCode;
use homing_protocol::frame::{ClientFrame, Connect, FrameError, Gap, GapReason, Incoming};
use homing_protocol::id::EntryId;
use homing_protocol::name::Name;
use homing_protocol::session::{
    Action, Command, Dismissal, Failure, Now, Open, Reply, Session, SessionConfig, Terms, Urgency,
};
use homing_protocol::topic::TopicPatterns;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::cursor::Cursor;
use super::session_redis::Inbox;

/// A frame of the server, as far as any client must be able to read it.
#[derive(Deserialize)]
struct Shown<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "ref")]
    reference: Option<String>,
    ids: Option<Vec<String>>,
    #[serde(borrow)]
    messages: Option<Vec<&'a RawValue>>,
    code: Option<String>,
}

#[derive(Deserialize)]
struct ShownMessage {
    id: String,
    attempt: u32,
}

const FAILURES: [Failure; 6] = [
    Failure::Disconnected,
    Failure::Refused,
    Failure::NotLoaded,
    Failure::NoGroup,
    Failure::WrongType,
    Failure::Unexpected,
];
/// Within which an ended session must have nothing left to do, in steps of a second.
const STEPS_TO_DONE_MAX: usize = 20;

/// Every text that is sent is a frame. Also for replies that no Redis gives.
pub(super) fn check_frames(actions: &[Action]) {
    for action in actions {
        if let Action::Send(text) = action {
            read(text);
        }
    }
}

fn read(text: &str) -> Shown<'_> {
    let shown: Shown<'_> = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text:?}"));
    let kinds = ["ready", "messages", "acked", "authed", "gap", "ping", "pong", "error"];
    assert!(kinds.contains(&shown.kind.as_str()), "{text:?}");
    if let Some(code) = &shown.code {
        assert!(ErrorCode::ALL.iter().any(|known| known.as_str() == code), "{code:?} is not in the list");
    }
    shown
}

struct Run {
    session: Session,
    inbox: Inbox,
    now: Now,
    window: usize,
    frame_bytes_max: usize,
    blocked: bool,
    /// The pipeline in flight: commands and what Redis answered.
    in_flight: Vec<(Command, Reply<Vec<u8>>)>,
    primary: u64,
    is_ready: bool,
    closed: Option<CloseCode>,
    /// What the client was shown, and what it named in acks.
    shown: Vec<EntryId>,
    named: BTreeSet<String>,
    references: BTreeSet<String>,
    confirmed: BTreeSet<EntryId>,
}

/// A session from its opening to its end, and whatever the input says in between.
pub fn session(data: &[u8]) {
    let mut cursor = Cursor::new(data);
    let mut run = Run::new(&mut cursor);
    while !cursor.is_empty() {
        run.step(&mut cursor);
        assert!(run.session.in_flight() <= run.window, "the window is exceeded");
        assert!(run.closed.is_none() || run.session.is_ended(), "closed, and goes on");
    }
    run.finish();
}

impl Run {
    fn new(cursor: &mut Cursor<'_>) -> Self {
        let flags = cursor.byte();
        let config = SessionConfig {
            window: 1 + u16::from(cursor.byte() % 8),
            in_flight_bytes_max: cursor.one_of(&[1 << 20, 2_000]),
            ack_timeout_ms: 1_000,
            ack_timeout_max_ms: 8_000,
            heartbeat_ms: 25_000,
            sweep_ms: 5_000,
            touch_ms: 10_000,
            payload_bytes_max: 1_500,
            frame_bytes_max: 4_096,
            frames_per_second: 100,
            frames_burst: cursor.one_of(&[1_000_000, 100, 1]),
            topics: false,
            cursor_flush_ms: 1_000,
        };
        let connect = Connect {
            confirm: flags & 1 > 0,
            window: (flags & 2 > 0).then_some(1 + u16::from(flags >> 4)),
            max_frame_bytes: (flags & 4 > 0).then_some(1_024),
            epoch: (flags & 8 > 0).then(|| Box::from(if flags & 16 > 0 { "1.1" } else { "9.9" })),
            ..Connect::default()
        };
        let window = connect.window.unwrap_or(config.window);
        let frame_bytes_max = connect.max_frame_bytes.unwrap_or(config.frame_bytes_max);
        let now = Now { mono_ms: 1, unix_ms: 1_700_000_000_000 };
        let open = Open {
            user: Name::default_device(),
            device: Name::default_device(),
            connect,
            terms: Terms::until(now.unix_ms + 10_000_000),
            primary: 1,
            topics: TopicPatterns::default(),
        };
        Self {
            session: Session::new(now, Arc::new(config), open),
            inbox: Inbox::default(),
            now,
            window: usize::from(window),
            frame_bytes_max: frame_bytes_max as usize,
            blocked: false,
            in_flight: Vec::new(),
            primary: 1,
            is_ready: false,
            closed: None,
            shown: Vec::new(),
            named: BTreeSet::new(),
            references: BTreeSet::new(),
            confirmed: BTreeSet::new(),
        }
    }

    fn step(&mut self, cursor: &mut Cursor<'_>) {
        let mut actions = Vec::new();
        let generation = self.session.generation();
        match cursor.below(24) {
            0 | 1 => self.publish(cursor),
            2 | 3 => self.say(cursor.counted()),
            4 | 5 => self.say_of_shown(cursor, "ack"),
            6 => self.say_of_shown(cursor, "nack"),
            7..=9 => {
                self.send();
                self.reply(None);
            }
            10 => self.send(),
            11 => self.reply(None),
            12 => self.reply(Some(cursor.one_of(&FAILURES))),
            13 | 14 => self.pass(cursor.one_of(&[1, 100, 1_000, 5_000, 26_000])),
            15 => self.session.handle_wake(),
            16 => self.session.handle_subscribed(),
            17 => self.blocked = !self.blocked,
            18 => self.session.handle_released(),
            19 => self.session.handle_hints_lost(self.now),
            20 => self.inbox.delete_first(),
            21 => {
                self.primary += 1;
                self.session.handle_epoch(self.primary);
            }
            22 => {
                let gap = Gap { id: Box::from("gap-2"), reason: GapReason::Epoch, count: 1 };
                self.session.handle_gap(Some(gap), &mut actions);
            }
            _ => match cursor.below(8) {
                0 => self.session.handle_superseded(generation + u64::from(cursor.byte() % 2), &mut actions),
                // By the time, since another draw would change what every seed of the corpus means.
                1 if !self.now.mono_ms.is_multiple_of(2) => {
                    let dismissal = Dismissal::Kicked(Box::from("\"why\""));
                    self.session.handle_dismissed(generation, dismissal, &mut actions);
                }
                1 => self.session.handle_removed(generation, &mut actions),
                2 => self.session.handle_drain(1_000, &mut actions),
                3 => self.session.handle_unavailable(&mut actions),
                4 => self.session.handle_disconnected(),
                5 => self.session.handle_sign_of_life(self.now, &mut actions),
                6 => self.session.handle_renewal(
                    self.now,
                    Ok(Terms::until(self.now.unix_ms + 1_000_000)),
                    None,
                    &mut actions,
                ),
                _ => {
                    let refused = Err((ErrorCode::Unauthorized, "no".to_owned()));
                    self.session.handle_renewal(self.now, refused, None, &mut actions);
                }
            },
        }
        self.take(actions);
    }

    fn publish(&mut self, cursor: &mut Cursor<'_>) {
        let data = match cursor.below(4) {
            0 => cursor.counted().to_vec(),
            small => vec![b'x'; small * usize::from(cursor.byte())],
        };
        let mut fields = vec![(b"data".to_vec(), data)];
        match cursor.below(8) {
            6 => fields.push((b"exp".to_vec(), b"0".to_vec())),
            7 => fields.push((b"exp".to_vec(), (self.now.unix_ms + 5_000).to_string().into_bytes())),
            _ => {}
        }
        self.inbox.publish(fields);
        self.session.handle_wake();
    }

    /// The client says something, or what is nothing.
    fn say(&mut self, bytes: &[u8]) {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let incoming = Incoming::parse(text);
        let ended = self.session.is_ended();
        let mut actions = Vec::new();
        let error = incoming.as_ref().err().cloned();
        match incoming {
            Ok(Incoming { reference, frame: ClientFrame::Auth(_) }) => {
                self.references.extend(reference.iter().map(ToString::to_string));
                let outcome = Ok(Terms::until(self.now.unix_ms + 1_000_000));
                self.session.handle_renewal(self.now, outcome, reference, &mut actions);
            }
            incoming => {
                self.note(&incoming);
                self.session.handle_frame(self.now, incoming, &mut actions);
            }
        }
        if let Some(error) = error.filter(|_| !ended) {
            check_refusal(&error, &actions);
        }
        assert!(!ended || actions.is_empty(), "an ended session does not answer");
        self.take(actions);
    }

    fn note(&mut self, incoming: &Result<Incoming, FrameError>) {
        let (reference, frame) = match incoming {
            Ok(incoming) => (&incoming.reference, Some(&incoming.frame)),
            Err(error) => (&error.reference, None),
        };
        self.references.extend(reference.iter().map(ToString::to_string));
        if let Some(ClientFrame::Ack(ids)) = frame {
            self.named.extend(ids.iter().map(|id| match id {
                homing_protocol::frame::AckId::Message(id) => id.to_string(),
                homing_protocol::frame::AckId::Topic(topic, id) => format!("{topic}/{id}"),
                homing_protocol::frame::AckId::Gap(id) => id.to_string(),
            }));
        }
    }

    /// The client acks or nacks something that it was shown.
    fn say_of_shown(&mut self, cursor: &mut Cursor<'_>, kind: &str) {
        let back = cursor.below(16);
        let Some(id) = self.shown.iter().rev().nth(back) else { return };
        self.say(json!({"type": kind, "ids": [id.to_string()], "ref": "a"}).to_string().as_bytes());
    }

    fn pass(&mut self, ms: u64) {
        self.now = Now { mono_ms: self.now.mono_ms + ms, unix_ms: self.now.unix_ms + ms };
        let mut actions = Vec::new();
        self.session.handle_timeout(self.now, &mut actions);
        self.take(actions);
    }

    /// A pipeline leaves and is executed; its replies are under way.
    fn send(&mut self) {
        if !self.in_flight.is_empty() {
            return;
        }
        let urgency = self.session.urgency(self.now, self.blocked);
        let mut commands = Vec::new();
        self.session.poll_commands(self.now, self.blocked, &mut commands);
        assert!(urgency != Urgency::None || commands.is_empty(), "{commands:?} come without any urgency");
        for command in commands {
            let reply = self.inbox.execute(&command);
            self.in_flight.push((command, reply));
        }
    }

    /// The replies come, or none of them does.
    fn reply(&mut self, failure: Option<Failure>) {
        for (command, reply) in std::mem::take(&mut self.in_flight) {
            let reply = failure.map_or(reply, Reply::Failed);
            let mut actions = Vec::new();
            self.session.handle_reply(self.now, command, reply, &mut actions);
            self.take(actions);
        }
    }

    fn take(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(text) => self.show(&text),
                Action::Close(code) => {
                    assert_eq!(self.closed, None, "closed twice");
                    self.closed = Some(code);
                }
                _ => {}
            }
        }
    }

    fn show(&mut self, text: &str) {
        assert_eq!(self.closed, None, "{text:?} comes after the close");
        let shown = read(text);
        assert!(self.is_ready || !["messages", "acked", "gap"].contains(&shown.kind.as_str()), "{text:?} before ready");
        if let Some(reference) = &shown.reference {
            assert!(self.references.contains(reference), "{reference:?} is no ref of the client");
        }
        match shown.kind.as_str() {
            "ready" => assert!(!std::mem::replace(&mut self.is_ready, true), "ready twice"),
            "acked" => {
                for id in shown.ids.expect("acked has ids") {
                    assert!(self.named.contains(&id), "{id:?} was confirmed and never acked");
                    self.confirmed.extend(id.parse::<EntryId>().ok());
                }
            }
            "messages" => {
                let messages = shown.messages.expect("messages has messages");
                let fits = text.len() <= self.frame_bytes_max || messages.len() == 1;
                assert!(fits && !messages.is_empty() && messages.len() <= self.window);
                for message in messages {
                    let message: ShownMessage = serde_json::from_str(message.get()).expect("a message has an id");
                    let id: EntryId = message.id.parse().expect("an id is one");
                    assert!(message.attempt > 0 && self.inbox.published.contains(&id), "{id} was never published");
                    assert!(!self.confirmed.contains(&id), "{id} had been confirmed and comes again");
                    self.shown.push(id);
                }
            }
            _ => {}
        }
    }

    /// The client goes away: what is left must come to an end, whatever happened before.
    fn finish(mut self) {
        self.reply(None);
        self.session.handle_disconnected();
        for _ in 0..STEPS_TO_DONE_MAX {
            if self.session.is_done() {
                return;
            }
            self.pass(1_000);
            self.send();
            self.reply(None);
        }
        assert!(self.session.is_done(), "the session never comes to its end: {:?}", self.session);
    }
}

/// A bad frame is answered with its error, unless the client sends too much.
fn check_refusal(error: &FrameError, actions: &[Action]) {
    let codes: Vec<String> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Send(text) => read(text).code,
            _ => None,
        })
        .collect();
    let limited = codes == [ErrorCode::RateLimited.as_str()];
    assert!(limited || codes == [error.code.as_str()], "{error:?} was answered with {codes:?}");
    let closes = actions.iter().any(|action| matches!(action, Action::Close(_)));
    assert_eq!(closes, limited || error.code == ErrorCode::Malformed, "{error:?}");
}
