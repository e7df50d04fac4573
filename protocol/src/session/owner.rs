//! Ownership: attach, take-over, repair, the sweep, and what happens when commands fail.

use super::wire::{Action, AttachMode, AttachRefusal, AttachRequest, Attachment, Command, Failure, Now, Pending};
use super::{Attach, Forget, Phase, Session, Walk};
use crate::close::CloseCode;
use crate::code::ErrorCode;
use crate::frame::server::FEATURES;
use crate::frame::{Gap, GapReason, Ready, ServerFrame, StartFrom};
use crate::id::EntryId;

/// Times after an attach at which hints that were lost around it are made good; later the regular sweep does.
const EARLY_SWEEPS_MS: [u64; 4] = [1_000, 2_000, 4_000, 8_000];
/// Pause after a function was missing: time to load it.
const NOT_LOADED_PAUSE_MS: u64 = 50;
/// Of no server: the device existed before the primary epoch changed.
const NO_EPOCH: &str = "0.0";
/// Pause after Redis refused a session's commands.
const REFUSED_PAUSE_MS: u64 = 500;

impl Session {
    pub(super) fn attach_request(&self, mode: AttachMode) -> AttachRequest {
        AttachRequest {
            mode,
            generation: if mode == AttachMode::Again { self.connected } else { self.generation },
            from: match self.options.from {
                Some(StartFrom::Start) => "start",
                Some(StartFrom::End) => "end",
                None => "",
            },
            // After the first attach the device is known to have existed: it must begin at 0 if it is missing now.
            epoch: match (mode, &self.options.epoch) {
                (AttachMode::Again, _) => Box::from(NO_EPOCH),
                (_, _) if self.generation > 0 => self.epoch_text().into(),
                (_, Some(epoch)) => epoch.clone(),
                (_, None) => Box::default(),
            },
            instance: self.options.instance.clone().unwrap_or_default(),
            seq: self.options.seq,
            primary: self.epoch.0,
            issued_at_s: self.terms.issued_at_s,
            sessions: self.terms.sessions,
        }
    }

    pub(super) fn handle_attached(
        &mut self,
        now: Now,
        request: &AttachRequest,
        outcome: Result<Attachment, AttachRefusal>,
        actions: &mut Vec<Action>,
    ) {
        self.attach = Attach::Done;
        if let Ok(attachment) = &outcome {
            self.generation = attachment.generation;
            self.given = (attachment.start, attachment.last_delivered);
            self.refuse_before_s = attachment.refuse_before_s;
        }
        if self.is_ended() {
            return;
        }
        if request.primary != self.epoch.0 {
            // The primary epoch changed while this attach was under way: a refusal, too, means nothing any more.
            self.attach = Attach::Needed(self.mode_after_epoch());
            return;
        }
        let attachment = match outcome {
            Ok(attachment) => attachment,
            Err(refusal) => return self.handle_refusal(refusal, actions),
        };
        let epoch_before = std::mem::replace(&mut self.epoch, (request.primary, attachment.incarnation));
        if self.superseding > self.generation {
            actions.push(Action::Stale);
            let message = "another connection of this device took over";
            return self.refuse(ErrorCode::Superseded, message, None, CloseCode::Superseded, actions);
        }
        if let Some(dismissal) = self.dismissal_of_attach() {
            return self.dismiss(dismissal, actions);
        }
        match self.phase {
            Phase::Opening => self.begin(now, &attachment, actions),
            _ if epoch_before != self.epoch => self.start_over(),
            _ => {}
        }
        if let (Some(topics), Some(Gap { reason: GapReason::Epoch, .. })) = (&mut self.topics, &attachment.gap) {
            topics.rewound();
        }
        let gap = self.newest_gap(attachment.gap);
        self.handle_gap(gap, actions);
        self.dirty = true;
        self.walk_number = self.walk_number.wrapping_add(1);
        self.walk = Some(Walk { after: EntryId::MIN, again: false });
        self.sweeps = 0;
        self.sweep_at_ms = now.mono_ms + EARLY_SWEEPS_MS[0];
    }

