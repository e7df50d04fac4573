//! A well-behaved client of `homing.v1`, in which a hang is a failure with a readable message.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, client::IntoClientRequest};

use super::node::Node;
use super::token::Token;
use super::wait::within;

/// What a test's client says in its `connect` frame, and how it behaves.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectOptions {
    /// Another token than a good one for the user.
    pub(crate) token: Option<String>,
    /// Sends the token as `Authorization: Bearer` instead of in the frame.
    pub(crate) token_in_header: bool,
    pub(crate) window: Option<u32>,
    pub(crate) confirm: bool,
    pub(crate) from: Option<&'static str>,
    pub(crate) epoch: Option<String>,
    /// `instance` and `seq`.
    pub(crate) instance: Option<(String, u64)>,
    pub(crate) heartbeat_ms: Option<u64>,
    pub(crate) max_frame_bytes: Option<u64>,
    /// Does not answer the server's pings.
    pub(crate) mute: bool,
    /// Size of the socket's receive buffer: a small one makes a slow reader felt early.
    pub(crate) receive_buffer: Option<u32>,
}

/// The members of `ready` that tests look at; all of it in `frame`.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub(crate) generation: u64,
    pub(crate) created: bool,
    pub(crate) epoch: String,
    /// `None`: Redis did not know cheaply.
    pub(crate) pending: Option<u64>,
    pub(crate) frame: Value,
}

/// One delivered message.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Message {
    pub(crate) id: String,
    /// Exactly the bytes that stood in the frame.
    pub(crate) data: Box<RawValue>,
    pub(crate) ts: u64,
    pub(crate) attempt: u64,
    pub(crate) topic: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) meta: Option<Value>,
    pub(crate) exp: Option<u64>,
    pub(crate) encoding: Option<String>,
}

impl Message {
    /// The payload as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.data.get()).expect("a frame that was parsed holds JSON")
    }

    /// The payload as text; panics if it is something else.
    pub(crate) fn text(&self) -> String {
        let data = self.json();
        data.as_str().unwrap_or_else(|| panic!("not a text: {data}")).to_owned()
    }
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    /// `None`: without a close frame.
    pub(crate) code: Option<u16>,
    pub(crate) reason: String,
}

/// How the server refused a `connect` frame.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    /// The `error` frame that came before the close.
    pub(crate) error: Value,
    pub(crate) closed: Closed,
}

/// A connected client. It answers pings whenever it reads; it acks nothing by itself.
#[derive(Debug)]
pub(crate) struct Client {
    socket: WebSocketStream<TcpStream>,
    /// `user/device`, for messages of failed tests.
    name: String,
    ready: Option<Ready>,
    mute: bool,
    messages: VecDeque<Message>,
    others: VecDeque<Value>,
    closed: Option<Closed>,
    /// Size of the largest text frame so far.
    largest_frame: usize,
    /// When the server was heard last.
    heard: Instant,
}

impl Client {
    /// Connects and waits for `ready`.
    pub(crate) async fn connect(node: &Node, user: &str, device: &str, options: ConnectOptions) -> Self {
        match Self::try_connect(node.address(), user, device, options).await {
            Ok(client) => client,
            Err(refusal) => panic!("{user}/{device} was refused: {refusal:?}"),
        }
    }

    /// Connects and expects to be refused.
    pub(crate) async fn connect_refused(node: &Node, user: &str, device: &str, options: ConnectOptions) -> Refusal {
        match Self::try_connect(node.address(), user, device, options).await {
            Ok(client) => panic!("{} was let in", client.name),
            Err(refusal) => refusal,
        }
    }

