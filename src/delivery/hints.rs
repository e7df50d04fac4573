//! The connection for wake-ups and control messages.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;

use crate::store::replies::Value;
use crate::store::resp::Replies;
use crate::store::{StoreError, Wire};

/// Channels in one `SUBSCRIBE`.
const SUBSCRIBE_COUNT_MAX: usize = 1_000;
/// Messages that are taken at once before replies and timers get their turn. What is not taken waits in the socket, and
/// beyond that at Redis, which ends the connection of a node that is much too slow (`client-output-buffer-limit pubsub`).
const TAKE_MAX: usize = 1_024;

/// A subscribed connection.
pub(super) struct Hints {
    wire: Wire,
    /// Confirmations of subscriptions, or of their end, that have not come.
    changing: usize,
}

/// What came on the connection at once.
pub(super) struct Taken {
    replies: Replies<BytesMut>,
}

/// A message on a channel.
pub(super) struct Hint<'a> {
    pub(super) channel: &'a str,
    pub(super) payload: &'a [u8],
}

impl Hints {
    pub(super) fn new(wire: Wire) -> Self {
        Self { wire, changing: 0 }
    }

    /// Subscribes to channels, and unsubscribes from others.
    pub(super) fn follow(&mut self, added: impl Iterator<Item = String>, dropped: impl Iterator<Item = String>) {
        self.change("UNSUBSCRIBE", dropped.collect());
        self.change("SUBSCRIBE", added.collect());
    }

    fn change(&mut self, command: &str, channels: Vec<String>) {
        for channels in channels.chunks(SUBSCRIBE_COUNT_MAX) {
            let mut subscribe = self.wire.commands().command(1 + channels.len());
            subscribe.arg(command);
            for channel in channels {
                subscribe.arg(channel);
            }
            self.changing += channels.len();
        }
    }

    /// Whether subscriptions that were asked for are not confirmed yet.
    pub(super) fn is_changing(&self) -> bool {
        self.changing > 0
    }

    /// What comes next. Cancel-safe.
    ///
    /// # Errors
    /// The connection is lost, or Redis refuses to subscribe: wake-ups may be missed from now on.
    pub(super) async fn next(&mut self) -> Result<Taken, StoreError> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// As [`Hints::next`].
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Taken, StoreError>> {
        let lost = |error: io::Error| StoreError::OutcomeUnknown(error.to_string());
        // Both at once: Redis stops reading from one who does not take its confirmations.
        let _ = self.wire.poll_flush(context).map_err(lost)?;
        let (_, replies) = ready!(self.wire.poll_replies(context, 1, TAKE_MAX)).map_err(lost)?;
        let taken = Taken { replies };
        self.changing = self.changing.saturating_sub(taken.confirmations()?);
        Poll::Ready(Ok(taken))
    }
}

impl Taken {
    /// How many confirmations are among it.
    fn confirmations(&self) -> Result<usize, StoreError> {
        let (mut count, mut replies) = (0, self.replies.reader());
        loop {
            while replies.next_message().is_some() {}
            match replies.next() {
                Some(Value::Error(code, detail)) => return Err(StoreError::from_reply(code, detail)),
                Some(Value::Array(parts))
                    if matches!(parts.first(), Some(Value::Bulk(b"subscribe" | b"unsubscribe"))) =>
                {
                    count += 1;
                }
                Some(_) => {}
                None => return Ok(count),
            }
        }
    }

    /// The messages among it.
    pub(super) fn hints(&self) -> impl Iterator<Item = Hint<'_>> {
        let mut replies = self.replies.reader();
        std::iter::from_fn(move || {
            loop {
                if let Some((channel, payload)) = replies.next_message() {
                    let Ok(channel) = std::str::from_utf8(channel) else { continue };
                    return Some(Hint { channel, payload });
                }
                // A confirmation.
                replies.next()?;
            }
        })
    }
}

#[cfg(test)]
#[path = "hints_tests.rs"]
mod tests;
