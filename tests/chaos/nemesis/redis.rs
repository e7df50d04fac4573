//! The redis-server process, its memory and its disk.

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
        }
    }
}
