//! What the Redis at the other end is, and whether Homing can keep its promise on it.

use std::collections::HashMap;
use std::fmt;

use redis::aio::ConnectionLike;
use thiserror::Error;

use super::error::StoreError;

/// Oldest Redis that has functions. Valkey calls itself Redis 7.2.4 and passes.
pub const VERSION_MIN: (u32, u32) = (7, 0);
/// Keyspace events (`K`) of streams (`t`): what wake-ups are made of.
pub const FLAGS: &str = "Kt";

/// How much of what was accepted survives a crash of the server's machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Append-only log, flushed before each answer.
    Always,
    /// Append-only log, flushed every second.
    EverySec,
    /// Append-only log, flushed when the system likes to.
    No,
    /// No append-only log.
    Off,
    /// An append-only log, but how it is flushed cannot be seen.
    Unknown,
}

/// What became of the notification flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlagsOutcome {
    /// They were there.
    AlreadySet,
    /// They were missing, and were added to what was set. Wake-ups may have been lost before.
    Set,
    /// They could not be read or set; the text says why.
    Unable(String),
}

/// What a check of the server found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerReport {
    /// The version, as the server calls it.
    pub version: String,
    /// Valkey rather than Redis.
    pub is_valkey: bool,
    /// What survives a crash.
    pub fsync: Fsync,
    /// The eviction policy; `None` if it cannot be seen.
    pub eviction: Option<String>,
    /// The notification flags.
    pub flags: FlagsOutcome,
    /// What an operator should know: what is not as it should be, and what it costs.
    pub warnings: Vec<String>,
}

/// Which server it is, to be compared with the primary epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerIdentity {
    /// Changes with every start of the process.
    pub run_id: String,
    /// Changes with every failover.
    pub replid: String,
    /// That of the primary whose replica this server was, or zeros.
    pub replid2: String,
    /// Whether a restart loses nothing.
    pub fsync_always: bool,
    /// Still reading its data from disk.
    pub is_loading: bool,
    /// Takes writes.
    pub is_primary: bool,
}

/// A server that Homing does not start on.
#[derive(Clone, Debug, Error)]
pub enum ServerError {
    /// No functions.
    #[error("this is Redis {0}; Homing needs 7.0 or newer, or Valkey")]
    TooOld(String),
    /// Messages may vanish.
    #[error(
        "Redis has maxmemory-policy {0} and would drop messages silently when its memory is full: set it to \
         noeviction, or start with --allow-eviction"
    )]
    Evicts(String),
    /// Writes are refused.
    #[error("this Redis is a replica; give the address of its primary")]
    Replica,
    /// Wake-ups come from one node of the cluster only.
    #[error("this Redis runs in cluster mode, which Homing does not support yet")]
    Cluster,
    /// No answer, or not the one expected.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl fmt::Display for Fsync {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Always => "append-only log, flushed before each answer",
            Self::EverySec => "append-only log, flushed every second",
            Self::No => "append-only log, flushed when the system likes to",
            Self::Off => "no append-only log",
            Self::Unknown => "append-only log, flushed in an unknown way",
        })
    }
}

/// Checks everything that delivery stands on, and sets the notification flags.
///
/// # Errors
/// [`ServerError`] if Homing should not start on this server.
pub async fn check(connection: &mut impl ConnectionLike, allow_eviction: bool) -> Result<ServerReport, ServerError> {
    let info = info(connection).await?;
    let is_valkey = info.contains_key("valkey_version");
    let version = info.get("valkey_version").or_else(|| info.get("redis_version")).cloned().unwrap_or_default();
    if !is_valkey && parse_version(&version) < VERSION_MIN {
        return Err(ServerError::TooOld(version));
    }
    if info.get("redis_mode").or_else(|| info.get("server_mode")).is_some_and(|mode| mode == "cluster") {
        return Err(ServerError::Cluster);
    }
    if info.get("role").is_some_and(|role| role == "slave") {
        return Err(ServerError::Replica);
    }
    let mut warnings = Vec::new();
    let eviction = info.get("maxmemory_policy").cloned();
    match eviction.as_deref() {
        Some("noeviction") => {}
        Some(policy) if !allow_eviction => return Err(ServerError::Evicts(policy.to_owned())),
        Some(policy) => warnings.push(format!(
            "maxmemory-policy is {policy}: when its memory is full, Redis drops messages, and nobody is told"
        )),
        None => warnings
            .push("the eviction policy cannot be seen; it must be noeviction, or messages may vanish".to_owned()),
    }
    let fsync = fsync(connection, &info).await?;
    warnings.extend(cost_of(fsync).map(str::to_owned));
    let flags = merge_flags(connection).await?;
    if let FlagsOutcome::Unable(reason) = &flags {
        warnings.push(format!(
            "keyspace notifications could not be checked or set ({reason}): unless notify-keyspace-events contains \
             {FLAGS}, messages are noticed only by the sweep, up to a minute late, and /readyz stays red"
        ));
    }
    Ok(ServerReport { version, is_valkey, fsync, eviction, flags, warnings })
}

