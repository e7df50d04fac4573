//! Problem documents (RFC 9457): the one place that maps what went wrong to a status and a code.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use homing_protocol::code::ErrorCode;
use serde::Serialize;

use crate::auth::ApiKeyError;
use crate::publish::{Limit, PublishError};
use crate::store::StoreError;

/// Longest `detail`, in bytes: it may quote what the client sent.
const DETAIL_BYTES_MAX: usize = 300;
/// When to try again after a refusal by Redis or for lack of room, in milliseconds: such states last for seconds.
const RETRY_AFTER_MS: u64 = 1_000;

/// A refused or failed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    code: ErrorCode,
    detail: Cow<'static, str>,
    limit: Option<Limit>,
}

impl Problem {
    /// A problem of this code; `detail` is for people.
    #[must_use]
    pub fn new(code: ErrorCode, detail: impl Into<Cow<'static, str>>) -> Self {
        let mut detail = detail.into();
        if detail.len() > DETAIL_BYTES_MAX {
            let end = (0..=DETAIL_BYTES_MAX).rev().find(|end| detail.is_char_boundary(*end)).unwrap_or(0);
            detail = Cow::Owned(format!("{}…", &detail[..end]));
        }
        Self { code, detail, limit: None }
    }

    /// The same, with the limit that was hit.
    #[must_use]
    pub(super) fn with_limit(self, name: &'static str, value: u64) -> Self {
        Self { limit: Some(Limit { name, value }), ..self }
    }

    /// The HTTP status of the problem.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        status(self.code)
    }

    fn retry_after_ms(&self) -> Option<u64> {
        matches!(self.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
            .then_some(RETRY_AFTER_MS)
    }

    /// The problem as one result of a batch.
    pub(super) fn as_result(&self) -> BatchProblem<'_> {
        BatchProblem {
            status: self.status().as_u16(),
            code: self.code.as_str(),
            detail: &self.detail,
            limit: self.limit.as_ref().map(LimitMember::from),
            retry_after_ms: self.retry_after_ms(),
        }
    }
}

/// The status of each code. Codes that only frames carry have the status that would suit them.
fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::Malformed
        | ErrorCode::UnknownType
        | ErrorCode::UnexpectedFrame
        | ErrorCode::BadName
        | ErrorCode::BadId
        | ErrorCode::BadValue
        | ErrorCode::UnknownSubprotocol => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthorized | ErrorCode::TokenExpired => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden | ErrorCode::TooManyDevices | ErrorCode::Kicked => StatusCode::FORBIDDEN,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorCode::ConnectTimeout | ErrorCode::Silent => StatusCode::REQUEST_TIMEOUT,
        ErrorCode::InboxUnusable | ErrorCode::Superseded | ErrorCode::Replaced => StatusCode::CONFLICT,
        ErrorCode::Removed => StatusCode::GONE,
        ErrorCode::TooBig | ErrorCode::TooMany => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorCode::BadHost => StatusCode::MISDIRECTED_REQUEST,
        ErrorCode::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorCode::Draining | ErrorCode::Unavailable | ErrorCode::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::OutcomeUnknown => StatusCode::GATEWAY_TIMEOUT,
    }
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    #[serde(flatten)]
    members: BatchProblem<'a>,
}

/// The members that a problem document and a failed result of a batch share.
#[derive(Serialize)]
pub(super) struct BatchProblem<'a> {
    status: u16,
    code: &'static str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<LimitMember>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

#[derive(Serialize)]
struct LimitMember {
    name: &'static str,
    value: u64,
}

impl From<&Limit> for LimitMember {
    fn from(limit: &Limit) -> Self {
        Self { name: limit.name, value: limit.value }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let document = Document {
            kind: format!("urn:homing:problem:{}", self.code.as_str()),
            title: status.canonical_reason().unwrap_or("Error"),
            members: self.as_result(),
        };
        // A struct of texts and numbers always becomes JSON.
        let mut response = Response::new(Body::from(serde_json::to_vec(&document).unwrap_or_default()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(after_ms) = self.retry_after_ms() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after_ms.div_ceil(1_000)));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"homing\""));
        }
        response
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        let problem = Self::new(error.code(), error.to_string());
        Self { limit: error.limit(), ..problem }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        // The same words and codes as for a publish.
        PublishError::from(error).into()
    }
}

impl From<ApiKeyError> for Problem {
    fn from(error: ApiKeyError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<serde_json::Error> for Problem {
    fn from(error: serde_json::Error) -> Self {
        // The text names the member, and the line and column.
        let code = if error.is_data() { ErrorCode::BadValue } else { ErrorCode::Malformed };
        Self::new(code, error.to_string())
    }
}
