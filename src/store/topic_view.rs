//! What producers ask about topics: who follows, and who has acknowledged what.

use std::collections::HashSet;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use homing_protocol::id::EntryId;
use homing_protocol::message::Entry;
use homing_protocol::name::Name;
use homing_protocol::session::FollowChange;
use homing_protocol::topic::{Topic, cursor_score};

use super::connect::Store;
use super::error::StoreError;
use super::keys::{Key, KeySpace};
use super::replies::{self, Value};
use super::resp::Commands;
use super::topics::{self, FollowRequest};

/// Devices whose users are counted, at most: their names are read, a page at a time.
pub const USERS_COUNTED_MAX: u64 = 10_000;
/// Names in one page of them: some 100 µs of Redis's time.
const COUNTED_AT_ONCE: u64 = 1_000;
/// Users who are looked at together: Redis gets their commands at once.
const STATES_AT_ONCE: usize = 64;

/// A page of names, and where the next one begins; `None` after the last.
pub type NamesPage = (Vec<Name>, Option<String>);

/// What became of a topic's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicReceipt {
    /// Whether the log holds it.
    pub exists: bool,
    /// Users who follow the topic; `None` for the broadcast topic, which all follow.
    pub followers: Option<u64>,
    /// Devices that are done with it and with everything before it.
    pub devices_acked: u64,
    /// Users of these devices; `None` above [`USERS_COUNTED_MAX`] devices.
    pub users_acked: Option<u64>,
}

/// A follower's device, and whether it is done with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowerState {
    /// The user.
    pub user: Name,
    /// Each device of the user.
    pub devices: Vec<(Name, bool)>,
}

