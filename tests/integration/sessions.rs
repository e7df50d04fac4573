//! How many sessions a user may have, and sessions that an operator ends, over two nodes.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::token::unix_now;
use crate::harness::{Client, ConnectOptions, Node, NodeOptions, Redis, RedisOptions, Token, eventually};

async fn two_nodes(options: NodeOptions) -> (Redis, Node, Node) {
    let redis = Redis::start(RedisOptions::default()).await;
    let first = Node::start(&redis, options.clone()).await;
    let second = Node::start(&redis, options).await;
    (redis, first, second)
}

fn with(token: Token) -> ConnectOptions {
    ConnectOptions { token: Some(token.encode()), confirm: true, ..ConnectOptions::default() }
}

fn seconds() -> u64 {
    unix_now().as_secs()
}

async fn expect_end(client: &mut Client, code: &str, close: u16) -> Value {
    let error = client.expect_frame("error").await;
    assert_eq!(error["code"], code, "{error}");
    client.expect_close_code(close).await;
    error
}

#[tokio::test]
async fn with_one_session_per_user_the_newer_device_replaces_the_older_on_whatever_node() {
    let (redis, first, second) = two_nodes(NodeOptions::default().set("sessions_per_user", "1")).await;
    let confirming = || ConnectOptions { confirm: true, ..ConnectOptions::default() };
    let mut phone = Client::connect(&first, "alice", "phone", confirming()).await;
    let ids = redis.publish_all("alice", ["a".to_owned(), "b".to_owned()]).await;
    phone.next_messages(2).await;
    phone.ack_confirmed(&ids[..1]).await;

    let mut web = Client::connect(&second, "alice", "web", confirming()).await;
    expect_end(&mut phone, "replaced", 4010).await;
    redis.publish("alice", "c").await;
    assert_eq!(web.messages_until("c").await.len(), 1);
    assert_eq!(redis.device("alice", "phone").await.expect("it stays")["owner"], "");

    // It comes back by its user's wish, with what it had not acknowledged, and replaces in turn.
    let mut phone = Client::connect(&first, "alice", "phone", confirming()).await;
    let again = phone.next_messages(2).await;
    assert_eq!(again.iter().map(|message| message.text()).collect::<Vec<_>>(), ["b", "c"]);
    expect_end(&mut web, "replaced", 4010).await;
    // Other users have nothing to do with it.
    Client::connect(&first, "bob", "phone", confirming()).await.round_trip().await;
    phone.round_trip().await;
}

// A reconnect counts as new: it is the time of the session that decides, not that of the device.
#[tokio::test]
async fn with_two_sessions_per_user_the_third_device_replaces_the_one_that_connected_longest_ago() {
    let (redis, first, second) = two_nodes(NodeOptions::default().set("sessions_per_user", "2")).await;
    let connect = async |node, device| Client::connect(node, "alice", device, ConnectOptions::default()).await;
    let phone = connect(&first, "phone").await;
    let mut web = connect(&second, "web").await;
    phone.close().await;
    let mut phone = connect(&second, "phone").await;
    web.round_trip().await;
    phone.round_trip().await;

    let mut tv = connect(&first, "tv").await;
    expect_end(&mut web, "replaced", 4010).await;
    for client in [&mut phone, &mut tv] {
        redis.publish("alice", "for two").await;
        client.messages_until("for two").await;
    }
    let mut web = connect(&first, "web").await;
    expect_end(&mut phone, "replaced", 4010).await;
    for client in [&mut web, &mut tv] {
        client.round_trip().await;
    }
    let (_, presence) = second.get("/v1/presence?users=alice").await;
    let devices = presence["items"][0]["devices"].as_array().expect("a list").clone();
    let online: Vec<_> =
        devices.iter().filter(|device| device["online"] == true).map(|device| &device["device"]).collect();
    assert_eq!(online, ["tv", "web"]);
}

