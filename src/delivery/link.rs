//! A shard's two connections to Redis: one for data, one for wake-ups and control messages.
//!
//! They live and die together: when one is lost, hints or replies may be lost, and both are made anew. Making them
//! includes everything that must be true before the first read: the old data connection is dead, the primary epoch
//! is known, the notification flags are set and all subscriptions are confirmed.

use std::sync::Arc;
use std::time::Duration;

use homing_protocol::name::Name;
use homing_protocol::topic::Topic;
use redis::AsyncConnectionConfig;
use redis::aio::ConnectionLike;
use tokio::time::timeout;

use super::hints::Hints;
use crate::store::server::{self, FlagsOutcome, ServerIdentity};
use crate::store::{Function, Key, Store, StoreError, Wire};

/// Names a data connection, so that it can be killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClientId {
    /// `run_id` of the server: one that starts again begins to count its connections anew.
    server: Arc<str>,
    /// Its `CLIENT ID`.
    number: i64,
}

/// Both connections.
pub(super) struct Link {
    /// `None` while a pipeline is in flight on it.
    pub(super) data: Option<Box<Wire>>,
    pub(super) client: ClientId,
    pub(super) hints: Hints,
    pub(super) primary: u64,
    pub(super) flags: FlagsOutcome,
    /// Users whose inboxes were subscribed to.
    pub(super) users: Vec<Name>,
    /// Topics whose logs were subscribed to.
    pub(super) topics: Vec<Topic>,
}

/// What a link is made with.
pub(super) struct LinkPlan {
    pub(super) store: Store,
    pub(super) owner: String,
    /// Channels beside those of inboxes.
    pub(super) channels: Vec<String>,
    pub(super) users: Vec<Name>,
    pub(super) topics: Vec<Topic>,
    /// A data connection that may still execute a read that was sent: it must be dead first.
    pub(super) old_client: Option<ClientId>,
    pub(super) step_timeout: Duration,
}

impl LinkPlan {
    pub(super) async fn establish(self) -> Result<Link, StoreError> {
        let mut data = Box::new(self.step(self.store.dial()).await?);
        let identity = self.step(server::identity(data.as_mut())).await?;
        if let Some(old) = &self.old_client
            && *old.server == *identity.run_id
        {
            // Where that is not permitted, the early sweeps find what a late read leaves.
            let _ = timeout(self.step_timeout, kill(data.as_mut(), old.number)).await;
        }
        let number = self.step(redis::cmd("CLIENT").arg("ID").query_async(data.as_mut())).await?;
        let id = ClientId { server: identity.run_id.as_str().into(), number };
        let name = format!("homing:{}", self.owner);
        // Only for people who look at CLIENT LIST; a server that forbids it is fine.
        let _ = self.step(redis::cmd("CLIENT").arg("SETNAME").arg(name).query_async::<()>(data.as_mut())).await;
        let primary = self.primary(data.as_mut(), &identity).await?;
        let flags = self.step(server::merge_flags(data.as_mut())).await?;
        let mut hints = Hints::new(self.step(self.store.dial()).await?);
        let inboxes = self.users.iter().map(|user| self.store.keys().event_channel(Key::Inbox(user)));
        let logs = self.topics.iter().map(|topic| self.store.keys().event_channel(Key::Log(topic)));
        hints.follow(self.channels.iter().cloned().chain(inboxes).chain(logs), std::iter::empty());
        while hints.is_changing() {
            // Wake-ups that come already are dropped: the shard reads for everybody who was here before the link.
            self.step(hints.next()).await?;
        }
        Ok(Link {
            data: Some(data),
            client: id,
            hints,
            primary,
            flags,
            users: self.users.clone(),
            topics: self.topics.clone(),
        })
    }

    /// Tells Redis which server we see, and learns the primary epoch.
    async fn primary(&self, data: &mut Wire, identity: &ServerIdentity) -> Result<u64, StoreError> {
        let mut recover = Function::Recover.call(&[&self.store.keys().name(Key::Epoch)]);
        recover.arg(&identity.run_id).arg(&identity.replid).arg(u8::from(identity.fsync_always));
        recover.arg(&identity.replid2);
        let outcome = self.step(recover.query_async(&mut *data)).await;
        let (epoch, _): (String, String) = match outcome {
            Err(StoreError::FunctionMissing) => {
                self.step(self.store.load_functions()).await?;
                self.step(recover.query_async(data)).await?
            }
            outcome => outcome?,
        };
        epoch.parse().map_err(|_| StoreError::Unexpected(format!("primary epoch {epoch:?}")))
    }

    async fn step<T, E>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, StoreError>
    where
        StoreError: From<E>,
    {
        match timeout(self.step_timeout, work).await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(StoreError::OutcomeUnknown("no answer while connecting".to_owned())),
        }
    }
}

/// Ends a connection at the server, so that nothing that was sent on it is executed later.
async fn kill(data: &mut (impl ConnectionLike + Send), number: i64) -> Result<(), StoreError> {
    redis::cmd("CLIENT").arg("KILL").arg("ID").arg(number).query_async::<i64>(data).await?;
    Ok(())
}

/// Ends the data connection of a link whose reply is overdue, by a connection of its own; the reply, or the error, then
/// arrives where it is awaited.
pub(super) async fn rescue(store: Store, client: ClientId, step_timeout: Duration) -> Result<(), StoreError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(step_timeout))
        .set_response_timeout(Some(step_timeout));
    let mut data = store.client().get_multiplexed_async_connection_with_config(&config).await?;
    if *server::identity(&mut data).await?.run_id != *client.server {
        // Its server is gone, and the connection with it.
        return Ok(());
    }
    kill(&mut data, client.number).await
}
