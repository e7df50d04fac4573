//! Which `Host` headers are answered.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use homing_protocol::code::ErrorCode;

use super::problem::Problem;

/// Names under which this server may be addressed, in any port.
///
/// In `--dev` the first page hands out credentials to whoever asks from this machine. A foreign page can make its own
/// name point to 127.0.0.1 (DNS rebinding) and then read answers as its own; but its requests still carry its name.
#[derive(Clone, Debug)]
pub struct HostPolicy {
    names: Vec<String>,
}

impl HostPolicy {
    /// The names of the loopback interface.
    #[must_use]
    pub fn loopback() -> Self {
        Self { names: ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).to_vec() }
    }

    /// Checks a request's head.
    ///
    /// # Errors
    /// A problem of code `bad_host`.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        let host = match uri.authority() {
            Some(authority) => Some(authority.as_str()),
            None => headers.get(header::HOST).and_then(|host| host.to_str().ok()),
        };
        if host.is_some_and(|host| self.allows(host)) {
            return Ok(());
        }
        Err(Problem::new(ErrorCode::BadHost, "this server answers to loopback names only, because it runs with --dev"))
    }

    /// Whether a `Host` header names this machine.
    #[must_use]
    pub fn allows(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        self.names.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
    }
}

pub(super) async fn guard(State(policy): State<HostPolicy>, request: Request, next: Next) -> Response {
    match policy.check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_answered() {
        let policy = HostPolicy::loopback();
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]", "[::1]:8080"] {
            assert!(policy.allows(host), "{host}");
        }
        for host in ["", "example.org", "localhost.example.org", "127.0.0.1.example.org:80", "localhost:80:80", "::1"] {
            assert!(!policy.allows(host), "{host}");
        }
    }
}
