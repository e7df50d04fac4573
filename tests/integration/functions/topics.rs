//! `homing_1_follow` and `homing_1_tend_topic`: what a user follows changes in one step and is told to whom it concerns;
//! retention says what it took before anybody can read on behind it.

use homing::store::{Function, Key};
use homing_protocol::name::Name;
use homing_protocol::topic::{Topic, cursor_score};
use redis::RedisResult;
use serde_json::json;

use super::tend::NO_AGE_MS;
use super::{Attach, Library, USER};

/// What somebody asks of `homing_1_follow`; the default changes nothing, and its limit is no hindrance.
#[derive(Clone, Copy, Debug)]
struct Follow<'a> {
    follow: &'a [&'a str],
    unfollow: &'a [&'a str],
    owner: &'a str,
    limit: u64,
    replace: bool,
}

impl Default for Follow<'_> {
    fn default() -> Self {
        Self { follow: &[], unfollow: &[], owner: "", limit: 200, replace: false }
    }
}

/// Its reply; each list sorted, since nobody promises an order.
#[derive(Debug, PartialEq, Eq)]
enum Followed {
    Ok { added: Vec<String>, removed: Vec<String>, devices: Vec<String> },
    TooMany(u64),
}

/// As the function answers it.
type FollowReply = (String, Vec<String>, Vec<String>, Vec<String>, u64);

impl Followed {
    fn read(reply: &redis::Value) -> Self {
        let (word, limit): (String, u64) = match redis::from_redis_value_ref(reply) {
            Ok(pair) => pair,
            Err(_) => {
                let (word, mut added, mut removed, mut devices, at_ms): FollowReply =
                    redis::from_redis_value_ref(reply).expect("a reply of the function");
                assert_eq!(word, "ok");
                assert!(at_ms > 0, "it says when");
                [&mut added, &mut removed, &mut devices].into_iter().for_each(|names| names.sort());
                return Self::Ok { added, removed, devices };
            }
        };
        assert_eq!(word, "too_many");
        Self::TooMany(limit)
    }

    /// What was added and removed; no device.
    fn changed(added: &[&str], removed: &[&str]) -> Self {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self::Ok { added: owned(added), removed: owned(removed), devices: Vec::new() }
    }
}

impl Library {
    fn topics_key(&self) -> String {
        self.keys.name(Key::Topics(&Name::parse(USER).expect("a plain name")))
    }

    async fn try_follow(&mut self, request: Follow<'_>) -> RedisResult<redis::Value> {
        let (topics, devices) = (self.topics_key(), self.devices.clone());
        let about = json!({
            "user": USER, "channels": self.keys.control_prefix(), "owner": request.owner, "limit": request.limit,
            "replace": request.replace,
        });
        let (about, count) = (about.to_string(), request.follow.len().to_string());
        let args = [&[about.as_str(), count.as_str()], request.follow, request.unfollow].concat();
        self.try_call(Function::Follow, &[&topics, &devices], &args).await
    }

    async fn follow(&mut self, request: Follow<'_>) -> Followed {
        Followed::read(&self.try_follow(request).await.unwrap_or_else(|error| panic!("{request:?}: {error}")))
    }

    /// The same; when it happened by Redis's clock, Unix ms.
    async fn follow_at(&mut self, request: Follow<'_>) -> u64 {
        let reply = self.try_follow(request).await.unwrap_or_else(|error| panic!("{request:?}: {error}"));
        let reply: FollowReply = redis::from_redis_value_ref(&reply).expect("something was allowed to change");
        reply.4
    }

    /// What the user follows, and since when.
    async fn followed(&mut self) -> Vec<(String, u64)> {
        let topics = self.topics_key();
        let mut followed: Vec<(String, u64)> = self.query(&["HGETALL", &topics]).await;
        followed.sort();
        followed
    }

    async fn names(&mut self) -> Vec<String> {
        self.followed().await.into_iter().map(|(name, _)| name).collect()
    }
}

