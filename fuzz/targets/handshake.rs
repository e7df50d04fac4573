//! The head of a connection's first request, and the WebSocket handshake in it.

use homing_protocol::code::ErrorCode;
use serde_json::Value;

use crate::transport::{OpeningError, parse_head};

/// Headers that a response of the handshake may have.
const HEADERS_MAX: usize = 16;

/// Bytes from a socket.
pub fn handshake(data: &[u8]) {
    let (head, data) = match parse_head(data) {
        Ok(Some((head, length))) => {
            assert!(length <= data.len());
            // However the bytes came in, the head ends at the same place.
            for end in [length / 2, length.saturating_sub(1)] {
                assert!(matches!(parse_head(&data[..end]), Ok(None)), "complete after {end} of {length} bytes");
            }
            assert!(matches!(parse_head(&data[..length]), Ok(Some((_, end))) if end == length));
            (head, &data[..length])
        }
        Ok(None) => return,
        Err(OpeningError::Refused(refused)) => {
            assert_eq!((refused.status, refused.code), (400, ErrorCode::Malformed));
            return check_refusal(&refused.response(), 400);
        }
        Err(OpeningError::Io) => panic!("parsing does no I/O"),
    };
    match head.accept() {
        Ok(accepted) => {
            check_upgrade(data);
            let response = accepted.response();
            let (status, headers, body) = parsed(&response);
            assert_eq!((status, body), (101, ""));
            // Nothing of the request comes back but what its key was hashed to.
            let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
            let expected = ["Connection", "Upgrade", "Sec-WebSocket-Accept", "Sec-WebSocket-Protocol"];
            assert_eq!(names, expected[..3 + usize::from(accepted.subprotocol.is_some())]);
            let accept = accepted.accept.as_bytes();
            assert!(
                accept.len() == 28 && accept.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte))
            );
            assert!(accepted.token.is_none_or(|token| !token.contains(['\r', '\n'])));
        }
        Err(refused) => check_refusal(&refused.response(), refused.status),
    }
}

/// What RFC 6455 asks of the request, read another way.
fn check_upgrade(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let head = text.to_ascii_lowercase();
    for part in ["get ", "http/1.1", "upgrade", "websocket", "sec-websocket-version", "13", "sec-websocket-key", "=="] {
        assert!(head.contains(part), "accepted without {part:?}");
    }
    if head.contains("\nsec-websocket-protocol:") && !text.contains("homing.v1") {
        // A header that is not text is passed over.
        assert!(text.contains('\u{fffd}'), "accepted with another subprotocol");
    }
}

fn check_refusal(response: &str, expected: u16) {
    let (status, headers, body) = parsed(response);
    assert!(status == expected && (400..500).contains(&status), "{response:?}");
    let header = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    assert_eq!(header("Content-Length"), Some(body.len().to_string().as_str()));
    assert_eq!(header("Connection"), Some("close"));
    let problem: Value = serde_json::from_str(body).expect("a problem is JSON");
    assert_eq!(problem["status"], status);
    assert!(ErrorCode::ALL.iter().any(|code| problem["code"] == code.as_str()));
}

fn parsed(response: &str) -> (u16, Vec<(String, String)>, &str) {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parser = httparse::Response::new(&mut headers);
    let length = match parser.parse(response.as_bytes()) {
        Ok(httparse::Status::Complete(length)) => length,
        other => panic!("{other:?}: {response:?}"),
    };
    let status = parser.code.expect("a parsed response has a status");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = parser.headers.iter().map(|header| (header.name.to_owned(), text(header.value))).collect();
    (status, headers, &response[length..])
}
