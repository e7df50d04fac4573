//! The API against a real Redis: what must work, and a table of what must be refused.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request, header};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tower::ServiceExt as _;

use super::*;
use crate::auth::ApiKeys;
use crate::config::{ApiKey, Scope, Secret};
use crate::publish::{Publisher, PublisherConfig, Waits};
use crate::store::test_server::TestServer;
use crate::store::{Function, Store};

#[path = "bad_request_tests.rs"]
mod bad_requests;
#[path = "scope_tests.rs"]
mod scopes;

const ALL: &str = "a-key-with-every-scope-0123456789abcdef";
const READER: &str = "a-key-that-may-only-read-0123456789abcd";
const PUBLISHER: &str = "a-key-that-may-only-publish-0123456789a";
const MANAGER: &str = "a-key-that-may-only-manage-0123456789ab";
const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

struct AlwaysReady;

impl Health for AlwaysReady {
    fn ready(&self) -> bool {
        true
    }

    fn details(&self) -> Map<String, Value> {
        Map::from_iter([("probe_age_ms".to_owned(), json!(7))])
    }
}

struct NeverReady;

impl Health for NeverReady {
    fn ready(&self) -> bool {
        false
    }

    fn details(&self) -> Map<String, Value> {
        Map::new()
    }
}

struct Fixture {
    redis: TestServer,
    store: Store,
    router: Router,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

fn key(name: &str, text: &str, scopes: &[Scope]) -> ApiKey {
    ApiKey { scopes: scopes.to_vec(), ..ApiKey::with_all_scopes(name, &Secret::new(text, "test").unwrap()) }
}

async fn fixture_with(hosts: Option<HostPolicy>) -> Fixture {
    let redis = TestServer::start(&[]);
    let store = redis.store().await;
    let (overfull, _) = mpsc::channel(1);
    let publishing = PublisherConfig {
        payload_bytes_max: PAYLOAD_BYTES_MAX,
        inbox_length_max: 10_000,
        inbox_age_max: Duration::from_secs(60),
    };
    let state = ApiState {
        store: store.clone(),
        publisher: Publisher::new(store.clone(), publishing, overfull),
        waits: Waits::new(vec!["node:0.0".to_owned()], Duration::from_secs(60)),
        keys: ApiKeys::new(vec![
            key("all", ALL, &[Scope::Publish, Scope::Read, Scope::Manage]),
            key("reader", READER, &[Scope::Read]),
            key("publisher", PUBLISHER, &[Scope::Publish]),
            key("manager", MANAGER, &[Scope::Manage]),
        ]),
        bodies: BodyBudget::new(64 * 1024 * 1024),
        health: Arc::new(AlwaysReady),
        config: ApiConfig {
            payload_bytes_max: PAYLOAD_BYTES_MAX,
            topics_per_user: 200,
            body_timeout: Duration::from_millis(100),
            node_dead_after: Duration::from_secs(6),
            hosts,
        },
    };
    Fixture { redis, store, router: public_router(state, Router::new()) }
}

async fn fixture() -> Fixture {
    fixture_with(None).await
}

async fn send(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

fn request(method: Method, path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {ALL}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into())
        .unwrap()
}

impl Fixture {
    async fn post(&self, path: &str, body: impl Into<Body>) -> Answer {
        send(&self.router, request(Method::POST, path, body)).await
    }

    async fn get(&self, path: &str) -> Answer {
        send(&self.router, request(Method::GET, path, Body::empty())).await
    }

    async fn delete(&self, path: &str) -> Answer {
        send(&self.router, request(Method::DELETE, path, Body::empty())).await
    }

    async fn command(&self, words: &[&str]) {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        self.store.query::<redis::Value>(&command).await.unwrap();
    }