#[tokio::test]
async fn a_follow_says_what_is_new_and_keeps_since_when_the_rest_is_followed() {
    let mut library = Library::start().await;
    let topics = library.topics_key();
    let before_ms = library.now_ms().await;
    assert_eq!(
        library.follow(Follow { follow: &["a", "b"], ..Follow::default() }).await,
        Followed::changed(&["a", "b"], &[])
    );
    let after_ms = library.now_ms().await;
    let since: Vec<u64> = library.followed().await.into_iter().map(|(_, since_ms)| since_ms).collect();
    assert!(since.iter().all(|since_ms| (before_ms..=after_ms).contains(since_ms)), "{since:?}");
    library.query::<()>(&["HSET", &topics, "a", "17"]).await;

    assert_eq!(
        library.follow(Follow { follow: &["a", "c"], ..Follow::default() }).await,
        Followed::changed(&["c"], &[])
    );
    assert_eq!(library.names().await, ["a", "b", "c"]);
    assert_eq!(library.followed().await[0], ("a".to_owned(), 17), "a repeated follow begins nothing anew");
    assert_eq!(library.follow(Follow { follow: &["a", "c"], ..Follow::default() }).await, Followed::changed(&[], &[]));
}

#[tokio::test]
async fn an_unfollow_says_what_is_gone_and_a_repetition_changes_nothing() {
    let mut library = Library::start().await;
    library.follow(Follow { follow: &["a", "b", "c"], ..Follow::default() }).await;
    let request = Follow { unfollow: &["a", "x", "c"], ..Follow::default() };
    assert_eq!(library.follow(request).await, Followed::changed(&[], &["a", "c"]));
    assert_eq!(library.names().await, ["b"]);
    assert_eq!(library.follow(request).await, Followed::changed(&[], &[]));
    library.follow(Follow { unfollow: &["b"], ..Follow::default() }).await;
    let topics = library.topics_key();
    assert_eq!(library.query::<u64>(&["EXISTS", &topics]).await, 0, "who follows nothing leaves no key");
}

#[tokio::test]
async fn one_call_follows_and_unfollows_in_one_step() {
    let mut library = Library::start().await;
    library.follow(Follow { follow: &["a", "b"], ..Follow::default() }).await;
    let request = Follow { follow: &["c", "b"], unfollow: &["a", "z"], ..Follow::default() };
    assert_eq!(library.follow(request).await, Followed::changed(&["c"], &["a"]));
    assert_eq!(library.names().await, ["b", "c"]);
}

#[tokio::test]
async fn a_replacement_ends_all_that_it_does_not_name() {
    let mut library = Library::start().await;
    let topics = library.topics_key();
    library.follow(Follow { follow: &["a", "b", "c"], ..Follow::default() }).await;
    library.query::<()>(&["HSET", &topics, "b", "17"]).await;
    let request = Follow { follow: &["b", "d"], replace: true, ..Follow::default() };
    assert_eq!(library.follow(request).await, Followed::changed(&["d"], &["a", "c"]));
    assert_eq!(library.names().await, ["b", "d"]);
    assert_eq!(library.followed().await[0].1, 17);
    assert_eq!(library.follow(request).await, Followed::changed(&[], &[]));
    let nothing = Follow { replace: true, ..Follow::default() };
    assert_eq!(library.follow(nothing).await, Followed::changed(&[], &["b", "d"]));
    assert_eq!(library.follow(nothing).await, Followed::changed(&[], &[]));
}

