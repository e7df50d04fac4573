//! `homing_1_tend_topic`: retention says what it took before anybody can read on behind it.

use homing::store::{Function, Key};
use homing_protocol::topic::{Topic, cursor_score};
use redis::RedisResult;

use super::follow::Follow;
use super::tend::NO_AGE_MS;
use super::{Library, USER};

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
pub(super) struct News {
    pub(super) library: Library,
    log: String,
    meta: String,
    pub(super) cursors: String,
    followers: String,
}

impl News {
    pub(super) async fn start() -> Self {
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
    pub(super) async fn set_cursor(&mut self, member: &str, id: &str) {
        let (cursors, score) = (self.cursors.clone(), cursor_score(id.parse().expect("an id")).to_string());
        self.library.query::<u64>(&["ZADD", &cursors, &score, member]).await;
    }

    /// Whose cursors there are.
    pub(super) async fn members(&mut self) -> Vec<String> {
        let cursors = self.cursors.clone();
        self.library.query(&["ZRANGE", &cursors, "0", "-1"]).await
    }

    async fn exists(&mut self, key: &str) -> bool {
        self.library.query::<u64>(&["EXISTS", key]).await == 1
    }
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
