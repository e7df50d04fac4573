//! Every key and channel that Homing uses in Redis. Nothing else formats one.

use homing_protocol::id::EntryId;
use homing_protocol::name::Name;
use homing_protocol::topic::Topic;

/// A key's name without its prefix. The doc comment of each is its schema.
///
/// All keys of one user share a hash tag, so that they share a slot of a Redis Cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// `{U}:inbox`, stream: the user's messages; one consumer group per device, one consumer ([`CONSUMER`]) in each.
    Inbox(&'a Name),
    /// `{U}:devices`, hash: device → JSON record (see `migrations/0001_functions/00_prelude.lua`), `#incarnation` → the
    /// inbox incarnation, and `#refuse_before` → Unix seconds until which tokens are refused.
    Devices(&'a Name),
    /// `{U}:once:K`, string: idempotency key K → entry id, for [`ONCE_SECONDS`].
    Once(&'a Name, &'a str),
    /// `{U}:topics`, hash: topic that the user follows → since when, Unix ms by Redis's clock.
    Topics(&'a Name),
    /// `topic:{T}:log`, stream: the topic's messages. The broadcast topic is called `*`.
    Log(&'a Topic),
    /// `topic:{T}:cursors`, sorted set: `<user>/<device>` → its cursor as [`cursor_score`](homing_protocol::topic::cursor_score) writes it.
    Cursors(&'a Topic),
    /// `topic:{T}:followers`, set: users who follow it, for whoever asks; what counts is [`Key::Topics`].
    Followers(&'a Topic),
    /// `topic:{T}:meta`, hash: `trimmed` → the last entry that retention took from the log.
    TopicMeta(&'a Topic),
    /// `topic:{T}:once:K`, string: idempotency key K → entry id, for [`ONCE_SECONDS`].
    TopicOnce(&'a Topic, &'a str),
    /// `{U}:receipt:<id>`, hash: `<event> <device>` → Unix ms, `aim` → the only device, `waiting` → who waits; for the
    /// time that an inbox keeps a message.
    Receipt(&'a Name, EntryId),
    /// `{U}:asked`, sorted set: ids of messages that were published by HTTP and asked for receipts, by their ms.
    Asked(&'a Name),
    /// `receipts`, stream: what became of messages whose producers asked: `user`, `device`, `id`, `event`, `at_ms`, `key`.
    Receipts,
    /// `nodes`, hash: `<node>:<random per start>` → JSON `{node, shards, version, seen_ms}` by Redis's clock.
    Nodes,
    /// `probe:<node>`, stream of at most one entry: a shard's liveness probe.
    Probe(&'a str),
    /// `presence`, stream: who came online and went offline; about as many entries as the configuration says.
    Presence,
    /// `online`, set: owners (`<node>:<random per start>.<shard>`) that have an index of online devices.
    Announcers,
    /// `online:<owner>`, hash: `<user> <device>` → generation with which the device came online, once that was
    /// announced. What a dead node leaves to be looked at.
    Online(&'a str),
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
    /// One node announces the absence of dead nodes' devices at a time.
    Presence,
}

/// The only consumer of every group: any node can replay a device without taking entries over from another consumer.
pub const CONSUMER: &str = "c";
/// How long an idempotency key is remembered.
pub const ONCE_SECONDS: u64 = 24 * 60 * 60;
/// What fields of the devices hash begin with that are no devices.
pub const NO_DEVICE: char = '#';

/// Builds and takes apart the names of keys and channels under one prefix, in one Redis database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpace {
    prefix: String,
    database: i64,
    inbox_event_prefix: String,
    topic_event_prefix: String,
}

const INBOX_SUFFIX: &str = "}:inbox";
const DEVICES_SUFFIX: &str = "}:devices";
const LOG_SUFFIX: &str = "}:log";

impl KeySpace {
    /// A key space. `prefix` is checked by the configuration: no braces, not empty.
    #[must_use]
    pub fn new(prefix: &str, database: i64) -> Self {
        let inbox_event_prefix = format!("__keyspace@{database}__:{prefix}:{{");
        let topic_event_prefix = format!("__keyspace@{database}__:{prefix}:topic:{{");
        Self { prefix: prefix.to_owned(), database, inbox_event_prefix, topic_event_prefix }
    }

    /// The database that the keys are in; pub/sub ignores it, so channel names carry it.
    #[must_use]
    pub fn database(&self) -> i64 {
        self.database
    }

    /// The full name of a key.
    #[must_use]
    pub fn name(&self, key: Key<'_>) -> String {
        let mut name = self.parts(key).concat();
        if let Key::Receipt(_, id) = key {
            name.push_str(&id.to_string());
        }
        name
    }

    /// What a key's name is put together of, for those who write it without making a text of it first.
    #[must_use]
    pub fn parts<'a>(&'a self, key: Key<'a>) -> [&'a str; 5] {
        let prefix = self.prefix.as_str();
        match key {
            Key::Inbox(user) => [prefix, ":{", user.as_str(), INBOX_SUFFIX, ""],
            Key::Devices(user) => [prefix, ":{", user.as_str(), DEVICES_SUFFIX, ""],
            Key::Once(user, key) => [prefix, ":{", user.as_str(), "}:once:", key],
            Key::Topics(user) => [prefix, ":{", user.as_str(), "}:topics", ""],
            Key::Log(topic) => [prefix, ":topic:{", topic.as_str(), LOG_SUFFIX, ""],
            Key::Cursors(topic) => [prefix, ":topic:{", topic.as_str(), "}:cursors", ""],
            Key::Followers(topic) => [prefix, ":topic:{", topic.as_str(), "}:followers", ""],
            Key::TopicMeta(topic) => [prefix, ":topic:{", topic.as_str(), "}:meta", ""],
            Key::TopicOnce(topic, key) => [prefix, ":topic:{", topic.as_str(), "}:once:", key],
            // The id, which is no text yet, comes behind it.
            Key::Receipt(user, _) => [prefix, ":{", user.as_str(), "}:receipt:", ""],
            Key::Asked(user) => [prefix, ":{", user.as_str(), "}:asked", ""],
            Key::Receipts => [prefix, ":receipts", "", "", ""],
            Key::Presence => [prefix, ":presence", "", "", ""],
            Key::Announcers => [prefix, ":online", "", "", ""],
            Key::Online(owner) => [prefix, ":online:", owner, "", ""],
            Key::Nodes => [prefix, ":nodes", "", "", ""],
            Key::Probe(node) => [prefix, ":probe:", node, "", ""],
            Key::Epoch => [prefix, ":epoch", "", "", ""],
            Key::Schema => [prefix, ":schema", "", "", ""],
            Key::Lock(Lock::Migration) => [prefix, ":lock:migration", "", "", ""],
            Key::Lock(Lock::Presence) => [prefix, ":lock:presence", "", "", ""],
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

    /// The topic whose log a keyspace event channel is about; `None` for any other channel.
    #[must_use]
    pub fn topic_of_event<'a>(&self, channel: &'a str) -> Option<&'a str> {
        channel.strip_prefix(&self.topic_event_prefix)?.strip_suffix(LOG_SUFFIX)
    }

    /// A `SCAN` pattern for the logs of all topics.
    #[must_use]
    pub fn logs_pattern(&self) -> String {
        format!("{}:topic:{{*{LOG_SUFFIX}", self.prefix)
    }

    /// The topic whose log this is; `None` for any other key.
    #[must_use]
    pub fn log_key<'a>(&self, key: &'a str) -> Option<&'a str> {
        key.strip_prefix(&self.prefix)?.strip_prefix(":topic:{")?.strip_suffix(LOG_SUFFIX)
    }

    /// What stands for a device in [`Key::Cursors`]. No name holds a slash.
    #[must_use]
    pub fn cursor_member(user: &Name, device: &Name) -> String {
        let mut member = String::new();
        Self::push_cursor_member(&mut member, user, device);
        member
    }

    /// Appends the same to a text.
    pub fn push_cursor_member(text: &mut String, user: &Name, device: &Name) {
        text.reserve(user.as_str().len() + 1 + device.as_str().len());
        text.extend([user.as_str(), "/", device.as_str()]);
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

    proptest! {
        #[test]
        fn a_topic_is_found_again_in_its_log(topic in "[A-Za-z0-9._~@:+=|-]{1,255}|[*]") {
            let Ok(topic) = Topic::parse(&topic) else { return Ok(()) };
            let keys = KeySpace::new("homing", 0);
            let (log, events) = (keys.name(Key::Log(&topic)), keys.event_channel(Key::Log(&topic)));
            prop_assert_eq!(keys.log_key(&log), Some(topic.as_str()));
            prop_assert_eq!(keys.topic_of_event(&events), Some(topic.as_str()));
            prop_assert_eq!(keys.user_of_event(&events), None);
            prop_assert_eq!(keys.user_key(&log), None);
            let once = keys.name(Key::TopicOnce(&topic, "}:lo"));
            prop_assert_eq!(keys.log_key(&once), None);
        }
    }

    #[test]
    fn raw_producers_find_the_inbox_that_the_protocol_names() {
        let alice = Name::parse("alice").unwrap();
        assert_eq!(KeySpace::new("homing", 0).name(Key::Inbox(&alice)), "homing:{alice}:inbox");
    }
}
