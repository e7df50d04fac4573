//! One device of a load: a socket, its handshake, its acks; it comes back when it is cut off.
//!
//! A worker holds thousands of these, so each is a small task: bytes are read into a buffer that all share, and only
//! what is left of an incomplete frame belongs to the device.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use homing_protocol::close::CloseCode;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

use super::fleet::Fleet;
use super::orders::{Fatal, Target};
use crate::bench::clock::now_us;
use crate::bench::frames::{self, Frame, Said};

/// Pause before the first new attempt; it doubles, and a random half of it is left out, as PROTOCOL.md asks of clients.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// The longest that it grows to.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Time for the connection and its handshake. Long, so that a slow answer shows as latency.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest head of an answer to the handshake.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Why a connection could not be made, or ended.
enum Trouble {
    /// Try again.
    Passing(String),
    /// That would not help.
    Fatal(Fatal),
}

impl Trouble {
    fn passing<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> Self {
        move |error| Self::Passing(format!("{what}: {error}"))
    }
}

/// Lives until its task is aborted or a retry would not help.
pub(crate) async fn live(fleet: Rc<Fleet>, index: u32) {
    let mut pause = RETRY_PAUSE;
    loop {
        // Boxed: a handshake needs room that a quiet connection should not keep.
        let trouble = match Box::pin(connect(&fleet, index)).await {
            Ok((stream, rest)) => {
                let trouble = converse(&fleet, index, stream, rest).await;
                if fleet.leave(index) {
                    pause = RETRY_PAUSE;
                }
                trouble
            }
            Err(trouble) => trouble,
        };
        match trouble {
            Trouble::Fatal(fatal) => return fleet.tally.borrow_mut().fatal(fatal),
            Trouble::Passing(what) => fleet.tally.borrow_mut().retry(&what),
        }
        tokio::time::sleep(pause.mul_f64(1.0 - 0.5 * fleet.random())).await;
        pause = (pause * 2).min(RETRY_PAUSE_MAX);
    }
}

/// Opens the socket, shakes hands, and says `connect`. Gives what came behind the handshake, too.
async fn connect(fleet: &Fleet, index: u32) -> Result<(TcpStream, Vec<u8>), Trouble> {
    let handshake = async {
        let (target, addresses) = fleet.target(index);
        let mut stream = open(fleet, addresses).await.map_err(Trouble::passing("connecting"))?;
        stream.write_all(request(target).as_bytes()).await.map_err(Trouble::passing("handshake"))?;
        let rest = read_answer(&mut stream).await?;
        let mut hello = Vec::new();
        frames::push_text(&mut hello, fleet.hello(index).map_err(Trouble::Fatal)?.as_bytes());
        stream.write_all(&hello).await.map_err(Trouble::passing("handshake"))?;
        Ok((stream, rest))
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Trouble::Passing("the handshake took too long".to_owned())),
    }
}

async fn open(fleet: &Fleet, addresses: &[SocketAddr]) -> std::io::Result<TcpStream> {
    let mut outcome = Err(std::io::Error::other("the name has no address"));
    for address in addresses {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = fleet.plan.source.filter(|source| source.is_ipv4() == address.is_ipv4()) {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        outcome = socket.connect(*address).await;
        if outcome.is_ok() {
            break;
        }
    }
    let stream = outcome?;
    stream.set_nodelay(true)?;
    // A socket that is dropped vanishes at once, and its port is free for the next attempt: a storm of thousands of
    // clients from one address would run out of ports otherwise.
    stream.set_zero_linger()?;
    Ok(stream)
}

/// The key may be any: nobody checks the answer to it here.
fn request(target: &Target) -> String {
    let Target { host, port, path, .. } = target;
    format!(
        "GET {path}/v1/ws HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: aG9taW5nIGJlbmNobWFyaw==\r\n\
         Sec-WebSocket-Protocol: homing.v1\r\n\r\n"
    )
}

/// Reads the head of the answer; gives what follows it.
async fn read_answer(stream: &mut TcpStream) -> Result<Vec<u8>, Trouble> {
    let mut answer = Vec::with_capacity(512);
    let end = loop {
        if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if answer.len() > HEAD_BYTES_MAX {
            return Err(Trouble::Passing("the answer to the handshake has no end".to_owned()));
        }
        if stream.read_buf(&mut answer).await.map_err(Trouble::passing("handshake"))? == 0 {
            return Err(Trouble::Passing("closed during the handshake".to_owned()));
        }
    };
    let line = String::from_utf8_lossy(&answer[..end]);
    let line = line.lines().next().unwrap_or_default();
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0_u16);
    match status {
        101 => Ok(answer.split_off(end)),
        429 | 500..=599 => Err(Trouble::Passing(format!("the handshake was answered with {line:?}"))),
        _ => Err(Trouble::Fatal(Fatal::Refused(format!("the WebSocket handshake was answered with {line:?}")))),
    }
}

/// What a device's connection has not written or not understood yet.
#[derive(Default)]
struct Link {
    /// The start of a frame.
    rest: Vec<u8>,
    output: Vec<u8>,
    /// Ids to be acked with the next write.
    acks: u64,
    last_error: Option<String>,
}