/// Adds [`FLAGS`] to the notification flags, keeping those of others.
///
/// # Errors
/// [`StoreError`] if Redis cannot be reached. That it does not permit this is an outcome.
pub async fn merge_flags(connection: &mut impl ConnectionLike) -> Result<FlagsOutcome, StoreError> {
    let before = match read_flags(connection).await {
        Err(StoreError::Unexpected(reason)) => return Ok(FlagsOutcome::Unable(reason)),
        flags => flags?,
    };
    let missing = missing_flags(&before);
    if missing.is_empty() {
        return Ok(FlagsOutcome::AlreadySet);
    }
    let mut command = redis::cmd("CONFIG");
    command.arg("SET").arg("notify-keyspace-events").arg(format!("{before}{missing}"));
    match command.query_async::<()>(connection).await.map_err(StoreError::from) {
        Err(StoreError::Unexpected(reason)) => return Ok(FlagsOutcome::Unable(reason)),
        outcome => outcome?,
    }
    // Some hosted servers say OK and change nothing.
    match missing_flags(&read_flags(connection).await?).is_empty() {
        true => Ok(FlagsOutcome::Set),
        false => Ok(FlagsOutcome::Unable("the server took the setting but did not keep it".to_owned())),
    }
}

/// Asks the server who it is.
///
/// # Errors
/// Any [`StoreError`].
pub async fn identity(connection: &mut impl ConnectionLike) -> Result<ServerIdentity, StoreError> {
    let info = info(connection).await?;
    let field =
        |name: &str| info.get(name).cloned().ok_or_else(|| StoreError::Unexpected(format!("INFO lacks {name}")));
    Ok(ServerIdentity {
        run_id: field("run_id")?,
        replid: field("master_replid")?,
        replid2: field("master_replid2")?,
        is_loading: info.get("loading").is_some_and(|loading| loading != "0"),
        is_primary: info.get("role").is_none_or(|role| role == "master"),
        fsync_always: fsync(connection, &info).await? == Fsync::Always,
    })
}

async fn info(connection: &mut impl ConnectionLike) -> Result<HashMap<String, String>, StoreError> {
    // One section each: servers older than VERSION_MIN take only one, and must be told apart from broken ones.
    let mut pipeline = redis::pipe();
    for section in ["server", "replication", "persistence", "memory"] {
        pipeline.cmd("INFO").arg(section);
    }
    let sections: Vec<String> = pipeline.query_async(connection).await?;
    let lines = sections.iter().flat_map(|section| section.lines());
    Ok(lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name.into(), value.trim().into())).collect())
}

async fn setting(connection: &mut impl ConnectionLike, name: &str) -> Result<String, StoreError> {
    let mut settings: HashMap<String, String> =
        redis::cmd("CONFIG").arg("GET").arg(name).query_async(connection).await?;
    settings.remove(name).ok_or_else(|| StoreError::Unexpected(format!("CONFIG GET hides {name}")))
}

async fn read_flags(connection: &mut impl ConnectionLike) -> Result<String, StoreError> {
    setting(connection, "notify-keyspace-events").await
}

/// `A` stands for all event classes, streams among them, but not for `K`.
fn missing_flags(flags: &str) -> &'static str {
    match (flags.contains('K'), flags.contains(['A', 't'])) {
        (true, true) => "",
        (true, false) => "t",
        (false, true) => "K",
        (false, false) => FLAGS,
    }
}

