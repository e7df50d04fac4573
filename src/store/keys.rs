//! Every key and channel that Homing uses in Redis. Nothing else formats one.

use homing_protocol::name::Name;

/// A key's name without its prefix. The doc comment of each is its schema.
///
/// All keys of one user share a hash tag, so that they share a slot of a Redis Cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// `{U}:inbox`, stream: the user's messages; one consumer group per device, one consumer ([`CONSUMER`]) in each.
    Inbox(&'a Name),
    /// `{U}:devices`, hash: device → JSON record (see `migrations/0001_functions/00_prelude.lua`), and
    /// `#incarnation` → the inbox incarnation.
    Devices(&'a Name),
    /// `{U}:once:K`, string: idempotency key K → entry id, for [`ONCE_SECONDS`].
    Once(&'a Name, &'a str),
    /// `nodes`, hash: `<node>:<random per start>` → JSON `{node, shards, version, seen_ms}` by Redis's clock.
    Nodes,
    /// `probe:<node>`, stream of at most one entry: a shard's liveness probe.
    Probe(&'a str),
    /// `epoch`, hash: `epoch`, and the `run_id` and `replid` of the server that it belongs to.
    Epoch,
    /// `schema`, string: number of the last migration that was applied.
    Schema,
    /// `lock:<what>`, string: a random token of the holder, with an expiry.
    Lock(Lock),
}

/// What a lock guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// One process migrates at a time.
    Migration,
    /// One node runs the janitor at a time.
    Janitor,
}

/// The only consumer of every group: any node can replay a device without taking entries over from another consumer.
pub const CONSUMER: &str = "c";
/// How long an idempotency key is remembered.
pub const ONCE_SECONDS: u64 = 24 * 60 * 60;
/// The field of the devices hash that is no device.
pub const INCARNATION_FIELD: &str = "#incarnation";

/// Builds and takes apart the names of keys and channels under one prefix, in one Redis database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpace {
    prefix: String,
    database: i64,
    inbox_event_prefix: String,
}

const INBOX_SUFFIX: &str = "}:inbox";
const DEVICES_SUFFIX: &str = "}:devices";

impl KeySpace {
    /// A key space. `prefix` is checked by the configuration: no braces, not empty.
    #[must_use]
    pub fn new(prefix: &str, database: i64) -> Self {
        let inbox_event_prefix = format!("__keyspace@{database}__:{prefix}:{{");
        Self { prefix: prefix.to_owned(), database, inbox_event_prefix }
    }

    /// The database that the keys are in; pub/sub ignores it, so channel names carry it.
    #[must_use]
    pub fn database(&self) -> i64 {
        self.database
    }

    /// The full name of a key.
    #[must_use]
    pub fn name(&self, key: Key<'_>) -> String {
        self.parts(key).concat()
    }

    /// What a key's name is put together of, for those who write it without making a text of it first.
    #[must_use]
    pub fn parts<'a>(&'a self, key: Key<'a>) -> [&'a str; 5] {
        let prefix = self.prefix.as_str();
        match key {
            Key::Inbox(user) => [prefix, ":{", user.as_str(), INBOX_SUFFIX, ""],
            Key::Devices(user) => [prefix, ":{", user.as_str(), DEVICES_SUFFIX, ""],
            Key::Once(user, key) => [prefix, ":{", user.as_str(), "}:once:", key],
            Key::Nodes => [prefix, ":nodes", "", "", ""],
            Key::Probe(node) => [prefix, ":probe:", node, "", ""],
            Key::Epoch => [prefix, ":epoch", "", "", ""],
            Key::Schema => [prefix, ":schema", "", "", ""],
            Key::Lock(Lock::Migration) => [prefix, ":lock:migration", "", "", ""],
            Key::Lock(Lock::Janitor) => [prefix, ":lock:janitor", "", "", ""],
        }
    }

    /// The channel on which Redis announces changes of a key.
    #[must_use]
    pub fn event_channel(&self, key: Key<'_>) -> String {
        format!("__keyspace@{}__:{}", self.database, self.name(key))
    }

    /// The user whose inbox a keyspace event channel is about; `None` for any other channel.
    #[must_use]
    pub fn user_of_event<'a>(&self, channel: &'a str) -> Option<&'a str> {
        channel.strip_prefix(&self.inbox_event_prefix)?.strip_suffix(INBOX_SUFFIX)
    }

    /// What stands before an owner in the name of its control channel: `<prefix>:node:<db>:`.
    #[must_use]
    pub fn control_prefix(&self) -> String {
        format!("{}:node:{}:", self.prefix, self.database)
    }

    /// The control channel of an owner, `<node>:<random per start>.<shard>`.
    #[must_use]
    pub fn control_channel(&self, owner: &str) -> String {
        format!("{}{owner}", self.control_prefix())
    }

    /// A `SCAN` pattern for all keys of users.
    #[must_use]
    pub fn users_pattern(&self) -> String {
        // The prefix is free of glob characters (checked by the configuration); a brace has no meaning in a pattern.
        format!("{}:{{*", self.prefix)
    }

    /// The user of an inbox or devices key, and which of both it is; `None` for any other key.
    #[must_use]
    pub fn user_key<'a>(&self, key: &'a str) -> Option<(&'a str, UserKey)> {
        let rest = key.strip_prefix(&self.prefix)?.strip_prefix(":{")?;
        if let Some(user) = rest.strip_suffix(INBOX_SUFFIX) {
            return Some((user, UserKey::Inbox));
        }
        rest.strip_suffix(DEVICES_SUFFIX).map(|user| (user, UserKey::Devices))
    }
}

/// The two keys by which the janitor finds users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserKey {
    /// [`Key::Inbox`].
    Inbox,
    /// [`Key::Devices`].
    Devices,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_user_is_found_again_in_its_keys_and_channels(user in "[A-Za-z0-9._~@:+=|-]{1,255}", database in 0i64..16) {
            let Ok(user) = Name::parse(&user) else { return Ok(()) };
            let keys = KeySpace::new("homing", database);
            let (inbox, devices) = (keys.name(Key::Inbox(&user)), keys.name(Key::Devices(&user)));
            let (inbox_events, devices_events) = (keys.event_channel(Key::Inbox(&user)), keys.event_channel(Key::Devices(&user)));
            let once = keys.name(Key::Once(&user, "k"));
            prop_assert_eq!(keys.user_of_event(&inbox_events), Some(user.as_str()));
            prop_assert_eq!(keys.user_of_event(&devices_events), None);
            prop_assert_eq!(keys.user_key(&inbox), Some((user.as_str(), UserKey::Inbox)));
            prop_assert_eq!(keys.user_key(&devices), Some((user.as_str(), UserKey::Devices)));
            prop_assert_eq!(keys.user_key(&once), None);
        }
    }

    #[test]
    fn raw_producers_find_the_inbox_that_the_protocol_names() {
        let alice = Name::parse("alice").unwrap();
        assert_eq!(KeySpace::new("homing", 0).name(Key::Inbox(&alice)), "homing:{alice}:inbox");
    }
}
