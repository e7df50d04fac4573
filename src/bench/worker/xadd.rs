//! A producer that appends to inboxes by XADD, pipelined, as any program that can reach Redis may.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::Write as _;
use std::time::Duration;

use homing_protocol::name::Name;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;

use super::fleet::Fleet;
use super::orders::Fatal;
use super::schedule::Schedule;
use crate::bench::clock::{Pacer, now_us};
use crate::store::{Key, KeySpace};

/// Commands that are written at once at most.
const BATCH_MAX: usize = 512;
/// Tries to connect, one after the other, before a producer gives up.
const TRIES_MAX: u32 = 10;
/// Pause between two of them.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Commands that may wait for their replies: more would only fill buffers.
const UNANSWERED_MAX: usize = 16_384;

type Reader = Box<dyn AsyncRead + Unpin>;
type Writer = Box<dyn AsyncWrite + Unpin>;

/// Publishes until the schedule ends and everything is answered. A connection that fails is made again, and counted;
/// what was on its way then may have been appended or not.
pub(crate) async fn produce(fleet: &Fleet, mut schedule: Schedule, url: &str, prefix: &str) -> Result<(), Fatal> {
    let info = url.into_connection_info().map_err(|error| Fatal::Broken(format!("Redis: {error}")))?;
    let mut tries = 1;
    loop {
        let lane = Lane {
            fleet,
            keys: KeySpace::new(prefix, info.redis_settings().db()),
            unanswered: RefCell::default(),
            answered: Notify::new(),
        };
        let error = match connect(&info).await {
            Ok((reader, writer, replies)) => {
                tries = 1;
                match lane.run(&mut schedule, reader, writer, replies).await {
                    Ok(()) => return Ok(()),
                    Err(error) => unreachable(&info)(error),
                }
            }
            Err(error) => error,
        };
        let Fatal::Unreachable(reason) = error else { return Err(error) };
        lane.unanswered.take().into_iter().for_each(|user| fleet.answered(user, Some(&reason)));
        if tries >= TRIES_MAX {
            return Err(Fatal::Unreachable(reason));
        }
        tries += 1;
        fleet.tally.borrow_mut().retry(&reason);
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

fn unreachable(info: &ConnectionInfo) -> impl Fn(std::io::Error) -> Fatal {
    move |error| Fatal::Unreachable(format!("Redis at {}: {error}", info.addr()))
}

/// A connection, as whom and to which database the URL says.
async fn connect(info: &ConnectionInfo) -> Result<(Reader, Writer, Replies), Fatal> {
    let unreachable = unreachable(info);
    let (mut reader, mut writer): (Reader, Writer) = match info.addr() {
        ConnectionAddr::Tcp(host, port) => {
            let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(&unreachable)?;
            stream.set_nodelay(true).map_err(&unreachable)?;
            let (reader, writer) = stream.into_split();
            (Box::new(reader), Box::new(writer))
        }
        ConnectionAddr::Unix(path) => {
            let (reader, writer) = UnixStream::connect(path).await.map_err(&unreachable)?.into_split();
            (Box::new(reader), Box::new(writer))
        }
        _ => return Err(Fatal::Broken("XADD by TLS is not supported; publish by HTTP".to_owned())),
    };
    let settings = info.redis_settings();
    let mut hello = Vec::new();
    let password = settings.password().unwrap_or_default().as_bytes();
    match (settings.username(), settings.password()) {
        (Some(user), Some(_)) => push_command(&mut hello, &[b"AUTH", user.as_bytes(), password]),
        (None, Some(_)) => push_command(&mut hello, &[b"AUTH", password]),
        (_, None) => push_command(&mut hello, &[b"PING"]),
    }
    push_command(&mut hello, &[b"SELECT", settings.db().to_string().as_bytes()]);
    writer.write_all(&hello).await.map_err(&unreachable)?;
    let mut replies = Replies::default();
    for _ in 0..2 {
        if let Some(error) = replies.next(&mut reader).await.map_err(&unreachable)? {
            return Err(Fatal::Refused(format!("Redis says: {error}")));
        }
    }
    Ok((reader, writer, replies))
}

struct Lane<'a> {
    fleet: &'a Fleet,
    keys: KeySpace,
    /// Users of the commands that have no reply yet, in order.
    unanswered: RefCell<VecDeque<u32>>,
    answered: Notify,
}

impl Lane<'_> {
    /// Writes what is due and takes the replies; an error of the connection ends it.
    async fn run(
        &self,
        schedule: &mut Schedule,
        mut reader: Reader,
        mut writer: Writer,
        mut replies: Replies,
    ) -> std::io::Result<()> {
        let reading = async {
            loop {
                match replies.next(&mut reader).await {
                    Ok(error) => self.take_reply(error.as_deref()),
                    Err(error) => return error,
                }
            }
        };
        // The reading is dropped when every reply was taken.
        tokio::select! {
            outcome = self.write(schedule, &mut writer) => outcome,
            error = reading => Err(error),
        }
    }

    fn take_reply(&self, error: Option<&str>) {
        let user = self.unanswered.borrow_mut().pop_front();
        if let Some(user) = user {
            self.fleet.answered(user, error);
        }
        self.answered.notify_one();
    }

    async fn write(&self, schedule: &mut Schedule, writer: &mut Writer) -> std::io::Result<()> {
        let pacer = Pacer::new()?;
        let mut output = Vec::new();
        let mut payload = Vec::new();
        while let Some(due_us) = schedule.due_us(now_us()) {
            let room = match schedule.in_flight_max() {
                None => BATCH_MAX,
                Some(max) => usize::try_from(max.saturating_sub(self.fleet.in_flight())).unwrap_or(BATCH_MAX),
            };
            if room == 0 {
                self.fleet.movement().await;
                continue;
            }
            if self.unanswered.borrow().len() >= UNANSWERED_MAX {
                self.answered.notified().await;
                continue;
            }
            pacer.until(schedule.write_us(due_us)).await?;
            output.clear();
            let now_us = now_us();
            for _ in 0..room.min(BATCH_MAX) {
                let Some(due_us) = schedule.due_us(now_us).filter(|due_us| *due_us <= now_us) else { break };
                let user = schedule.take();
                payload.clear();
                self.fleet.payloads.push(&mut payload, self.fleet.send(user, due_us));
                // Names of users are made by the plan, and are names.
                let Ok(name) = Name::parse(&self.fleet.user(user)) else { continue };
                let key = self.keys.name(Key::Inbox(&name));
                push_command(&mut output, &[b"XADD", key.as_bytes(), b"*", b"data", &payload]);
                self.unanswered.borrow_mut().push_back(user);
            }
            writer.write_all(&output).await?;
        }
        while !self.unanswered.borrow().is_empty() {
            self.answered.notified().await;
        }
        Ok(())
    }
}

