//! The history: what every client, producer and nemesis of a run saw, one JSON object a line.
//!
//! Whoever records an event does so before it acts on it (`publish`, `ack`) or right after it learned it (`published`,
//! `message`, `acked`), so an effect never stands before its cause. All times are of one clock.

use serde::{Deserialize, Serialize};

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Microseconds since the run began.
    pub(crate) at_us: u64,
    #[serde(flatten)]
    pub(crate) event: Event,
}

/// How a message was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Via {
    Http,
    HttpBatch,
    Xadd,
}

/// To whom a message is published, as its payload says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum To {
    User(String),
    /// `*` is the broadcast topic.
    Topic(String),
}

/// How a change of what a user follows was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Done,
    /// Nothing was changed.
    Refused,
    /// It may have been done, or may still be.
    Unknown,
}

/// How a producer heard what became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Heard {
    Stream,
    /// By the answer to a publish that waits.
    Wait,
}

/// What happened. A `tag` is the run-wide unique text in a message's payload; `connection` is a run-wide unique number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum Event {
    /// The run begins. `seed` makes its plan.
    Begin {
        seed: u64,
        nodes: u32,
        fsync: String,
    },
    /// A producer is about to send. A retry of the same message with the same key is another `publish` of the same tag.
    Publish {
        tag: String,
        #[serde(flatten)]
        to: To,
        via: Via,
        key: Option<String>,
        /// It asks what becomes of it.
        receipt: bool,
    },
    /// It was accepted: 2xx, or an id from XADD. `created` is false when the key had been seen before.
    Published {
        tag: String,
        id: String,
        created: bool,
    },
    /// It was refused: nothing was written (4xx, 503, an error reply of Redis).
    Refused {
        tag: String,
        why: String,
    },
    /// Nobody knows (504, time-out, lost connection).
    Unknown {
        tag: String,
        why: String,
    },
    /// A client is about to connect. `group` names how this client behaves: `healthy`, `slow`, `never_acks`, `twin` …
    Connect {
        connection: u64,
        user: String,
        device: String,
        node: String,
        group: String,
        /// Its client remembers an epoch, and so that it was here before.
        returns: bool,
    },
    /// Its `ready` frame. Later gap frames with another epoch change the connection's epoch.
    Ready {
        connection: u64,
        epoch: String,
        generation: u64,
        created: bool,
    },
    /// Somebody is about to make a user follow a topic, or follow it no more: over a connection of one of its devices,
    /// or by HTTP. `request` is a run-wide unique number.
    Follow {
        request: u64,
        user: String,
        topic: String,
        follow: bool,
        connection: Option<u64>,
    },
    Followed {
        request: u64,
        outcome: Outcome,
    },
    /// A message came. `id` is as in the frame: `<topic>/<entry id>` of a topic's.
    Message {
        connection: u64,
        id: String,
        tag: String,
        #[serde(flatten)]
        to: To,
        attempt: u32,
        late_us: u64,
    },
    /// The client is about to send an ack.
    Ack {
        connection: u64,
        ids: Vec<String>,
    },
    /// It was confirmed.
    Acked {
        connection: u64,
        ids: Vec<String>,
    },
    /// What a producer heard became of a message.
    Receipt {
        heard: Heard,
        user: String,
        device: String,
        id: String,
        event: String,
    },
    /// A gap frame.
    Gap {
        connection: u64,
        id: String,
        epoch: String,
        reason: String,
        count: u64,
    },
    /// The connection ended, with the server's close code if there was one.
    Closed {
        connection: u64,
        code: Option<u16>,
        why: String,
    },
    /// The device was forgotten or removed on purpose: what it had not received is not owed to it any more.
    Forgotten {
        user: String,
        device: String,
    },
    /// The nemesis begins a fault. `kind` is one of its names; `loses` says that accepted messages and acks may be
    /// lost from `loses_from_us` (before the fault: the stalled fsync) until the matching `healed`.
    Fault {
        number: u32,
        kind: String,
        target: String,
        loses: bool,
        loses_from_us: u64,
    },
    /// That fault is over (its effects may last a little longer).
    Healed {
        number: u32,
    },
    /// A calm period begins, in which nothing is injected and healthy clients are held to their bound.
    Calm {
        number: u32,
    },
    CalmEnds {
        number: u32,
    },
    /// Resources of one process, sampled. `sessions` and `tasks` come from its metrics, if it has any.
    Sample {
        process: String,
        rss_bytes: u64,
        descriptors: u64,
        threads: u64,
        sessions: u64,
    },
    /// Everything was healed, drained and given time; `baseline` samples were taken before the run, `end` ones follow.
    Baseline,
    Drained,
    /// What Redis still holds for a device when all is over: entries of the inbox that are pending or not yet read.
    Left {
        user: String,
        device: String,
        ids: Vec<String>,
    },
    /// What a topic's log holds when all is over, and from where on it still concerns a device.
    Log {
        topic: String,
        ids: Vec<String>,
    },
    Behind {
        user: String,
        device: String,
        topic: String,
        after: String,
    },
    End,
}
