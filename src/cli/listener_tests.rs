use clap::Parser as _;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::*;
use crate::config::{ClientOptions, Host};

#[test]
fn any_form_of_the_address_leads_to_the_socket() {
    for url in ["http://h:1", "ws://h:1", "ws://h:1/v1/ws"] {
        assert_eq!(web_socket_url(url).unwrap(), "ws://h:1/v1/ws");
    }
    assert_eq!(web_socket_url("https://h").unwrap(), "wss://h/v1/ws");
    assert!(web_socket_url("h:1").is_err());
}

#[test]
fn a_message_is_one_line_and_otherwise_untouched() {
    assert_eq!(one_line("{\"data\":{\n\"a\":1.0}}"), "{\"data\":{ \"a\":1.0}}");
}

/// The server's side of one connection, played by the test.
struct Server {
    socket: TcpListener,
}

struct Peer(WebSocketStream<TcpStream>);

impl Server {
    async fn start() -> Self {
        Self { socket: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    fn listener(&self, flags: &[&str]) -> Listener {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            options: ListenOptions,
        }
        let url = format!("http://{}", self.socket.local_addr().unwrap());
        let line = Line::try_parse_from(["listen", "--url", &url, "--token", "t"].iter().chain(flags)).unwrap();
        let config = ClientConfig::resolve(ClientOptions::default(), Host::default()).unwrap();
        Listener::new(line.options, &config).unwrap()
    }

    async fn accept(&self) -> Peer {
        let (stream, _) = self.socket.accept().await.unwrap();
        // The callback's error type is tungstenite's own, whatever its size.
        #[allow(clippy::result_large_err)]
        let echo = |request: &Request, mut response: Response| {
            let name = "sec-websocket-protocol";
            assert_eq!(request.headers()[name], "homing.v1");
            response.headers_mut().insert(name, request.headers()[name].clone());
            Ok(response)
        };
        Peer(tokio_tungstenite::accept_hdr_async(stream, echo).await.unwrap())
    }
}

impl Peer {
    async fn hear(&mut self) -> Value {
        match self.0.next().await.unwrap().unwrap() {
            Message::Text(text) => serde_json::from_str(text.as_str()).unwrap(),
            other => panic!("expected a frame, not {other:?}"),
        }
    }

    async fn say(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    async fn ready(&mut self) -> Value {
        let hello = self.hear().await;
        self.say(json!({"type": "ready", "user": "alice", "device": "default", "generation": 7, "epoch": "1.0",
                        "pending": 2, "window": 64, "heartbeat_ms": 25_000, "now_ms": 0, "expires_at_ms": 0}))
            .await;
        hello
    }

    async fn close(mut self, code: u16) {
        let frame = CloseFrame { code: code.into(), reason: "test".into() };
        self.0.close(Some(frame)).await.unwrap();
        while let Some(Ok(_)) = self.0.next().await {}
    }
}

#[tokio::test]
async fn it_ends_after_count_messages_with_their_acks_confirmed_and_takes_no_more() {
    let server = Server::start().await;
    let mut listener = server.listener(&["--count", "2"]);
    let play = async {
        let mut peer = server.accept().await;
        let hello = peer.ready().await;
        assert_eq!(
            (&hello["type"], &hello["device"], &hello["confirm"]),
            (&json!("connect"), &json!("default"), &json!(true))
        );
        let message = |id: &str| json!({"id": id, "data": {"n": 1}, "ts": 1, "attempt": 1});
        peer.say(json!({"type": "later_version", "messages": []})).await;
        peer.say(json!({"type": "ping"})).await;
        assert_eq!(peer.hear().await["type"], "pong");
        peer.say(json!({"type": "messages", "messages": [message("1-0"), message("2-0"), message("3-0")]})).await;
        assert_eq!(peer.hear().await, json!({"type": "ack", "ids": ["1-0", "2-0"]}));
        peer.say(json!({"type": "acked", "ids": ["1-0", "2-0"]})).await;
        assert!(matches!(peer.0.next().await, Some(Ok(Message::Close(_)))));
    };
    let (end, ()) = tokio::join!(listener.connect(), play);
    assert!(matches!(end, Ok(End::Done)));
}

#[tokio::test]
async fn a_draining_node_is_left_and_the_next_connection_resumes_with_its_epoch() {
    let server = Server::start().await;
    let mut listener = server.listener(&[]);
    let drain = async {
        let mut peer = server.accept().await;
        let hello = peer.ready().await;
        peer.say(json!({"type": "error", "code": "draining", "message": "", "retry_after_ms": 1_234})).await;
        peer.close(4112).await;
        hello
    };
    let (end, first) = tokio::join!(listener.connect(), drain);
    let Ok(End::Again { retry_after, .. }) = end else { panic!("4112 asks to reconnect") };
    assert_eq!(retry_after, Some(Duration::from_millis(1_234)));
    let superseded = async {
        let mut peer = server.accept().await;
        let hello = peer.ready().await;
        peer.close(4009).await;
        hello
    };
    let (end, second) = tokio::join!(listener.connect(), superseded);
    assert_eq!((&first["seq"], &second["seq"]), (&json!(1), &json!(2)));
    assert_eq!((&first["instance"], &first["epoch"]), (&second["instance"], &Value::Null));
    assert_eq!(second["epoch"], "1.0");
    // Another connection took over: reconnecting would take it back, for ever.
    assert!(matches!(end, Err(Failure { exit: Exit::Ended, .. })));
}

#[tokio::test]
async fn an_expired_token_that_it_cannot_renew_ends_it() {
    for (code, exit) in [(4101, Exit::Refused), (4001, Exit::Refused), (4003, Exit::Refused), (4000, Exit::Rejected)] {
        let server = Server::start().await;
        let mut listener = server.listener(&["--no-ack"]);
        let play = async {
            let mut peer = server.accept().await;
            peer.hear().await;
            peer.close(code).await;
        };
        let (end, ()) = tokio::join!(listener.connect(), play);
        assert!(matches!(end, Err(failure) if failure.exit == exit), "{code}");
    }
}

#[tokio::test]
async fn nobody_at_the_address_is_an_error_the_first_time_only() {
    let server = Server::start().await;
    let mut listener = server.listener(&[]);
    drop(server);
    assert!(matches!(listener.connect().await, Err(Failure { exit: Exit::Unreachable, .. })));
    listener.was_connected = true;
    assert!(matches!(listener.connect().await, Ok(End::Again { .. })));
}
