//! Somebody with `redis-cli` and too many rights.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::harness::redis_server::inbox;
use super::super::plan::{Kind, Period};
use super::super::{owed, recorder};
use super::Nemesis;

/// Redis's clock counts whole milliseconds.
const CLOCK_GRAIN: Duration = Duration::from_millis(2);

impl Nemesis {
    pub(super) async fn hit_data(&mut self, kind: Kind, period: Period) {
        let devices = self.population.devices();
        let (user, device) = devices[period.pick % devices.len()].clone();
        let mut redis = self.cluster.redis.connection().await;
        match kind {
            Kind::FlushedAll => {
                let loses_from_us = self.oldest_owed(&devices).await;
                self.begin_with(kind, "all keys", true, loses_from_us);
                run(&mut redis, &["FLUSHALL"]).await;
            }
            Kind::InboxDeleted => {
                let of_user: Vec<_> = devices.into_iter().filter(|(other, _)| *other == user).collect();
                let loses_from_us = self.oldest_owed(&of_user).await;
                self.begin_with(kind, &user, true, loses_from_us);
                run(&mut redis, &["DEL", &inbox(&user)]).await;
            }
            Kind::GroupDestroyed => {
                // What the device had not acked is still in the inbox; only its acks are forgotten.
                self.begin(kind, &format!("{user}/{device}"));
                run(&mut redis, &["XGROUP", "DESTROY", &inbox(&user), &device]).await;
            }
            Kind::FunctionsFlushed => {
                self.begin(kind, "functions");
                run(&mut redis, &["FUNCTION", "FLUSH"]).await;
            }
            Kind::FlagsCleared => {
                self.begin(kind, "notify-keyspace-events");
                run(&mut redis, &["CONFIG", "SET", "notify-keyspace-events", ""]).await;
            }
            _ => {
                self.begin(kind, "all nodes");
                run(&mut redis, &["CLIENT", "KILL", "TYPE", "pubsub"]).await;
            }
        }
        // It is done at once: what is accepted from here on is not lost any more.
        self.healed();
        if kind == Kind::FlushedAll {
            // As a backend does that hears of it.
            self.followers.restore().await;
        }
        tokio::time::sleep(period.length).await;
    }

    /// When the oldest message was appended that some device may still need, on the clock of the history.
    async fn oldest_owed(&self, devices: &[(String, String)]) -> u64 {
        let now_us = self.recorder.now_us();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
        let mut oldest = unix;
        for left in owed::everything(&mut self.cluster.redis.connection().await, devices).await {
            for id in left.ids.iter().chain(left.topics.iter().flat_map(|behind| &behind.ids)) {
                let ms = id.split('-').next().and_then(|ms| ms.parse().ok()).expect("a stream id begins with a time");
                oldest = oldest.min(Duration::from_millis(ms));
            }
        }
        now_us.saturating_sub(recorder::micros(unix.saturating_sub(oldest) + CLOCK_GRAIN))
    }
}

/// Runs a command whose result does not matter: a group may be gone already.
async fn run(redis: &mut redis::aio::MultiplexedConnection, words: &[&str]) {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    let _: redis::RedisResult<redis::Value> = command.query_async(redis).await;
}
