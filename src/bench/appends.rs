//! Appending to topics by XADD at a rate, from the measuring process: what is for followers of all workers is counted
//! here.

use std::collections::HashMap;
use std::sync::Arc;

use homing_protocol::id::EntryId;
use homing_protocol::topic::Topic;
use redis::aio::MultiplexedConnection;

use super::BenchError;
use super::clock::{Pacer, now_us};
use super::follows::Lots;
use super::worker::payload::{Payloads, Told};
use crate::store::{Key, KeySpace};

/// Entries that are appended at once, at most.
const BATCH_MAX: usize = 512;

/// Appends messages to topics, each with a number of its own.
#[derive(Clone)]
pub(crate) struct Appender {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) keys: KeySpace,
    pub(crate) topics: Arc<Vec<Topic>>,
    /// Connected followers of each.
    pub(crate) followers: Arc<Vec<u32>>,
    pub(crate) payloads: Payloads,
    pub(crate) lots: Lots,
    /// The next message's.
    pub(crate) number: u32,
}

/// What is to be appended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) start_us: u64,
    pub(crate) until_us: u64,
    /// Messages each second.
    pub(crate) rate: f64,
    /// They go to topics from the first of these to before the second, by lot.
    pub(crate) topics: (u32, u32),
}

/// What was appended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Appended {
    pub(crate) messages: u64,
    /// One for each connected follower of each message.
    pub(crate) deliveries: u64,
    /// Of each topic.
    pub(crate) last: HashMap<u32, EntryId>,
}

impl Appender {
    /// Appends until the load ends. A message that is late keeps the time that it was intended for.
    pub(crate) async fn run(mut self, load: Load) -> Result<(Self, Appended), BenchError> {
        let pacer = Pacer::new().map_err(BenchError::broken("a timer"))?;
        let due_us = |count: u64| load.start_us + (count as f64 / load.rate * 1_000_000.0) as u64;
        let mut appended = Appended::default();
        let mut payload = Vec::new();
        while due_us(appended.messages) < load.until_us {
            pacer.until(due_us(appended.messages)).await.map_err(BenchError::broken("a timer"))?;
            let now_us = now_us();
            let mut pipeline = redis::pipe();
            let mut topics = Vec::new();
            while topics.len() < BATCH_MAX {
                let intended_us = due_us(appended.messages + topics.len() as u64);
                if intended_us > now_us || intended_us >= load.until_us {
                    break;
                }
                let topic = load.topics.0 + self.lots.below(load.topics.1 - load.topics.0);
                payload.clear();
                self.payloads.push(&mut payload, Told { intended_us, number: self.number });
                self.number += 1;
                let log = self.keys.name(Key::Log(&self.topics[topic as usize]));
                pipeline.cmd("XADD").arg(log).arg("*").arg("data").arg(payload.as_slice());
                topics.push(topic);
            }
            let ids: Vec<String> = pipeline
                .query_async(&mut self.connection)
                .await
                .map_err(|error| BenchError::Failed(format!("Redis refused a message: {error}")))?;
            for (topic, id) in topics.into_iter().zip(ids) {
                appended.messages += 1;
                appended.deliveries += u64::from(self.followers[topic as usize]);
                let id = EntryId::parse(id.as_bytes()).map_err(BenchError::broken("an id of Redis"))?;
                appended.last.insert(topic, id);
            }
        }
        Ok((self, appended))
    }
}
