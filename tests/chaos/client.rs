//! One client: a task that keeps one device connected, acks what comes, and records all of it.
//!
//! It keeps the rules of the protocol - heartbeats, close codes, `retry_after_ms`, full jitter, `instance` and `seq` -
//! except where its group is told to misbehave.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};

use super::frames::{Delivery, Frame};
use super::history::{Event, Outcome};
use super::recorder::Recorder;
use super::whims::Whims;

/// Silence after which a client asks whether the node is there, and after which it leaves.
const ASK_AFTER: Duration = Duration::from_secs(5);
const LEAVE_AFTER: Duration = Duration::from_secs(10);
/// From the first packet to `ready`. A stopped node still accepts connections: the kernel does it.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// In a storm everybody waits; who gives up early only makes it longer.
const STORM_PATIENCE: Duration = Duration::from_secs(30);
/// Ceilings of the backoff. The protocol doubles up to 30 s; a lower one makes more connections, and spares the drain.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(8);
/// A connection that lasted this long resets the backoff.
const LASTING: Duration = Duration::from_secs(30);
/// Pause of a slow reader between two frames.
const SLOW_PAUSE: Duration = Duration::from_secs(2);
/// A small one makes a slow reader felt by the node.
const SLOW_RECEIVE_BUFFER: u32 = 4096;
/// With one of so many frames a mover dies before it acks.
const DIES_ONE_IN: u32 = 40;
/// How long a connection of a mover lasts.
const STAY_SECONDS: std::ops::Range<u64> = 5..60;
/// Another device connected, and no more may be connected at once.
const REPLACED: u16 = 4010;
/// How long a rival leaves the other one alone.
const TURN_MS: std::ops::Range<u64> = 500..3_000;
/// A write that takes longer means that nobody reads.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// Always well.
    Healthy,
    /// On another node every few seconds, now and then without having acked what came last.
    Mover,
    /// Reads slowly while [`Mood::slow`].
    Slow,
    /// Acks nothing while [`Mood::never_acks`].
    NeverAcks,
    /// Its device is connected twice while [`Mood::twin`].
    Twin,
    /// The second connection of a twin.
    SecondTwin,
    /// Of a user of whom one device may be connected: its users take turns.
    Rival,
    /// One of a storm.
    Storm,
}

impl Group {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Mover => "mover",
            Self::Slow => "slow",
            Self::NeverAcks => "never_acks",
            Self::Twin | Self::SecondTwin => "twin",
            Self::Rival => "rival",
            Self::Storm => "storm",
        }
    }

    fn patience(self) -> Duration {
        if self == Self::Storm { STORM_PATIENCE } else { CONNECT_PATIENCE }
    }
}

/// What the nemesis tells all clients.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mood {
    pub(crate) slow: bool,
    pub(crate) never_acks: bool,
    pub(crate) twin: bool,
    /// Nobody changes what they follow any more.
    pub(crate) settled: bool,
    /// Counts up: leave without a word and connect again.
    pub(crate) moves: u64,
    pub(crate) stop: bool,
}

/// What all clients share.
#[derive(Clone, Debug)]
pub(crate) struct Ground {
    pub(crate) recorder: Arc<Recorder>,
    /// Names and addresses of the nodes.
    pub(crate) nodes: Arc<[(String, SocketAddr)]>,
    pub(crate) mood: watch::Receiver<Mood>,
    /// Clients that have their `ready` now, rivals left out: of them nobody knows how many should.
    pub(crate) connected: Arc<AtomicUsize>,
}

/// One client.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) user: String,
    pub(crate) device: String,
    pub(crate) group: Group,
    pub(crate) token: String,
    /// Topics that it follows and leaves by itself.
    pub(crate) whims: Vec<String>,
    /// Different for every client; variety of windows and confirmations comes from it.
    pub(crate) number: u64,
    pub(crate) seed: u64,
}

/// Why a connection ended.
#[derive(Debug)]
struct Ending {
    code: Option<u16>,
    why: String,
}