impl Store {
    /// Changes what a user follows, and the lists of followers with it. The limit, if it would be exceeded.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn follow(&self, request: FollowRequest<'_>) -> Result<Result<FollowChange, u64>, StoreError> {
        let reply: redis::Value = self.call(&topics::follow(self.keys(), request)).await?;
        let mut change = match topics::followed(Value::from(&reply))? {
            Ok(change) => change,
            Err(limit) => return Ok(Err(limit)),
        };
        // What was followed before may be missing in the lists if somebody died in between: a repetition mends that.
        let listed = FollowChange {
            added: request.follow.to_vec(),
            removed: if request.replace { change.removed.clone() } else { request.unfollow.to_vec() },
            devices: std::mem::take(&mut change.devices),
            at_ms: change.at_ms,
        };
        if !(listed.added.is_empty() && listed.removed.is_empty()) {
            let reindexed = self.reindex(request.user, &listed).await;
            reindexed.map_err(|error| match error {
                // An operator must look at it; no repetition helps.
                StoreError::WrongType => StoreError::WrongType,
                // Others would say that nothing was changed.
                error => StoreError::NotListed(error.to_string()),
            })?;
        }
        change.devices = listed.devices;
        Ok(Ok(change))
    }

    /// Brings lists of followers and cursors up to date with a change.
    async fn reindex(&self, user: &Name, change: &FollowChange) -> Result<(), StoreError> {
        match self.send_index(user, change).await {
            Err(StoreError::FunctionMissing) => {
                self.load_functions().await?;
                self.send_index(user, change).await
            }
            outcome => outcome,
        }
    }

    async fn send_index(&self, user: &Name, change: &FollowChange) -> Result<(), StoreError> {
        let replies =
            self.shared().send(|commands: &mut Commands| topics::reindex(commands, self.keys(), user, change));
        replies.await?.reader().try_for_each(|reply| replies::check(reply).map(drop))
    }

    /// Forgets where devices stand that are about to be deleted, in these topics and the broadcast one. Before they are:
    /// after that, there may be others of their names.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn drop_cursors(&self, user: &Name, devices: &[Name], followed: Vec<Name>) -> Result<(), StoreError> {
        let topics: Vec<Topic> = followed.into_iter().map(Topic::Named).chain([Topic::Broadcast]).collect();
        let replies = self.shared().send(|commands: &mut Commands| {
            for (topic, device) in topics.iter().flat_map(|topic| devices.iter().map(move |device| (topic, device))) {
                let member = KeySpace::cursor_member(user, device);
                commands.command(3).arg("ZREM").arg(self.keys().name(Key::Cursors(topic))).arg(member);
            }
        });
        replies.await?.reader().try_for_each(|reply| replies::check(reply).map(drop))
    }

    /// What a user follows, with since when, Unix ms; in the order of their names.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn followed(&self, user: &Name) -> Result<Vec<(Name, u64)>, StoreError> {
        let reply: redis::Value = self.query(redis::cmd("HGETALL").arg(self.keys().name(Key::Topics(user)))).await?;
        let mut followed = topics::followed_topics(Value::from(&reply))?;
        followed.sort();
        Ok(followed)
    }

    /// A page of a topic's followers, in no order. As with `SCAN`, a page may hold more or fewer than asked for.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn followers(&self, topic: &Topic, cursor: u64, count: usize) -> Result<NamesPage, StoreError> {
        let mut scan = redis::cmd("SSCAN");
        scan.arg(self.keys().name(Key::Followers(topic))).arg(cursor).arg("COUNT").arg(count);
        let (next, users): (u64, Vec<String>) = self.query(&scan).await?;
        let users = users.iter().filter_map(|user| Name::parse(user).ok()).collect();
        Ok((users, (next != 0).then(|| next.to_string())))
    }

    /// What became of a topic's message.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn topic_receipt(&self, topic: &Topic, id: EntryId) -> Result<TopicReceipt, StoreError> {
        let keys = self.keys();
        let replies = self.shared().send(|commands: &mut Commands| {
            commands.command(4).arg("XRANGE").arg(keys.name(Key::Log(topic))).id(id).id(id);
            commands.command(2).arg("SCARD").arg(keys.name(Key::Followers(topic)));
            commands.command(4).arg("ZCOUNT").arg(keys.name(Key::Cursors(topic))).number(cursor_score(id)).arg("+inf");
        });
        let replies = replies.await?;
        let mut values = replies.reader();
        let mut next = || values.next().unwrap_or(Value::Nil);
        let exists = !replies::entries(next())?.is_empty();
        let [followers, devices_acked] = [replies::integer(next())?, replies::integer(next())?].map(i64::unsigned_abs);
        let followers = (*topic != Topic::Broadcast).then_some(followers);
        let users_acked = match devices_acked {
            0..=USERS_COUNTED_MAX => Some(self.users_acked(topic, id, devices_acked).await?),
            _ => None,
        };
        Ok(TopicReceipt { exists, followers, devices_acked, users_acked })
    }

    /// The users of the first so many devices that are done with a message.
    async fn users_acked(&self, topic: &Topic, id: EntryId, devices: u64) -> Result<u64, StoreError> {
        if devices == 0 {
            return Ok(0);
        }
        let mut pages = redis::pipe();
        for offset in (0..devices).step_by(COUNTED_AT_ONCE as usize) {
            pages.cmd("ZRANGEBYSCORE").arg(self.keys().name(Key::Cursors(topic))).arg(cursor_score(id)).arg("+inf");
            pages.arg("LIMIT").arg(offset).arg(COUNTED_AT_ONCE);
        }
        let pages: Vec<Vec<Vec<u8>>> = self.rare().await?.pipeline(&pages).await?;
        let user = |member: &Vec<u8>| member.split(|byte| *byte == b'/').next().map(<[u8]>::to_vec);
        Ok(pages.iter().flatten().map(user).collect::<HashSet<_>>().len() as u64)
    }

    /// Whether the devices of these users are done with a topic's message.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn follower_states(
        &self,
        topic: &Topic,
        id: EntryId,
        users: Vec<Name>,
    ) -> Result<Vec<FollowerState>, StoreError> {
        let states = users.into_iter().map(|user| self.follower_state(topic, id, user));
        stream::iter(states).buffered(STATES_AT_ONCE).try_collect().await
    }

    async fn follower_state(&self, topic: &Topic, id: EntryId, user: Name) -> Result<FollowerState, StoreError> {
        let keys = self.keys();
        let devices: Vec<String> = self.query(redis::cmd("HKEYS").arg(keys.name(Key::Devices(&user)))).await?;
        let devices: Vec<Name> = devices.iter().filter_map(|device| Name::parse(device).ok()).collect();
        if devices.is_empty() {
            return Ok(FollowerState { user, devices: Vec::new() });
        }
        let mut scores = redis::cmd("ZMSCORE");
        scores.arg(keys.name(Key::Cursors(topic)));
        for device in &devices {
            scores.arg(KeySpace::cursor_member(&user, device));
        }
        let scores: Vec<Option<f64>> = self.query(&scores).await?;
        let acked = scores.iter().map(|score| score.is_some_and(|score| score >= cursor_score(id) as f64));
        Ok(FollowerState { user, devices: devices.into_iter().zip(acked).collect() })
    }

    /// Up to `count` messages of a topic after an entry.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn topic_page(
        &self,
        topic: &Topic,
        after: EntryId,
        count: usize,
    ) -> Result<Vec<Entry<Vec<u8>>>, StoreError> {
        self.stream_page(&self.keys().name(Key::Log(topic)), after, count).await
    }
}
