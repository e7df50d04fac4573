//! The redis-server process, its memory and its disk.

use std::time::Duration;

use super::super::plan::{Kind, Period};
use super::Nemesis;

impl Nemesis {
    pub(super) async fn hit_redis(&mut self, kind: Kind, period: Period) {
        // None of these may lose anything: the log was handed to the kernel before each answer, and its disk, being
        // memory, does not stall.
        self.begin(kind, "redis");
        match kind {
            Kind::RedisKilled => {
                self.cluster.redis.kill9();
                tokio::time::sleep(period.length).await;
                self.cluster.redis.start_again().await;
                self.cluster.watch();
            }
            Kind::RedisPaused => {
                self.cluster.redis.pause();
                tokio::time::sleep(period.length).await;
                self.cluster.redis.resume();
            }
            Kind::RedisOutOfMemory => {
                let memory: String = self.cluster.redis.query(&["INFO", "memory"]).await;
                let used = memory.lines().find_map(|line| line.strip_prefix("used_memory:"));
                let used = used.expect("INFO memory names used_memory").trim().to_owned();
                self.cluster.redis.config_set("maxmemory", &used).await;
                tokio::time::sleep(period.length).await;
                self.cluster.redis.config_set("maxmemory", "0").await;
            }
            _ => self.fill_disk(period).await,
        }
        self.healed();
    }

    async fn fill_disk(&mut self, period: Period) {
        let Some(disk) = self.cluster.disk.clone() else { return };
        let filled = disk.clone();
        tokio::task::spawn_blocking(move || filled.fill()).await.expect("filling a disk does not panic");
        tokio::time::sleep(period.length).await;
        disk.free();
        // Under `always` it ends by itself when it cannot write its log, before it answers.
        if self.cluster.redis.exited().is_some() {
            self.cluster.redis.start_again().await;
            self.cluster.watch();
        } else {
            self.rewrite_log().await;
        }
    }

    /// What OPERATIONS.md asks of operators: after a short write, Redis 7.0's log may be broken from there on although
    /// Redis goes on, and would not be loaded again.
    async fn rewrite_log(&self) {
        let redis = &self.cluster.redis;
        let end = tokio::time::Instant::now() + REWRITE_PATIENCE;
        let rewritten = async || -> Option<()> {
            let before = redis.try_query::<String>(&["INFO", "persistence"]).await.ok()?;
            if before.contains("aof_rewrite_in_progress:1") {
                return None;
            }
            redis.try_query::<String>(&["BGREWRITEAOF"]).await.ok()?;
            loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let after = redis.try_query::<String>(&["INFO", "persistence"]).await.ok()?;
                if after.contains("aof_rewrite_in_progress:0") && after.contains("aof_rewrite_scheduled:0") {
                    return after.contains("aof_last_bgrewrite_status:ok").then_some(());
                }
            }
        };
        while rewritten().await.is_none() && tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Time for Redis to rewrite its log after the disk has room again.
const REWRITE_PATIENCE: Duration = Duration::from_secs(20);
