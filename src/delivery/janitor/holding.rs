//! The lock by which one node of a cluster is the janitor.

use std::time::Duration;

use crate::store::{Function, Key, Lock, Store, StoreError};

/// Time after which the lock of a dead janitor falls to another node.
const EXPIRY: Duration = Duration::from_secs(20);
/// Time between two renewals; several may fail before the lock is lost.
pub(super) const RENEWAL: Duration = Duration::from_secs(5);

/// One process's claim to the lock.
///
/// The holder keeps it between passes, so that a cluster's passes come at one node's pace and the numbers that they
/// yield stay on one node.
pub(super) struct Holding {
    store: Store,
    token: String,
}

impl Holding {
    pub(super) fn new(store: Store) -> Self {
        Self { store, token: uuid::Uuid::new_v4().simple().to_string() }
    }

    /// Takes or renews the lock; false if another node holds it.
    pub(super) async fn hold(&self) -> Result<bool, StoreError> {
        let mut command = Function::Lock.call(&[&self.key()]);
        command.arg(&self.token).arg(EXPIRY.as_secs() * 1_000);
        Ok(self.store.call::<i64>(&command).await? == 1)
    }

    /// Gives the lock back, if it is held.
    pub(super) async fn give_back(&self) -> Result<(), StoreError> {
        let mut command = Function::Unlock.call(&[&self.key()]);
        command.arg(&self.token);
        self.store.call::<i64>(&command).await.map(|_| ())
    }

    fn key(&self) -> String {
        self.store.keys().name(Key::Lock(Lock::Janitor))
    }
}
