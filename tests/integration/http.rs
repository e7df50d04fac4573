//! The producer API as seen by bad requests: each gets a status, a problem document with a code, and nothing more.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::node::API_KEY;
use crate::harness::raw::raw_http;
use crate::harness::{Node, NodeOptions, RawSocket, Redis, RedisOptions, within};

async fn redis_and_node() -> (Redis, Node) {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default()).await;
    (redis, node)
}

/// Name, method, path, body (none if null), status, and the codes of which one is expected.
type BadRequest<'a> = (&'a str, Method, &'a str, Value, u16, &'a [&'a str]);

/// Checks the form that every problem document has.
fn assert_problem(name: &str, status: u16, problem: &Value) {
    assert_eq!(problem["status"], json!(status), "{name}: {problem}");
    for member in ["type", "title", "code"] {
        assert!(problem[member].is_string(), "{name}: no {member} in {problem}");
    }
}

#[tokio::test]
async fn a_bad_request_is_answered_by_a_problem_document_with_a_code() {
    let (redis, node) = redis_and_node().await;
    let messages = "/v1/users/alice/messages";
    let long = "x".repeat(65 * 1024);
    let long_user = format!("/v1/users/{}", "x".repeat(256));
    let table: Vec<BadRequest> = vec![
        ("unknown path", Method::GET, "/v1/nothing", Value::Null, 404, &["not_found"]),
        ("unknown method", Method::PUT, messages, json!({}), 405, &["method_not_allowed"]),
        ("unknown member", Method::POST, messages, json!({ "data": 1, "colour": 1 }), 400, &["bad_value", "malformed"]),
        ("no data", Method::POST, messages, json!({ "key": "k" }), 400, &["bad_value", "malformed"]),
        ("a list", Method::POST, messages, json!([]), 400, &["malformed"]),
        ("large data", Method::POST, messages, json!({ "data": long }), 413, &["too_big"]),
        ("empty key", Method::POST, messages, json!({ "data": 1, "key": "" }), 400, &["bad_value"]),
        (
            "long key",
            Method::POST,
            messages,
            json!({ "data": 1, "key": "k".repeat(129) }),
            400,
            &["bad_value", "too_big"],
        ),
        (
            "key of a wrong type",
            Method::POST,
            messages,
            json!({ "data": 1, "key": 7 }),
            400,
            &["malformed", "bad_value"],
        ),
        ("negative ttl", Method::POST, messages, json!({ "data": 1, "ttl_s": -1 }), 400, &["malformed", "bad_value"]),
        ("endless ttl", Method::POST, messages, json!({ "data": 1, "ttl_s": u64::MAX }), 400, &["bad_value"]),
        (
            "meta of a wrong type",
            Method::POST,
            messages,
            json!({ "data": 1, "meta": [1] }),
            400,
            &["bad_value", "malformed"],
        ),
        (
            "large meta",
            Method::POST,
            messages,
            json!({ "data": 1, "meta": { "x": "y".repeat(4_096) } }),
            413,
            &["too_big"],
        ),
        (
            "unknown encoding",
            Method::POST,
            messages,
            json!({ "data": "", "encoding": "gzip" }),
            400,
            &["bad_value", "malformed"],
        ),
        ("bad base64", Method::POST, messages, json!({ "data": "a", "encoding": "base64" }), 400, &["bad_value"]),
        ("bad user", Method::POST, "/v1/users/no%20spaces/messages", json!({ "data": 1 }), 400, &["bad_name"]),
        ("braces", Method::POST, "/v1/users/%7Ba%7D/messages", json!({ "data": 1 }), 400, &["bad_name"]),
        ("slash", Method::GET, "/v1/users/a%2Fb", Value::Null, 400, &["bad_name"]),
        ("long user", Method::GET, &long_user, Value::Null, 400, &["bad_name"]),
        ("bad device", Method::DELETE, "/v1/users/a/devices/%23incarnation", Value::Null, 400, &["bad_name"]),
        ("bad limit", Method::GET, "/v1/users/a/messages?limit=-1", Value::Null, 400, &["bad_value"]),
        ("bad cursor", Method::GET, "/v1/users/a/messages?cursor=x", Value::Null, 400, &["bad_value"]),
        (
            "large batch",
            Method::POST,
            "/v1/messages",
            json!({ "messages": vec![json!({}); 1_001] }),
            413,
            &["too_many"],
        ),
        ("no batch", Method::POST, "/v1/messages", json!({ "messages": 1 }), 400, &["malformed", "bad_value"]),
        ("no upgrade", Method::GET, "/v1/ws", Value::Null, 426, &["upgrade_required"]),
        ("metrics", Method::GET, "/metrics", Value::Null, 404, &["not_found"]),
    ];
    for (name, method, path, body, status, codes) in table {
        let body = (!body.is_null()).then_some(body);
        let (got, problem) = node.call(method, path, body.as_ref()).await;
        assert_eq!(got, status, "{name}: {problem}");
        assert_problem(name, status, &problem);
        assert!(codes.contains(&problem["code"].as_str().unwrap_or_default()), "{name}: {problem}");
    }
    assert_eq!(redis.query::<Vec<String>>(&["KEYS", "homing:{*"]).await, Vec::<String>::new(), "nothing was written");
}

#[tokio::test]
async fn a_limit_that_was_hit_is_named_with_its_value() {
    let (_redis, node) = redis_and_node().await;
    let body = json!({ "data": "x".repeat(65 * 1024) });
    let response = node.request(Method::POST, "/v1/users/alice/messages").json(&body).send().await;
    let response = response.expect("the node answers");
    let content_type = response.headers()["content-type"].to_str().expect("a plain header").to_owned();
    assert!(content_type.starts_with("application/problem+json"), "{content_type}");
    let problem: Value = response.json().await.expect("a problem document");
    assert!(problem.to_string().contains("65536"), "{problem}");
}

#[tokio::test]
async fn a_request_without_a_good_key_learns_nothing() {
    let (_redis, node) = redis_and_node().await;
    let wrong = [
        String::new(),
        "Authorization: Bearer\r\n".to_owned(),
        "Authorization: Bearer wrong\r\n".to_owned(),
        format!("Authorization: Bearer {}x\r\n", API_KEY),
        format!("Authorization: Bearer {}\r\n", &API_KEY[..API_KEY.len() - 1]),
        format!("Authorization: Basic {API_KEY}\r\n"),
        format!("X-Api-Key: {API_KEY}\r\n"),
    ];
    for header in &wrong {
        for (method, path) in [
            ("POST", "/v1/users/alice/messages"),
            ("POST", "/v1/messages"),
            ("GET", "/v1/users/alice"),
            ("GET", "/v1/users/alice/messages"),
            ("DELETE", "/v1/users/alice"),
            ("DELETE", "/v1/users/alice/devices/d"),
        ] {
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\
                 Connection: close\r\n{header}\r\n{{\"data\":1}}"
            );
            let answer = raw_http(node.address(), request.as_bytes()).await.expect("an answer");
            assert_eq!(answer.status, 401, "{header}{method} {path}: {}", answer.head);
            assert_problem(path, 401, &answer.json());
            assert_eq!(answer.json()["code"], "unauthorized");
        }
    }
    assert!(!node.output().contains(API_KEY), "no key in the log");
}

#[tokio::test]
async fn a_body_that_is_not_what_it_says_is_refused() {
    let (_redis, node) = redis_and_node().await;
    let post = |headers: &str, body: &[u8]| {
        let head = format!(
            "POST /v1/users/alice/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\n\
             Connection: close\r\n{headers}\r\n"
        );
        [head.as_bytes(), body].concat()
    };
    let json_type = "Content-Type: application/json\r\n";
    let table = [
        ("no JSON", post(&format!("{json_type}Content-Length: 5\r\n"), b"{\"a\":"), 400),
        ("two values", post(&format!("{json_type}Content-Length: 20\r\n"), b"{\"data\":1}{\"data\":1}"), 400),
        ("not UTF-8", post(&format!("{json_type}Content-Length: 12\r\n"), b"{\"data\":\"\xff\"}"), 400),
        ("empty", post(&format!("{json_type}Content-Length: 0\r\n"), b""), 400),
        ("another type", post("Content-Type: text/plain\r\nContent-Length: 10\r\n", b"{\"data\":1}"), 415),
        ("no type", post("Content-Length: 10\r\n", b"{\"data\":1}"), 415),
        ("a length of a terabyte", post(&format!("{json_type}Content-Length: 1099511627776\r\n"), b"{"), 413),
        ("a length that is no number", post(&format!("{json_type}Content-Length: ten\r\n"), b"{}"), 400),
        ("two lengths", post(&format!("{json_type}Content-Length: 2\r\nContent-Length: 3\r\n"), b"{}x"), 400),
        ("a broken chunk", post(&format!("{json_type}Transfer-Encoding: chunked\r\n"), b"zz\r\n{}\r\n0\r\n\r\n"), 400),
    ];
    for (name, request, status) in table {
        match raw_http(node.address(), &request).await {
            Some(answer) => assert_eq!(answer.status, status, "{name}: {}", answer.head),
            None => assert_eq!(status, 400, "{name}: closed without an answer"),
        }
    }
    let deep = format!("{{\"data\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000));
    let request = post(&format!("{json_type}Content-Length: {}\r\n", deep.len()), deep.as_bytes());
    assert_eq!(raw_http(node.address(), &request).await.expect("an answer").status, 400, "too deep");
    let chunked =
        post(&format!("{json_type}Transfer-Encoding: chunked\r\n"), b"5\r\n{\"dat\r\n5\r\na\":1}\r\n0\r\n\r\n");
    assert_eq!(raw_http(node.address(), &chunked).await.expect("an answer").status, 201, "chunks are fine");
}

#[tokio::test]
async fn bytes_that_are_no_http_end_their_own_connection_only() {
    let (_redis, node) = redis_and_node().await;
    let many_headers: String = (0..2_000).map(|number| format!("X-{number}: y\r\n")).collect();
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("noise", vec![0xFF; 1_000]),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(20)),
        ("no version", b"GET /healthz\r\n\r\n".to_vec()),
        ("a future version", b"GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n".to_vec()),
        ("a space in a header's name", b"GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n".to_vec()),
        ("a long line", [b"GET /", "x".repeat(200_000).as_bytes(), b" HTTP/1.1\r\n\r\n"].concat()),
        ("many headers", format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{many_headers}\r\n").into_bytes()),
        (
            "a long header",
            format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(200_000)).into_bytes(),
        ),
        ("line feeds", b"\n".repeat(10_000)),
    ];
    for (name, bytes) in table {
        let mut socket = RawSocket::open(node.address()).await;
        socket.write(&bytes).await;
        socket.finish_writing().await;
        if let Some(answer) = socket.read_answer().await {
            assert!((400..=505).contains(&answer.status), "{name}: {}", answer.head);
        }
    }
    assert_eq!(node.readyz().await, Some(200));
}

// A smuggled second request would run with the rights of the first.
#[tokio::test]
async fn a_request_with_two_ways_to_end_is_not_two_requests() {
    let (redis, node) = redis_and_node().await;
    let smuggled = format!(
        "POST /v1/users/eve/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\n\
         Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{{\"data\":1}}"
    );
    let request = format!(
        "POST /v1/users/alice/messages HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\
         Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}",
        smuggled.len() + 5
    );
    let mut socket = RawSocket::open(node.address()).await;
    socket.write(request.as_bytes()).await;
    socket.finish_writing().await;
    let mut answers = Vec::new();
    while let Some(answer) = socket.read_answer().await {
        answers.push(answer.status);
    }
    assert!(answers.first().is_none_or(|status| *status >= 400), "{answers:?}");
    assert_eq!(redis.inbox_length("eve").await, 0, "{answers:?}");
}

#[tokio::test]
async fn a_request_that_never_ends_its_head_is_closed() {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default().set("header_timeout", "300ms")).await;
    for beginning in ["", "GET /v1/ws HTTP/1.1\r\n", "GET /healthz HTTP/1.1\r\nHost: x\r\nX: y"] {
        let mut socket = RawSocket::open(node.address()).await;
        socket.write(beginning.as_bytes()).await;
        within("a connection without a request is closed", socket.read_end()).await;
    }
    // An idle connection between two requests is no request that has begun, but it ends as well, or stays usable.
    let mut socket = RawSocket::open(node.address()).await;
    socket.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(socket.read_answer().await.expect("an answer").status, 200);
}

