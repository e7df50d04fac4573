//! Connections to Redis: one shared for publishing, a small pool for rare calls, and new ones for each shard.
//!
//! What every message goes through are connections of our own ([`Line`], [`Wire`]); the pool's are the `redis` crate's.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use homing_protocol::name::Name;
use redis::{Client, Cmd, FromRedisValue, IntoConnectionInfo, Pipeline};

use super::error::StoreError;
use super::functions::LIBRARY;
use super::keys::KeySpace;
use super::line::{Line, Outcome};
use super::piggyback::Piggyback;
use super::resp::Commands;
use super::wire::{Dialer, Wire};

/// How a process reaches its Redis.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// `redis://`, `rediss://` or `unix://` URL, with user, password and database.
    pub url: String,
    /// PEM of the certificate authority for `rediss://`; the system's web roots if `None`.
    pub ca_pem: Option<Vec<u8>>,
    /// Prefix of every key.
    pub prefix: String,
    /// Time after which a write without an answer counts as unknown.
    pub reply_timeout: Duration,
}

/// Time to open a connection.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Connections for rare calls (inspection, deletion): they must not stand in the way of publishing.
const POOL_CONNECTIONS_MAX: usize = 4;

/// A handle to Redis; cloning is cheap.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    keys: KeySpace,
    dialer: Dialer,
    shared: Line,
    piggyback: Arc<Piggyback>,
    /// Those of all threads.
    piggybacks: Arc<RwLock<Vec<Arc<Piggyback>>>>,
    /// `None` with a private certificate authority, which deadpool-redis cannot be told.
    pool: Option<deadpool_redis::Pool>,
    has_own_ca: bool,
    reply_timeout: Duration,
}

impl Store {
    /// Prepares the connections; the shared one is opened by its first use.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the URL or the certificate is unusable.
    pub fn new(config: &StoreConfig) -> Result<Self, StoreError> {
        let client = open(config)?;
        let keys = KeySpace::new(&config.prefix, client.get_connection_info().redis_settings().db());
        let dialer = Dialer::new(&client, config.ca_pem.as_deref())?;
        Self::connect(client, dialer, keys, config.ca_pem.is_some(), config.reply_timeout, Arc::default())
    }

    fn connect(
        client: Client,
        dialer: Dialer,
        keys: KeySpace,
        has_own_ca: bool,
        reply_timeout: Duration,
        piggybacks: Arc<RwLock<Vec<Arc<Piggyback>>>>,
    ) -> Result<Self, StoreError> {
        let shared = Line::new(dialer.clone(), client.get_connection_info().redis_settings().db(), reply_timeout);
        let pool = if has_own_ca { None } else { Some(pool(&client, reply_timeout)?) };
        let piggyback: Arc<Piggyback> = Arc::default();
        piggybacks.write().unwrap_or_else(PoisonError::into_inner).push(piggyback.clone());
        Ok(Self {
            inner: Arc::new(Inner {
                client,
                keys,
                dialer,
                shared,
                piggyback,
                piggybacks,
                pool,
                has_own_ca,
                reply_timeout,
            }),
        })
    }

    /// The same Redis by connections of their own. A connection is driven by the runtime that first uses it, so each
    /// thread that publishes has its own.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] as for [`Store::new`].
    pub fn for_thread(&self) -> Result<Self, StoreError> {
        let Inner { client, dialer, keys, has_own_ca, reply_timeout, piggybacks, .. } = &*self.inner;
        Self::connect(client.clone(), dialer.clone(), keys.clone(), *has_own_ca, *reply_timeout, piggybacks.clone())
    }

    /// Names of keys and channels.
    #[must_use]
    pub fn keys(&self) -> &KeySpace {
        &self.inner.keys
    }