#[tokio::test]
async fn the_limit_counts_what_is_followed_in_the_end_and_refuses_all_or_nothing() {
    let mut library = Library::start().await;
    let limited = Follow { limit: 2, ..Follow::default() };
    assert_eq!(library.follow(Follow { follow: &["a", "b", "c"], ..limited }).await, Followed::TooMany(2));
    assert_eq!(library.names().await, Vec::<String>::new(), "not even those that would fit");
    assert_eq!(library.follow(Follow { follow: &["a", "b"], ..limited }).await, Followed::changed(&["a", "b"], &[]));
    assert_eq!(library.follow(Follow { follow: &["c"], ..limited }).await, Followed::TooMany(2));
    let swap = Follow { follow: &["c"], unfollow: &["a"], ..limited };
    assert_eq!(library.follow(swap).await, Followed::changed(&["c"], &["a"]), "what goes makes room");
    let replacement = Follow { follow: &["x", "y"], replace: true, ..limited };
    assert_eq!(library.follow(replacement).await, Followed::changed(&["x", "y"], &["b", "c"]));
    let over = Follow { follow: &["x", "y", "z"], replace: true, ..limited };
    assert_eq!(library.follow(over).await, Followed::TooMany(2));
    assert_eq!(library.names().await, ["x", "y"]);

    // A lower limit than before takes nothing away, and lets a user leave and repeat.
    let lower = Follow { limit: 1, ..Follow::default() };
    assert_eq!(library.follow(Follow { follow: &["x"], ..lower }).await, Followed::changed(&[], &[]));
    assert_eq!(library.follow(Follow { unfollow: &["y"], ..lower }).await, Followed::changed(&[], &["y"]));
    let none = Follow { limit: 0, ..Follow::default() };
    assert_eq!(library.follow(Follow { follow: &["y"], ..none }).await, Followed::TooMany(0));
    assert_eq!(library.follow(Follow { unfollow: &["x"], ..none }).await, Followed::changed(&[], &["x"]));
}

// Each owner hears of it once, however many of the user's devices it holds; who asks, and who holds none, do not.
#[tokio::test]
async fn the_owners_of_the_users_devices_are_told_of_a_change_and_of_nothing_else() {
    let mut library = Library::start().await;
    for (device, owner) in [("a", "n1:r.0"), ("b", "n1:r.0"), ("c", "n2:r.0"), ("d", "n3:r.0")] {
        let generation = library.attached(Attach { owner, ..Attach::new(device, device) }).await.generation;
        if device == "d" {
            library.release(device, owner, &generation, true).await;
        }
    }
    let mut here = library.listen("n1:r.0").await;
    let mut there = library.listen("n2:r.0").await;
    let mut gone = library.listen("n3:r.0").await;
    let word = json!({ "kind": "topics", "user": USER });

    let devices: Vec<String> = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
    let added = vec!["news".to_owned()];
    let reply = library.follow(Follow { follow: &["news"], owner: "n1:r.0", ..Follow::default() }).await;
    assert_eq!(reply, Followed::Ok { added, removed: Vec::new(), devices: devices.clone() });
    assert_eq!(there.next().await, word);
    there.nothing_more(&mut library).await;
    here.nothing_more(&mut library).await;
    gone.nothing_more(&mut library).await;

    // Nothing changed, or nothing was allowed: nobody is told.
    let reply = library.follow(Follow { follow: &["news"], ..Follow::default() }).await;
    assert_eq!(reply, Followed::Ok { added: Vec::new(), removed: Vec::new(), devices: devices.clone() });
    library.follow(Follow { follow: &["more"], limit: 1, ..Follow::default() }).await;
    here.nothing_more(&mut library).await;
    there.nothing_more(&mut library).await;

    let reply = library.follow(Follow { unfollow: &["news"], ..Follow::default() }).await;
    assert_eq!(reply, Followed::Ok { added: Vec::new(), removed: vec!["news".to_owned()], devices });
    for owner in [&mut here, &mut there] {
        assert_eq!(owner.next().await, word);
        owner.nothing_more(&mut library).await;
    }
    gone.nothing_more(&mut library).await;
}