#[tokio::test]
async fn health_and_readiness_are_on_both_listeners_and_metrics_on_one() {
    let (_redis, node) = redis_and_node().await;
    for (address, path, status) in [
        (node.address(), "/healthz", 200),
        (node.address(), "/readyz", 200),
        (node.address(), "/metrics", 404),
        (node.admin_address(), "/healthz", 200),
        (node.admin_address(), "/readyz", 200),
        (node.admin_address(), "/metrics", 200),
        (node.admin_address(), "/v1/users/alice", 404),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = raw_http(address, request.as_bytes()).await.expect("an answer");
        assert_eq!(answer.status, status, "{address}{path}");
    }
}

#[tokio::test]
async fn many_requests_at_once_are_all_answered() {
    let (redis, node) = redis_and_node().await;
    let requests = (0..200).map(|number| {
        let user = number % 10;
        node.request(Method::POST, &format!("/v1/users/u{user}/messages")).json(&json!({ "data": number })).send()
    });
    let answers = within("all answers", futures_util::future::join_all(requests)).await;
    assert!(answers.into_iter().all(|answer| answer.is_ok_and(|answer| answer.status().as_u16() == 201)));
    for user in 0..10 {
        assert_eq!(redis.inbox_length(&format!("u{user}")).await, 20);
    }
}

