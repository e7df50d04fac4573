//! Bytes that no decent client sends: each is refused in its way, and nobody else notices.

use serde_json::{Value, json};

use crate::harness::client::connect_frame;
use crate::harness::raw::{BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, TEXT};
use crate::harness::{Client, ConnectOptions, Node, NodeOptions, RawSocket, Redis, RedisOptions};

async fn redis_and_node(options: NodeOptions) -> (Redis, Node) {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, options).await;
    (redis, node)
}

fn good_connect(user: &str) -> Value {
    connect_frame(user, "raw", &ConnectOptions::default())
}

/// A raw socket with a session.
async fn session(node: &Node, user: &str) -> RawSocket {
    let mut socket = RawSocket::upgrade(node.address()).await;
    socket.send_json(&good_connect(user)).await;
    assert_eq!(socket.read_json().await["type"], "ready");
    socket
}

#[tokio::test]
async fn a_first_frame_that_is_no_connect_is_refused_with_a_code() {
    let (_redis, node) = redis_and_node(NodeOptions::default()).await;
    let mut without_token = good_connect("alice");
    without_token.as_object_mut().expect("an object").remove("token");
    let with = |name: &str, value: Value| {
        let mut frame = good_connect("alice");
        frame[name] = value;
        frame.to_string()
    };
    let table: Vec<(String, &str, u16)> = vec![
        ("{}".into(), "malformed", 4000),
        ("".into(), "malformed", 4000),
        ("[1]".into(), "malformed", 4000),
        ("null".into(), "malformed", 4000),
        ("{\"type\":\"connect\"".into(), "malformed", 4000),
        ("{\"type\":7}".into(), "malformed", 4000),
        (format!("{}x", good_connect("alice")), "malformed", 4000),
        ("[".repeat(60_000), "malformed", 4000),
        (json!({ "type": "ack", "ids": ["1-0"] }).to_string(), "unexpected_frame", 4000),
        (json!({ "type": "no-such-type" }).to_string(), "unexpected_frame", 4000),
        (without_token.to_string(), "unauthorized", 4001),
        (with("token", json!("")), "unauthorized", 4001),
        (with("token", json!("x".repeat(60_000))), "unauthorized", 4001),
        (with("device", json!("no spaces")), "bad_name", 4000),
        (with("device", json!("")), "bad_name", 4000),
        (with("device", json!("..")), "bad_name", 4000),
        (with("device", json!("x".repeat(256))), "bad_name", 4000),
        (with("device", json!("#incarnation")), "bad_name", 4000),
        (with("window", json!(0)), "bad_value", 4000),
        (with("window", json!(1_025)), "bad_value", 4000),
        (with("window", json!(-1)), "malformed", 4000),
        (with("heartbeat_ms", json!(1)), "bad_value", 4000),
        (with("max_frame_bytes", json!(1)), "bad_value", 4000),
        (with("from", json!("middle")), "bad_value", 4000),
        (with("seq", json!(u64::MAX)), "bad_value", 4000),
        (with("instance", json!("x".repeat(65))), "bad_value", 4000),
    ];
    for (frame, code, close) in table {
        let mut socket = RawSocket::upgrade(node.address()).await;
        socket.send(Frame::text(frame.as_bytes())).await;
        let error = socket.read_json().await;
        let shown = &frame[..frame.len().min(120)];
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(code)), "{shown}: {error}");
        assert_eq!(socket.read_close().await, Some(close), "{shown}");
    }
    Client::connect(&node, "alice", "raw", ConnectOptions::default()).await;
}

#[tokio::test]
async fn members_and_types_that_the_server_does_not_know_are_ignored() {
    let (redis, node) = redis_and_node(NodeOptions::default()).await;
    let mut connect = good_connect("alice");
    connect["x"] = json!({ "y": [1, "2", null] });
    let mut socket = RawSocket::upgrade(node.address()).await;
    socket.send_json(&connect).await;
    assert_eq!(socket.read_json().await["type"], "ready");
    socket.send_json(&json!({ "type": "sing", "ref": "r1", "song": [] })).await;
    let error = socket.read_json().await;
    assert_eq!((&error["code"], &error["ref"]), (&json!("unknown_type"), &json!("r1")));
    let id = redis.publish("alice", "1").await;
    assert_eq!(socket.read_json().await["messages"][0]["id"], json!(id));
}

