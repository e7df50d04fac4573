//! Numbered steps that bring a Redis to the schema of this binary. `migrations/README.md` has the rules.

use std::collections::HashMap;
use std::time::Duration;

use redis::{Cmd, Value};
use thiserror::Error;

use super::connect::Store;
use super::error::StoreError;
use super::functions::{LIBRARY, LIBRARY_NAME};
use super::keys::{Key, Lock};

/// One migration. Its number is its place in [`STEPS`], from 1.
struct Step {
    what: &'static str,
}

/// Every migration, in order. Each so far consists of loading its function library.
const STEPS: [Step; 1] = [Step { what: "load function library homing_1" }];

/// The newest schema that this binary knows.
pub const SCHEMA: u64 = STEPS.len() as u64;
/// A migrator that died keeps others waiting no longer than this.
const LOCK_TTL: Duration = Duration::from_secs(30);
/// How long to wait for another migrator before giving up.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(60);
/// Time between two tries to get the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// Deletes the lock only if it is still ours: it may have expired and belong to another.
const UNLOCK: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// Where a Redis stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Number of the last migration that was applied; 0 for an empty Redis.
    pub schema: u64,
    /// The functions in Redis compared with this binary's.
    pub library: Library,
}

/// The functions in Redis compared with this binary's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// The same.
    Current,
    /// None by that name.
    Missing,
    /// Another text by the same name: only unreleased builds differ.
    Different,
    /// The server does not let us look.
    Unknown,
}

/// What a migration did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// The schema before.
    pub from: u64,
    /// The schema now.
    pub to: u64,
    /// What was done, for people; empty if there was nothing to do.
    pub done: Vec<String>,
}

