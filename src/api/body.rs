//! Request bodies: their declared type, their size, and the time that they may take.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, header};
use bytes::BytesMut;
use homing_protocol::code::ErrorCode;
use serde::Deserialize;

use super::budget::{BodyBudget, HeldBytes};
use super::problem::Problem;

/// What a body may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyLimits {
    /// Largest body, in bytes.
    pub(super) bytes_max: usize,
    /// Longest time until the whole body is there.
    pub(super) timeout: Duration,
}

/// Reads a JSON body. A body that arrived in one piece, as most do, is not copied. Its bytes count towards the budget
/// until what is answered beside them is dropped.
pub(super) async fn read_json(
    headers: &HeaderMap,
    body: Body,
    limits: BodyLimits,
    budget: &BodyBudget,
) -> Result<(Bytes, HeldBytes), Problem> {
    check_content_type(headers)?;
    // Refuses before the first byte is read, if the request says how long it is.
    if body.size_hint().lower() > limits.bytes_max as u64 {
        return Err(too_big(limits.bytes_max));
    }
    let mut collecting = pin!(collect(body, limits.bytes_max, budget.share()));
    let outcome = match poll_twice(collecting.as_mut()).await {
        Some(outcome) => Ok(outcome),
        None => tokio::time::timeout(limits.timeout, collecting).await,
    };
    match outcome {
        Ok(outcome) => outcome,
        Err(_) => {
            let timeout_ms = u64::try_from(limits.timeout.as_millis()).unwrap_or(u64::MAX);
            Err(Problem::new(ErrorCode::Silent, "the request's body did not arrive in time")
                .with_limit("body_timeout_ms", timeout_ms))
        }
    }
}

/// Parses a JSON object. An array would do for serde too: it fills a struct's members by position.
pub(super) fn parse_object<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, Problem> {
    match text.trim_ascii_start().first() {
        Some(b'{') => Ok(serde_json::from_slice(text)?),
        _ => Err(Problem::new(ErrorCode::Malformed, "a JSON object was expected")),
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let declared = headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes()).unwrap_or_default();
    let media_type = declared.split(|byte| *byte == b';').next().unwrap_or_default();
    if media_type.trim_ascii().eq_ignore_ascii_case(b"application/json") {
        return Ok(());
    }
    Err(Problem::new(ErrorCode::UnsupportedMediaType, "the body must be declared as 'Content-Type: application/json'"))
}

/// The outcome, if it is there at the second look: the server hands a body over that came with its head. A timer, which
/// costs as much as a short body, is for those that did not.
async fn poll_twice<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    let mut is_first = true;
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if std::mem::replace(&mut is_first, false) => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

async fn collect(mut body: Body, bytes_max: usize, mut held: HeldBytes) -> Result<(Bytes, HeldBytes), Problem> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    loop {
        let frame = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let data = match frame {
            None => break,
            Some(Err(_)) => return Err(Problem::new(ErrorCode::Malformed, "the request's body ended too early")),
            // Trailers mean nothing here.
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        };
        if first.len() + rest.len() + data.len() > bytes_max {
            return Err(too_big(bytes_max));
        }
        held.grow(data.len())?;
        if first.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
    }
    if rest.is_empty() {
        return Ok((first, held));
    }
    let mut whole = BytesMut::with_capacity(first.len() + rest.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&rest);
    Ok((whole.freeze(), held))
}

fn too_big(bytes_max: usize) -> Problem {
    Problem::new(ErrorCode::TooBig, format!("the request's body has more than {bytes_max} bytes"))
        .with_limit("body_bytes_max", bytes_max as u64)
}