impl Ending {
    fn because(why: impl ToString) -> Self {
        Self { code: None, why: why.to_string() }
    }
}

/// A connection and what was learned on it.
struct Session<'a> {
    spec: &'a Spec,
    ground: &'a Ground,
    connection: u64,
    socket: WebSocketStream<TcpStream>,
    ready: Option<Instant>,
    epoch: &'a mut Option<String>,
    retry_after: Duration,
    whims: Whims,
    rng: fastrand::Rng,
    /// The last `error` frame, for the record.
    error: String,
}

/// Keeps `spec` connected until the mood is `stop`.
pub(crate) async fn live(spec: Spec, ground: Ground) {
    let mut rng = fastrand::Rng::with_seed(spec.seed ^ spec.number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let instance = format!("{}-{}", spec.number, spec.seed);
    let mut mood = ground.mood.clone();
    let (mut epoch, mut ceiling) = (None::<String>, BACKOFF_MIN);
    for seq in 1_u64.. {
        let wanted = |mood: &Mood| mood.stop || mood.twin || spec.group != Group::SecondTwin;
        if !mood.wait_for(wanted).await.is_ok_and(|mood| !mood.stop) {
            return;
        }
        let (node, address) = &ground.nodes[rng.usize(..ground.nodes.len())];
        let connection = ground.recorder.connection();
        ground.recorder.record(Event::Connect {
            connection,
            user: spec.user.clone(),
            device: spec.device.clone(),
            node: node.clone(),
            group: spec.group.name().to_owned(),
            returns: epoch.is_some(),
        });
        let stay = Duration::from_secs(rng.u64(STAY_SECONDS));
        let (ending, ready, retry_after) = match timeout(spec.group.patience(), open(&spec, *address)).await {
            Err(_) => (Ending::because("no connection in time"), None, Duration::ZERO),
            Ok(Err(error)) => (Ending::because(error), None, Duration::ZERO),
            Ok(Ok(socket)) => {
                let mut session = Session {
                    spec: &spec,
                    ground: &ground,
                    connection,
                    socket,
                    ready: None,
                    epoch: &mut epoch,
                    retry_after: Duration::ZERO,
                    whims: Whims::new(spec.whims.clone(), rng.fork()),
                    rng: rng.fork(),
                    error: String::new(),
                };
                let ending = session.run(&instance, seq, stay).await;
                session.whims.end(&ground.recorder);
                if session.ready.is_some() && spec.group != Group::Rival {
                    ground.connected.fetch_sub(1, Ordering::Relaxed);
                }
                // Vanishes with a reset, as a phone does that leaves its cell.
                let _ = session.socket.get_ref().set_zero_linger();
                (ending, session.ready, session.retry_after)
            }
        };
        let moves_on = ending.why == MOVED && ready.is_some();
        let replaced = ending.code == Some(REPLACED);
        ground.recorder.record(Event::Closed { connection, code: ending.code, why: ending.why });
        if ready.is_some_and(|ready| ready.elapsed() > LASTING) || moves_on {
            ceiling = BACKOFF_MIN;
        }
        if !moves_on {
            let pause = if replaced {
                // By the wish of its user, who has had enough of the other device.
                Duration::from_millis(rng.u64(TURN_MS))
            } else {
                retry_after + ceiling.mul_f64(rng.f64())
            };
            ceiling = (ceiling * 2).min(BACKOFF_MAX);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = mood.wait_for(|mood| mood.stop) => return,
            }
        }
    }
}

const MOVED: &str = "moved on";