/// Why a Redis could not be brought to this binary's schema.
#[derive(Clone, Debug, Error)]
pub enum MigrateError {
    /// A newer version of Homing has been here.
    #[error("Redis has schema {found}, this version of Homing knows {known} at most: use the newer version")]
    NewerSchema {
        /// What Redis has.
        found: u64,
        /// [`SCHEMA`].
        known: u64,
    },
    /// Somebody else migrates, and does not finish.
    #[error("another process has been migrating for over {} s", LOCK_WAIT_MAX.as_secs())]
    Locked,
    /// No answer, or not the one expected.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Says where a Redis stands, and changes nothing.
///
/// # Errors
/// [`MigrateError`], also for a schema newer than this binary's.
pub async fn status(store: &Store) -> Result<Status, MigrateError> {
    let key = store.keys().name(Key::Schema);
    let schema: u64 = store.query::<Option<u64>>(redis::cmd("GET").arg(key)).await?.unwrap_or(0);
    if schema > SCHEMA {
        return Err(MigrateError::NewerSchema { found: schema, known: SCHEMA });
    }
    Ok(Status { schema, library: library(store).await? })
}

/// Applies what is missing, one process at a time. A Redis that lacks nothing is only read, so that a node can start
/// while writes are refused.
///
/// # Errors
/// [`MigrateError`]. What was applied stays applied; migrating again goes on from there.
pub async fn migrate(store: &Store) -> Result<Migrated, MigrateError> {
    let status = status(store).await?;
    if is_complete(status) {
        return Ok(Migrated { from: status.schema, to: status.schema, done: Vec::new() });
    }
    let token = lock(store).await?;
    let outcome = apply(store).await;
    // If this fails, the lock expires by itself.
    let _ = store.query::<i64>(&unlock(store, &token)).await;
    outcome
}

fn is_complete(status: Status) -> bool {
    status.schema == SCHEMA && matches!(status.library, Library::Current)
}

async fn apply(store: &Store) -> Result<Migrated, MigrateError> {
    // Asked again: while we waited for the lock, another process may have done it all.
    let before = status(store).await?;
    let mut done = Vec::new();
    match before.library {
        Library::Current => {}
        Library::Missing | Library::Unknown => store.load_functions().await?,
        Library::Different => {
            let mut command = redis::cmd("FUNCTION");
            store.query::<String>(command.arg("LOAD").arg("REPLACE").arg(LIBRARY)).await?;
            done.push(format!("replaced function library {LIBRARY_NAME}: it was that of another, unreleased build"));
        }
    }
    for (number, step) in (1..).zip(&STEPS).filter(|(number, _)| *number > before.schema) {
        store.query::<()>(redis::cmd("SET").arg(store.keys().name(Key::Schema)).arg(number)).await?;
        done.push(format!("{number:04}: {}", step.what));
    }
    if done.is_empty() && before.library == Library::Missing {
        done.push(format!("loaded function library {LIBRARY_NAME} again: Redis had lost it"));
    }
    Ok(Migrated { from: before.schema, to: SCHEMA, done })
}

async fn library(store: &Store) -> Result<Library, StoreError> {
    let mut command = redis::cmd("FUNCTION");
    command.arg("LIST").arg("LIBRARYNAME").arg(LIBRARY_NAME).arg("WITHCODE");
    let libraries: Vec<HashMap<String, Value>> = match store.query(&command).await {
        Err(StoreError::Unexpected(_)) => return Ok(Library::Unknown),
        libraries => libraries?,
    };
    let Some(library) = libraries.first() else { return Ok(Library::Missing) };
    let is_ours = match library.get("library_code") {
        Some(Value::BulkString(code)) => code == LIBRARY.as_bytes(),
        _ => false,
    };
    Ok(if is_ours { Library::Current } else { Library::Different })
}

async fn lock(store: &Store) -> Result<String, MigrateError> {
    let key = store.keys().name(Key::Lock(Lock::Migration));
    let token = uuid::Uuid::new_v4().simple().to_string();
    let mut command = redis::cmd("SET");
    command.arg(key).arg(&token).arg("NX").arg("PX").arg(LOCK_TTL.as_millis() as u64);
    let deadline = tokio::time::Instant::now() + LOCK_WAIT_MAX;
    while store.query::<Option<String>>(&command).await?.is_none() {
        if tokio::time::Instant::now() > deadline {
            return Err(MigrateError::Locked);
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    Ok(token)
}

fn unlock(store: &Store, token: &str) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(UNLOCK).arg(1).arg(store.keys().name(Key::Lock(Lock::Migration))).arg(token);
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreConfig;
    use crate::store::test_server::TestServer;

    async fn store(server: &TestServer) -> Store {
        server.connect().await;
        let config = StoreConfig {
            url: server.url(),
            ca_pem: None,
            prefix: "homing".to_owned(),
            reply_timeout: Duration::from_secs(5),
        };
        Store::new(&config).unwrap()
    }

    async fn set(store: &Store, key: Key<'_>, value: &str) {
        store.query::<()>(redis::cmd("SET").arg(store.keys().name(key)).arg(value)).await.unwrap();
    }

    #[tokio::test]
    async fn an_empty_redis_is_migrated_once() {
        let server = TestServer::start(&[]);
        let store = store(&server).await;
        assert_eq!(status(&store).await.unwrap(), Status { schema: 0, library: Library::Missing });
        let (one, two) = tokio::join!(migrate(&store), migrate(&store));
        let mut done = [one.unwrap().done, two.unwrap().done].concat();
        assert_eq!(done, ["0001: load function library homing_1"]);
        assert_eq!(status(&store).await.unwrap(), Status { schema: SCHEMA, library: Library::Current });
        done = migrate(&store).await.unwrap().done;
        assert_eq!(done, Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_newer_schema_is_refused_and_left_alone() {
        let server = TestServer::start(&[]);
        let store = store(&server).await;
        set(&store, Key::Schema, "99").await;
        let error = migrate(&store).await.unwrap_err();
        assert!(matches!(error, MigrateError::NewerSchema { found: 99, known: SCHEMA }), "{error}");
        assert_eq!(library(&store).await.unwrap(), Library::Missing);
    }

    #[tokio::test]
    async fn lost_or_changed_functions_are_loaded_again() {
        let server = TestServer::start(&[]);
        let store = store(&server).await;
        migrate(&store).await.unwrap();
        let mut flush = redis::cmd("FUNCTION");
        store.query::<()>(flush.arg("FLUSH")).await.unwrap();
        assert!(migrate(&store).await.unwrap().done[0].contains("had lost it"));
        let mut load = redis::cmd("FUNCTION");
        let other = "#!lua name=homing_1\nredis.register_function('homing_1_trim', function() return 1 end)";
        store.query::<()>(load.arg("LOAD").arg("REPLACE").arg(other)).await.unwrap();
        assert!(migrate(&store).await.unwrap().done[0].starts_with("replaced"));
        assert_eq!(library(&store).await.unwrap(), Library::Current);
    }

    #[tokio::test]
    async fn the_lock_of_another_migrator_is_waited_for_and_never_stolen() {
        let server = TestServer::start(&[]);
        let store = store(&server).await;
        set(&store, Key::Lock(Lock::Migration), "somebody else").await;
        // Not ours to delete.
        assert_eq!(store.query::<i64>(&unlock(&store, "mine")).await.unwrap(), 0);
        let migration = tokio::spawn({
            let store = store.clone();
            async move { migrate(&store).await }
        });
        tokio::time::sleep(LOCK_PAUSE * 3).await;
        assert!(!migration.is_finished());
        assert_eq!(store.query::<i64>(&unlock(&store, "somebody else")).await.unwrap(), 1);
        assert_eq!(migration.await.unwrap().unwrap().to, SCHEMA);
    }

    // A node must be able to start while memory is full, since its trims are what frees it.
    #[tokio::test]
    async fn nothing_is_written_when_nothing_is_missing() {
        let server = TestServer::start(&[]);
        let store = store(&server).await;
        migrate(&store).await.unwrap();
        let mut limit = redis::cmd("CONFIG");
        store.query::<()>(limit.arg("SET").arg("maxmemory").arg("1")).await.unwrap();
        assert_eq!(migrate(&store).await.unwrap().done, Vec::<String>::new());
    }
}