#[tokio::test]
async fn bad_frames_of_a_session_are_errors_that_do_not_end_it() {
    let (_redis, node) = redis_and_node(NodeOptions::default()).await;
    let mut socket = session(&node, "alice").await;
    let table = [
        (json!({ "type": "ack" }), "bad_value"),
        (json!({ "type": "ack", "ids": ["x"] }), "bad_id"),
        (json!({ "type": "ack", "ids": ["18446744073709551616-0"] }), "bad_id"),
        (json!({ "type": "ack", "ids": ["01-0"] }), "bad_id"),
        (json!({ "type": "ack", "ids": vec!["1-0"; 4_097] }), "too_many"),
        (json!({ "type": "nack", "ids": ["1-0"], "delay_ms": 60_001 }), "bad_value"),
        (json!({ "type": "auth" }), "bad_value"),
        (json!({ "type": "ping", "ref": "x".repeat(129) }), "bad_value"),
    ];
    for (frame, code) in table {
        socket.send_json(&frame).await;
        assert_eq!(socket.read_json().await["code"], code, "{frame}");
    }
    socket.send_json(&json!({ "type": "ack", "ids": [] })).await;
    socket.send_json(&json!({ "type": "ack", "ids": ["1-0", "1-0", "gap-0"] })).await;
    socket.send_json(&json!({ "type": "ping", "ref": "end" })).await;
    assert_eq!(socket.read_json().await, json!({ "type": "pong", "ref": "end" }));
}

#[tokio::test]
async fn a_second_connect_and_text_that_is_no_json_end_the_session() {
    let (_redis, node) = redis_and_node(NodeOptions::default()).await;
    let mut socket = session(&node, "alice").await;
    socket.send_json(&good_connect("alice")).await;
    assert_eq!(socket.read_json().await["code"], "unexpected_frame");
    assert_eq!(socket.read_close().await, Some(4000));
    let mut socket = session(&node, "alice").await;
    socket.send(Frame::text(b"hello")).await;
    assert_eq!(socket.read_json().await["code"], "malformed");
    assert_eq!(socket.read_close().await, Some(4000));
}

