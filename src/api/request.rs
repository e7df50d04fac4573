//! What every call of a producer needs: its key's scope, and the names in its path.

use axum::RequestPartsExt;
use axum::extract::RawPathParams;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use homing_protocol::code::ErrorCode;
use homing_protocol::id::EntryId;
use homing_protocol::name::Name;

use super::problem::Problem;
use crate::auth::ApiKeys;
use crate::config::Scope;

/// Checks the API key in `Authorization: Bearer …`.
pub(super) fn authorize(keys: &ApiKeys, headers: &HeaderMap, scope: Scope) -> Result<(), Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Err(Problem::new(ErrorCode::Unauthorized, "an API key is needed, as 'Authorization: Bearer <key>'"));
    };
    let presented = value.to_str().ok().and_then(bearer).ok_or_else(|| {
        Problem::new(ErrorCode::Unauthorized, "the header 'Authorization' is not of the form 'Bearer <key>'")
    })?;
    keys.authorize(presented, scope)?;
    Ok(())
}

/// The credential of a `Bearer` header; the scheme's case does not matter (RFC 9110, section 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, credential) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| credential.trim())
}

/// A name in the path, percent-decoded; `+` stands for itself.
pub(super) async fn path_name(parts: &mut Parts, parameter: &str) -> Result<Name, Problem> {
    let text = path_text(parts, parameter).await?;
    Name::parse(&text).map_err(|error| bad_path(parameter, &error.to_string()))
}

/// A part of the path, percent-decoded.
pub(super) async fn path_text(parts: &mut Parts, parameter: &str) -> Result<String, Problem> {
    let parameters =
        parts.extract::<RawPathParams>().await.map_err(|rejection| bad_path(parameter, &rejection.body_text()))?;
    Ok(parameters.iter().find(|(name, _)| *name == parameter).map_or_else(String::new, |(_, value)| value.to_owned()))
}

fn bad_path(parameter: &str, detail: &str) -> Problem {
    Problem::new(ErrorCode::BadName, format!("'{parameter}' in the path: {detail}"))
}

/// A message's id in the path.
pub(super) async fn path_id(parts: &mut Parts, parameter: &str) -> Result<EntryId, Problem> {
    let bad = |detail: String| Problem::new(ErrorCode::BadId, format!("'{parameter}' in the path: {detail}"));
    let parameters = parts.extract::<RawPathParams>().await.map_err(|rejection| bad(rejection.body_text()))?;
    let text = parameters.iter().find(|(name, _)| *name == parameter).map_or("", |(_, value)| value);
    text.parse().map_err(|_| bad("this is no message id".to_owned()))
}

/// The W3C trace context of a request, if it is well-formed; the standard says to ignore any other.
pub(super) fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let digits =
        |part: &str, length| part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut parts = text.split('-');
    let well_formed = parts.next() == Some("00")
        && parts.next().is_some_and(|trace| digits(trace, 32))
        && parts.next().is_some_and(|parent| digits(parent, 16))
        && parts.next().is_some_and(|flags| digits(flags, 2))
        && parts.next().is_none();
    well_formed.then_some(text)
}