#[tokio::test]
async fn a_user_is_read_in_pages_and_an_unknown_one_reads_as_empty() {
    let (redis, node) = redis_and_node().await;
    let (status, unknown) = node.get("/v1/users/nobody").await;
    assert_eq!(status, 200, "{unknown}");
    let (status, page) = node.get("/v1/users/nobody/messages").await;
    assert_eq!((status, &page["items"], &page["next_cursor"]), (200, &json!([]), &Value::Null));

    // `+` in a path is literal.
    let ids = redis.publish_all("a+b@c.example", (0..7).map(|number| number.to_string())).await;
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let (status, page) = node.get(&format!("/v1/users/a+b@c.example/messages?limit=3{cursor}")).await;
        assert_eq!(status, 200, "{page}");
        let items = page["items"].as_array().expect("a list");
        assert!(items.len() <= 3);
        seen.extend(items.iter().map(|item| item["id"].as_str().expect("an id").to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ids);
}

#[tokio::test]
async fn a_deletion_of_a_user_takes_everything() {
    let (redis, node) = redis_and_node().await;
    redis.publish("alice", "1").await;
    let (status, answer) = node.delete("/v1/users/alice").await;
    assert!((200..300).contains(&status), "{answer}");
    assert_eq!(redis.inbox_length("alice").await, 0);
    let (status, _) = node.delete("/v1/users/alice").await;
    assert!((200..300).contains(&status), "a second deletion is no error");
}

#[tokio::test]
async fn bytes_published_as_base64_are_the_bytes_in_the_inbox() {
    let (redis, node) = redis_and_node().await;
    let body = json!({ "data": "AP+A", "encoding": "base64" });
    let (status, answer) = node.post("/v1/users/alice/messages", &body).await;
    assert_eq!(status, 201, "{answer}");
    let entries: Vec<(String, Vec<Vec<u8>>)> = redis.query(&["XRANGE", "homing:{alice}:inbox", "-", "+"]).await;
    let fields = &entries[0].1;
    let position = fields.iter().position(|field| field == b"data").expect("a field data");
    assert_eq!(fields[position + 1], [0x00, 0xFF, 0x80]);
    // A slow answer would be a hang of every producer.
    assert!(tokio::time::timeout(Duration::from_secs(5), node.get("/healthz")).await.is_ok());
}