    /// For connections of one's own.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.inner.client
    }

    /// The shared, pipelining, reconnecting connection. Its replies may be given up after the reply time-out, so it
    /// must never carry a read whose entries would then sit unseen.
    #[must_use]
    pub fn shared(&self) -> &Line {
        &self.inner.shared
    }

    /// What leaves in the pipeline of this thread's shard, if it has one.
    #[must_use]
    pub fn piggyback(&self) -> &Piggyback {
        &self.inner.piggyback
    }

    /// Lets a shard of this process append what it will read: see [`Piggyback::offer`]. This thread's own is asked first.
    pub async fn send_along(&self, user: &Name, bytes: usize, write: impl Fn(&mut Commands)) -> Option<Outcome> {
        let Inner { piggyback, piggybacks, .. } = &*self.inner;
        let ride = piggyback.offer(user, bytes, &write).or_else(|| {
            let all = piggybacks.read().unwrap_or_else(PoisonError::into_inner);
            all.iter().find_map(|other| other.offer(user, bytes, &write))
        })?;
        ride.outcome().await
    }

    /// A connection of one's own, whose replies are awaited for as long as it takes. Whoever calls sets the time-out.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn dial(&self) -> Result<Wire, StoreError> {
        self.inner.dialer.dial().await
    }

    /// A connection for rare calls.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if none is free in time or Redis cannot be reached.
    pub async fn rare(&self) -> Result<RareConnection, StoreError> {
        match &self.inner.pool {
            None => Ok(RareConnection::Shared(self.shared().clone())),
            Some(pool) => match pool.get().await {
                Ok(connection) => Ok(RareConnection::Pooled(connection)),
                Err(error) => Err(StoreError::Unavailable(error.to_string())),
            },
        }
    }

    /// Runs one command on the shared connection.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        Ok(command.query_async(&mut self.shared().clone()).await?)
    }

    /// Runs one function on the shared connection; loads the library and tries once more if it is missing.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn call<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        match self.query(command).await {
            Err(StoreError::FunctionMissing) => {
                self.load_functions().await?;
                self.query(command).await
            }
            outcome => outcome,
        }
    }

    /// Loads the function library; another process may have done so.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn load_functions(&self) -> Result<(), StoreError> {
        let mut command = redis::cmd("FUNCTION");
        command.arg("LOAD").arg(LIBRARY);
        match self.query::<String>(&command).await {
            Err(StoreError::Unexpected(text)) if text.contains("already exists") => Ok(()),
            outcome => outcome.map(|_| ()),
        }
    }
}

/// A connection for rare calls: inspection, deletion, the janitor.
pub enum RareConnection {
    /// One of the pool, returned to it when dropped.
    Pooled(deadpool_redis::Connection),
    /// The shared one.
    Shared(Line),
}

impl RareConnection {
    /// Runs one command.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, StoreError> {
        Ok(match self {
            Self::Pooled(connection) => command.query_async(connection).await?,
            Self::Shared(connection) => command.query_async(connection).await?,
        })
    }

    /// Runs a pipeline; the first error reply fails it.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn pipeline<T: FromRedisValue>(&mut self, pipeline: &Pipeline) -> Result<T, StoreError> {
        Ok(match self {
            Self::Pooled(connection) => pipeline.query_async(connection).await?,
            Self::Shared(connection) => pipeline.query_async(connection).await?,
        })
    }
}

fn pool(client: &Client, reply_timeout: Duration) -> Result<deadpool_redis::Pool, StoreError> {
    let config = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(reply_timeout));
    let manager = deadpool_redis::Manager::new_with_config(client.get_connection_info().clone(), config)?;
    deadpool_redis::Pool::builder(manager)
        .max_size(POOL_CONNECTIONS_MAX)
        .wait_timeout(Some(reply_timeout))
        .create_timeout(Some(CONNECT_TIMEOUT))
        .recycle_timeout(Some(reply_timeout))
        .runtime(deadpool_redis::Runtime::Tokio1)
        .build()
        .map_err(|error| StoreError::Unavailable(error.to_string()))
}

fn open(config: &StoreConfig) -> Result<Client, StoreError> {
    let info = config.url.as_str().into_connection_info()?;
    let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
    let info = info.set_tcp_settings(tcp);
    match &config.ca_pem {
        None => Ok(Client::open(info)?),
        Some(pem) => {
            let certificates = redis::TlsCertificates { client_tls: None, root_cert: Some(pem.clone()) };
            Ok(Client::build_with_tls(info, certificates)?)
        }
    }
}
