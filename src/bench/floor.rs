//! What the bare commands cost: one XADD with its notification, one XREADGROUP of one entry, one XACK for each message.
//!
//! No engine on Redis Streams that acknowledges can cost Redis less per message, unless it reads or acks several at
//! once. What a measurement costs is compared with this, on the same server in the same run.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;

use super::BenchError;
use super::cluster::{Cluster, Redis};
use super::options::FloorOptions;
use super::outcome::Outcome;
use super::process;
use super::report::{Findings, Unit};
use super::sockets_floor;

/// Streams that take turns, as users do.
const STREAMS: usize = 1_000;
/// Commands in a pipeline.
const DEPTH: usize = 100;

/// The cost of bare commands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Floor {
    /// Redis's CPU time for one message.
    pub(crate) redis_us: f64,
    /// Messages each second, as fast as one connection could.
    pub(crate) rate: f64,
    /// Whether notifications came.
    pub(crate) is_heard: bool,
}

/// `homing bench floor`.
pub(crate) async fn run(options: &FloorOptions) -> Result<Outcome, BenchError> {
    if options.time.0.is_zero() {
        return Err(BenchError::Usage("--time must be longer than 0".to_owned()));
    }
    let cluster = Cluster::redis_only(options.redis.as_ref()).await?;
    let Some(redis) = cluster.redis() else { return Err(BenchError::Broken("there is no Redis".to_owned())) };
    let floor = measure(redis, options.time.0, options.size).await?;
    let mut findings =
        Findings::new("floor", "Bare XADD with notification, XREADGROUP and XACK, and bare sockets".to_owned());
    findings.circumstance("machine", process::machine());
    let version = redis.info("server", "redis_version").await.unwrap_or_default();
    let log = cluster.data_dir().map(|folder| format!(", log on {}", process::file_system(&folder)));
    findings.circumstance("redis", format!("{version}{}", log.unwrap_or_default()));
    findings.circumstance("messages", format!("{} bytes each", options.size));
    findings.figure("Floor", "floor_redis", "Redis's CPU for a message", floor.redis_us, Unit::Microseconds);
    findings.figure("Floor", "floor_rate", "messages", floor.rate, Unit::PerSecond);
    let sockets_us = sockets_floor::measure(options.time.0).await?;
    findings.figure(sockets_floor::GROUP, "floor_sockets", sockets_floor::NAME, sockets_us, Unit::Microseconds);
    let failure =
        (!floor.is_heard).then(|| "no notification was heard: notify-keyspace-events lacks K or t".to_owned());
    cluster.stop().await;
    Ok(Outcome { findings, failure })
}

/// Measures it for some time.
pub(crate) async fn measure(redis: &Redis, time: Duration, size: usize) -> Result<Floor, BenchError> {
    let unreachable = |error: redis::RedisError| BenchError::Unreachable(format!("Redis: {error}"));
    let random = uuid::Uuid::new_v4().simple().to_string();
    let keys: Vec<String> =
        (0..STREAMS).map(|number| format!("homing-floor-{}:{{{number}}}:inbox", &random[..8])).collect();
    let mut connection = redis.connection();
    let mut pipeline = redis::pipe();
    for key in &keys {
        pipeline.cmd("XGROUP").arg("CREATE").arg(key).arg("d").arg("0").arg("MKSTREAM").ignore();
    }
    pipeline.query_async::<()>(&mut connection).await.map_err(unreachable)?;
    // Somebody hears the notifications, as a node does. Whoever runs a node has switched them on.
    let client = redis::Client::open(redis.url.as_str()).map_err(unreachable)?;
    let mut listener = client.get_async_pubsub().await.map_err(unreachable)?;
    let database = client.get_connection_info().redis_settings().db();
    let channels: Vec<String> = keys.iter().map(|key| format!("__keyspace@{database}__:{key}")).collect();
    listener.subscribe(&channels).await.map_err(unreachable)?;
    let heard = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let hears = heard.clone();
    let hearing = tokio::spawn(async move {
        let mut messages = listener.on_message();
        while messages.next().await.is_some() {
            hears.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    });
    let payload = "x".repeat(size);
    let cpu_before = redis.cpu().await;
    let begin = Instant::now();
    let mut count = 0_usize;
    while begin.elapsed() < time {
        let batch: Vec<&String> = keys.iter().cycle().skip(count % STREAMS).take(DEPTH).collect();
        count += DEPTH;
        let mut adding = redis::pipe();
        for key in &batch {
            adding.cmd("XADD").arg(key).arg("*").arg("data").arg(&payload);
        }
        let ids: Vec<String> = adding.query_async(&mut connection).await.map_err(unreachable)?;
        let mut reading = redis::pipe();
        for key in &batch {
            reading
                .cmd("XREADGROUP")
                .arg("GROUP")
                .arg("d")
                .arg("c")
                .arg("COUNT")
                .arg(1)
                .arg("STREAMS")
                .arg(key)
                .arg(">")
                .ignore();
        }
        reading.query_async::<()>(&mut connection).await.map_err(unreachable)?;
        let mut acking = redis::pipe();
        for (key, id) in batch.iter().zip(&ids) {
            acking.cmd("XACK").arg(key).arg("d").arg(id);
        }
        let acked: Vec<u64> = acking.query_async(&mut connection).await.map_err(unreachable)?;
        if acked.iter().sum::<u64>() != DEPTH as u64 {
            return Err(BenchError::Broken("the bare commands did not deliver what they appended".to_owned()));
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let cpu_after = redis.cpu().await;
    hearing.abort();
    let mut removal = redis::cmd("UNLINK");
    removal.arg(&keys).query_async::<()>(&mut connection).await.map_err(unreachable)?;
    let cpu = cpu_before.zip(cpu_after).map(|(before, after)| after.saturating_sub(before)).unwrap_or_default();
    let redis_us = cpu.as_secs_f64() * 1_000_000.0 / count.max(1) as f64;
    let is_heard = heard.load(std::sync::atomic::Ordering::Relaxed);
    Ok(Floor { redis_us, rate: count as f64 / seconds, is_heard })
}
