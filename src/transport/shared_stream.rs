//! A WebSocket's way out, which the connection's task and its shard share.
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

use crate::delivery::outlet::{Frame, Line, Written};

/// First byte of a text frame that is a whole message, and the marks of longer lengths (RFC 6455, section 5.2).
const WHOLE_TEXT: u8 = 0x81;
const LENGTH_IN_2_BYTES: u8 = 126;
const LENGTH_IN_8_BYTES: u8 = 127;

/// The way out of one connection; nothing goes once it was cut.
#[derive(Debug)]
pub(super) struct SharedLine(Mutex<Option<Writer>>);

#[derive(Debug)]
struct Writer {
    half: OwnedWriteHalf,
    /// What is left of frames that the shard began.
    rest: Vec<u8>,
    /// Whether the task has bytes that the socket did not take yet.
    is_held: bool,
    /// Whether a close frame is due, after which there must be no other.
    is_closing: bool,
}

impl SharedLine {
    // A panic while the lock is held cannot leave the state half changed: no code in between can panic.
    fn writer(&self) -> MutexGuard<'_, Option<Writer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the socket go, whoever still holds the line.
    fn cut(&self) {
        if let Some(writer) = self.writer().take() {
            writer.half.forget();
        }
    }
}

impl Line for SharedLine {
    fn write(&self, frames: &[Frame], scratch: &mut Vec<u8>) -> Written {
        let mut writer = self.writer();
        let Some(writer) = writer.as_mut().filter(|writer| writer.is_free()) else { return Written::Nothing };
        scratch.clear();
        frames.iter().for_each(|frame| encode(frame.as_bytes(), scratch));
        match writer.half.try_write(scratch) {
            Ok(count) if count == scratch.len() => Written::All,
            Ok(count) if count > 0 => {
                writer.rest = scratch[count..].to_vec();
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

impl Writer {
    fn is_free(&self) -> bool {
        !self.is_held && !self.is_closing && self.rest.is_empty()
    }

    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.rest.is_empty() {
            let count = ready!(Pin::new(&mut self.half).poll_write(context, &self.rest))?;
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
pub(super) struct LineStream {
    reader: OwnedReadHalf,
    line: Arc<SharedLine>,
}

impl LineStream {
    pub(super) fn new(stream: TcpStream) -> (Self, Arc<SharedLine>) {
        let (reader, half) = stream.into_split();
        let line = Arc::new(SharedLine(Mutex::new(Some(Writer {
            half,
            rest: Vec::new(),
            is_held: false,
            is_closing: false,
        }))));
        (Self { reader, line: line.clone() }, line)
    }

    /// Takes nothing of the shard's any more: a close frame is due.
    pub(super) fn begin_close(&self) {
        if let Some(writer) = self.line.writer().as_mut() {
            writer.is_closing = true;
        }
    }

    fn poll_writer<T>(&self, work: impl FnOnce(&mut Writer) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match self.line.writer().as_mut() {
            Some(writer) => work(writer),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }
}

impl Drop for LineStream {
    fn drop(&mut self) {
        self.line.cut();
    }
}

impl AsyncRead for LineStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(context, buffer)
    }
}

impl AsyncWrite for LineStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_writer(|writer| {
            writer.is_held = true;
            ready!(writer.poll_rest(context))?;
            let count = ready!(Pin::new(&mut writer.half).poll_write(context, bytes))?;
            writer.is_held = count < bytes.len();
            Poll::Ready(Ok(count))
        })
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_writer(|writer| writer.poll_rest(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_writer(|writer| {
            ready!(writer.poll_rest(context))?;
            Pin::new(&mut writer.half).poll_shutdown(context)
        })
    }
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
