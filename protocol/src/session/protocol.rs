//! What clients say, how often they may, and how long they may be silent.

use super::open::{SessionConfig, Terms};
use super::wire::{Action, Now};
use super::{Forget, Session};
use crate::close::CloseCode;
use crate::code::ErrorCode;
use crate::frame::{ClientFrame, FrameError, Incoming, ServerFrame};

impl Session {
    /// The client sent something that was a frame, or was none.
    pub fn handle_frame(&mut self, now: Now, incoming: Result<Incoming, FrameError>, actions: &mut Vec<Action>) {
        let ids = match &incoming {
            Ok(Incoming { frame: ClientFrame::Ack(ids), .. }) => ids.len(),
            Ok(Incoming { frame: ClientFrame::Nack { ids, .. }, .. }) => ids.len(),
            Ok(Incoming { frame: ClientFrame::Follow { topics, .. }, .. }) => topics.len(),
            _ => 0,
        };
        if self.is_ended() || !self.hear(now, 1 + (ids / IDS_PER_FRAME_COUNTED) as u32, actions) {
            return;
        }
        let Incoming { reference, frame } = match incoming {
            Ok(incoming) => incoming,
            Err(error) => return self.handle_bad_frame(now, error, actions),
        };
        match frame {
            ClientFrame::Ack(ids) => self.handle_ack(now, ids, reference, actions),
            ClientFrame::Nack { ids, delay_ms } => self.handle_nack(now, &ids, delay_ms),
            ClientFrame::Follow { topics, follow } => self.handle_follow(now, topics, follow, reference, actions),
            ClientFrame::Ping => self.send(now, &ServerFrame::Pong, reference.as_deref(), actions),
            ClientFrame::Pong => {}
            ClientFrame::Forget => {
                if self.forget == Forget::No {
                    self.forget = Forget::Needed;
                }
            }
            ClientFrame::Unknown => {
                self.complain(
                    now,
                    ErrorCode::UnknownType,
                    "this server does not know this frame type",
                    reference,
                    actions,
                );
            }
            // The driver checks tokens and reports by `handle_renewal`.
            ClientFrame::Connect(_) | ClientFrame::Auth(_) => {
                let message = "this connection has had its connect frame";
                self.refuse(ErrorCode::UnexpectedFrame, message, None, CloseCode::Protocol, actions);
            }
        }
    }

    /// The client sent an `auth` frame, which the driver has checked.
    ///
    /// `outcome` is what the token says, or why it was refused; the old token then stays in force.
    pub fn handle_renewal(
        &mut self,
        now: Now,
        outcome: Result<Terms, (ErrorCode, String)>,
        reference: Option<Box<str>>,
        actions: &mut Vec<Action>,
    ) {
        if self.is_ended() || !self.hear(now, 1, actions) {
            return;
        }
        match outcome.and_then(|terms| self.accept_terms(terms)) {
            Ok(expires_at_ms) => {
                self.send(now, &ServerFrame::Authed { expires_at_ms }, reference.as_deref(), actions);
            }
            Err((code, message)) => self.complain(now, code, &message, reference, actions),
        }
    }

    /// Something came that needs no answer (a WebSocket ping or pong).
    pub fn handle_sign_of_life(&mut self, now: Now, actions: &mut Vec<Action>) {
        if !self.is_ended() {
            self.hear(now, 1, actions);
        }
    }

    fn handle_bad_frame(&mut self, now: Now, error: FrameError, actions: &mut Vec<Action>) {
        if error.code == ErrorCode::Malformed {
            actions.push(Action::Refused(error.code));
            return self.refuse(error.code, &error.message, None, CloseCode::Protocol, actions);
        }
        self.complain(now, error.code, &error.message, error.reference, actions);
    }

    pub(super) fn complain(
        &mut self,
        now: Now,
        code: ErrorCode,
        message: &str,
        reference: Option<Box<str>>,
        actions: &mut Vec<Action>,
    ) {
        actions.push(Action::Refused(code));
        let error = ServerFrame::Error { code, message: message.to_owned(), retry_after_ms: None };
        self.send(now, &error, reference.as_deref(), actions);
    }