    async fn attach(&self, user: &str, device: &str) {
        let attach = json!({
            "user": user, "device": device, "channels": "homing:node:0:", "owner": "n1:abc.0", "node": "n1",
            "nonce": device, "instance": "", "seq": 1, "from": "start", "epoch": "", "primary": "1",
            "mode": "connect", "generation": "", "devices_max": 20, "replace_after_ms": 1
        });
        let (inbox, devices) = (format!("homing:{{{user}}}:inbox"), format!("homing:{{{user}}}:devices"));
        let mut call = Function::Attach.call(&[&inbox, &devices]);
        call.arg(attach.to_string());
        self.store.call::<redis::Value>(&call).await.unwrap();
    }
}

#[tokio::test]
async fn a_published_message_can_be_read_back_exactly() {
    let fixture = fixture().await;
    let answer =
        fixture.post("/v1/users/alice/messages", r#"{"data":{"n": 1.0},"key":"k1","meta":{"m":1},"ttl_s":60}"#).await;
    assert_eq!((answer.status, &answer.headers[header::CONTENT_TYPE]), (201, &"application/json".parse().unwrap()));
    let again = fixture.post("/v1/users/alice/messages", r#"{"data":2,"key":"k1"}"#).await;
    assert_eq!((again.status, &again.body), (200, &answer.body));
    fixture.post("/v1/users/alice/messages", r#"{"data":"aGk=","encoding":"base64"}"#).await;
    fixture.post("/v1/users/alice/messages", r#"{"data":null}"#).await;
    let items = fixture.get("/v1/users/alice/messages").await.body["items"].take();
    assert_eq!((&items[0]["id"], &items[0]["data"]), (&answer.body["id"], &json!({"n": 1.0})));
    assert_eq!((&items[0]["key"], &items[0]["meta"]), (&json!("k1"), &json!({"m": 1})));
    assert_eq!((&items[1]["data"], &items[1]["encoding"]), (&json!("aGk="), &json!("base64")));
    assert_eq!((&items[2]["data"], items.as_array().unwrap().len()), (&Value::Null, 3));
}

#[tokio::test]
async fn a_plus_in_the_path_is_a_plus_and_escapes_are_decoded() {
    let fixture = fixture().await;
    fixture.post("/v1/users/a+b%40c/messages", r#"{"data":1}"#).await;
    let mut length = redis::cmd("XLEN");
    length.arg("homing:{a+b@c}:inbox");
    assert_eq!(fixture.store.query::<u64>(&length).await.unwrap(), 1);
}

#[tokio::test]
async fn a_batch_answers_each_message_in_order() {
    let fixture = fixture().await;
    let big = "x".repeat(PAYLOAD_BYTES_MAX);
    let body = json!({"messages": [
        {"user": "alice", "data": 1, "key": "k"},
        {"user": "bad name", "data": 1},
        {"user": "bob", "data": big},
        {"user": "alice", "data": 2, "key": "k"},
        {"user": "bob", "data": 1, "colour": "red"},
        {"user": "bob"},
        {"user": "bob", "data": "aGk=", "encoding": "base64", "ttl_s": 0},
    ]});
    let answer = fixture.post("/v1/messages", body.to_string()).await;
    assert_eq!(answer.status, 200);
    let results = answer.body["results"].as_array().unwrap();
    let statuses: Vec<_> = results.iter().map(|result| result["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [201, 400, 413, 200, 400, 400, 201]);
    let codes: Vec<_> = results.iter().filter_map(|result| result["code"].as_str()).collect();
    assert_eq!(codes, ["bad_name", "too_big", "bad_value", "bad_value"]);
    assert_eq!(results[2]["limit"], json!({"name": "payload_bytes_max", "value": PAYLOAD_BYTES_MAX}));
    assert_eq!(results[0]["id"], results[3]["id"]);
    assert_eq!(fixture.post("/v1/messages", r#"{"messages":[]}"#).await.body, json!({"results": []}));
}

#[tokio::test]
async fn a_user_shows_devices_with_what_they_have_pending() {
    let fixture = fixture().await;
    for _ in 0..3 {
        fixture.post("/v1/users/alice/messages", r#"{"data":1}"#).await;
    }
    fixture.attach("alice", "phone").await;
    fixture.attach("alice", "web-1").await;
    fixture.command(&["XREADGROUP", "GROUP", "phone", "c", "COUNT", "2", "STREAMS", "homing:{alice}:inbox", ">"]).await;
    let offline = fixture.get("/v1/users/alice").await.body;
    assert_eq!(offline["devices"][0]["online"], json!(false), "a node without heartbeat holds nothing");

    let mut heartbeat = Function::Heartbeat.call(&["homing:nodes"]);
    heartbeat.arg("n1:abc").arg(r#"{"node":"n1"}"#).arg(6_000).arg(60_000);
    fixture.store.call::<redis::Value>(&heartbeat).await.unwrap();
    let answer = fixture.get("/v1/users/alice").await;
    assert_eq!((answer.status, &answer.body["inbox_length"]), (200, &json!(3)));
    let [phone, web] = [&answer.body["devices"][0], &answer.body["devices"][1]];
    assert_eq!((&phone["device"], &phone["online"], &phone["node"]), (&json!("phone"), &json!(true), &json!("n1")));
    assert_eq!((&phone["pending"], &phone["unacked"]), (&json!(3), &json!(2)));
    assert_eq!((&web["pending"], &web["unacked"]), (&json!(3), &json!(0)));
    for device in [phone, web] {
        assert!(device["oldest_pending_age_ms"].is_u64() && device["generation"].as_u64().unwrap() > 0, "{device}");
        assert!(device["first_seen_ms"].as_u64().unwrap() > 1_600_000_000_000);
    }
    let nobody = fixture.get("/v1/users/nobody").await;
    assert_eq!(nobody.body, json!({"user": "nobody", "inbox_length": 0, "devices": []}));
}

#[tokio::test]
async fn devices_and_users_are_forgotten_on_request() {
    let fixture = fixture().await;
    fixture.post("/v1/users/alice/messages", r#"{"data":1}"#).await;
    fixture.attach("alice", "phone").await;
    fixture.attach("alice", "web-1").await;
    let phone = fixture.delete("/v1/users/alice/devices/phone").await;
    assert_eq!((phone.status, phone.body), (200, json!({"removed": true})));
    assert_eq!(fixture.delete("/v1/users/alice/devices/phone").await.body, json!({"removed": false}));
    assert_eq!(fixture.get("/v1/users/alice").await.body["devices"].as_array().unwrap().len(), 1);
    assert_eq!(fixture.delete("/v1/users/alice").await.body, json!({"devices_removed": 1}));
    assert_eq!(fixture.get("/v1/users/alice").await.body["inbox_length"], 0);
    assert_eq!(fixture.get("/v1/users/alice/messages").await.body, json!({"items": [], "next_cursor": null}));
}

#[tokio::test]
async fn pages_cover_an_inbox_once() {
    let fixture = fixture().await;
    for number in 0..5 {
        fixture.post("/v1/users/alice/messages", format!(r#"{{"data":{number}}}"#)).await;
    }
    let big = "x".repeat(PAYLOAD_BYTES_MAX + 1);
    fixture.command(&["XADD", "homing:{alice}:inbox", "*", "data", &big]).await;
    let (mut seen, mut path) = (Vec::new(), "/v1/users/alice/messages?limit=2".to_owned());
    loop {
        let mut page = fixture.get(&path).await.body;
        seen.append(page["items"].as_array_mut().unwrap());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/users/alice/messages?limit=2&cursor={cursor}");
    }
    let data: Vec<_> = seen.iter().map(|item| &item["data"]).collect();
    assert_eq!(data[..5], [&json!(0), &json!(1), &json!(2), &json!(3), &json!(4)]);
    assert_eq!((seen.len(), &seen[5]["too_big"]), (6, &json!(true)));
}

#[tokio::test]
async fn details_name_the_member_the_place_and_the_limit() {
    let fixture = fixture().await;
    let unknown = fixture.post("/v1/users/alice/messages", "{\"data\":1,\n\"colour\":2}").await;
    let detail = unknown.body["detail"].as_str().unwrap();
    assert!(detail.contains("`colour`") && detail.contains("line 2 column 8"), "{detail}");
    let big = fixture.post("/v1/users/alice/messages", format!(r#"{{"data":"{}"}}"#, "x".repeat(70_000))).await;
    assert_eq!(big.body["limit"], json!({"name": "payload_bytes_max", "value": PAYLOAD_BYTES_MAX}));
    let long = format!(r#"{{"data":1,"{}":2}}"#, "é".repeat(1_000));
    let long = fixture.post("/v1/users/alice/messages", long).await;
    assert!(long.body["detail"].as_str().unwrap().len() < 400);
}

#[tokio::test]
async fn without_a_key_that_has_the_scope_nothing_is_answered() {
    let fixture = fixture().await;
    let calls = [
        (Method::POST, "/v1/users/alice/messages"),
        (Method::POST, "/v1/messages"),
        (Method::GET, "/v1/users/alice"),
        (Method::GET, "/v1/users/alice/messages"),
        (Method::DELETE, "/v1/users/alice"),
        (Method::DELETE, "/v1/users/alice/devices/web-1"),
        (Method::POST, "/v1/users/alice/disconnect"),
        (Method::GET, "/v1/presence?users=alice"),
    ];
    let unauthorized =
        ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer wrong", &format!("Bearer {ALL}x"), ALL, "Bearer é"];
    for (method, path) in calls {
        for value in unauthorized {
            // Credentials come first: a stranger does not learn what else is wrong with the request.
            let mut request = Request::builder().method(method.clone()).uri(path);
            if !value.is_empty() {
                request = request.header(header::AUTHORIZATION, value.as_bytes());
            }
            let answer = send(&fixture.router, request.body(Body::from("{")).unwrap()).await;
            assert_eq!((answer.status, &answer.body["code"]), (401, &json!("unauthorized")), "{method} {path} {value}");
            assert!(answer.headers[header::WWW_AUTHENTICATE].to_str().unwrap().starts_with("Bearer"));
        }
        let mut reader = request(method.clone(), path, r#"{"data":1}"#);
        reader.headers_mut().insert(header::AUTHORIZATION, format!("bearer {READER}").parse().unwrap());
        let answer = send(&fixture.router, reader).await;
        let expected = if method == Method::GET { 200 } else { 403 };
        assert_eq!(answer.status, expected, "{method} {path}");
    }
}

#[tokio::test]
async fn only_bodies_declared_as_json_are_read() {
    let fixture = fixture().await;
    for (declared, status) in [
        (None, 415),
        (Some("text/plain"), 415),
        (Some("application/x-www-form-urlencoded"), 415),
        (Some("application/jsonx"), 415),
        (Some("application/json"), 201),
        (Some("Application/JSON ; charset=utf-8"), 201),
    ] {
        let mut request = request(Method::POST, "/v1/users/alice/messages", r#"{"data":1}"#);
        request.headers_mut().remove(header::CONTENT_TYPE);
        if let Some(declared) = declared {
            request.headers_mut().insert(header::CONTENT_TYPE, declared.parse().unwrap());
        }
        let answer = send(&fixture.router, request).await;
        assert_eq!(answer.status, status, "{declared:?}");
        assert!(status == 201 || answer.body["code"] == "unsupported_media_type");
    }
}

#[tokio::test]
async fn a_body_may_come_in_pieces_but_not_forever() {
    let fixture = fixture().await;
    let pieces = [r#"{"data"#, r#"":[1,"#, "", r#"2]}"#].map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece)));
    let stream = futures_util::stream::iter(pieces);
    assert_eq!(fixture.post("/v1/users/alice/messages", Body::from_stream(stream)).await.status, 201);

    let endless = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 4096])));
    let answer = fixture.post("/v1/users/alice/messages", Body::from_stream(endless)).await;
    assert_eq!((answer.status, &answer.body["limit"]["name"]), (413, &json!("body_bytes_max")));

    let stuck = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
    let answer = fixture.post("/v1/users/alice/messages", Body::from_stream(stuck)).await;
    assert_eq!((answer.status, &answer.body["code"]), (408, &json!("silent")));

    let broken = futures_util::stream::iter([Ok(Bytes::from("{")), Err(std::io::Error::other("gone"))]);
    let answer = fixture.post("/v1/users/alice/messages", Body::from_stream(broken)).await;
    assert_eq!((answer.status, &answer.body["code"]), (400, &json!("malformed")));
}

#[tokio::test]
async fn when_redis_refuses_or_is_gone_the_producer_is_told_what_that_means() {
    let mut fixture = fixture().await;
    fixture.post("/v1/users/alice/messages", r#"{"data":1}"#).await;
    fixture.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let full = fixture.post("/v1/users/alice/messages", r#"{"data":1}"#).await;
    assert_eq!((full.status, &full.body["code"]), (503, &json!("unavailable")));
    assert_eq!(
        (&full.headers[header::RETRY_AFTER], &full.body["retry_after_ms"]),
        (&"1".parse().unwrap(), &json!(1_000))
    );
    let batch = fixture.post("/v1/messages", r#"{"messages":[{"user":"a","data":1}]}"#).await;
    assert_eq!((batch.status, &batch.body["results"][0]["status"]), (200, &json!(503)));
    fixture.redis.kill();
    for _ in 0..2 {
        let gone = fixture.post("/v1/users/alice/messages", r#"{"data":1}"#).await;
        assert!(gone.status == 503 || gone.status == 504, "{}", gone.body);
    }
    let gone = fixture.get("/v1/users/alice").await;
    assert_eq!((gone.status, &gone.body["code"]), (503, &json!("unavailable")));
}

#[tokio::test]
async fn in_dev_foreign_host_headers_are_refused() {
    let fixture = fixture_with(Some(HostPolicy::loopback())).await;
    for (host, status) in [(Some("localhost:8080"), 200), (Some("evil.example"), 421), (None, 421)] {
        let mut request = Request::builder().uri("/healthz");
        if let Some(host) = host {
            request = request.header(header::HOST, host);
        }
        let answer = send(&fixture.router, request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, status, "{host:?}");
        assert!(status == 200 || answer.body["code"] == "bad_host");
    }
}

#[tokio::test]
async fn health_has_details_and_metrics_on_the_admin_listener_only() {
    let fixture = fixture().await;
    assert_eq!(fixture.get("/healthz").await.status, 200);
    assert_eq!(fixture.get("/readyz").await.body, json!({"ready": true}));
    let admin = |health: Arc<dyn Health>| {
        admin_router(AdminState { health, render_metrics: Arc::new(|| "homing_ready 1\n".to_owned()) })
    };
    let green = send(&admin(Arc::new(AlwaysReady)), request(Method::GET, "/readyz", Body::empty())).await;
    assert_eq!((green.status, green.body), (200, json!({"ready": true, "probe_age_ms": 7})));
    let red = send(&admin(Arc::new(NeverReady)), request(Method::GET, "/readyz", Body::empty())).await;
    assert_eq!((red.status, red.body), (503, json!({"ready": false})));
    let metrics = send(&admin(Arc::new(NeverReady)), request(Method::GET, "/metrics", Body::empty())).await;
    assert!(metrics.headers[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/plain"));
    let other = send(&admin(Arc::new(NeverReady)), request(Method::GET, "/v1/users/alice", Body::empty())).await;
    assert_eq!((other.status, &other.body["code"]), (404, &json!("not_found")));
}