/// Appends a command in Redis's protocol.
fn push_command(output: &mut Vec<u8>, words: &[&[u8]]) {
    // Writing to a Vec cannot fail.
    let _ = write!(output, "*{}\r\n", words.len());
    for word in words {
        let _ = write!(output, "${}\r\n", word.len());
        output.extend_from_slice(word);
        output.extend_from_slice(b"\r\n");
    }
}

/// Replies that are a line or a bulk string.
#[derive(Default)]
struct Replies {
    buffer: Vec<u8>,
    used: usize,
}

impl Replies {
    /// Waits for the next; gives its error, if it is one. Cancel-safe: what was read is kept.
    async fn next(&mut self, reader: &mut Reader) -> std::io::Result<Option<String>> {
        loop {
            if let Some((error, length)) = parse_reply(&self.buffer[self.used..]) {
                self.used += length;
                return Ok(error);
            }
            self.buffer.drain(..self.used);
            self.used = 0;
            if reader.read_buf(&mut self.buffer).await? == 0 {
                return Err(std::io::Error::other("closed the connection"));
            }
        }
    }
}

/// A reply's error, if it is one, and its length; `None` if it is not complete.
fn parse_reply(bytes: &[u8]) -> Option<(Option<String>, usize)> {
    let end = bytes.windows(2).position(|window| window == b"\r\n")?;
    let line = std::str::from_utf8(&bytes[1..end]).unwrap_or_default();
    match bytes[0] {
        b'$' => {
            let length = end + 2 + line.parse::<usize>().unwrap_or(0) + 2;
            (bytes.len() >= length).then_some((None, length))
        }
        b'-' => Some((Some(line.to_owned()), end + 2)),
        _ => Some((None, end + 2)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::worker::orders::{Pace, Plan, Producer, Publishing, Tokens};
    use crate::store::test_server::TestServer;

    #[tokio::test]
    async fn a_connection_that_is_lost_is_made_again_and_counted() {
        let server = TestServer::start(&[]);
        let mut redis = server.connect().await;
        let plan = Plan {
            run: "0123456789ab".to_owned(),
            user_prefix: "bench-012345-".to_owned(),
            first_user: 0,
            users: 1,
            devices: 1,
            targets: Vec::new(),
            source: None,
            tokens: Tokens { secret: "a secret of at least so many bytes".to_owned(), kid: None, audience: None },
            confirm: false,
            producer: Producer::None,
            size: 100,
            producers: 1,
        };
        let fleet = Fleet::new(plan).await.unwrap();
        let (start_us, pace) = (now_us(), Pace::Rate(1_000.0));
        let until_us = start_us + 1_000_000;
        let order = Publishing { start_us, measured_from_us: 0, until_us, pace, gather_us: 0, count_per_user: None };
        let url = server.url();
        let cut = async {
            while redis::cmd("XLEN").arg("homing:{bench-012345-0}:inbox").query_async::<u64>(&mut redis).await.unwrap()
                < 100
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let mut kill = redis::cmd("CLIENT");
            kill.arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes");
            assert_eq!(kill.query_async::<u64>(&mut redis).await.unwrap(), 1);
        };
        let (produced, ()) = tokio::join!(produce(&fleet, Schedule::new(&order, 0, 1, 1), &url, "homing"), cut);
        assert_eq!(produced, Ok(()));
        let length: u64 =
            redis::cmd("XLEN").arg("homing:{bench-012345-0}:inbox").query_async(&mut redis).await.unwrap();
        let counts = &fleet.tally.borrow().counts;
        assert_eq!((counts.retries, counts.sent), (1, 1_000), "{counts:?}");
        assert_eq!(counts.accepted + counts.refused, counts.sent, "every message has an outcome");
        assert!((counts.accepted..=counts.sent).contains(&length) && counts.accepted > 500, "{length}: {counts:?}");
    }

    #[test]
    fn replies_are_taken_apart_when_they_are_complete() {
        let bytes = b"$3\r\n1-0\r\n-OOM no\r\n+OK\r\n";
        assert_eq!(parse_reply(bytes), Some((None, 9)));
        assert_eq!(parse_reply(&bytes[..8]), None);
        assert_eq!(parse_reply(&bytes[9..]), Some((Some("OOM no".to_owned()), 9)));
        assert_eq!(parse_reply(&bytes[18..]), Some((None, 5)));
        assert_eq!(parse_reply(b""), None);
    }
}