// RFC 6455: each of these must fail the connection. Which close code comes, if any, is checked loosely: the peer may be
// cut off at once.
#[tokio::test]
async fn frames_that_break_websocket_itself_end_the_connection() {
    let (_redis, node) = redis_and_node(NodeOptions::default()).await;
    let text = Frame::text(b"{\"type\":\"ping\"}");
    let table: [(&str, Frame<'_>, &[u16]); 12] = [
        ("unmasked", Frame { masked: false, ..text }, &[1002]),
        ("reserved bits", Frame { reserved: 0b100, ..text }, &[1002]),
        ("unknown opcode", Frame { opcode: 0x3, ..text }, &[1002]),
        ("unknown control opcode", Frame { opcode: 0xB, ..text }, &[1002]),
        ("continuation of nothing", Frame { opcode: CONTINUATION, ..text }, &[1002]),
        ("fragmented ping", Frame { opcode: PING, fin: false, ..text }, &[1002]),
        ("long ping", Frame { opcode: PING, ..Frame::text(&[b'x'; 126]) }, &[1002]),
        ("binary", Frame { opcode: BINARY, ..text }, &[1003, 4000]),
        ("not UTF-8", Frame::text(b"{\"type\":\"\xff\"}"), &[1007]),
        ("close code out of range", Frame { opcode: CLOSE, ..Frame::text(&[0x03, 0xE7]) }, &[1002]),
        ("close of one byte", Frame { opcode: CLOSE, ..Frame::text(&[0x03]) }, &[1002]),
        ("a length of 2^63", Frame { claimed_length: Some(1 << 63), ..text }, &[1002, 1009]),
    ];
    for (name, frame, codes) in table {
        let mut socket = session(&node, "alice").await;
        socket.send(frame).await;
        let code = socket.read_close().await;
        assert!(code.is_none_or(|code| codes.contains(&code)), "{name}: {code:?}");
        socket.read_end().await;
    }
    Client::connect(&node, "alice", "raw", ConnectOptions::default()).await;
}

#[tokio::test]
async fn a_frame_over_the_limit_is_refused_by_its_header_alone() {
    let (_redis, node) = redis_and_node(NodeOptions::default()).await;
    // Before `connect` as well: nothing may be allocated for a stranger.
    for claimed in [64 * 1024 + 1, 100 * 1024 * 1024, u64::from(u32::MAX) + 1] {
        let mut socket = RawSocket::upgrade(node.address()).await;
        socket.send(Frame { claimed_length: Some(claimed), ..Frame::text(b"{\"type\":") }).await;
        let code = socket.read_close().await;
        assert!(matches!(code, None | Some(1009)), "{claimed}: {code:?}");
        socket.read_end().await;
    }
    let mut socket = session(&node, "alice").await;
    let large = json!({ "type": "ping", "x": "y".repeat(64 * 1024) }).to_string();
    socket.send(Frame::text(large.as_bytes())).await;
    assert!(matches!(socket.read_close().await, None | Some(1009)));
    // Exactly at the limit is allowed.
    let mut socket = session(&node, "alice").await;
    let mut frame = json!({ "type": "ping", "ref": "full", "x": "" }).to_string();
    frame.insert_str(frame.len() - 2, &"y".repeat(64 * 1024 - frame.len()));
    assert_eq!(frame.len(), 64 * 1024);
    socket.send(Frame::text(frame.as_bytes())).await;
    assert_eq!(socket.read_json().await["ref"], "full");
}

#[tokio::test]
async fn a_frame_in_many_fragments_is_one_frame_up_to_the_limit() {
    let (_redis, node) = redis_and_node(NodeOptions::default()).await;
    let mut socket = session(&node, "alice").await;
    let text = json!({ "type": "ping", "ref": "größe" }).to_string();
    let bytes = text.as_bytes();
    // One byte a fragment: also in the middle of a character, with control frames in between.
    for (index, byte) in bytes.iter().enumerate() {
        let opcode = if index == 0 { TEXT } else { CONTINUATION };
        let fin = index + 1 == bytes.len();
        socket.send(Frame { fin, opcode, ..Frame::text(std::slice::from_ref(byte)) }).await;
        if index == 5 {
            socket.send(Frame { opcode: PING, ..Frame::text(b"in between") }).await;
        }
    }
    let mut pong = false;
    loop {
        match socket.read_frame().await.expect("the connection lives") {
            (PONG, payload) => pong = payload == b"in between",
            (TEXT, payload) => {
                let frame: Value = serde_json::from_slice(&payload).expect("JSON");
                assert_eq!(frame, json!({ "type": "pong", "ref": "größe" }));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(pong);
    // The sum counts, not the single fragment.
    let part = vec![b' '; 16 * 1024];
    socket.send(Frame { fin: false, ..Frame::text(&part) }).await;
    for _ in 0..5 {
        socket.send(Frame { fin: false, opcode: CONTINUATION, ..Frame::text(&part) }).await;
    }
    assert!(matches!(socket.read_close().await, None | Some(1009)));
    // A new message inside of another.
    let mut socket = session(&node, "alice").await;
    socket.send(Frame { fin: false, ..Frame::text(b"{") }).await;
    socket.send(Frame::text(b"{}")).await;
    assert!(matches!(socket.read_close().await, None | Some(1002)));
}

#[tokio::test]
async fn a_client_that_never_says_connect_is_closed_in_time() {
    let (_redis, node) = redis_and_node(NodeOptions::default().set("connect_timeout", "300ms")).await;
    let mut silent = RawSocket::upgrade(node.address()).await;
    assert_eq!(silent.read_json().await["code"], "connect_timeout");
    assert_eq!(silent.read_close().await, Some(4000));
    // Pings and the beginning of a frame are no `connect`.
    let mut busy = RawSocket::upgrade(node.address()).await;
    busy.send(Frame { opcode: PING, ..Frame::text(b"x") }).await;
    busy.send(Frame { fin: false, ..Frame::text(b"{\"type\":") }).await;
    assert_eq!(busy.read_json().await["code"], "connect_timeout");
}

#[tokio::test]
async fn a_frame_that_ends_in_the_middle_harms_nobody() {
    let (redis, node) = redis_and_node(NodeOptions::default()).await;
    let mut other = Client::connect(&node, "bob", "d", ConnectOptions::default()).await;
    for _ in 0..20 {
        let mut socket = session(&node, "alice").await;
        socket.send(Frame { claimed_length: Some(1_000), ..Frame::text(b"{\"type\":\"ack\"") }).await;
        socket.finish_writing().await;
    }
    let id = redis.publish("bob", "1").await;
    assert_eq!(other.next_message().await.id, id);
}

#[tokio::test]
async fn a_subprotocol_is_echoed_and_an_unknown_one_is_refused() {
    let (_redis, node) = redis_and_node(NodeOptions::default()).await;
    let upgrade = |protocols: &str| {
        format!(
            "GET /v1/ws HTTP/1.1\r\nHost: {}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocols}\r\n",
            node.address()
        )
    };
    for (protocols, status, echoed) in [
        ("", 101, None),
        ("Sec-WebSocket-Protocol: homing.v1\r\n", 101, Some("homing.v1")),
        ("Sec-WebSocket-Protocol: other, homing.v1\r\n", 101, Some("homing.v1")),
        ("Sec-WebSocket-Protocol: homing.v9\r\n", 400, None),
    ] {
        let mut socket = RawSocket::open(node.address()).await;
        socket.write(upgrade(protocols).as_bytes()).await;
        let head = socket.read_head().await.expect("an answer");
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{protocols}: {head}");
        let line = head
            .lines()
            .find_map(|line| line.to_lowercase().strip_prefix("sec-websocket-protocol: ").map(str::to_owned));
        assert_eq!(line.as_deref(), echoed, "{protocols}");
        if status == 101 {
            // RFC 6455's own example of a key.
            assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        }
    }
}
