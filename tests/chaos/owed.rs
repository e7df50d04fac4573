//! What Redis holds for a device: entries of its inbox that are pending or were not read, and what lies behind its cursor
//! in each topic.

use std::collections::{BTreeMap, HashMap};

use redis::Value;
use redis::aio::MultiplexedConnection;

use super::followers::EVERYBODY;
use super::harness::redis_server::{cursors, devices as records, followed, inbox, log};

/// Entries looked at per device; nobody in a run has more.
const ENTRIES_MAX: u32 = 100_000;
/// Devices asked about in one pipeline.
const DEVICES: usize = 100;
/// Commands for each device.
const COMMANDS: usize = 5;

/// A stream id as a pair of numbers.
type Id = (u64, u64);

/// What is owed to one device.
#[derive(Debug)]
pub(crate) struct Owed {
    pub(crate) user: String,
    pub(crate) device: String,
    /// Of the inbox.
    pub(crate) ids: Vec<String>,
    pub(crate) topics: Vec<Behind>,
}

/// What is owed of a topic.
#[derive(Debug)]
pub(crate) struct Behind {
    pub(crate) topic: String,
    /// Everything after this.
    pub(crate) after: String,
    pub(crate) ids: Vec<String>,
}

/// Whatever is owed to `devices`; those that are owed nothing are left out. Without its group a device is owed all that
/// the inbox holds: it will be made again at 0.
pub(crate) async fn everything(redis: &mut MultiplexedConnection, devices: &[(String, String)]) -> Vec<Owed> {
    let mut owed = Vec::new();
    for devices in devices.chunks(DEVICES) {
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        for (user, device) in devices {
            let inbox = inbox(user);
            pipeline.cmd("XINFO").arg("GROUPS").arg(&inbox);
            pipeline.cmd("XPENDING").arg(&inbox).arg(device).arg("-").arg("+").arg(ENTRIES_MAX);
            pipeline.cmd("XRANGE").arg(&inbox).arg("-").arg("+");
            pipeline.cmd("HGETALL").arg(followed(user));
            pipeline.cmd("HGET").arg(records(user)).arg(device);
        }
        let replies = ask(redis, &pipeline).await;
        let mut standings = Vec::new();
        for ((user, device), replies) in devices.iter().zip(replies.chunks(COMMANDS)) {
            let cursor = cursor(&replies[0], device).unwrap_or((0, 0));
            let mut ids = first_members(&replies[1]);
            ids.extend(first_members(&replies[2]).into_iter().filter(|id| order(id) > cursor));
            owed.push(Owed { user: user.clone(), device: device.clone(), ids, topics: Vec::new() });
            standings.push(Standing::of(&replies[3], &replies[4]));
        }
        let first = owed.len() - devices.len();
        behind(redis, &standings, &mut owed[first..]).await;
    }
    owed.retain(|owed| !owed.ids.is_empty() || !owed.topics.is_empty());
    owed
}

/// All that the logs of topics hold, in their order.
pub(crate) async fn logs(redis: &mut MultiplexedConnection, topics: &[String]) -> BTreeMap<String, Vec<String>> {
    let mut pipeline = redis::pipe();
    for topic in topics {
        pipeline.cmd("XRANGE").arg(log(topic)).arg("-").arg("+");
    }
    let replies = if topics.is_empty() { Vec::new() } else { ask(redis, &pipeline).await };
    topics.iter().cloned().zip(replies.iter().map(first_members)).collect()
}

/// Where a device begins in each topic that it has no cursor in.
struct Standing(Vec<(String, Id)>);