#[tokio::test]
async fn a_token_says_how_many_sessions_its_user_may_have() {
    let (_redis, first, second) = two_nodes(NodeOptions::default().set("sessions_per_user", "1")).await;
    let any = || with(Token::of("alice").claim("sessions", 0));
    let mut phone = Client::connect(&first, "alice", "phone", any()).await;
    let mut web = Client::connect(&second, "alice", "web", any()).await;
    phone.round_trip().await;
    let mut tv = Client::connect(&second, "alice", "tv", with(Token::of("alice").claim("sessions", 2))).await;
    expect_end(&mut phone, "replaced", 4010).await;
    web.round_trip().await;
    tv.round_trip().await;

    for claim in [json!("2"), json!(-1), json!(1.5), json!(21), json!(null), json!([1]), json!(1u64 << 40)] {
        let token = with(Token::of("alice").claim("sessions", claim.clone()));
        let refusal = Client::connect_refused(&first, "alice", "web", token).await;
        assert_eq!((&refusal.error["code"], refusal.closed.code), (&json!("unauthorized"), Some(4001)), "{claim}");
    }
    let refusal = Client::connect_refused(&first, "alice", "web", with(Token::of("alice").claim("sessions", 21))).await;
    let message = refusal.error["message"].as_str().unwrap_or_default();
    assert!(message.contains("'sessions' is 21") && message.contains("0 to 20"), "{message}");
}