    fn begin(&mut self, now: Now, attachment: &Attachment, actions: &mut Vec<Action>) {
        self.phase = Phase::Live;
        self.connected = self.generation;
        // Acks of another epoch than the client's last one could hit other messages.
        let named = self.options.epoch.take();
        self.options.only_own_acks = named.is_some_and(|named| *named != *self.epoch_text());
        if self.options.only_own_acks {
            // They came before this was known.
            self.drop_acks();
        }
        let ready = Ready {
            user: self.user.as_str().to_owned(),
            device: self.device.as_str().to_owned(),
            generation: self.generation,
            created: attachment.created,
            epoch: self.epoch_text(),
            pending: attachment.pending,
            window: self.options.window,
            heartbeat_ms: self.options.heartbeat_ms,
            ack_timeout_ms: self.config.ack_timeout_ms,
            now_ms: now.unix_ms,
            expires_at_ms: self.terms.expires_at_ms,
            features: if self.topics.is_some() { &FEATURES } else { &FEATURES[..2] },
        };
        self.send(now, &ServerFrame::Ready(Box::new(ready)), None, actions);
    }

    /// A new epoch under a live session: nothing that was said in the old one counts.
    fn start_over(&mut self) {
        self.ledger.clear();
        self.claiming = false;
        self.drop_acks();
        self.aside.clear();
        (self.gone, self.too_big) = (0, 0);
        if let Some(topics) = &mut self.topics {
            topics.start_over();
        }
        self.options.only_own_acks = true;
    }

    fn handle_refusal(&mut self, refusal: AttachRefusal, actions: &mut Vec<Action>) {
        match refusal {
            AttachRefusal::Stale | AttachRefusal::Superseded => {
                actions.push(Action::Stale);
                let message = "a newer connection of this device is attached";
                self.refuse(ErrorCode::Superseded, message, None, CloseCode::Superseded, actions);
            }
            AttachRefusal::TooMany => {
                let message = "this user has as many devices as are allowed (devices_max), all used lately; delete one";
                self.refuse(ErrorCode::TooManyDevices, message, None, CloseCode::Forbidden, actions);
            }
            AttachRefusal::Dismissed(dismissal) => self.dismiss(dismissal, actions),
            AttachRefusal::Removed { primary } if primary == Some(self.epoch.0) => self.handle_removal(actions),
            AttachRefusal::Removed { .. } => {
                // Data was lost. The node finds the new primary epoch and tells it by `handle_epoch`.
                self.attach = Attach::Suspended;
                actions.push(Action::SuspectEpoch);
            }
        }
    }

    /// Another session attached for this device with `generation`.
    pub fn handle_superseded(&mut self, generation: u64, actions: &mut Vec<Action>) {
        if self.attach != Attach::Done {
            self.superseding = self.superseding.max(generation);
        } else if generation > self.generation {
            let message = "another connection of this device took over";
            self.refuse(ErrorCode::Superseded, message, None, CloseCode::Superseded, actions);
        }
    }

    /// An earlier owner will hand out nothing more: what it had read shows in the pending list now.
    pub fn handle_released(&mut self) {
        self.restart_walk();
        self.dirty = true;
    }

    /// The device with this generation was removed.
    pub fn handle_removed(&mut self, generation: u64, actions: &mut Vec<Action>) {
        if self.forget == Forget::No && generation >= self.generation && self.generation != 0 {
            self.handle_removal(actions);
        }
    }

    fn handle_removal(&mut self, actions: &mut Vec<Action>) {
        self.forgotten = true;
        if self.forget != Forget::No {
            return self.close(CloseCode::Normal, actions);
        }
        self.refuse(ErrorCode::Removed, "this device was deleted", None, CloseCode::Removed, actions);
    }

