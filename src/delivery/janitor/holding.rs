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
pub(in crate::delivery) struct Holding {
    store: Store,
    token: String,
    lock: Lock,
    expiry: Duration,
}

impl Holding {
    /// A claim to the janitor's lock.
    pub(super) fn new(store: Store) -> Self {
        Self::of(store, Lock::Janitor, EXPIRY)
    }

    /// A claim to another lock, which falls to another node after `expiry` without renewal.
    pub(in crate::delivery) fn of(store: Store, lock: Lock, expiry: Duration) -> Self {
        Self { store, token: uuid::Uuid::new_v4().simple().to_string(), lock, expiry }
    }

    /// Takes or renews the lock; false if another node holds it.
    pub(in crate::delivery) async fn hold(&self) -> Result<bool, StoreError> {
        let mut command = Function::Lock.call(&[&self.key()]);
        command.arg(&self.token).arg(u64::try_from(self.expiry.as_millis()).unwrap_or(u64::MAX));
        Ok(self.store.call::<i64>(&command).await? == 1)
    }

    /// Gives the lock back, if it is held.
    pub(in crate::delivery) async fn give_back(&self) -> Result<(), StoreError> {
        let mut command = Function::Unlock.call(&[&self.key()]);
        command.arg(&self.token);
        self.store.call::<i64>(&command).await.map(|_| ())
    }

    fn key(&self) -> String {
        self.store.keys().name(Key::Lock(self.lock))
    }
}
