//! Followers of one topic who are away: written straight into Redis as the API would leave them, and what calls cost
//! with so many.

use homing_protocol::id::EntryId;
use homing_protocol::name::Name;
use homing_protocol::topic::{Topic, cursor_score};
use redis::aio::MultiplexedConnection;
use serde_json::json;

use super::BenchError;
use super::calls::Calls;
use super::clock::now_us;
use super::cluster::Redis;
use super::follows::EACH_MAX;
use super::latency::Latencies;
use super::progress::Progress;
use super::report::{Findings, Unit};
use super::stage;
use super::worker::orders::Report;
use crate::store::{Key, KeySpace};

/// Users that are written at once.
const WRITE_USERS: u32 = 250;
/// Pages of lists that are asked for.
const PAGES_MAX: usize = 100;
/// Counts of who has acknowledged a message.
const RECEIPTS: usize = 100;
/// Users who follow by calls of [`EACH_MAX`] each.
const BULK_USERS: u32 = 10_000;
/// Age of the cursors that are written: before every message of the measurement.
const CURSOR_AGE_MS: u64 = 60 * 60 * 1_000;
/// Time between two looks whether Redis still rewrites its log.
const REWRITE_PAUSE: std::time::Duration = std::time::Duration::from_millis(200);

/// A topic and who follows it without ever connecting.
pub(crate) struct Crowd<'a> {
    pub(crate) redis: &'a Redis,
    pub(crate) keys: KeySpace,
    pub(crate) topic: &'a Topic,
    /// What their names begin with.
    pub(crate) user_prefix: String,
    pub(crate) count: u32,
}

impl Crowd<'_> {
    /// Writes what following leaves, the user's own record and an entry in the list; and a cursor each, as a device
    /// leaves it that has acknowledged something and gone.
    pub(crate) async fn write(&self) -> Result<(), BenchError> {
        let Topic::Named(name) = self.topic else { return Ok(()) };
        let mut connection = self.redis.connection();
        let mut progress = Progress::new("a crowd", u64::from(self.count));
        let (seconds, _): (u64, u64) =
            redis::cmd("TIME").query_async(&mut connection).await.map_err(BenchError::unreachable("Redis"))?;
        let now_ms = seconds * 1_000;
        let score = cursor_score(EntryId { ms: now_ms - CURSOR_AGE_MS, seq: 0 });
        let device = Name::default_device();
        for begin in (0..self.count).step_by(WRITE_USERS as usize) {
            let users = begin..self.count.min(begin + WRITE_USERS);
            let users = users.map(|number| format!("{}away-{number}", self.user_prefix));
            let users = users.map(|user| Name::parse(&user)).collect::<Result<Vec<_>, _>>();
            let users = users.map_err(BenchError::broken("a user's name"))?;
            let mut pipeline = redis::pipe();
            for user in &users {
                pipeline.cmd("HSET").arg(self.keys.name(Key::Topics(user))).arg(name.as_str()).arg(now_ms).ignore();
            }
            pipeline.cmd("SADD").arg(self.keys.name(Key::Followers(self.topic)));
            for user in &users {
                pipeline.arg(user.as_str());
            }
            pipeline.ignore().cmd("ZADD").arg(self.keys.name(Key::Cursors(self.topic)));
            for user in &users {
                pipeline.arg(score).arg(KeySpace::cursor_member(user, &device));
            }
            let written: Result<(), _> = pipeline.ignore().query_async(&mut connection).await;
            written.map_err(BenchError::unreachable("Redis"))?;
            progress.at(u64::from(begin), &Report::default());
        }
        // Redis rewrites its log when it has grown, on the other core.
        for flag in ["aof_rewrite_scheduled", "aof_rewrite_in_progress"] {
            while self.redis.info("persistence", flag).await.is_some_and(|value| value != "0") {
                tokio::time::sleep(REWRITE_PAUSE).await;
            }
        }
        Ok(())
    }

    /// Calls of the API about the topic: none of them may take longer because of those who follow it.
    pub(crate) async fn calls(
        &self,
        calls: &Calls,
        message: EntryId,
        findings: &mut Findings,
    ) -> Result<(), BenchError> {
        let topic = format!("/v1/topics/{}", self.topic);
        let pages = pages(calls, &format!("{topic}/followers")).await?;
        stage::percentiles(findings, "A page of 100 followers, by the API", "page", &pages);
        let pages = self::pages(calls, &format!("{topic}/messages/{message}/followers")).await?;
        stage::percentiles(findings, "100 followers, and who of them has acknowledged a message", "states", &pages);
        let mut took = Latencies::default();
        for _ in 0..RECEIPTS {
            calls.get(&format!("{topic}/messages/{message}"), &mut took).await?;
        }
        stage::percentiles(findings, "Counts of who has acknowledged a message", "receipt", &took);
        let (mut took, began_us) = (Latencies::default(), now_us());
        for begin in (0..BULK_USERS).step_by(EACH_MAX as usize) {
            let users: Vec<String> =
                (begin..begin + EACH_MAX).map(|number| format!("{}bulk-{number}", self.user_prefix)).collect();
            let path = format!("{topic}/followers");
            calls.call(reqwest::Method::POST, &path, Some(&json!({ "add": users })), &mut took).await?;
        }
        let group = "10,000 users made to follow it, 1,000 in a call";
        findings.figure(group, "bulk_all", "all calls", (now_us() - began_us) as f64, Unit::Microseconds);
        findings.figure(group, "bulk_max", "slowest call", took.max() as f64, Unit::Microseconds);
        Ok(())
    }

    /// Takes all keys of the topic away; how long Redis was at it.
    pub(crate) async fn unlink(&self) -> Result<u64, BenchError> {
        let began_us = now_us();
        let mut unlink = redis::cmd("UNLINK");
        let topic = self.topic;
        for key in [Key::Log(topic), Key::Cursors(topic), Key::Followers(topic), Key::TopicMeta(topic)] {
            unlink.arg(self.keys.name(key));
        }
        let _: u64 =
            unlink.query_async(&mut self.redis.connection()).await.map_err(BenchError::unreachable("Redis"))?;
        Ok(now_us() - began_us)
    }
}

/// Asks for a list, page by page.
async fn pages(calls: &Calls, path: &str) -> Result<Latencies, BenchError> {
    let (mut took, mut cursor) = (Latencies::default(), String::new());
    for _ in 0..PAGES_MAX {
        let page = calls.get(&format!("{path}?limit=100{cursor}"), &mut took).await?;
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    Ok(took)
}

/// Bytes that keys take in Redis, and how many members they have, by the commands that say so.
pub(crate) async fn memory(
    connection: &mut MultiplexedConnection,
    keys: &[String],
    count: &str,
) -> Result<(u64, u64), BenchError> {
    let mut pipeline = redis::pipe();
    for key in keys {
        pipeline.cmd("MEMORY").arg("USAGE").arg(key).arg("SAMPLES").arg(0).cmd(count).arg(key);
    }
    let replies: Vec<(Option<u64>, u64)> = {
        let flat: Vec<Option<u64>> =
            pipeline.query_async(connection).await.map_err(BenchError::unreachable("Redis"))?;
        flat.chunks(2).map(|pair| (pair[0], pair[1].unwrap_or(0))).collect()
    };
    let used = replies.iter().filter_map(|(bytes, members)| Some((bytes.as_ref()?, members)));
    Ok(used.fold((0, 0), |(bytes, members), (more, others)| (bytes + more, members + others)))
}