async fn open(spec: &Spec, address: SocketAddr) -> Result<WebSocketStream<TcpStream>, tungstenite::Error> {
    let socket = TcpSocket::new_v4()?;
    if spec.group == Group::Slow {
        socket.set_recv_buffer_size(SLOW_RECEIVE_BUFFER)?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    let request = format!("ws://{address}/v1/ws").into_client_request()?;
    // The default of 128 KiB would be 1.3 GB for a storm.
    let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(0);
    let (socket, _) = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await?;
    Ok(socket)
}

impl Session<'_> {
    async fn run(&mut self, instance: &str, seq: u64, stay: Duration) -> Ending {
        match self.converse(instance, seq, stay).await {
            ControlFlow::Break(mut ending) => {
                if !self.error.is_empty() {
                    ending.why = format!("{}: {}", self.error, ending.why);
                }
                ending
            }
            ControlFlow::Continue(never) => match never {},
        }
    }

    async fn converse(
        &mut self,
        instance: &str,
        seq: u64,
        stay: Duration,
    ) -> ControlFlow<Ending, std::convert::Infallible> {
        let mut mood = self.ground.mood.clone();
        let first = *mood.borrow_and_update();
        if first.stop {
            // While the connection was made: it will not be said again.
            return ControlFlow::Break(Ending::because("the run is over"));
        }
        self.send(&self.connect_frame(instance, seq)).await?;
        let begin = Instant::now();
        let (mut heard, mut asked) = (begin, false);
        loop {
            let deadline = match self.ready {
                None => begin + self.spec.group.patience(),
                Some(_) if asked => heard + LEAVE_AFTER,
                Some(_) => heard + ASK_AFTER,
            };
            let leave = match (self.spec.group, self.ready) {
                (Group::Mover, Some(ready)) => ready + stay,
                _ => begin + Duration::from_secs(7 * 24 * 3600),
            };
            let may_change = self.ready.is_some() && !mood.borrow().settled;
            let whim = self.whims.due().filter(|_| may_change);
            tokio::select! {
                // Cancel-safe: tungstenite keeps what it has of a frame.
                next = self.socket.next() => {
                    (heard, asked) = (Instant::now(), false);
                    self.take(next).await?;
                }
                changed = mood.changed() => {
                    if changed.is_err() {
                        return ControlFlow::Break(Ending::because("the run is over"));
                    }
                    self.change(first, *mood.borrow_and_update())?;
                }
                () = tokio::time::sleep_until(leave.min(deadline).min(whim.unwrap_or(leave))) => {
                    if whim.is_some_and(|whim| Instant::now() >= whim) {
                        let frame = self.whims.ask(&self.ground.recorder, self.connection, &self.spec.user);
                        self.send(&frame).await?;
                        continue;
                    }
                    if Instant::now() >= leave {
                        return ControlFlow::Break(Ending::because(MOVED));
                    }
                    if self.ready.is_none() || asked {
                        return ControlFlow::Break(Ending::because("the node is silent"));
                    }
                    asked = true;
                    self.send(r#"{"type":"ping"}"#).await?;
                }
            }
        }
    }

    fn connect_frame(&self, instance: &str, seq: u64) -> String {
        let mut frame = json!({
            "type": "connect",
            "token": self.spec.token,
            "device": self.spec.device,
            "instance": instance,
            "seq": seq,
            // Three of four want to know that their acks are recorded; some have a small window.
            "confirm": !self.spec.number.is_multiple_of(4),
            "window": if self.spec.number.is_multiple_of(7) { 4 } else { 64 },
        });
        if let Some(epoch) = &self.epoch {
            frame["epoch"] = epoch.as_str().into();
        }
        frame.to_string()
    }

    fn change(&self, first: Mood, now: Mood) -> ControlFlow<Ending> {
        let healed = self.spec.group == Group::NeverAcks && first.never_acks && !now.never_acks;
        let lonely = self.spec.group == Group::SecondTwin && !now.twin;
        if now.stop {
            return ControlFlow::Break(Ending::because("the run is over"));
        }
        // One that has acked nothing gets all of it again only on a new connection, or minutes later.
        if healed || lonely || now.moves != first.moves {
            return ControlFlow::Break(Ending::because(MOVED));
        }
        ControlFlow::Continue(())
    }

    async fn take(&mut self, next: Option<Result<Message, tungstenite::Error>>) -> ControlFlow<Ending> {
        match next {
            Some(Ok(Message::Text(text))) => self.read(text.as_str()).await,
            Some(Ok(Message::Close(Some(frame)))) => {
                ControlFlow::Break(Ending { code: Some(frame.code.into()), why: frame.reason.to_string() })
            }
            Some(Ok(Message::Close(None))) => ControlFlow::Break(Ending::because("a close frame without code")),
            Some(Ok(_)) => ControlFlow::Continue(()),
            Some(Err(error)) => ControlFlow::Break(Ending::because(error)),
            None => ControlFlow::Break(Ending::because("end of stream")),
        }
    }

    async fn read(&mut self, text: &str) -> ControlFlow<Ending> {
        let frame: Frame = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in frame: {text}"));
        let connection = self.connection;
        match frame.r#type.as_str() {
            "ready" => {
                self.ready = Some(Instant::now());
                if self.spec.group != Group::Rival {
                    self.ground.connected.fetch_add(1, Ordering::Relaxed);
                }
                *self.epoch = Some(frame.epoch.clone());
                self.ground.recorder.record(Event::Ready {
                    connection,
                    epoch: frame.epoch,
                    generation: frame.generation,
                    created: frame.created,
                });
            }
            "messages" => self.deliver(frame.messages).await?,
            "acked" => {
                let ids = without_gaps(frame.ids);
                if !ids.is_empty() {
                    self.ground.recorder.record(Event::Acked { connection, ids });
                }
            }
            "gap" => {
                *self.epoch = Some(frame.epoch.clone());
                let (id, epoch, reason) = (frame.id.clone(), frame.epoch, frame.reason);
                self.ground.recorder.record(Event::Gap { connection, id, epoch, reason, count: frame.count });
                self.send(&json!({ "type": "ack", "ids": [frame.id] }).to_string()).await?;
            }
            "ping" => self.send(r#"{"type":"pong"}"#).await?,
            "followed" | "unfollowed" => {
                let known = self.whims.answered(&self.ground.recorder, frame.r#ref.as_deref(), Outcome::Done);
                assert!(known, "nobody asked for {text}");
            }
            "error" if self.whims.answered(&self.ground.recorder, frame.r#ref.as_deref(), Outcome::Refused) => {}
            "error" => {
                self.error = frame.code;
                self.retry_after = Duration::from_millis(frame.retry_after_ms.unwrap_or(0));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    async fn deliver(&mut self, messages: Vec<Delivery>) -> ControlFlow<Ending> {
        let connection = self.connection;
        let now = self.ground.recorder.now_us();
        let mut ids = Vec::with_capacity(messages.len());
        for Delivery { id, data, attempt } in messages {
            ids.push(id.clone());
            self.ground.recorder.record(Event::Message {
                connection,
                id,
                tag: data.tag,
                to: data.to,
                attempt,
                late_us: now.saturating_sub(data.sent_us),
            });
        }
        let mood = *self.ground.mood.borrow();
        if mood.slow && self.spec.group == Group::Slow {
            tokio::time::sleep(SLOW_PAUSE).await;
        }
        if mood.never_acks && self.spec.group == Group::NeverAcks {
            return ControlFlow::Continue(());
        }
        if self.spec.group == Group::Mover && self.rng.u32(..DIES_ONE_IN) == 0 {
            return ControlFlow::Break(Ending::because(MOVED));
        }
        let frame = json!({ "type": "ack", "ids": ids }).to_string();
        self.ground.recorder.record(Event::Ack { connection, ids });
        self.send(&frame).await
    }

    async fn send(&mut self, frame: &str) -> ControlFlow<Ending> {
        match timeout(WRITE_PATIENCE, self.socket.send(Message::text(frame))).await {
            Ok(Ok(())) => ControlFlow::Continue(()),
            Ok(Err(error)) => ControlFlow::Break(Ending::because(error)),
            Err(_) => ControlFlow::Break(Ending::because("the node does not read")),
        }
    }
}

/// Gaps are acked like messages, but they are none.
fn without_gaps(mut ids: Vec<String>) -> Vec<String> {
    ids.retain(|id| !id.starts_with("gap-") || id.contains('/'));
    ids
}
