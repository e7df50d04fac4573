//! `GET /dev/session?user=…`: credentials for the first page.

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use homing_protocol::code::ErrorCode;
use homing_protocol::name::Name;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::MakeSession;

/// What the page needs to act as a user and as a producer.
#[derive(Clone, Serialize)]
pub struct DevSession {
    /// A client token of the user.
    pub token: String,
    /// An API key with the scope `publish`, if this node made one itself.
    pub api_key: Option<String>,
    /// The command that reaches the same Redis, for the page's example.
    pub redis_cli: String,
    /// The key of the user's inbox, for the same.
    pub inbox: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    user: String,
}

pub(super) async fn answer(
    State(make_session): State<MakeSession>,
    headers: HeaderMap,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Response {
    if !is_same_origin(&headers) {
        return problem(StatusCode::FORBIDDEN, ErrorCode::Forbidden, "only pages of this server are given credentials");
    }
    let Query(Asked { user }) = match asked {
        Ok(asked) => asked,
        Err(rejection) => return problem(StatusCode::BAD_REQUEST, ErrorCode::BadValue, &rejection.body_text()),
    };
    let user = match Name::parse(&user) {
        Ok(user) => user,
        Err(error) => return problem(StatusCode::BAD_REQUEST, ErrorCode::BadName, &format!("'user': {error}")),
    };
    match make_session(&user) {
        // Texts always become JSON.
        Ok(session) => {
            response(StatusCode::OK, "application/json", serde_json::to_string(&session).unwrap_or_default())
        }
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Internal, &error.to_string()),
    }
}

/// Whether the request comes from this server's own page, or from no page at all. Browsers tell, and pages cannot
/// change what they tell; a program on this machine may just as well read the secrets from the terminal.
fn is_same_origin(headers: &HeaderMap) -> bool {
    if headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin") {
        return false;
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    origin.is_some_and(|(_, authority)| Some(authority) == host)
}

fn problem(status: StatusCode, code: ErrorCode, detail: &str) -> Response {
    let document = json!({
        "type": format!("urn:homing:problem:{}", code.as_str()), "title": status.canonical_reason(),
        "status": status.as_u16(), "code": code.as_str(), "detail": detail,
    });
    response(status, "application/problem+json", document.to_string())
}

fn response(status: StatusCode, content_type: &'static str, text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::http::Request;
    use tower::ServiceExt as _;

    use super::*;

    async fn status(path: &str, headers: &[(&str, &str)]) -> (u16, serde_json::Value) {
        let router = super::super::router(Arc::new(|user: &Name| {
            Ok(DevSession {
                token: format!("token of {user}"),
                api_key: Some("key".to_owned()),
                redis_cli: "redis-cli".to_owned(),
                inbox: "inbox".to_owned(),
            })
        }));
        let mut request = Request::builder().uri(path).header("host", "localhost:8080");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    // If this failed, any page that the developer has open could act as every user.
    #[tokio::test]
    async fn foreign_pages_get_no_credentials() {
        let path = "/dev/session?user=alice";
        let own = [("sec-fetch-site", "same-origin"), ("origin", "http://localhost:8080")];
        let credentials =
            json!({"token": "token of alice", "api_key": "key", "redis_cli": "redis-cli", "inbox": "inbox"});
        assert_eq!(status(path, &own).await, (200, credentials));
        assert_eq!(status(path, &[]).await.0, 200);
        for foreign in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-site", "none"),
            ("origin", "http://evil.example"),
            ("origin", "http://localhost:9999"),
            ("origin", "null"),
        ] {
            assert_eq!(status(path, &[foreign]).await.0, 403, "{foreign:?}");
        }
    }

    #[tokio::test]
    async fn the_user_must_be_a_name() {
        for (path, code) in [
            ("/dev/session", "bad_value"),
            ("/dev/session?user=a&x=1", "bad_value"),
            ("/dev/session?user=", "bad_name"),
            ("/dev/session?user=a%20b", "bad_name"),
        ] {
            let (status, body) = status(path, &[]).await;
            assert_eq!((status, &body["code"]), (400, &json!(code)), "{path}");
        }
        assert_eq!(status("/", &[]).await.0, 200);
    }
}