    /// A gap was opened, or is open at the attach.
    pub fn handle_gap(&mut self, gap: Option<Gap>, actions: &mut Vec<Action>) {
        if self.phase == Phase::Opening && self.attach == Attach::InFlight && gap.is_some() {
            // The attach may have been executed already, and know nothing of it.
            self.gap_heard = gap.map(Box::new);
        } else if let Some(gap) = gap
            && self.phase == Phase::Live
        {
            actions.push(Action::GapTold(gap.reason));
            actions.push(Action::Send(ServerFrame::Gap { gap, epoch: self.epoch_text() }.encode(None)));
        }
    }

    /// What the attach says, or what was heard of since it was executed.
    fn newest_gap(&mut self, of_attach: Option<Gap>) -> Option<Gap> {
        let heard = self.gap_heard.take().map(|gap| *gap);
        heard.filter(|heard| of_attach.as_ref().is_none_or(|gap| heard.count > gap.count)).or(of_attach)
    }

    /// The primary epoch changed: attach again, whatever the generation; buffered acks mean nothing any more.
    pub fn handle_epoch(&mut self, primary: u64) {
        if primary == self.epoch.0 {
            return;
        }
        // Also those of a session that is ending, or would end before it has attached again.
        self.drop_acks();
        if let Some(topics) = &mut self.topics {
            topics.start_over();
            topics.rewound();
        }
        // No incarnation is 0, so that the attach sees a changed epoch and starts over.
        self.epoch = (primary, 0);
        if !self.is_ended() && self.attach != Attach::InFlight {
            self.attach = Attach::Needed(self.mode_after_epoch());
        }
    }

    /// How to attach in a new primary epoch. A repair would find no record and take the device for removed.
    fn mode_after_epoch(&self) -> AttachMode {
        if self.generation > 0 { AttachMode::Again } else { AttachMode::Connect }
    }

    /// Wake-ups or control messages may have been lost, or a connection of this node to Redis was: compare the
    /// owner, read what is new and the whole pending list.
    pub fn handle_hints_lost(&mut self, now: Now) {
        if self.is_ended() {
            return;
        }
        self.dirty = true;
        self.restart_walk();
        self.handle_topics_changed();
        self.sweep_at_ms = now.mono_ms;
        if self.attach == Attach::Suspended {
            // The primary epoch was looked at meanwhile, and `handle_epoch` would have told if it had changed.
            self.attach = Attach::Needed(AttachMode::Again);
        }
    }

    pub(super) fn poll_sweep(&mut self, now: Now, commands: &mut Vec<Command>) {
        if now.mono_ms < self.sweep_at_ms {
            return;
        }
        self.sweeps = self.sweeps.saturating_add(1);
        let pause_ms = EARLY_SWEEPS_MS
            .get(usize::from(self.sweeps))
            .map_or(self.config.sweep_ms, |next| next - EARLY_SWEEPS_MS[usize::from(self.sweeps) - 1]);
        self.sweep_at_ms = now.mono_ms + pause_ms;
        if usize::from(self.sweeps) >= EARLY_SWEEPS_MS.len() {
            // Word that the user follows other topics may have been lost.
            self.handle_topics_changed();
        }
        let expected = (self.walk.is_none() && !self.reading && !self.claiming).then(|| self.ledger.summary());
        commands.push(Command::Sweep { expected });
    }

    pub(super) fn handle_swept(
        &mut self,
        _now: Now,
        expected: Option<Pending>,
        pending: Pending,
        generation: Option<u64>,
        actions: &mut Vec<Action>,
    ) {
        if self.is_ended() || self.attach != Attach::Done || !self.check_generation(generation, actions) {
            return;
        }
        self.dirty = true;
        if expected.is_some_and(|expected| expected != pending) {
            self.restart_walk();
        }
    }

    /// The record has our generation and names no owner: this node was judged dead while it was paused. Without an
    /// owner in it, whoever takes over next would tell nobody.
    pub(super) fn claim_record(&mut self, now: Now) {
        if !self.is_ended() && self.attach == Attach::Done {
            self.touch_at_ms = now.mono_ms;
        }
    }