// The session that attached last is told, not the one before: generations move the owner.
#[tokio::test]
async fn after_a_take_over_the_new_owner_is_told_and_the_old_one_is_not() {
    let mut library = Library::start().await;
    library.attached(Attach { owner: "n1:r.0", ..Attach::new("a", "1") }).await;
    let first = library.record("a").await["generation"].clone();
    library.attached(Attach { owner: "n2:r.0", ..Attach::new("a", "2") }).await;
    assert_ne!(library.record("a").await["generation"], first);
    let (mut old, mut new) = (library.listen("n1:r.0").await, library.listen("n2:r.0").await);
    library.follow(Follow { follow: &["news"], ..Follow::default() }).await;
    assert_eq!(new.next().await, json!({ "kind": "topics", "user": USER }));
    old.nothing_more(&mut library).await;
    let before = library.record("a").await;
    library.follow(Follow { unfollow: &["news"], ..Follow::default() }).await;
    assert_eq!(library.record("a").await, before, "a follow changes no device");
}

#[tokio::test]
async fn fields_that_are_no_devices_are_none() {
    let mut library = Library::start().await;
    let devices = library.devices.clone();
    library.query::<()>(&["HSET", &devices, "#incarnation", "7", "#refuse_before", "9"]).await;
    assert_eq!(
        library.follow(Follow { follow: &["news"], ..Follow::default() }).await,
        Followed::changed(&["news"], &[])
    );
}