impl Standing {
    /// Of what its user follows, and of its record. A device that is not known is owed nothing of any topic.
    fn of(followed: &Value, record: &Value) -> Self {
        let Some(record) = text(record) else { return Self(Vec::new()) };
        let record: serde_json::Value = serde_json::from_str(&record).expect("a device's record is JSON");
        let ms = |name: &str| record[name].as_f64().map(|ms| ms as u64);
        let first_seen_ms = ms("first_seen_ms").unwrap_or(0);
        let from_ms = ms("topics_from_ms").unwrap_or(first_seen_ms);
        let mut begins = vec![(EVERYBODY.to_owned(), before(first_seen_ms))];
        let Value::Array(pairs) = followed else { return Self(begins) };
        for pair in pairs.chunks_exact(2) {
            let (Some(topic), Some(since)) = (text(&pair[0]), text(&pair[1])) else { continue };
            begins.push((topic, before(from_ms.max(since.parse().unwrap_or(0)))));
        }
        Self(begins)
    }
}

/// Fills in what devices are owed of topics.
async fn behind(redis: &mut MultiplexedConnection, standings: &[Standing], owed: &mut [Owed]) {
    let mut pipeline = redis::pipe();
    for (standing, owed) in standings.iter().zip(owed.iter()) {
        for (topic, _) in &standing.0 {
            pipeline.cmd("ZSCORE").arg(cursors(topic)).arg(format!("{}/{}", owed.user, owed.device));
        }
    }
    let mut topics: Vec<String> =
        standings.iter().flat_map(|standing| &standing.0).map(|(topic, _)| topic.clone()).collect();
    topics.sort();
    topics.dedup();
    let logs: HashMap<String, Vec<String>> = logs(redis, &topics).await.into_iter().collect();
    let scores = if topics.is_empty() { Vec::new() } else { ask(redis, &pipeline).await };
    let mut scores = scores.iter();
    for (standing, owed) in standings.iter().zip(owed) {
        for (topic, begin) in &standing.0 {
            let score = scores.next().and_then(text).and_then(|score| score.parse::<f64>().ok());
            // As docs/KEYS.md says: `ms * 1024 + min(seq, 1023)`.
            let cursor = score.map_or((0, 0), |score| (score as u64 / 1024, score as u64 % 1024));
            let after = cursor.max(*begin);
            let ids: Vec<String> = logs[topic].iter().filter(|id| order(id) > after).cloned().collect();
            if !ids.is_empty() {
                owed.topics.push(Behind { topic: topic.clone(), after: format!("{}-{}", after.0, after.1), ids });
            }
        }
    }
}

async fn ask(redis: &mut MultiplexedConnection, pipeline: &redis::Pipeline) -> Vec<Value> {
    let replies: Vec<redis::RedisResult<Value>> =
        pipeline.clone().ignore_errors().query_async(redis).await.expect("the test's Redis answers");
    replies.into_iter().map(|reply| reply.unwrap_or(Value::Nil)).collect()
}

/// The last id that is before all of a millisecond.
fn before(ms: u64) -> Id {
    ms.checked_sub(1).map_or((0, 0), |ms| (ms, u64::MAX))
}

/// The last delivered id of a group in a reply of `XINFO GROUPS`.
fn cursor(groups: &Value, device: &str) -> Option<Id> {
    let Value::Array(groups) = groups else { return None };
    groups.iter().find_map(|group| {
        let Value::Array(pairs) = group else { return None };
        let field = |name: &str| {
            let pair = pairs.chunks(2).find(|pair| text(&pair[0]).as_deref() == Some(name))?;
            text(pair.get(1)?)
        };
        (field("name")? == device).then(|| field("last-delivered-id").map(|id| order(&id)))?
    })
}

/// The first member of each row: the id of an entry, or of a pending one.
fn first_members(rows: &Value) -> Vec<String> {
    let Value::Array(rows) = rows else { return Vec::new() };
    let first = |row: &Value| match row {
        Value::Array(members) => members.first().and_then(text),
        _ => None,
    };
    rows.iter().filter_map(first).collect()
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}

/// A stream id as a pair of numbers.
fn order(id: &str) -> Id {
    let (ms, seq) = id.split_once('-').unwrap_or((id, "0"));
    (ms.parse().unwrap_or(u64::MAX), seq.parse().unwrap_or(u64::MAX))
}