    pub(super) fn handle_failed(&mut self, now: Now, command: Command, failure: Failure, actions: &mut Vec<Action>) {
        if matches!(command, Command::Announce { .. } | Command::Record { .. }) {
            return self.handle_receipts_failed(now, command, failure);
        }
        let is_of_topic = command.is_of_topic();
        if failure == Failure::WrongType && !self.is_ended() && !is_of_topic {
            let message = "the inbox key of this user holds something else than a stream; an operator must remove it";
            self.refuse(ErrorCode::InboxUnusable, message, None, CloseCode::Internal, actions);
        }
        // What is refused about topics must not hold up the inbox, whose acks free memory.
        match &mut self.topics {
            Some(topics) if is_of_topic && failure != Failure::Disconnected => topics.pause(now),
            _ if is_of_topic => {}
            _ => self.pause_after(now, failure),
        }
        match command {
            Command::Attach(request) => self.handle_attach_failed(&request, failure, actions),
            Command::Announce { .. } | Command::Record { .. } => {}
            Command::Ack(batch) => self.restore_acks(*batch),
            Command::AckGap { id, reference } => self.restore_gap_ack(id, reference),
            Command::SetAside { reason, ids, gone } => {
                self.aside.extend(ids.into_iter().map(|id| (reason, id)));
                match reason {
                    GapReason::TooBig => self.too_big += gone,
                    _ => self.gone += gone,
                }
            }
            Command::Sweep { .. } => self.sweep_at_ms = now.mono_ms + REFUSED_PAUSE_MS,
            Command::Claim { ids } => self.postpone(now, &ids),
            Command::ReadPending { .. } => (self.reading, self.reading_count) = (false, 0),
            Command::ReadNew { .. } => {
                (self.reading, self.reading_count) = (false, 0);
                self.dirty = true;
            }
            Command::LoadFollows { .. } => self.handle_follows_not_loaded(),
            Command::LoadCursor { topic, .. } => self.handle_cursor_not_loaded(&topic),
            Command::WriteCursor { topic, .. } => self.handle_cursor_failed(now, &topic),
            Command::ReadTopic { topic, .. } => self.handle_topic_not_read(&topic),
            Command::RereadTopic { topic, ids } => self.handle_topic_not_reread(now, &topic, &ids),
            Command::Follow { topics, follow, reference } => {
                self.handle_follow_failed(now, (topics, follow, reference), failure, actions);
            }
            Command::Touch { .. } => self.touch_at_ms = now.mono_ms,
            Command::Forget { .. } => self.forget = Forget::Needed,
            // The record holds what is none, and waiting does not mend it: there is nothing to release.
            Command::Release { .. }
                if matches!(failure, Failure::WrongType | Failure::NoGroup | Failure::Unexpected) =>
            {
                self.phase = Phase::Done;
            }
            Command::Release { .. } => {}
        }
        if failure == Failure::NoGroup && !is_of_topic {
            self.need_repair();
        }
    }

    pub(super) fn pause_after(&mut self, now: Now, failure: Failure) {
        match failure {
            Failure::Refused | Failure::Unexpected => self.pause_until_ms = now.mono_ms + REFUSED_PAUSE_MS,
            Failure::NotLoaded => self.pause_until_ms = now.mono_ms + NOT_LOADED_PAUSE_MS,
            Failure::Disconnected | Failure::NoGroup | Failure::WrongType => {}
        }
    }

    fn handle_attach_failed(&mut self, request: &AttachRequest, failure: Failure, actions: &mut Vec<Action>) {
        let changed = request.primary != self.epoch.0;
        self.attach = Attach::Needed(if changed { self.mode_after_epoch() } else { request.mode });
        if self.is_ended() {
            // Whether it was executed is unknown; the release says whom it concerns.
            self.attach = Attach::Done;
        } else if self.phase == Phase::Opening && matches!(failure, Failure::Refused | Failure::Unexpected) {
            self.attach = Attach::Done;
            self.refuse_opening(
                ErrorCode::Unavailable,
                "Redis does not take new sessions now; reconnect later",
                actions,
            );
        }
    }
}