#[tokio::test]
async fn a_follow_with_bad_arguments_or_keys_of_another_type_is_refused() {
    let mut library = Library::start().await;
    let (topics, devices) = (library.topics_key(), library.devices.clone());
    for args in [&[][..], &["{"], &["{}", "1", "news"], &[r#"{"limit":5}"#, "x", "news"], &[r#"{"limit":5}"#]] {
        let reply: RedisResult<redis::Value> = library.try_call(Function::Follow, &[&topics, &devices], args).await;
        assert!(reply.is_err(), "{args:?} gave {reply:?}");
    }
    assert_eq!(library.names().await, Vec::<String>::new());

    library.query::<()>(&["SET", &topics, "a text"]).await;
    let error = library.try_follow(Follow { follow: &["news"], ..Follow::default() }).await.expect_err("a wrong type");
    assert_eq!(error.code(), Some("WRONGTYPE"), "{error}");
    library.query::<()>(&["DEL", &topics]).await;
    library.query::<()>(&["SET", &devices, "a text"]).await;
    let error = library.try_follow(Follow { follow: &["news"], ..Follow::default() }).await.expect_err("a wrong type");
    assert_eq!(error.code(), Some("WRONGTYPE"), "{error}");
    assert_eq!(library.query::<String>(&["GET", &devices]).await, "a text");
}

/// What the janitor asks of `homing_1_tend_topic`; the default removes nothing.
#[derive(Clone, Copy, Debug)]
struct TendTopic {
    length_max: u64,
    age_max_ms: u64,
    page: u64,
    cursors_page: u64,
    known_ms: u64,
}

impl Default for TendTopic {
    fn default() -> Self {
        Self { length_max: 10_000, age_max_ms: NO_AGE_MS, page: 1_000, cursors_page: 1_000, known_ms: 60_000 }
    }
}

/// Its reply.
#[derive(Debug, PartialEq, Eq)]
struct Tended {
    length: u64,
    removed: u64,
    more: u64,
    forgotten: u64,
}

/// The keys of the topic `news`.
struct News {
    library: Library,
    log: String,
    meta: String,
    cursors: String,
    followers: String,
}

impl News {
    async fn start() -> Self {
        let library = Library::start().await;
        let topic = Topic::parse("news").expect("a plain name");
        let [log, meta, cursors, followers] =
            [Key::Log(&topic), Key::TopicMeta(&topic), Key::Cursors(&topic), Key::Followers(&topic)]
                .map(|key| library.keys.name(key));
        Self { library, log, meta, cursors, followers }
    }

    async fn try_tend(&mut self, request: TendTopic) -> RedisResult<(u64, u64, u64, u64)> {
        let TendTopic { length_max, age_max_ms, page, cursors_page, known_ms } = request;
        let args = [length_max, age_max_ms, page, cursors_page, known_ms].map(|number| number.to_string());
        let args = args.each_ref().map(String::as_str);
        let keys = [self.log.clone(), self.meta.clone(), self.cursors.clone(), self.followers.clone()];
        self.library.try_call(Function::TendTopic, &keys.each_ref().map(String::as_str), &args).await
    }

    async fn tend(&mut self, request: TendTopic) -> Tended {
        let reply = self.try_tend(request).await.unwrap_or_else(|error| panic!("{request:?}: {error}"));
        let (length, removed, more, forgotten) = reply;
        Tended { length, removed, more, forgotten }
    }

    async fn add(&mut self, ids: &[&str]) {
        let log = self.log.clone();
        for id in ids {
            self.library.query::<String>(&["XADD", &log, id, "data", "x"]).await;
        }
    }

    /// Appends `count` entries with the ids `<first>-0`, `<first+1>-0`, …
    async fn add_numbered(&mut self, first: u64, count: u64) {
        let ids: Vec<String> = (first..first + count).map(|number| format!("{number}-0")).collect();
        self.add(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }

    async fn ids(&mut self) -> Vec<String> {
        let log = self.log.clone();
        let entries: Vec<super::Entry> = self.library.query(&["XRANGE", &log, "-", "+"]).await;
        entries.into_iter().map(|(id, _)| id).collect()
    }

    async fn trimmed(&mut self) -> Option<String> {
        let meta = self.meta.clone();
        self.library.query(&["HGET", &meta, "trimmed"]).await
    }

    /// A device's cursor, at an entry.
    async fn set_cursor(&mut self, member: &str, id: &str) {
        let (cursors, score) = (self.cursors.clone(), cursor_score(id.parse().expect("an id")).to_string());
        self.library.query::<u64>(&["ZADD", &cursors, &score, member]).await;
    }

    /// Whose cursors there are.
    async fn members(&mut self) -> Vec<String> {
        let cursors = self.cursors.clone();
        self.library.query(&["ZRANGE", &cursors, "0", "-1"]).await
    }

    async fn exists(&mut self, key: &str) -> bool {
        self.library.query::<u64>(&["EXISTS", key]).await == 1
    }
}

// The second half of an unfollow comes in a call of its own, after others perhaps: what was acked since must stay acked.
#[tokio::test]
async fn cursors_are_forgotten_up_to_an_unfollow_and_not_those_written_since() {
    let mut news = News::start().await;
    news.library.follow(Follow { follow: &["news"], ..Follow::default() }).await;
    let before_ms = news.library.now_ms().await;
    let at_ms = news.library.follow_at(Follow { unfollow: &["news"], ..Follow::default() }).await;
    assert!((before_ms..=news.library.now_ms().await).contains(&at_ms));
    let places = [("alice/a", at_ms - 1, 9_999), ("alice/b", at_ms, 0), ("alice/c", at_ms + 1, 0), ("bob/a", 1, 0)];
    for (member, ms, seq) in places {
        news.set_cursor(member, &format!("{ms}-{seq}")).await;
    }
    let cursors = news.cursors.clone();
    let at = at_ms.to_string();
    let args = [at.as_str(), "alice/a", "alice/b", "alice/c", "alice/none"];
    assert_eq!(news.library.call::<u64>(Function::ForgetCursors, &[&cursors], &args).await, 1);
    assert_eq!(news.members().await, ["bob/a", "alice/b", "alice/c"]);
    assert_eq!(news.library.call::<u64>(Function::ForgetCursors, &[&cursors], &args).await, 0, "a repetition");
    let later = (at_ms + 1).to_string();
    let rest = [later.as_str(), "alice/b", "alice/c"];
    assert_eq!(news.library.call::<u64>(Function::ForgetCursors, &[&cursors], &rest).await, 1);
    assert_eq!(news.library.call::<u64>(Function::ForgetCursors, &["homing:topic:{x}:cursors"], &args).await, 0);
    assert_eq!(news.library.call::<u64>(Function::ForgetCursors, &[&cursors], &args[..1]).await, 0, "of nobody");

    for args in [&[][..], &["x", "alice/c"]] {
        let reply: RedisResult<u64> = news.library.try_call(Function::ForgetCursors, &[&cursors], args).await;
        assert!(reply.is_err(), "{args:?} gave {reply:?}");
    }
    news.library.query::<()>(&["SET", &cursors, "a text"]).await;
    let reply: RedisResult<u64> = news.library.try_call(Function::ForgetCursors, &[&cursors], &args).await;
    assert_eq!(reply.expect_err("a wrong type").code(), Some("WRONGTYPE"));
}

#[tokio::test]
async fn a_topic_within_its_limits_is_left_as_it_is() {
    let mut news = News::start().await;
    news.add_numbered(1, 3).await;
    news.set_cursor("alice/a", "1-0").await;
    let untouched = Tended { length: 3, removed: 0, more: 0, forgotten: 0 };
    assert_eq!(news.tend(TendTopic { length_max: 3, ..TendTopic::default() }).await, untouched);
    assert_eq!((news.trimmed().await, news.members().await), (None, vec!["alice/a".to_owned()]));
    assert_eq!(news.ids().await, ["1-0", "2-0", "3-0"]);
}

#[tokio::test]
async fn a_topic_that_nobody_knows_is_empty_and_stays_unknown() {
    let mut news = News::start().await;
    assert_eq!(news.tend(TendTopic::default()).await, Tended { length: 0, removed: 0, more: 0, forgotten: 0 });
    assert_eq!(news.library.query::<u64>(&["DBSIZE"]).await, 0);
}

#[tokio::test]
async fn retention_by_length_cuts_exactly_and_says_up_to_where() {
    let mut news = News::start().await;
    news.add_numbered(1, 10).await;
    let request = TendTopic { length_max: 4, ..TendTopic::default() };
    assert_eq!(news.tend(request).await, Tended { length: 4, removed: 6, more: 0, forgotten: 0 });
    assert_eq!(news.ids().await, ["7-0", "8-0", "9-0", "10-0"]);
    assert_eq!(news.trimmed().await.as_deref(), Some("6-0"));
    assert_eq!(news.tend(request).await, Tended { length: 4, removed: 0, more: 0, forgotten: 0 }, "a repetition");
    assert_eq!(news.trimmed().await.as_deref(), Some("6-0"));
}

#[tokio::test]
async fn retention_by_age_cuts_what_is_older_and_nothing_else() {
    let mut news = News::start().await;
    let now = news.library.now_ms().await;
    let ids = [now - 99_000, now - 61_000, now - 30_000].map(|ms| format!("{ms}-5"));
    news.add(&ids.each_ref().map(String::as_str)).await;
    let tended = news.tend(TendTopic { age_max_ms: 60_000, ..TendTopic::default() }).await;
    assert_eq!(tended, Tended { length: 1, removed: 2, more: 0, forgotten: 0 });
    assert_eq!((news.ids().await, news.trimmed().await), (vec![ids[2].clone()], Some(ids[1].clone())));
}

// Whichever limit reaches further counts, in both directions.
#[tokio::test]
async fn of_length_and_age_the_stricter_one_counts() {
    for (length_max, left) in [(2, 2), (9, 3)] {
        let mut news = News::start().await;
        let now = news.library.now_ms().await;
        let ids = [99_000, 98_000, 3_000, 2_000, 1_000].map(|age_ms| format!("{}-0", now - age_ms));
        news.add(&ids.each_ref().map(String::as_str)).await;
        let tended = news.tend(TendTopic { length_max, age_max_ms: 60_000, ..TendTopic::default() }).await;
        assert_eq!((tended.length, tended.removed, tended.more), (left, 5 - left, 0));
        assert_eq!(news.trimmed().await, Some(ids[4 - left as usize].clone()));
    }
}

#[tokio::test]
async fn a_long_topic_is_cut_page_by_page() {
    let mut news = News::start().await;
    news.add_numbered(1, 25).await;
    let mut pages = Vec::new();
    loop {
        let tended = news.tend(TendTopic { length_max: 5, page: 8, ..TendTopic::default() }).await;
        pages.push((tended.removed, news.trimmed().await.unwrap_or_default()));
        assert_eq!(tended.length, news.ids().await.len() as u64);
        if tended.more == 0 {
            break;
        }
    }
    assert_eq!(pages, [(8, "8-0".to_owned()), (8, "16-0".to_owned()), (4, "20-0".to_owned())]);
}

// A page that is just full may be the last one: the next call finds out.
#[tokio::test]
async fn an_old_topic_is_cut_page_by_page() {
    let mut news = News::start().await;
    news.add_numbered(1, 6).await;
    let request = TendTopic { age_max_ms: 60_000, page: 3, ..TendTopic::default() };
    let mut pages = Vec::new();
    for _ in 0..3 {
        let tended = news.tend(request).await;
        pages.push((tended.removed, tended.more));
    }
    assert_eq!(pages, [(3, 1), (3, 1), (0, 0)]);
}

// Its number within the millisecond says nothing about how old an entry is, and must not be taken for a base.
#[tokio::test]
async fn cursors_before_what_retention_took_go_and_those_at_it_or_behind_it_stay() {
    for seq in [0, 1, 2, 10, 16, 36, 37, 5_000] {
        let mut news = News::start().await;
        news.add(&["1-0", &format!("20-{seq}"), "30-0"]).await;
        for (member, id) in
            [("alice/first", "1-0"), ("alice/before", "19-7"), ("bob/same", "20-0"), ("bob/at", &format!("20-{seq}"))]
        {
            news.set_cursor(member, id).await;
        }
        news.set_cursor("carol/behind", "30-0").await;
        let tended = news.tend(TendTopic { length_max: 1, ..TendTopic::default() }).await;
        assert_eq!(tended, Tended { length: 1, removed: 2, more: 0, forgotten: 2 }, "20-{seq}");
        let mut left = news.members().await;
        left.sort();
        assert_eq!(left, ["bob/at", "bob/same", "carol/behind"], "20-{seq}");
    }
}

// A device that is gone is recognised by nothing but its cursor, which stands still; also when nothing is removed now.
#[tokio::test]
async fn a_late_cursor_before_what_retention_took_goes_with_the_next_visit() {
    let mut news = News::start().await;
    news.add_numbered(1, 5).await;
    news.tend(TendTopic { length_max: 1, ..TendTopic::default() }).await;
    news.set_cursor("alice/a", "2-0").await;
    assert_eq!(news.tend(TendTopic::default()).await, Tended { length: 1, removed: 0, more: 0, forgotten: 1 });
    assert_eq!(news.members().await, Vec::<String>::new());
}

// Ids can run backwards after a failover: what was said to be gone stays gone.
#[tokio::test]
async fn what_retention_took_is_never_said_to_be_less_than_before() {
    let mut news = News::start().await;
    let meta = news.meta.clone();
    for (before, after) in
        [("9-0", "9-0"), ("10-0", "10-0"), ("2-0", "3-0"), ("3-18446744073709551615", "3-18446744073709551615")]
    {
        news.library.query::<()>(&["FLUSHDB"]).await;
        news.library.query::<()>(&["HSET", &meta, "trimmed", before]).await;
        news.add_numbered(1, 4).await;
        news.tend(TendTopic { length_max: 1, ..TendTopic::default() }).await;
        assert_eq!(news.trimmed().await.as_deref(), Some(after), "after {before}");
    }
}

#[tokio::test]
async fn explicit_ids_at_the_end_of_a_millisecond_and_of_the_range_are_cut() {
    let mut news = News::start().await;
    let max = u64::MAX;
    let ids = [format!("7-{max}"), "8-0".to_owned(), format!("{max}-{}", max - 1), format!("{max}-{max}")];
    news.add(&ids.each_ref().map(String::as_str)).await;
    for (left, last) in [(3, 0), (1, 2)] {
        let tended = news.tend(TendTopic { length_max: left, ..TendTopic::default() }).await;
        assert_eq!(tended.length, left);
        assert_eq!(news.trimmed().await.as_deref(), Some(ids[last].as_str()));
    }
}

#[tokio::test]
async fn a_topic_is_forgotten_when_it_is_empty_and_nobody_follows_or_stands_in_it() {
    let mut news = News::start().await;
    let (log, meta, followers) = (news.log.clone(), news.meta.clone(), news.followers.clone());
    news.add_numbered(1, 3).await;
    news.library.query::<u64>(&["SADD", &followers, USER]).await;
    news.set_cursor("alice/a", "3-0").await;
    let empty = TendTopic { length_max: 0, ..TendTopic::default() };
    assert_eq!(news.tend(empty).await, Tended { length: 0, removed: 3, more: 0, forgotten: 0 });
    assert!(news.exists(&log).await, "it is followed");
    let cursors = news.cursors.clone();
    news.library.query::<u64>(&["SREM", &followers, USER]).await;
    news.tend(empty).await;
    assert!(news.exists(&log).await, "somebody stands in it");
    news.library.query::<u64>(&["DEL", &cursors]).await;
    assert_eq!(news.tend(empty).await, Tended { length: 0, removed: 0, more: 0, forgotten: 0 });
    assert!(!news.exists(&log).await);
    // Who was away, and stands nowhere yet, must be told all the same.
    assert_eq!(news.trimmed().await.as_deref(), Some("3-0"));
    let left_ms: i64 = news.library.query(&["PTTL", &meta]).await;
    assert!((1..=60_000).contains(&left_ms), "{left_ms}");

    // The topic lives again: what was removed is not forgotten any more.
    news.add(&["4-0"]).await;
    news.tend(TendTopic::default()).await;
    assert_eq!((news.library.query::<i64>(&["PTTL", &meta]).await, news.trimmed().await.as_deref()), (-1, Some("3-0")));
}

#[tokio::test]
async fn with_full_memory_retention_of_topics_goes_on() {
    let mut news = News::start().await;
    news.add_numbered(1, 5).await;
    news.library.query::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    news.library.query::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let log = news.log.clone();
    assert!(news.library.try_query::<String>(&["XADD", &log, "*", "data", "x"]).await.is_err(), "memory is full");
    let tended = news.tend(TendTopic { length_max: 2, ..TendTopic::default() }).await;
    assert_eq!((tended.length, tended.removed), (2, 3));
    let refused = news.library.try_follow(Follow { follow: &["news"], ..Follow::default() }).await;
    assert!(refused.is_err(), "a follow takes memory: {refused:?}");
}

#[tokio::test]
async fn a_visit_with_bad_arguments_or_keys_of_another_type_is_refused_and_keeps_other_keys() {
    let mut news = News::start().await;
    let keys = [news.log.clone(), news.meta.clone(), news.cursors.clone(), news.followers.clone()];
    let names = keys.each_ref().map(String::as_str);
    news.add_numbered(1, 3).await;
    for args in ["", "1", "1 1", "1 1 1", "1 1 1 1", "x 1 1 1 1", "1 x 1 1 1", "1 1 x 1 1", "1 1 1 x 1", "1 1 1 1 x"] {
        let args: Vec<&str> = args.split_whitespace().collect();
        let reply: RedisResult<redis::Value> = news.library.try_call(Function::TendTopic, &names, &args).await;
        assert!(reply.is_err(), "{args:?} gave {reply:?}");
    }
    assert_eq!((news.ids().await.len(), news.trimmed().await), (3, None));
    for key in &keys {
        news.library.query::<()>(&["FLUSHDB"]).await;
        if *key != news.log {
            news.add_numbered(1, 3).await;
        }
        news.library.query::<()>(&["SET", key, "a text"]).await;
        let error = news.try_tend(TendTopic { length_max: 0, ..TendTopic::default() }).await.expect_err("a wrong type");
        assert_eq!(error.code(), Some("WRONGTYPE"), "{key}: {error}");
        assert_eq!(news.library.query::<String>(&["GET", key]).await, "a text");
        if *key != news.log {
            assert_eq!(news.ids().await.len(), 3, "nothing goes that nobody could be told of");
        }
    }
}
