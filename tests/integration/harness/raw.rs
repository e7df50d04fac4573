//! Bytes on a socket, for what no decent client sends.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::wait::within;

/// WebSocket opcodes (RFC 6455, 5.2).
pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;

/// A TCP connection on which a test writes and reads bytes; with [`RawSocket::upgrade`], WebSocket frames.
#[derive(Debug)]
pub(crate) struct RawSocket {
    stream: TcpStream,
    /// Read from the socket and not used yet.
    buffer: Vec<u8>,
}

/// A frame to send; the defaults are those of a well-formed client text frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) fin: bool,
    /// The three reserved bits, which mean nothing without an extension.
    pub(crate) reserved: u8,
    pub(crate) opcode: u8,
    pub(crate) masked: bool,
    pub(crate) payload: &'a [u8],
    /// A length in the header that differs from the payload's.
    pub(crate) claimed_length: Option<u64>,
}

impl<'a> Frame<'a> {
    pub(crate) fn text(payload: &'a [u8]) -> Self {
        Self { fin: true, reserved: 0, opcode: TEXT, masked: true, payload, claimed_length: None }
    }

    fn encode(self) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.fin) << 7 | self.reserved << 4 | self.opcode];
        let mask_bit = u8::from(self.masked) << 7;
        let length = self.claimed_length.unwrap_or(self.payload.len() as u64);
        match length {
            0..=125 => bytes.push(mask_bit | u8::try_from(length).expect("at most 125")),
            126..=0xFFFF => {
                bytes.push(mask_bit | 126);
                bytes.extend(u16::try_from(length).expect("at most 0xFFFF").to_be_bytes());
            }
            _ => {
                bytes.push(mask_bit | 127);
                bytes.extend(length.to_be_bytes());
            }
        }
        if self.masked {
            let mask = [0x37, 0xFA, 0x21, 0x3D];
            bytes.extend(mask);
            bytes.extend(self.payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        } else {
            bytes.extend(self.payload);
        }
        bytes
    }
}

/// The head and body of an HTTP answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Status line and headers as they came.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// A header's value, by its name in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl RawSocket {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = within("a TCP connection", TcpStream::connect(address)).await.expect("the node accepts");
        stream.set_nodelay(true).expect("a socket option of every TCP socket");
        Self { stream, buffer: Vec::new() }
    }

    /// Opens a connection and upgrades it to a WebSocket of `homing.v1`.
    pub(crate) async fn upgrade(address: SocketAddr) -> Self {
        let mut socket = Self::open(address).await;
        let request = format!(
            "GET /v1/ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: homing.v1\r\n\r\n"
        );
        socket.write(request.as_bytes()).await;
        let head = socket.read_head().await.expect("an answer to the upgrade");
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        socket
    }

    /// Writes bytes; a peer that closed meanwhile shows when it is read.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = within("the socket takes bytes", self.stream.write_all(bytes)).await;
    }

    /// Says that nothing more will be written.
    pub(crate) async fn finish_writing(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    pub(crate) async fn send(&mut self, frame: Frame<'_>) {
        self.write(&frame.encode()).await;
    }

    /// Sends a well-formed text frame.
    pub(crate) async fn send_json(&mut self, value: &Value) {
        self.send(Frame::text(value.to_string().as_bytes())).await;
    }

    /// The next frame as opcode and payload; `None` when the peer closed the connection.
    pub(crate) async fn read_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let head = self.take(2).await?;
        let length = match head[1] & 0x7F {
            126 => usize::from(u16::from_be_bytes(self.take(2).await?.try_into().expect("two bytes"))),
            127 => usize::try_from(u64::from_be_bytes(self.take(8).await?.try_into().expect("eight bytes")))
                .expect("a frame fits into memory"),
            length => usize::from(length),
        };
        assert_eq!(head[1] & 0x80, 0, "a server must not mask");
        Some((head[0] & 0x0F, self.take(length).await?))
    }

    /// The next text frame as JSON, past pings and pongs; panics if there is none.
    pub(crate) async fn read_json(&mut self) -> Value {
        loop {
            match self.read_frame().await {
                Some((TEXT, payload)) => return serde_json::from_slice(&payload).expect("a text frame holds JSON"),
                Some((PING | PONG, _)) => {}
                other => panic!("not a text frame: {other:?}"),
            }
        }
    }

    /// Reads until a close frame and gives its code; `None` if the connection ended without one.
    pub(crate) async fn read_close(&mut self) -> Option<u16> {
        loop {
            match self.read_frame().await? {
                (CLOSE, payload) if payload.len() >= 2 => return Some(u16::from_be_bytes([payload[0], payload[1]])),
                (CLOSE, _) => return None,
                _ => {}
            }
        }
    }

    /// Waits until the peer has closed its side, dropping what comes before.
    pub(crate) async fn read_end(&mut self) {
        while self.fill().await {
            self.buffer.clear();
        }
    }

    /// Reads an HTTP answer with its body (by `Content-Length`, else up to the end); `None` if the peer closed first.
    pub(crate) async fn read_answer(&mut self) -> Option<Answer> {
        let head = self.read_head().await?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let mut answer = Answer { status: status.unwrap_or_else(|| panic!("no HTTP: {head}")), head, body: Vec::new() };
        match answer.header("content-length").and_then(|length| length.parse().ok()) {
            Some(length) => answer.body = self.take(length).await.unwrap_or_default(),
            None => {
                while self.fill().await {}
                answer.body = std::mem::take(&mut self.buffer);
            }
        }
        Some(answer)
    }

    /// Reads the head of an HTTP answer; `None` if the peer closed first.
    pub(crate) async fn read_head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return Some(String::from_utf8_lossy(&head).into_owned());
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    async fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            if !self.fill().await {
                return None;
            }
        }
        Some(self.buffer.drain(..count).collect())
    }

    /// Reads some bytes; `false` at the end or a reset.
    async fn fill(&mut self) -> bool {
        let read = within("bytes or the end of a raw connection", self.stream.read_buf(&mut self.buffer)).await;
        matches!(read, Ok(1..))
    }
}

/// Sends `request` on a connection of its own and reads the answer; `None` if the server just closed.
pub(crate) async fn raw_http(address: SocketAddr, request: &[u8]) -> Option<Answer> {
    let mut socket = RawSocket::open(address).await;
    socket.write(request).await;
    socket.read_answer().await
}
