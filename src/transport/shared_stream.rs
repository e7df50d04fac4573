//! A WebSocket's socket, whose way out the connection's task and its shard share.
//!
//! The shard writes frames by itself while the socket takes them at once: to wake up the task for each would cost more
//! than the write. Whatever the socket does not take, and all that is no ordinary frame, is the task's. Invariant: no
//! frame begins before the one before it was written to its end, whoever wrote it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::delivery::outlet::{Frame, Writer, Written};

/// First byte of a text frame that is a whole message, and the marks of longer lengths (RFC 6455, section 5.2).
const WHOLE_TEXT: u8 = 0x81;
const LENGTH_IN_2_BYTES: u8 = 126;
const LENGTH_IN_8_BYTES: u8 = 127;

/// The way out of one connection; nothing goes once it was cut.
#[derive(Debug)]
pub(super) struct SharedWriter(Mutex<Option<Half>>);

#[derive(Debug)]
struct Half {
    socket: OwnedWriteHalf,
    /// What is left of frames that the shard began.
    rest: Vec<u8>,
    /// Whether the task has bytes that the socket did not take yet.
    is_held: bool,
    /// Whether a close frame is due, after which there must be no other.
    is_closing: bool,
}

impl SharedWriter {
    // A panic while the lock is held cannot leave the state half changed: no code in between can panic.
    fn half(&self) -> MutexGuard<'_, Option<Half>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the socket go, whoever still holds its writer.
    fn cut(&self) {
        if let Some(half) = self.half().take() {
            half.socket.forget();
        }
    }
}

impl Writer for SharedWriter {
    fn write(&self, frames: &[Frame], scratch: &mut Vec<u8>) -> Written {
        let mut half = self.half();
        let Some(half) = half.as_mut().filter(|half| half.is_free()) else { return Written::Nothing };
        scratch.clear();
        frames.iter().for_each(|frame| encode(frame.as_bytes(), scratch));
        match half.socket.try_write(scratch) {
            Ok(count) if count == scratch.len() => Written::All,
            Ok(count) if count > 0 => {
                half.rest = scratch[count..].to_vec();
                Written::Part
            }
            // If the connection is broken, the task will see that, too.
            Ok(_) | Err(_) => Written::Nothing,
        }
    }
}

fn encode(text: &[u8], into: &mut Vec<u8>) {
    into.push(WHOLE_TEXT);
    match text.len() {
        length @ 0..126 => into.push(length as u8),
        length @ 126..=0xFFFF => {
            into.push(LENGTH_IN_2_BYTES);
            into.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            into.push(LENGTH_IN_8_BYTES);
            into.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    into.extend_from_slice(text);
}

impl Half {
    fn is_free(&self) -> bool {
        !self.is_held && !self.is_closing && self.rest.is_empty()
    }

    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.rest.is_empty() {
            let count = ready!(Pin::new(&mut self.socket).poll_write(context, &self.rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.rest.drain(..count);
        }
        self.rest = Vec::new();
        Poll::Ready(Ok(()))
    }
}

/// The task's end of a connection. Dropping it ends the connection.
#[derive(Debug)]
pub(super) struct SharedStream {
    reader: OwnedReadHalf,
    writer: Arc<SharedWriter>,
}

impl SharedStream {
    pub(super) fn new(stream: TcpStream) -> (Self, Arc<SharedWriter>) {
        let (reader, socket) = stream.into_split();
        let writer = Arc::new(SharedWriter(Mutex::new(Some(Half {
            socket,
            rest: Vec::new(),
            is_held: false,
            is_closing: false,
        }))));
        (Self { reader, writer: writer.clone() }, writer)
    }

    /// Takes nothing of the shard's any more: a close frame is due.
    pub(super) fn begin_close(&self) {
        if let Some(half) = self.writer.half().as_mut() {
            half.is_closing = true;
        }
    }

    fn poll_half<T>(&self, work: impl FnOnce(&mut Half) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match self.writer.half().as_mut() {
            Some(half) => work(half),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }
}

impl Drop for SharedStream {
    fn drop(&mut self) {
        self.writer.cut();
    }
}

impl AsyncRead for SharedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(context, buffer)
    }
}

impl AsyncWrite for SharedStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_half(|half| {
            half.is_held = true;
            ready!(half.poll_rest(context))?;
            let count = ready!(Pin::new(&mut half.socket).poll_write(context, bytes))?;
            half.is_held = count < bytes.len();
            Poll::Ready(Ok(count))
        })
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_half(|half| half.poll_rest(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_half(|half| {
            ready!(half.poll_rest(context))?;
            Pin::new(&mut half.socket).poll_shutdown(context)
        })
    }
}

#[cfg(test)]
#[path = "shared_stream_tests.rs"]
mod tests;
