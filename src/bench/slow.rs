//! Commands that kept Redis from everybody else for long, as it remembers them itself (SLOWLOG).

use super::BenchError;
use super::cluster::Redis;
use super::report::{Findings, Unit};

/// Longer than this, and it is remembered.
const SLOW_US: u64 = 10_000;
/// Commands that are remembered.
const COMMANDS_MAX: u32 = 128;
/// Of those, how many are told.
const TOLD_MAX: usize = 5;
/// Words of one that are told.
const WORDS_MAX: usize = 3;

/// Watches a Redis of our own.
pub(crate) struct SlowLog {
    redis: Option<Redis>,
}

/// Number, time, microseconds, words, client, and its name.
type Entry = (u64, u64, u64, Vec<String>, String, String);

impl SlowLog {
    /// From now on. The settings of somebody's Redis are left alone.
    pub(crate) async fn watch(redis: &Redis, is_own: bool) -> Result<Self, BenchError> {
        if !is_own {
            return Ok(Self { redis: None });
        }
        let mut pipeline = redis::pipe();
        pipeline.cmd("CONFIG").arg("SET").arg("slowlog-log-slower-than").arg(SLOW_US);
        pipeline.cmd("CONFIG").arg("SET").arg("slowlog-max-len").arg(COMMANDS_MAX);
        pipeline.cmd("SLOWLOG").arg("RESET");
        let set: Result<(), _> = pipeline.query_async(&mut redis.connection()).await;
        set.map_err(BenchError::unreachable("Redis"))?;
        Ok(Self { redis: Some(redis.clone()) })
    }

    /// What was slow until now does not count: writing a crowd is nobody's work, while Redis rewrites its log.
    pub(crate) async fn forget(&self) -> Result<(), BenchError> {
        let Some(redis) = &self.redis else { return Ok(()) };
        let mut reset = redis::cmd("SLOWLOG");
        let reset: Result<(), _> = reset.arg("RESET").query_async(&mut redis.connection()).await;
        reset.map_err(BenchError::unreachable("Redis"))
    }

    /// How many there were, and which took longest.
    pub(crate) async fn figures(&self, findings: &mut Findings) -> Result<(), BenchError> {
        let Some(redis) = &self.redis else { return Ok(()) };
        let mut get = redis::cmd("SLOWLOG");
        get.arg("GET").arg(COMMANDS_MAX);
        let found: Result<Vec<Entry>, _> = get.query_async(&mut redis.connection()).await;
        let mut found = found.map_err(BenchError::unreachable("Redis"))?;
        found.sort_by_key(|entry| std::cmp::Reverse(entry.2));
        let group = "Redis, until the last call; after a crowd was written, if one was";
        findings.figure(group, "slow_commands", "commands over 10 ms", found.len() as f64, Unit::Count);
        let longest = found.first().map_or(0, |entry| entry.2);
        findings.figure(group, "slow_longest", "longest of them", longest as f64, Unit::Microseconds);
        if !found.is_empty() {
            let told = found.iter().take(TOLD_MAX).map(|(_, _, took_us, words, ..)| {
                let words: Vec<&str> = words.iter().take(WORDS_MAX).map(String::as_str).collect();
                format!("\n  {} for {}", words.join(" "), Unit::Microseconds.show(*took_us as f64))
            });
            findings.note(format!("Slow commands:{}", told.collect::<String>()));
        }
        Ok(())
    }
}