/// From `connect` to the end of the connection.
async fn converse(fleet: &Fleet, index: u32, mut stream: TcpStream, rest: Vec<u8>) -> Trouble {
    let mut link = Box::new(Link { rest, ..Link::default() });
    let mut ended = if link.rest.is_empty() { None } else { take(fleet, index, &mut link, &[]) };
    loop {
        if let Some(trouble) = ended {
            return trouble;
        }
        if !link.output.is_empty()
            && let Err(error) = write(&stream, &mut link.output).await
        {
            return Trouble::Passing(format!("connection lost: {error}"));
        }
        match read(fleet, &mut stream).await {
            Ok(0) => return Trouble::Passing(closed(&link, "connection closed")),
            Ok(length) => ended = take(fleet, index, &mut link, &fleet.buffer.borrow()[..length]),
            Err(error) => return Trouble::Passing(format!("connection lost: {error}")),
        }
    }
}

/// Reads into the buffer that all share; its content is there until the next await.
///
/// Not by `readable` and `try_read`: after a short read, those would ask the kernel once more whether there is nothing
/// left, for every message.
async fn read(fleet: &Fleet, stream: &mut TcpStream) -> std::io::Result<usize> {
    std::future::poll_fn(|context| {
        let mut buffer = fleet.buffer.borrow_mut();
        let mut buffer = ReadBuf::new(&mut buffer);
        let outcome = std::task::ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer));
        Poll::Ready(outcome.map(|()| buffer.filled().len()))
    })
    .await
}

fn closed(link: &Link, what: &str) -> String {
    link.last_error.as_ref().map_or_else(|| what.to_owned(), |error| format!("{what} after {error}"))
}

async fn write(stream: &TcpStream, output: &mut Vec<u8>) -> std::io::Result<()> {
    let mut written = 0;
    while written < output.len() {
        match stream.try_write(&output[written..]) {
            Ok(length) => written += length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    output.clear();
    Ok(())
}

/// Takes in what arrived; leaves what is to be written in `link.output`. Says so if the connection is at its end.
fn take(fleet: &Fleet, index: u32, link: &mut Link, arrived: &[u8]) -> Option<Trouble> {
    if link.rest.is_empty() {
        let used = take_frames(fleet, index, link, arrived);
        return used.map(|used| link.rest.extend_from_slice(&arrived[used..])).err();
    }
    let mut whole = std::mem::take(&mut link.rest);
    whole.extend_from_slice(arrived);
    let used = take_frames(fleet, index, link, &whole);
    used.map(|used| {
        whole.drain(..used);
        // Most frames arrive whole: nothing is kept for the next that does not.
        link.rest = if whole.is_empty() { Vec::new() } else { whole };
    })
    .err()
}

/// Takes all complete frames; gives how many bytes they are.
fn take_frames(fleet: &Fleet, index: u32, link: &mut Link, bytes: &[u8]) -> Result<usize, Trouble> {
    let mut used = 0;
    let now_us = now_us();
    while let Some((frame, length)) = frames::next(&bytes[used..]) {
        used += length;
        match frame {
            Frame::Text(text) => take_text(fleet, index, link, text, now_us),
            Frame::Ping(payload) => frames::push_pong(&mut link.output, payload),
            Frame::Pong => {}
            Frame::Close(code) => return Err(on_close(link, code)),
            Frame::Odd => return Err(Trouble::Passing("a frame that this client does not know".to_owned())),
        }
    }
    Ok(used)
}

fn take_text(fleet: &Fleet, index: u32, link: &mut Link, text: &[u8], now_us: u64) {
    match frames::read(text) {
        Said::Messages(messages) => {
            let mut ack = fleet.scratch.borrow_mut();
            ack.clear();
            ack.extend_from_slice(br#"{"type":"ack","ids":["#);
            let begin = ack.len();
            let acks = fleet.receive(index, messages, now_us, |id| {
                let is_first = ack.len() == begin;
                ack.extend_from_slice(if is_first { b"\"" } else { b",\"" });
                ack.extend_from_slice(id);
                ack.push(b'"');
            });
            if acks > 0 {
                ack.extend_from_slice(b"]}");
                frames::push_text(&mut link.output, &ack);
                link.acks += acks;
            }
        }
        Said::Ready => fleet.enter(index, now_us),
        Said::Ping => frames::push_text(&mut link.output, br#"{"type":"pong"}"#),
        Said::Acked(count) => fleet.tally.borrow_mut().counts.confirmed += count,
        Said::Gap(id) => {
            fleet.tally.borrow_mut().counts.gaps += 1;
            let ack = [br#"{"type":"ack","ids":[""#, id, br#""]}"#].concat();
            frames::push_text(&mut link.output, &ack);
        }
        Said::Error(text) => {
            let text = String::from_utf8_lossy(text).into_owned();
            fleet.tally.borrow_mut().trouble(&text);
            link.last_error = Some(text);
        }
        Said::Else => {}
    }
}

fn on_close(link: &Link, code: u16) -> Trouble {
    let what = closed(link, &format!("closed with {code}"));
    if CloseCode::may_reconnect(code) {
        Trouble::Passing(what)
    } else {
        Trouble::Fatal(Fatal::Refused(format!("the server {what}")))
    }
}
