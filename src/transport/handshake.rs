//! The WebSocket handshake (RFC 6455, section 4.2), on the request's head.

use homing_protocol::code::ErrorCode;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The subprotocol that this server speaks.
const SUBPROTOCOL: &str = "homing.v1";
/// Longest `Authorization` header that is looked at.
const AUTHORIZATION_BYTES_MAX: usize = 9 * 1024;

/// What the handshake needs of a request's head. Names of headers in lower case.
#[derive(Debug, Default)]
pub(crate) struct Head {
    method: String,
    version_11: bool,
    upgrade: bool,
    connection: bool,
    version: Option<String>,
    key: Option<String>,
    protocols: Vec<String>,
    authorization: Option<String>,
    host: Option<String>,
}

/// An accepted handshake.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// `Sec-WebSocket-Accept`.
    pub(crate) accept: String,
    /// Whether the client offered the subprotocol, which is then echoed.
    pub(crate) subprotocol: Option<&'static str>,
    /// Token of the `Authorization` header.
    pub(crate) token: Option<Box<str>>,
}

/// A refused one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) code: ErrorCode,
    pub(crate) detail: &'static str,
}

impl Head {
    pub(super) fn new(method: &str, version_11: bool) -> Self {
        Self { method: method.to_owned(), version_11, ..Self::default() }
    }

    /// Takes one header in.
    pub(super) fn header(&mut self, name: &str, value: &[u8]) {
        // What is not text is none of the headers that are looked at.
        let Ok(value) = std::str::from_utf8(value) else { return };
        let has_token = |token: &str| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token));
        match name.to_ascii_lowercase().as_str() {
            "upgrade" => self.upgrade |= has_token("websocket"),
            "connection" => self.connection |= has_token("upgrade"),
            "sec-websocket-version" => self.version = Some(value.trim().to_owned()),
            "sec-websocket-key" => self.key = Some(value.trim().to_owned()),
            "sec-websocket-protocol" => {
                self.protocols.extend(value.split(',').map(|protocol| protocol.trim().to_owned()));
            }
            "authorization" if value.len() <= AUTHORIZATION_BYTES_MAX => self.authorization = Some(value.to_owned()),
            "host" => self.host = Some(value.to_owned()),
            _ => {}
        }
    }

    /// The `Host` header.
    pub(super) fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// Decides.
    pub(crate) fn accept(self) -> Result<Accepted, Refused> {
        if self.method != "GET" {
            return Err(refused(405, ErrorCode::MethodNotAllowed, "/v1/ws takes GET"));
        }
        if !self.version_11 || !self.upgrade || !self.connection {
            let detail = "/v1/ws is for WebSocket: send Connection: Upgrade and Upgrade: websocket over HTTP/1.1";
            return Err(refused(426, ErrorCode::UpgradeRequired, detail));
        }
        if self.version.as_deref() != Some("13") {
            return Err(refused(426, ErrorCode::UpgradeRequired, "Sec-WebSocket-Version is 13"));
        }
        // 16 bytes in base64.
        let Some(key) = self.key.filter(|key| key.len() == 24 && key.ends_with("==")) else {
            return Err(refused(400, ErrorCode::Malformed, "Sec-WebSocket-Key is 16 bytes in base64"));
        };
        let offered = self.protocols.iter().any(|protocol| protocol == SUBPROTOCOL);
        if !self.protocols.is_empty() && !offered {
            return Err(refused(400, ErrorCode::UnknownSubprotocol, "this server speaks the subprotocol homing.v1"));
        }
        let token = match self.authorization.as_deref() {
            None => None,
            Some(value) => match value.split_once(' ') {
                Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Some(Box::from(token.trim())),
                _ => return Err(refused(401, ErrorCode::Unauthorized, "Authorization is Bearer <token>")),
            },
        };
        let accept = derive_accept_key(key.as_bytes());
        Ok(Accepted { accept, subprotocol: offered.then_some(SUBPROTOCOL), token })
    }
}

fn refused(status: u16, code: ErrorCode, detail: &'static str) -> Refused {
    Refused { status, code, detail }
}

impl Refused {
    pub(super) fn reason(self) -> &'static str {
        match self.status {
            401 => "Unauthorized",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            421 => "Misdirected Request",
            426 => "Upgrade Required",
            431 => "Request Header Fields Too Large",
            503 => "Service Unavailable",
            _ => "Bad Request",
        }
    }

    /// The problem document (RFC 9457).
    pub(super) fn body(self) -> String {
        serde_json::json!({
            "type": format!("urn:homing:problem:{}", self.code.as_str()),
            "title": self.reason(),
            "status": self.status,
            "code": self.code.as_str(),
            "detail": self.detail,
        })
        .to_string()
    }

    /// Headers that this status asks for.
    pub(super) fn extra_header(self) -> Option<(&'static str, &'static str)> {
        match self.status {
            401 => Some(("WWW-Authenticate", "Bearer")),
            405 => Some(("Allow", "GET")),
            426 => Some(("Sec-WebSocket-Version", "13")),
            503 => Some(("Retry-After", "2")),
            _ => None,
        }
    }

    /// The whole response, for a connection that is closed after it.
    pub(crate) fn response(self) -> String {
        let body = self.body();
        let extra = self.extra_header().map(|(name, value)| format!("{name}: {value}\r\n")).unwrap_or_default();
        format!(
            "HTTP/1.1 {} {}\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\n{extra}Connection: close\r\n\r\n{body}",
            self.status,
            self.reason(),
            body.len(),
        )
    }
}

impl Accepted {
    /// The response that switches protocols.
    pub(crate) fn response(&self) -> String {
        let protocol = self.subprotocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default();
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}\r\n{protocol}\r\n",
            self.accept
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(headers: &[(&str, &str)]) -> Head {
        let mut head = Head::new("GET", true);
        let usual = [
            ("Connection", "keep-alive, Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        for (name, value) in usual.iter().chain(headers) {
            head.header(name, value.as_bytes());
        }
        head
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        let accepted = head(&[]).accept().unwrap();
        assert_eq!((accepted.accept.as_str(), accepted.subprotocol), ("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", None));
    }

    #[test]
    fn only_unknown_subprotocols_are_refused() {
        assert_eq!(
            head(&[("Sec-WebSocket-Protocol", "a, homing.v1")]).accept().unwrap().subprotocol,
            Some("homing.v1")
        );
        let refused = head(&[("Sec-WebSocket-Protocol", "homing.v9")]).accept().unwrap_err();
        assert_eq!((refused.status, refused.code), (400, ErrorCode::UnknownSubprotocol));
    }

    #[test]
    fn a_request_that_is_no_upgrade_is_told_so() {
        assert_eq!(Head::new("GET", true).accept().unwrap_err().status, 426);
        assert_eq!(Head::new("POST", true).accept().unwrap_err().status, 405);
        assert_eq!(head(&[("Sec-WebSocket-Key", "short")]).accept().unwrap_err().status, 400);
        assert_eq!(head(&[("Authorization", "Basic eA==")]).accept().unwrap_err().status, 401);
    }
}
