//! Calls of the HTTP API that a measurement makes by itself, beside those of its workers.

use std::time::Duration;

use serde_json::Value;

use super::BenchError;
use super::clock::now_us;
use super::latency::Latencies;
use super::worker::orders::Target;

/// Time for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A client of one node's API; cloning is cheap.
#[derive(Clone)]
pub(crate) struct Calls {
    client: reqwest::Client,
    base: String,
    api_key: String,
}

impl Calls {
    pub(crate) fn new(target: &Target, api_key: &str) -> Result<Self, BenchError> {
        let client = reqwest::Client::builder().no_proxy().timeout(ANSWER_TIMEOUT).build();
        let base = format!("http://{}:{}{}", target.host, target.port, target.path);
        Ok(Self { client: client.map_err(BenchError::broken("an HTTP client"))?, base, api_key: api_key.to_owned() })
    }

    /// The answer to a call, which must be a success; how long it took is noted.
    pub(crate) async fn call(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<&Value>,
        took: &mut Latencies,
    ) -> Result<Value, BenchError> {
        let mut request = self.client.request(method, format!("{}{path}", self.base)).bearer_auth(&self.api_key);
        if let Some(body) = body {
            request = request.json(body);
        }
        let began_us = now_us();
        let answer = request.send().await.map_err(BenchError::unreachable(path))?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(BenchError::unreachable(path))?;
        took.record(now_us() - began_us);
        match status.as_u16() {
            200 | 201 => serde_json::from_slice(&body).map_err(BenchError::broken(path)),
            _ => Err(BenchError::Refused(format!(
                "{path} was answered with {status}: {}",
                String::from_utf8_lossy(&body)
            ))),
        }
    }

    pub(crate) async fn get(&self, path: &str, took: &mut Latencies) -> Result<Value, BenchError> {
        self.call(reqwest::Method::GET, path, None, took).await
    }
}
