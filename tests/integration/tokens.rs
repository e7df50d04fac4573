//! Tokens: forged, expired, pinned, renewed.

use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde_json::json;

use crate::harness::token::{SECRET, unix_now};
use crate::harness::{Client, ConnectOptions, Node, NodeOptions, Redis, RedisOptions, Token};

async fn redis_and_node() -> (Redis, Node) {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default()).await;
    (redis, node)
}

fn with(token: String) -> ConnectOptions {
    ConnectOptions { token: Some(token), ..ConnectOptions::default() }
}

#[tokio::test]
async fn a_forged_token_is_refused() {
    let (_redis, node) = redis_and_node().await;
    let good = Token::of("alice");
    let encoded = good.encode();
    let (body, signature) = encoded.rsplit_once('.').expect("a token has three parts");
    let other_body = Token::of("bob").encode();
    let other_body = other_body.rsplit_once('.').expect("a token has three parts").0.to_owned();
    let table = [
        ("of another secret", good.clone().signed_with("another-secret-that-is-long-enough-0123456789").encode()),
        ("of an empty secret", good.clone().signed_with("").encode()),
        ("without signature", format!("{body}.")),
        ("algorithm none", good.encode_unsigned()),
        ("another algorithm with the right secret", good.clone().algorithm(Algorithm::HS512).encode()),
        ("another body", format!("{other_body}.{signature}")),
        ("two parts", body.to_owned()),
        ("four parts", format!("{encoded}.x")),
        ("without exp", good.clone().without_claim("exp").encode()),
        ("exp as text", good.clone().claim("exp", "9999999999").encode()),
        ("exp negative", good.clone().claim("exp", -1).encode()),
        ("without sub", good.clone().without_claim("sub").encode()),
        ("sub as number", good.clone().claim("sub", 7).encode()),
        ("sub that is no name", good.clone().claim("sub", "a}:{b").encode()),
        ("not yet valid", good.clone().claim("nbf", (unix_now() + Duration::from_secs(60)).as_secs()).encode()),
        ("device that is no name", good.clone().claim("device", "no spaces").encode()),
        ("not base64", "!!!.???.***".to_owned()),
        ("a text", "token".to_owned()),
    ];
    for (name, token) in table {
        let refusal = Client::connect_refused(&node, "alice", "d", with(token)).await;
        assert_eq!(refusal.closed.code, Some(4001), "{name}: {refusal:?}");
        assert_eq!(refusal.error["code"], "unauthorized", "{name}");
        assert!(!refusal.error.to_string().contains(SECRET), "{name}");
    }
    Client::connect(&node, "alice", "d", with(encoded.clone())).await;
    assert!(!node.output().contains(SECRET), "no secret in the log");
    assert!(!node.output().contains(signature), "no token in the log");
}

#[tokio::test]
async fn an_expired_token_says_that_a_new_one_helps() {
    let (_redis, node) = redis_and_node().await;
    let expired = Token::of("alice").expired_since(Duration::from_secs(60)).encode();
    let refusal = Client::connect_refused(&node, "alice", "d", with(expired)).await;
    assert_eq!((refusal.closed.code, &refusal.error["code"]), (Some(4101), &json!("token_expired")));
    // Clocks differ a little.
    let lately = Token::of("alice").expired_since(Duration::from_secs(1)).encode();
    let outcome = Client::try_connect(node.address(), "alice", "d", with(lately)).await;
    if let Err(refusal) = outcome {
        assert_eq!(refusal.closed.code, Some(4101), "{refusal:?}");
    }
}

#[tokio::test]
async fn a_token_that_expires_during_the_connection_ends_it() {
    let (_redis, node) = redis_and_node().await;
    let short = Token::of("alice").expires_in(Duration::from_secs(1)).encode();
    let mut client = Client::connect(&node, "alice", "d", with(short)).await;
    client.expect_close_code(4101).await;
    assert_eq!(client.take_frame("error").expect("it was told why")["code"], "token_expired");
}

