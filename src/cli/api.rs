//! Calls to the producer API.

use std::time::Duration;

use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value;

use super::exit::{Exit, Failure, OrExit as _};
use super::token::tell_origin;
use crate::config::ClientConfig;

/// Longer than the server waits for its Redis.
const REPLY_TIMEOUT: Duration = Duration::from_secs(15);

/// A server and the key for it.
pub(super) struct Api {
    http: reqwest::Client,
    url: String,
    key: String,
}

impl Api {
    pub(super) fn new(url: Option<&str>, config: &ClientConfig) -> Result<Self, Failure> {
        let found = config.api_key().or_exit(Exit::Configuration)?;
        tell_origin("API key", &found);
        let key = String::from_utf8_lossy(found.secret.expose()).into_owned();
        let http = reqwest::Client::builder().timeout(REPLY_TIMEOUT).build().or_exit(Exit::Other)?;
        Ok(Self { http, url: config.url(url), key })
    }

    /// `path` starts with a slash; its segments are encoded already.
    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.send(self.http.get(format!("{}{path}", self.url))).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.send(self.http.post(format!("{}{path}", self.url)).json(body)).await
    }

    async fn send(&self, request: RequestBuilder) -> Result<Value, Failure> {
        let response = request.bearer_auth(&self.key).send().await.map_err(|error| {
            let exit = if error.is_builder() { Exit::Usage } else { Exit::Unreachable };
            let error = anyhow::Error::from(error.without_url()).context(format!("cannot call {}", self.url));
            Failure { exit, error }
        })?;
        let status = response.status();
        let body = response.bytes().await.or_exit(Exit::Unreachable)?;
        if status.is_success() {
            return serde_json::from_slice(&body).or_exit(Exit::Other);
        }
        Err(Failure::new(exit_of(status), problem(status, &body)))
    }
}

fn exit_of(status: StatusCode) -> Exit {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::Refused,
        StatusCode::TOO_MANY_REQUESTS => Exit::Unreachable,
        status if status.is_client_error() => Exit::Rejected,
        _ => Exit::Unreachable,
    }
}

/// The problem document (RFC 9457) in one line.
fn problem(status: StatusCode, body: &[u8]) -> String {
    let problem: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let member = |name: &str| problem[name].as_str().unwrap_or_default();
    let text = if member("detail").is_empty() { member("title") } else { member("detail") };
    match (text, member("code")) {
        ("", "") => format!("the server answered {status}"),
        (text, code) => format!("the server answered {status}: {text} ({code})"),
    }
}

/// A name as a segment of a path.
pub(super) fn segment(name: &str) -> String {
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'~' | b'-' => segment.push(char::from(byte)),
            _ => segment.push_str(&format!("%{byte:02X}")),
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_its_way_through_a_path() {
        assert_eq!(segment("a+b|c@d"), "a%2Bb%7Cc%40d");
    }

    #[test]
    fn a_problem_is_told_in_one_line_with_its_code() {
        let body = br#"{"title":"Too big","detail":"data has 70000 bytes; the limit is 65536","code":"too_big"}"#;
        let text = problem(StatusCode::PAYLOAD_TOO_LARGE, body);
        assert!(text.ends_with("data has 70000 bytes; the limit is 65536 (too_big)"), "{text}");
        assert_eq!(exit_of(StatusCode::PAYLOAD_TOO_LARGE), Exit::Rejected);
        assert!(problem(StatusCode::BAD_GATEWAY, b"<html>").contains("502"));
    }
}
