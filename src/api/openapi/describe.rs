//! What is said of one call: its words, parameters, body, answers and problems.

use homing_protocol::code::ErrorCode;
use serde_json::{Value, json};

use super::schema::reference;

/// A call that a key's scope is asked for.
pub(super) const KEY: &[ErrorCode] = &[ErrorCode::Unauthorized, ErrorCode::Forbidden];
/// A call that takes a body.
pub(super) const BODY: &[ErrorCode] = &[
    ErrorCode::Malformed,
    ErrorCode::BadValue,
    ErrorCode::Silent,
    ErrorCode::TooBig,
    ErrorCode::UnsupportedMediaType,
    ErrorCode::Overloaded,
];
/// A call that holds names, in its path or its body.
pub(super) const NAMES: &[ErrorCode] = &[ErrorCode::BadName];
/// A call that asks Redis.
pub(super) const REDIS: &[ErrorCode] =
    &[ErrorCode::InboxUnusable, ErrorCode::Internal, ErrorCode::Unavailable, ErrorCode::OutcomeUnknown];

/// What is said of one call.
pub(in crate::api) struct Description {
    /// A word for generated clients; no two calls have the same.
    pub(super) id: &'static str,
    /// The group that it is shown in.
    pub(super) group: &'static str,
    /// One line.
    pub(super) summary: &'static str,
    /// What more is to be known.
    pub(super) text: String,
    /// Parameters in query and headers; those of the path are told by the path.
    pub(super) parameters: Vec<Value>,
    /// Whether `{topic}` in the path may be the broadcast topic.
    pub(super) takes_broadcast: bool,
    /// What is to be sent.
    pub(super) body: Option<Sent>,
    /// What is answered if all is well, and by calls that answer a state: if it is not.
    pub(super) answers: Vec<Answered>,
    /// Problems that this call may answer, beside those that every call may.
    pub(super) problems: Vec<&'static [ErrorCode]>,
}

/// A body that is to be sent.
pub(super) struct Sent {
    pub(super) schema: Value,
    /// A body that does no harm to anybody, for readers and tests.
    pub(super) example: Value,
}

/// An answer that is no problem document.
pub(super) struct Answered {
    pub(super) status: u16,
    pub(super) text: &'static str,
    pub(super) media_type: &'static str,
    pub(super) schema: Value,
}

impl Description {
    /// A call without parameters and body.
    pub(super) fn new(group: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self {
            id,
            group,
            summary,
            text: String::new(),
            parameters: Vec::new(),
            takes_broadcast: false,
            body: None,
            answers: Vec::new(),
            problems: Vec::new(),
        }
    }

    pub(super) fn text(self, text: impl Into<String>) -> Self {
        Self { text: text.into(), ..self }
    }

    pub(super) fn with_broadcast(self) -> Self {
        Self { takes_broadcast: true, ..self }
    }

    /// A parameter by its name among the document's shared ones.
    pub(super) fn parameter(mut self, shared: &str) -> Self {
        self.parameters.push(json!({ "$ref": format!("#/components/parameters/{shared}") }));
        self
    }

    /// A body by its schema's name.
    pub(super) fn body(self, schema: &str, example: Value) -> Self {
        Self { body: Some(Sent { schema: reference(schema), example }), ..self }.problem(BODY)
    }

    /// An answer in JSON, by its schema's name.
    pub(super) fn answer(self, status: u16, text: &'static str, schema: &str) -> Self {
        self.answer_of(status, text, reference(schema))
    }

    pub(super) fn answer_of(self, status: u16, text: &'static str, schema: Value) -> Self {
        self.answer_as(status, text, "application/json", schema)
    }

    pub(super) fn answer_as(
        mut self,
        status: u16,
        text: &'static str,
        media_type: &'static str,
        schema: Value,
    ) -> Self {
        self.answers.push(Answered { status, text, media_type, schema });
        self
    }

    pub(super) fn problem(mut self, codes: &'static [ErrorCode]) -> Self {
        self.problems.push(codes);
        self
    }
}