async fn fsync(connection: &mut impl ConnectionLike, info: &HashMap<String, String>) -> Result<Fsync, StoreError> {
    if info.get("aof_enabled").is_some_and(|enabled| enabled == "0") {
        return Ok(Fsync::Off);
    }
    match setting(connection, "appendfsync").await {
        Ok(policy) => Ok(match policy.as_str() {
            "always" => Fsync::Always,
            "everysec" => Fsync::EverySec,
            "no" => Fsync::No,
            _ => Fsync::Unknown,
        }),
        Err(StoreError::Unexpected(_)) => Ok(Fsync::Unknown),
        Err(error) => Err(error),
    }
}

fn cost_of(fsync: Fsync) -> Option<&'static str> {
    match fsync {
        Fsync::Always | Fsync::EverySec => None,
        Fsync::No => Some(
            "appendfsync is no: a crash of Redis's machine loses accepted messages, often half a minute of them; \
             everysec loses about a second, always none",
        ),
        Fsync::Off => Some(
            "Redis keeps no append-only log (appendonly no): its restart loses accepted messages and acks since the \
             last snapshot, or all of them",
        ),
        Fsync::Unknown => Some(
            "CONFIG is not permitted, so how Redis flushes its append-only log cannot be seen; every restart of it \
             counts as a loss of data",
        ),
    }
}

fn parse_version(version: &str) -> (u32, u32) {
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::test_server::TestServer;

    #[test]
    fn flags_of_others_are_kept_and_only_what_is_missing_is_added() {
        for (flags, missing) in [("", "Kt"), ("AKE", ""), ("AE", "K"), ("Kx", "t"), ("KEt", ""), ("gxE", "Kt")] {
            assert_eq!(missing_flags(flags), missing, "{flags:?}");
        }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(parse_version("7.0.15") >= VERSION_MIN && parse_version("10.0.0") > VERSION_MIN);
        assert!(parse_version("6.2.14") < VERSION_MIN && parse_version("") < VERSION_MIN);
    }

    #[tokio::test]
    async fn flags_are_set_once_and_restored_when_somebody_clears_them() {
        let server = TestServer::start(&["--notify-keyspace-events", "xE", "--appendonly", "yes"]);
        let mut connection = server.connect().await;
        let report = check(&mut connection, false).await.unwrap();
        assert_eq!((report.flags, report.fsync, report.is_valkey), (FlagsOutcome::Set, Fsync::EverySec, false));
        assert_eq!(report.warnings, Vec::<String>::new());
        let flags = read_flags(&mut connection).await.unwrap();
        assert!("xEKt".chars().all(|flag| flags.contains(flag)), "{flags}");
        assert_eq!(merge_flags(&mut connection).await.unwrap(), FlagsOutcome::AlreadySet);
    }

    #[tokio::test]
    async fn a_server_that_evicts_is_refused_unless_allowed() {
        let server = TestServer::start(&["--maxmemory-policy", "allkeys-lru"]);
        let mut connection = server.connect().await;
        let refused = check(&mut connection, false).await;
        assert!(matches!(refused, Err(ServerError::Evicts(policy)) if policy == "allkeys-lru"));
        let warnings = check(&mut connection, true).await.unwrap().warnings;
        assert!(warnings[0].contains("allkeys-lru") && warnings[1].contains("no append-only log"), "{warnings:?}");
    }

    #[tokio::test]
    async fn what_a_server_does_not_permit_is_told_with_its_cost() {
        let server = TestServer::start(&["--rename-command", "CONFIG", "", "--appendonly", "yes"]);
        let report = check(&mut server.connect().await, false).await.unwrap();
        assert!(matches!(report.flags, FlagsOutcome::Unable(_)));
        assert_eq!((report.fsync, report.eviction.as_deref()), (Fsync::Unknown, Some("noeviction")));
        assert_eq!(report.warnings.len(), 2, "{:?}", report.warnings);
    }

    #[tokio::test]
    async fn a_server_says_who_it_is() {
        let server = TestServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
        let who = identity(&mut server.connect().await).await.unwrap();
        assert!(who.fsync_always && who.is_primary && !who.is_loading);
        assert_eq!((who.run_id.len(), who.replid.len()), (40, 40));
    }
}
