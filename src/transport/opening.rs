//! The beginning of a connection: which of two ways it goes.
//!
//! A WebSocket connection is taken over right here, on the raw socket: it then costs a third of the memory of one that
//! went through an HTTP server first. Everything else goes to the HTTP server, with what was read so far.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use homing_protocol::code::ErrorCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::handshake::{Head, Refused};

/// The head of a WebSocket request that is taken over.
const WEBSOCKET_START: &[u8] = b"GET /v1/ws";
/// Largest head of a WebSocket request; a token in its header is at most 8 KiB.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Headers of a WebSocket request.
const HEADERS_MAX: usize = 64;
const READ_BYTES: usize = 1_024;

/// What a connection turned out to be.
pub(super) enum Opening {
    /// A WebSocket request, and the bytes after its head.
    WebSocket(Head, Bytes),
    /// Anything else, with the bytes read so far.
    Http(Bytes),
}

/// Why a connection got nowhere.
pub(crate) enum OpeningError {
    /// It broke, or the client went away.
    Io,
    /// To be answered.
    Refused(Refused),
}

impl From<io::Error> for OpeningError {
    fn from(_: io::Error) -> Self {
        Self::Io
    }
}

/// Reads until it is clear what the connection is for.
pub(super) async fn read(stream: &mut TcpStream, header_timeout: Duration) -> Result<Opening, OpeningError> {
    match timeout(header_timeout, read_head(stream)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(OpeningError::Refused(Refused {
            status: 408,
            code: ErrorCode::ConnectTimeout,
            detail: "the request's head did not come within header_timeout",
        })),
    }
}

async fn read_head(stream: &mut TcpStream) -> Result<Opening, OpeningError> {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(OpeningError::Io);
        }
        let compared = buffer.len().min(WEBSOCKET_START.len());
        if buffer[..compared] != WEBSOCKET_START[..compared] {
            return Ok(Opening::Http(buffer.freeze()));
        }
        match buffer.get(WEBSOCKET_START.len()) {
            None => continue,
            Some(b' ' | b'?') => {}
            Some(_) => return Ok(Opening::Http(buffer.freeze())),
        }
        if let Some((head, length)) = parse(&buffer)? {
            let rest = buffer.split_off(length).freeze();
            return Ok(Opening::WebSocket(head, rest));
        }
        if buffer.len() >= HEAD_BYTES_MAX {
            return Err(OpeningError::Refused(Refused {
                status: 431,
                code: ErrorCode::TooBig,
                detail: "the head of a WebSocket request has at most 16 KiB",
            }));
        }
        buffer.reserve(READ_BYTES);
    }
}

/// The head and its length, once it is complete.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, OpeningError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete(length)) => {
            let mut head = Head::new(request.method.unwrap_or_default(), request.version == Some(1));
            for header in request.headers.iter() {
                head.header(header.name, header.value);
            }
            Ok(Some((head, length)))
        }
        Err(_) => Err(OpeningError::Refused(Refused {
            status: 400,
            code: ErrorCode::Malformed,
            detail: "this is no HTTP/1.1 request, or has more than 64 headers",
        })),
    }
}

/// Answers and closes. The client's fault: whether it reads the answer is its business.
pub(super) async fn answer(stream: &mut TcpStream, refused: Refused, write_timeout: Duration) {
    let response = refused.response();
    let _ = timeout(write_timeout, async {
        stream.write_all(response.as_bytes()).await?;
        stream.shutdown().await
    })
    .await;
}