// The word that it was replaced is lost with the stopped node's time; its sweep tells it.
#[tokio::test]
async fn a_stopped_node_closes_the_session_that_was_replaced_meanwhile_when_it_wakes_up() {
    let (redis, first, second) =
        two_nodes(NodeOptions::default().set("sessions_per_user", "1").set("sweep", "200ms")).await;
    let mut phone = Client::connect(&first, "alice", "phone", ConnectOptions::default()).await;
    first.sigstop();
    let mut web = Client::connect(&second, "alice", "web", ConnectOptions::default()).await;
    let _: u64 = redis.query(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    first.sigcont();
    expect_end(&mut phone, "replaced", 4010).await;
    web.round_trip().await;
    assert_eq!(redis.device("alice", "phone").await.expect("it stays")["owner"], "");
}

#[tokio::test]
async fn an_operator_ends_named_sessions_or_all_and_says_why() {
    let (redis, first, second) = two_nodes(NodeOptions::default()).await;
    let mut phone = Client::connect(&first, "alice", "phone", ConnectOptions::default()).await;
    let mut web = Client::connect(&second, "alice", "web", ConnectOptions::default()).await;
    let path = "/v1/users/alice/disconnect";
    let (status, answer) = second.post(path, &json!({"devices": ["phone"], "reason": "too loud"})).await;
    assert_eq!((status, answer), (200, json!({"disconnected": 1})));
    let error = expect_end(&mut phone, "kicked", 4011).await;
    assert_eq!(error["message"], "too loud");
    web.round_trip().await;

    assert_eq!(first.post(path, &json!({})).await, (200, json!({"disconnected": 1})));
    expect_end(&mut web, "kicked", 4011).await;
    assert_eq!(first.post(path, &json!({})).await, (200, json!({"disconnected": 0})));
    redis.publish("alice", "later").await;
    let mut phone = Client::connect(&second, "alice", "phone", ConnectOptions::default()).await;
    assert!(!phone.ready().created, "devices stay");
    assert_eq!(phone.messages_until("later").await.len(), 1);

    for body in [
        json!([]),
        json!({"device": "phone"}),
        json!({"devices": "phone"}),
        json!({"devices": ["no spaces"]}),
        json!({"reason": 7}),
        json!({"reason": "x".repeat(201)}),
    ] {
        let (status, answer) = first.post(path, &body).await;
        assert!((400..500).contains(&status), "{body}: {answer}");
    }
    phone.round_trip().await;
}

#[tokio::test]
async fn after_a_refusal_no_older_token_has_or_gets_a_session() {
    let (_redis, first, second) = two_nodes(NodeOptions::default()).await;
    let old = || Token::of("alice").claim("iat", seconds() - 1);
    let mut phone = Client::connect(&first, "alice", "phone", with(old())).await;
    let mut web = Client::connect(&second, "alice", "web", with(old())).await;
    let body = json!({"devices": ["phone"], "reason": "stolen", "refuse_tokens": true});
    assert_eq!(first.post("/v1/users/alice/disconnect", &body).await, (200, json!({"disconnected": 2})));
    expect_end(&mut phone, "kicked", 4011).await;
    expect_end(&mut web, "unauthorized", 4001).await;

    for stale in [old(), Token::of("alice")] {
        for node in [&first, &second] {
            let refusal = Client::connect_refused(node, "alice", "tablet", with(stale.clone())).await;
            assert_eq!((&refusal.error["code"], refusal.closed.code), (&json!("unauthorized"), Some(4001)));
        }
    }
    // Issued in a later second, as by a clock that is a little ahead.
    let fresh = || Token::of("alice").claim("iat", seconds() + 3);
    let mut phone = Client::connect(&first, "alice", "phone", with(fresh())).await;
    phone.send(json!({"type": "auth", "token": old().encode()})).await;
    assert_eq!(phone.expect_frame("error").await["code"], "unauthorized", "nor by a renewal");
    phone.send(json!({"type": "auth", "token": fresh().encode()})).await;
    phone.expect_frame("authed").await;
    Client::connect(&first, "bob", "phone", with(Token::of("bob"))).await.round_trip().await;
}

#[tokio::test]
async fn a_renewed_token_speaks_for_its_session_when_older_ones_are_refused() {
    let (redis, first, _second) = two_nodes(NodeOptions::default().set("sweep", "200ms")).await;
    let mut phone =
        Client::connect(&first, "alice", "phone", with(Token::of("alice").claim("iat", seconds() - 100))).await;
    phone.send(json!({"type": "auth", "token": Token::of("alice").claim("iat", seconds() + 4).encode()})).await;
    phone.expect_frame("authed").await;
    // Whoever loses its group attaches again, by then with the newer token.
    let until = (seconds() - 50).to_string();
    redis.query::<()>(&["HSET", "homing:{alice}:devices", "#refuse_before", &until]).await;
    redis.query::<()>(&["DEL", "homing:{alice}:inbox"]).await;
    phone.expect_frame("gap").await;
    phone.round_trip().await;
}

#[tokio::test]
async fn the_devices_of_a_user_show_where_and_since_when_they_are_connected() {
    let (_redis, first, second) = two_nodes(NodeOptions::default().set("presence_length", "0")).await;
    let before = unix_now().as_millis() as u64;
    let phone = Client::connect(&first, "alice", "phone", ConnectOptions::default()).await;
    Client::connect(&second, "alice", "web", ConnectOptions::default()).await.close().await;
    let shown = eventually("web is offline", async || {
        let (_, shown) = first.get("/v1/users/alice").await;
        (shown["devices"][1]["online"] == false).then_some(shown)
    })
    .await;
    let [phone_shown, web_shown] = [&shown["devices"][0], &shown["devices"][1]];
    assert_eq!((&phone_shown["device"], &phone_shown["online"]), (&json!("phone"), &json!(true)));
    let since = phone_shown["connected_since_ms"].as_u64().expect("a time");
    assert!((before..before + Duration::from_secs(60).as_millis() as u64).contains(&since), "{shown}");
    assert_eq!((&web_shown["connected_since_ms"], &web_shown["device"]), (&Value::Null, &json!("web")));

    let (status, many) = second.get("/v1/presence?users=alice,nobody,a%2Bb").await;
    assert_eq!(status, 200, "{many}");
    assert_eq!(many["items"][0]["user"], "alice");
    assert_eq!(many["items"][0]["devices"][0]["since_ms"], since);
    assert_eq!(many["items"][0]["devices"][0]["node"], phone_shown["node"]);
    assert_eq!(many["items"][0]["devices"][1]["online"], false);
    assert_eq!(many["items"][1], json!({"user": "nobody", "devices": []}));
    assert_eq!(many["items"][2]["user"], "a+b");
    let many_names = vec!["u"; 101].join(",");
    for query in ["", "?users=", "?users=a,,b", "?user=a", "?users=a&x=1", &format!("?users={many_names}")] {
        let (status, answer) = second.get(&format!("/v1/presence{query}")).await;
        assert!((400..500).contains(&status), "{query}: {answer}");
    }
    drop(phone);
}