    /// Connects; an I/O error before the first frame counts as a refusal without frames.
    pub(crate) async fn try_connect(
        address: SocketAddr,
        user: &str,
        device: &str,
        options: ConnectOptions,
    ) -> Result<Self, Refusal> {
        let mut client = Self::open(address, user, device, &options).await.map_err(|error| Refusal {
            error: Value::Null,
            closed: Closed { code: None, reason: error.to_string() },
        })?;
        client.send(connect_frame(user, device, &options)).await;
        let ready = match client.frame("ready").await {
            Ok(ready) => ready,
            Err(closed) => {
                let error = client.others.into_iter().find(|frame| frame["type"] == "error");
                return Err(Refusal { error: error.unwrap_or_default(), closed });
            }
        };
        client.ready = Some(Ready {
            generation: number(&ready["generation"]),
            created: ready["created"].as_bool().expect("ready.created is a boolean"),
            epoch: ready["epoch"].as_str().expect("ready.epoch is a text").to_owned(),
            pending: ready["pending"].as_u64(),
            frame: ready,
        });
        Ok(client)
    }

    /// Upgrades without sending a frame.
    pub(crate) async fn open(
        address: SocketAddr,
        user: &str,
        device: &str,
        options: &ConnectOptions,
    ) -> Result<Self, tungstenite::Error> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = options.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        let stream = within("a TCP connection to the node", socket.connect(address)).await?;
        stream.set_nodelay(true)?;
        let mut request = format!("ws://{address}/v1/ws").into_client_request()?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", "homing.v1".parse().expect("a plain header"));
        if options.token_in_header {
            let bearer = format!("Bearer {}", token(user, options));
            request.headers_mut().insert("Authorization", bearer.parse().expect("a token is plain text"));
        }
        let upgrade = tokio_tungstenite::client_async_with_config(request, stream, None);
        let (socket, _) = within("the WebSocket upgrade", upgrade).await?;
        Ok(Self {
            socket,
            name: format!("{user}/{device}"),
            ready: None,
            mute: options.mute,
            messages: VecDeque::new(),
            others: VecDeque::new(),
            closed: None,
            largest_frame: 0,
            heard: Instant::now(),
        })
    }

    /// What the server said in `ready`.
    pub(crate) fn ready(&self) -> &Ready {
        self.ready.as_ref().expect("connect waits for ready")
    }

    pub(crate) fn largest_frame(&self) -> usize {
        self.largest_frame
    }

    /// Exactly the next `count` messages.
    pub(crate) async fn next_messages(&mut self, count: usize) -> Vec<Message> {
        while self.messages.len() < count {
            let what = format!("{} messages for {} (have {})", count, self.name, self.messages.len());
            if let Err(closed) = self.read(&what).await {
                panic!("{} was closed with {closed:?} while waiting for {what}", self.name);
            }
        }
        self.messages.drain(..count).collect()
    }

    /// The next message.
    pub(crate) async fn next_message(&mut self) -> Message {
        self.next_messages(1).await.remove(0)
    }

    /// All messages that have arrived, and at least one.
    pub(crate) async fn next_batch(&mut self) -> Vec<Message> {
        let count = self.messages.len().max(1);
        let mut batch = self.next_messages(count).await;
        batch.extend(self.messages.drain(..));
        batch
    }

    /// The next message within a time, `None` when it has passed or the connection was closed: then at once, so
    /// that a loop over it must look at [`Client::closed`], or it keeps the whole test's thread to itself. For readers
    /// that go on until something else tells them to stop, never to prove that nothing comes.
    pub(crate) async fn poll_message(&mut self, time: Duration) -> Option<Message> {
        if self.messages.is_empty() && self.closed.is_none() {
            // Reading is cancel-safe: tungstenite keeps what it has of a frame.
            let _ = tokio::time::timeout(time, self.read("a message")).await;
        }
        self.messages.pop_front()
    }

    /// Acks messages until one with this payload comes, and gives all of them. Proves what is not delivered: publish a
    /// marker after the fact and see what comes before it.
    pub(crate) async fn messages_until(&mut self, marker: &str) -> Vec<Message> {
        let mut seen = Vec::new();
        loop {
            let message = self.next_message().await;
            self.ack(&[&message.id]).await;
            let done = message.json() == marker;
            seen.push(message);
            if done {
                return seen;
            }
        }
    }

    /// The next frame of this type; panics if the connection is closed before.
    pub(crate) async fn expect_frame(&mut self, kind: &str) -> Value {
        match self.frame(kind).await {
            Ok(frame) => frame,
            Err(closed) => panic!(
                "{} was closed with {closed:?} while waiting for {kind}; other frames: {:?}",
                self.name, self.others
            ),
        }
    }

    async fn frame(&mut self, kind: &str) -> Result<Value, Closed> {
        loop {
            if let Some(frame) = self.take_frame(kind) {
                return Ok(frame);
            }
            let what = format!("frame {kind} for {}", self.name);
            self.read(&what).await?;
        }
    }

    /// A frame of this type that has arrived already.
    pub(crate) fn take_frame(&mut self, kind: &str) -> Option<Value> {
        let position = self.others.iter().position(|frame| frame["type"] == kind)?;
        self.others.remove(position)
    }

    /// Reads until the connection is closed; frames before that can still be asked for.
    pub(crate) async fn expect_close(&mut self) -> Closed {
        loop {
            let what = format!("{} is closed", self.name);
            if let Err(closed) = self.read(&what).await {
                return closed;
            }
        }
    }

    /// Reads until the connection is closed and checks its close code.
    pub(crate) async fn expect_close_code(&mut self, code: u16) {
        let closed = self.expect_close().await;
        assert_eq!(closed.code, Some(code), "{}: {closed:?}; other frames: {:?}", self.name, self.others);
    }

    /// Sends a ping and waits for its answer: what the server wrote before has arrived by then.
    pub(crate) async fn round_trip(&mut self) {
        self.send(json!({ "type": "ping", "ref": "round-trip" })).await;
        self.expect_frame("pong").await;
    }

    /// Messages that have arrived and were not asked for yet.
    pub(crate) fn waiting(&self) -> usize {
        self.messages.len()
    }

    /// Time since the server was heard last.
    pub(crate) fn silence(&self) -> Duration {
        self.heard.elapsed()
    }

    /// How the connection ended, if it did.
    pub(crate) fn closed(&self) -> Option<&Closed> {
        self.closed.as_ref()
    }

    pub(crate) async fn ack(&mut self, ids: &[impl AsRef<str>]) {
        let ids: Vec<&str> = ids.iter().map(AsRef::as_ref).collect();
        self.send(json!({ "type": "ack", "ids": ids })).await;
    }

    /// Acks and waits for the confirmation of every id; needs [`ConnectOptions::confirm`].
    pub(crate) async fn ack_confirmed(&mut self, ids: &[impl AsRef<str>]) {
        self.ack(ids).await;
        let mut missing: HashSet<String> = ids.iter().map(|id| id.as_ref().to_owned()).collect();
        while !missing.is_empty() {
            let acked = self.expect_frame("acked").await;
            for id in acked["ids"].as_array().expect("acked.ids is a list") {
                missing.remove(id.as_str().expect("ids are texts"));
            }
        }
    }

    pub(crate) async fn nack(&mut self, ids: &[impl AsRef<str>], delay_ms: u64) {
        let ids: Vec<&str> = ids.iter().map(AsRef::as_ref).collect();
        self.send(json!({ "type": "nack", "ids": ids, "delay_ms": delay_ms })).await;
    }

    /// Sends a frame. A connection that was closed meanwhile shows when it is read.
    pub(crate) async fn send(&mut self, frame: Value) {
        self.send_raw(tungstenite::Message::text(frame.to_string())).await;
    }

    /// Sends any WebSocket message.
    pub(crate) async fn send_raw(&mut self, message: tungstenite::Message) {
        let _ = within("the socket takes a frame", self.socket.send(message)).await;
    }

    /// Closes as a client does that leaves politely, and waits for the server's answer.
    pub(crate) async fn close(mut self) {
        let _ = self.socket.close(None).await;
        self.expect_close().await;
    }

    /// Vanishes with a TCP reset, as a client does whose process was killed.
    pub(crate) fn reset(self) {
        // Without it the kernel would send a FIN, which is a close of some politeness.
        self.socket.get_ref().set_zero_linger().expect("a socket option of every TCP socket");
    }

    /// Reads one WebSocket message and sorts it. Pings are answered on the way: they say nothing of what is waited for, and
    /// must not prolong the wait for ever.
    async fn read(&mut self, what: &str) -> Result<(), Closed> {
        if let Some(closed) = &self.closed {
            return Err(closed.clone());
        }
        let next = within(what, self.next_but_pings()).await;
        let closed = match next {
            Some(Ok(tungstenite::Message::Text(text))) => {
                self.largest_frame = self.largest_frame.max(text.len());
                self.sort(text.as_str());
                return Ok(());
            }
            Some(Ok(tungstenite::Message::Close(frame))) => match frame {
                Some(frame) => Closed { code: Some(frame.code.into()), reason: frame.reason.to_string() },
                None => Closed { code: None, reason: "a close frame without code".to_owned() },
            },
            Some(Ok(tungstenite::Message::Binary(_))) => panic!("{}: the server sent a binary frame", self.name),
            Some(Ok(_)) => return Ok(()),
            Some(Err(error)) => Closed { code: None, reason: error.to_string() },
            None => Closed { code: None, reason: "end of stream".to_owned() },
        };
        self.closed = Some(closed.clone());
        Err(closed)
    }

    async fn next_but_pings(&mut self) -> Option<Result<tungstenite::Message, tungstenite::Error>> {
        loop {
            let next = self.socket.next().await;
            self.heard = Instant::now();
            match &next {
                Some(Ok(tungstenite::Message::Text(text))) if !self.mute && text.as_str() == r#"{"type":"ping"}"# => {
                    self.send(json!({ "type": "pong" })).await;
                }
                Some(Ok(tungstenite::Message::Ping(_) | tungstenite::Message::Pong(_))) => {}
                _ => return next,
            }
        }
    }

    fn sort(&mut self, text: &str) {
        #[derive(Deserialize)]
        struct Kind {
            r#type: String,
        }
        #[derive(Deserialize)]
        struct Messages {
            messages: Vec<Message>,
        }
        let kind: Kind = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in frame: {text}"));
        match kind.r#type.as_str() {
            "messages" => {
                let frame: Messages =
                    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in frame: {text}"));
                self.messages.extend(frame.messages);
            }
            _ => self.others.push_back(serde_json::from_str(text).expect("it was parsed a moment ago")),
        }
    }
}

fn token(user: &str, options: &ConnectOptions) -> String {
    options.token.clone().unwrap_or_else(|| Token::of(user).encode())
}

/// The `connect` frame of these options; without `device` if it is empty.
pub(crate) fn connect_frame(user: &str, device: &str, options: &ConnectOptions) -> Value {
    let mut frame = Map::new();
    let mut put = |name: &str, value: Option<Value>| value.map(|value| frame.insert(name.to_owned(), value));
    put("type", Some("connect".into()));
    put("token", (!options.token_in_header).then(|| token(user, options).into()));
    put("device", (!device.is_empty()).then(|| device.into()));
    put("window", options.window.map(Into::into));
    put("confirm", options.confirm.then_some(true.into()));
    put("from", options.from.map(Into::into));
    put("epoch", options.epoch.clone().map(Into::into));
    put("instance", options.instance.as_ref().map(|(instance, _)| instance.clone().into()));
    put("seq", options.instance.as_ref().map(|(_, seq)| (*seq).into()));
    put("heartbeat_ms", options.heartbeat_ms.map(Into::into));
    put("max_frame_bytes", options.max_frame_bytes.map(Into::into));
    Value::Object(frame)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("not a number: {value}"))
}
