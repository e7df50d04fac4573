//! A table of bad HTTP requests.

use super::*;

/// One bad request: method, path, body, and the status and code that must answer it.
type Bad = (Method, &'static str, Vec<u8>, u16, &'static str);

fn bad_requests() -> Vec<Bad> {
    const ONE: &str = "/v1/users/alice/messages";
    const MANY: &str = "/v1/messages";
    let post = |path, body: &str, status, code| (Method::POST, path, body.as_bytes().to_vec(), status, code);
    let get = |path, status, code| (Method::GET, path, Vec::new(), status, code);
    let deep = format!(r#"{{"data":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    let deep_body = "[".repeat(10_000);
    let big = format!(r#"{{"data":"{}"}}"#, "x".repeat(PAYLOAD_BYTES_MAX - 1));
    let big_bytes = format!(r#"{{"data":"{}","encoding":"base64"}}"#, "AAAA".repeat(PAYLOAD_BYTES_MAX / 3 + 1));
    let huge = format!(r#"{{"data":"{}"}}"#, "x".repeat(2 * PAYLOAD_BYTES_MAX));
    let big_meta = format!(r#"{{"data":1,"meta":{{"m":"{}"}}}}"#, "x".repeat(4 * 1024));
    let long_key = format!(r#"{{"data":1,"key":"{}"}}"#, "k".repeat(129));
    let many = |count| format!(r#"{{"messages":[{}]}}"#, vec![r#"{"user":"a","data":1}"#; count].join(","));
    let heavy = format!(r#"{{"messages":[]{}}}"#, " ".repeat(8 * 1024 * 1024));
    let mut not_utf8 = br#"{"data":"?"}"#.to_vec();
    not_utf8[9] = 0xff;
    vec![
        post(ONE, "", 400, "malformed"),
        post(ONE, "{", 400, "malformed"),
        post(ONE, r#"{"data":1}}"#, 400, "malformed"),
        post(ONE, r#"{"data":01}"#, 400, "malformed"),
        post(ONE, r#"{"data":1,}"#, 400, "malformed"),
        post(ONE, r#"{data:1}"#, 400, "malformed"),
        post(ONE, &deep_body, 400, "malformed"),
        (Method::POST, ONE, not_utf8, 400, "malformed"),
        post(ONE, "[]", 400, "malformed"),
        post(ONE, "[1,null,null,null,null]", 400, "malformed"),
        post(ONE, "null", 400, "malformed"),
        post(ONE, "{}", 400, "bad_value"),
        post(ONE, r#"{"data":1,"colour":2}"#, 400, "bad_value"),
        post(ONE, r#"{"data":1,"user":"alice"}"#, 400, "bad_value"),
        post(ONE, r#"{"data":1,"data":2}"#, 400, "bad_value"),
        post(ONE, r#"{"data":1,"key":"a","key":"b"}"#, 400, "bad_value"),
        post(ONE, r#"{"data":1,"key":7}"#, 400, "bad_value"),
        post(ONE, r#"{"data":1,"key":""}"#, 400, "bad_value"),
        post(ONE, &long_key, 400, "bad_value"),
        post(ONE, r#"{"data":1,"ttl_s":-1}"#, 400, "bad_value"),
        post(ONE, r#"{"data":1,"ttl_s":1.5}"#, 400, "bad_value"),
        post(ONE, r#"{"data":1,"ttl_s":"60"}"#, 400, "bad_value"),
        post(ONE, r#"{"data":1,"ttl_s":2592001}"#, 400, "bad_value"),
        post(ONE, r#"{"data":1,"ttl_s":18446744073709551616}"#, 400, "bad_value"),
        post(ONE, r#"{"data":1,"meta":[]}"#, 400, "bad_value"),
        post(ONE, r#"{"data":1,"meta":"m"}"#, 400, "bad_value"),
        post(ONE, &big_meta, 413, "too_big"),
        post(ONE, r#"{"data":1,"encoding":"base64"}"#, 400, "bad_value"),
        post(ONE, r#"{"data":"a","encoding":"base64"}"#, 400, "bad_value"),
        post(ONE, r#"{"data":"a-_=","encoding":"base64"}"#, 400, "bad_value"),
        post(ONE, r#"{"data":"aGk=","encoding":"hex"}"#, 400, "bad_value"),
        post(ONE, &deep, 400, "bad_value"),
        post(ONE, &big, 413, "too_big"),
        post(ONE, &big_bytes, 413, "too_big"),
        post(ONE, &huge, 413, "too_big"),
        post("/v1/users/a%20b/messages", r#"{"data":1}"#, 400, "bad_name"),
        post("/v1/users/a%2Fb/messages", r#"{"data":1}"#, 400, "bad_name"),
        post("/v1/users/../messages", r#"{"data":1}"#, 400, "bad_name"),
        post("/v1/users/%ff/messages", r#"{"data":1}"#, 400, "bad_name"),
        post("/v1/users/a%7Bb%7D/messages", r#"{"data":1}"#, 400, "bad_name"),
        post("/v1/users/gr%C3%B6%C3%9Fe/messages", r#"{"data":1}"#, 400, "bad_name"),
        post(MANY, "[[]]", 400, "malformed"),
        post(MANY, "{}", 400, "bad_value"),
        post(MANY, r#"{"messages":{}}"#, 400, "bad_value"),
        post(MANY, r#"{"messages":[],"colour":1}"#, 400, "bad_value"),
        post(MANY, r#"{"messages":[{]}"#, 400, "malformed"),
        post(MANY, &many(1_001), 413, "too_many"),
        post(MANY, &heavy, 413, "too_big"),
        get("/v1/users/alice/messages?limit=0", 400, "bad_value"),
        get("/v1/users/alice/messages?limit=101", 400, "bad_value"),
        get("/v1/users/alice/messages?limit=x", 400, "bad_value"),
        get("/v1/users/alice/messages?limit=1&limit=2", 400, "bad_value"),
        get("/v1/users/alice/messages?cursor=x", 400, "bad_value"),
        get("/v1/users/alice/messages?colour=red", 400, "bad_value"),
        get("/v1/users/a%20b", 400, "bad_name"),
        (Method::DELETE, "/v1/users/%2e%2e", Vec::new(), 400, "bad_name"),
        (Method::DELETE, "/v1/users/alice/devices/a%20b", Vec::new(), 400, "bad_name"),
        get("/v1/users/carol", 409, "inbox_unusable"),
        get("/v1/users/carol/messages", 409, "inbox_unusable"),
        post("/v1/users/carol/messages", r#"{"data":1}"#, 409, "inbox_unusable"),
        post("/v1/users/carol/messages", r#"{"data":1,"key":"k"}"#, 409, "inbox_unusable"),
        get("/", 404, "not_found"),
        get("/v1/users/", 404, "not_found"),
        get("/v2/users/alice", 404, "not_found"),
        post("/v1/users//messages", r#"{"data":1}"#, 400, "bad_name"),
        get("/v1/messages", 405, "method_not_allowed"),
        (Method::PUT, ONE, Vec::new(), 405, "method_not_allowed"),
        (Method::OPTIONS, MANY, Vec::new(), 405, "method_not_allowed"),
        post("/healthz", "", 405, "method_not_allowed"),
        get("/metrics", 404, "not_found"),
    ]
}

// If this failed, a client could not tell what was wrong with its request, or a bad request would have an effect.
#[tokio::test]
async fn every_bad_request_is_answered_with_its_status_and_code() {
    let fixture = fixture().await;
    fixture.command(&["SET", "homing:{carol}:inbox", "no stream"]).await;
    for (method, path, body, status, code) in bad_requests() {
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let answer = send(&fixture.router, request(method.clone(), path, body)).await;
        assert_eq!((answer.status, answer.body["code"].as_str()), (status, Some(code)), "{method} {path} {shown}");
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(answer.body["status"], status);
        assert_eq!(answer.body["type"], format!("urn:homing:problem:{code}"));
        assert!(!answer.body["detail"].as_str().unwrap().is_empty() && answer.body["title"].is_string());
        assert!(answer.headers.get("access-control-allow-origin").is_none());
        if status == 413 {
            assert!(answer.body["limit"]["name"].is_string() && answer.body["limit"]["value"].is_u64(), "{shown}");
        }
        if status == 405 {
            assert!(answer.headers.contains_key(header::ALLOW), "{method} {path}");
        }
    }
    let mut keys = redis::cmd("KEYS");
    keys.arg("*");
    assert_eq!(fixture.store.query::<Vec<String>>(&keys).await.unwrap(), ["homing:{carol}:inbox"]);
}