#[tokio::test]
async fn a_renewed_token_keeps_the_connection_beyond_the_first_one() {
    let (redis, node) = redis_and_node().await;
    // `exp` is in whole seconds.
    let first_end = Duration::from_secs((unix_now() + Duration::from_secs(2)).as_secs());
    let short = Token::of("alice").expires_in(Duration::from_secs(2)).encode();
    let mut client = Client::connect(&node, "alice", "d", with(short.clone())).await;
    // Who is not renewed shows when the first token has ended, leeway included.
    let mut witness = Client::connect(&node, "alice", "witness", with(short)).await;
    let expires = client.ready().frame["expires_at_ms"].as_u64().expect("a time");
    client.send(json!({ "type": "auth", "token": Token::of("alice").encode(), "ref": "renew" })).await;
    let authed = client.expect_frame("authed").await;
    assert!(authed["expires_at_ms"].as_u64().expect("a time") > expires);
    assert_eq!(authed["ref"], "renew");
    witness.expect_close_code(4101).await;
    assert!(unix_now() >= first_end);
    let id = redis.publish("alice", "1").await;
    assert_eq!(client.next_message().await.id, id);
}

#[tokio::test]
async fn a_token_of_someone_else_does_not_renew_a_session() {
    let (_redis, node) = redis_and_node().await;
    for (name, token) in [
        ("another user", Token::of("bob").encode()),
        ("another device", Token::of("alice").device("other").encode()),
        ("forged", Token::of("alice").signed_with("another-secret-that-is-long-enough-0123456789").encode()),
    ] {
        let mut client = Client::connect(&node, "alice", "d", ConnectOptions::default()).await;
        client.send(json!({ "type": "auth", "token": token })).await;
        let error = client.expect_frame("error").await;
        assert!(matches!(error["code"].as_str(), Some("forbidden" | "unauthorized")), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_token_may_pin_its_device() {
    let (_redis, node) = redis_and_node().await;
    let pinned = Token::of("alice").device("phone").encode();
    Client::connect(&node, "alice", "phone", with(pinned.clone())).await;
    let unnamed = Client::connect(&node, "alice", "", with(pinned.clone())).await;
    assert_eq!(unnamed.ready().frame["device"], "phone");
    let refusal = Client::connect_refused(&node, "alice", "laptop", with(pinned)).await;
    assert_eq!((refusal.closed.code, &refusal.error["code"]), (Some(4003), &json!("forbidden")));
}

/// What `homing token` prints.
fn made_by_hand(args: &[&str]) -> std::process::Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_homing"));
    command.env("HOMING_JWT_SECRET", SECRET).arg("token").args(args).output().expect("the program runs")
}

#[tokio::test]
async fn a_token_made_on_the_command_line_may_say_how_many_sessions_its_user_has() {
    let (_redis, node) = redis_and_node().await;
    let token = |args: &[&str]| {
        let made = made_by_hand(&[&["--user", "alice"], args].concat());
        assert!(made.status.success(), "{made:?}");
        String::from_utf8(made.stdout).expect("a token is a text").trim().to_owned()
    };
    let mut phone = Client::connect(&node, "alice", "phone", with(token(&[]))).await;
    let mut tablet = Client::connect(&node, "alice", "tablet", with(token(&["--sessions", "0"]))).await;
    Client::connect(&node, "alice", "web", with(token(&["--sessions", "1"]))).await;
    for replaced in [&mut phone, &mut tablet] {
        assert_eq!(replaced.expect_frame("error").await["code"], "replaced");
        replaced.expect_close_code(4010).await;
    }
    for bad in ["-1", "1001", "x", ""] {
        let refused = made_by_hand(&["--user", "alice", "--sessions", bad]);
        assert!(!refused.status.success() && refused.stdout.is_empty(), "{bad:?}: {refused:?}");
    }
}

#[tokio::test]
async fn a_token_may_come_as_a_header_and_never_in_the_url() {
    let (_redis, node) = redis_and_node().await;
    let header = ConnectOptions { token_in_header: true, ..ConnectOptions::default() };
    Client::connect(&node, "alice", "d", header).await;
    let answer = node
        .request(reqwest::Method::GET, &format!("/v1/ws?token={}", Token::of("alice").encode()))
        .send()
        .await
        .expect("the node answers");
    assert!(answer.status().is_client_error(), "{}", answer.status());
}