    /// Notes a sign of life that counts as so many frames; false if the client sends too much, which ends the session.
    fn hear(&mut self, now: Now, frames: u32, actions: &mut Vec<Action>) -> bool {
        self.heartbeat.heard(now);
        if self.rate.take(now, frames) {
            return true;
        }
        actions.push(Action::Refused(ErrorCode::RateLimited));
        let message = format!(
            "more than {} frames per second (frames_per_second, burst {}); put several ids into one ack",
            self.config.frames_per_second, self.config.frames_burst
        );
        self.refuse(ErrorCode::RateLimited, &message, Some(RATE_RETRY_AFTER_MS), CloseCode::RateLimited, actions);
        false
    }
}

/// An `ack` or `nack` counts as one frame more for each so many ids, because each id costs this node and Redis a look.
const IDS_PER_FRAME_COUNTED: usize = 256;
/// What a client is told to wait that sent too much.
const RATE_RETRY_AFTER_MS: u64 = 5_000;

/// A token bucket in thousandths of frames.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RateLimit {
    millitokens: u32,
    millitokens_max: u32,
    /// Also thousandths per millisecond.
    per_second: u32,
    filled_at_ms: u64,
}

impl RateLimit {
    pub(super) fn new(now: Now, config: &SessionConfig) -> Self {
        let millitokens_max = config.frames_burst.saturating_mul(1_000);
        Self {
            millitokens: millitokens_max,
            millitokens_max,
            per_second: config.frames_per_second,
            filled_at_ms: now.mono_ms,
        }
    }

    fn take(&mut self, now: Now, frames: u32) -> bool {
        let passed_ms = now.mono_ms.saturating_sub(self.filled_at_ms);
        self.filled_at_ms = now.mono_ms;
        let gained = passed_ms.saturating_mul(u64::from(self.per_second)).min(u64::from(self.millitokens_max)) as u32;
        self.millitokens = self.millitokens.saturating_add(gained).min(self.millitokens_max);
        // However small the burst, it holds one frame of any kind.
        match self.millitokens.checked_sub(frames.saturating_mul(1_000).min(self.millitokens_max)) {
            Some(left) => {
                self.millitokens = left;
                true
            }
            None => false,
        }
    }
}

/// When either side was last heard.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Heartbeat {
    interval_ms: u32,
    heard_ms: u64,
    sent_ms: u64,
    /// A ping was sent since the client was last heard.
    pinged: bool,
}

pub(super) enum Pulse {
    Fine,
    Ping,
    Dead,
}

impl Heartbeat {
    pub(super) fn new(now: Now, interval_ms: u32) -> Self {
        Self { interval_ms, heard_ms: now.mono_ms, sent_ms: now.mono_ms, pinged: false }
    }

    pub(super) fn sent(&mut self, now: Now) {
        self.sent_ms = now.mono_ms;
    }

    fn heard(&mut self, now: Now) {
        self.heard_ms = now.mono_ms;
        self.pinged = false;
    }

    /// When something must be done: a ping after an interval in which nothing was sent, or nothing was heard (a
    /// client that only listens to a steady stream must get its chance to answer), the end after two.
    pub(super) fn due_ms(&self) -> u64 {
        let interval_ms = u64::from(self.interval_ms);
        let dead_ms = self.heard_ms + 2 * interval_ms;
        if self.pinged { dead_ms } else { dead_ms.min(self.heard_ms.min(self.sent_ms) + interval_ms) }
    }

    pub(super) fn check(&mut self, now: Now) -> Pulse {
        let interval_ms = u64::from(self.interval_ms);
        if now.mono_ms >= self.heard_ms + 2 * interval_ms {
            return Pulse::Dead;
        }
        if !self.pinged && now.mono_ms >= self.heard_ms.min(self.sent_ms) + interval_ms {
            self.pinged = true;
            return Pulse::Ping;
        }
        Pulse::Fine
    }
}
