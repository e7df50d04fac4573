//! `homing_1_follow`: what a user follows changes in one step, within a limit, and is told to whom it concerns.

use homing::store::{Function, Key};
use homing_protocol::name::Name;
use redis::RedisResult;
use serde_json::json;

use super::{Attach, Library, USER};

/// What somebody asks of `homing_1_follow`; the default changes nothing, and its limit is no hindrance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Follow<'a> {
    pub(super) follow: &'a [&'a str],
    pub(super) unfollow: &'a [&'a str],
    pub(super) owner: &'a str,
    pub(super) limit: u64,
    pub(super) replace: bool,
}

impl Default for Follow<'_> {
    fn default() -> Self {
        Self { follow: &[], unfollow: &[], owner: "", limit: 200, replace: false }
    }
}

/// Its reply; each list sorted, since nobody promises an order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Followed {
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

    pub(super) async fn try_follow(&mut self, request: Follow<'_>) -> RedisResult<redis::Value> {
        let (topics, devices) = (self.topics_key(), self.devices.clone());
        let about = json!({
            "user": USER, "channels": self.keys.control_prefix(), "owner": request.owner, "limit": request.limit,
            "replace": request.replace,
        });
        let (about, count) = (about.to_string(), request.follow.len().to_string());
        let args = [&[about.as_str(), count.as_str()], request.follow, request.unfollow].concat();
        self.try_call(Function::Follow, &[&topics, &devices], &args).await
    }

    pub(super) async fn follow(&mut self, request: Follow<'_>) -> Followed {
        Followed::read(&self.try_follow(request).await.unwrap_or_else(|error| panic!("{request:?}: {error}")))
    }

    /// The same; when it happened by Redis's clock, Unix ms.
    pub(super) async fn follow_at(&mut self, request: Follow<'_>) -> u64 {
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

#[tokio::test]
async fn whoever_holds_a_device_hears_of_a_change_also_if_it_was_judged_dead() {
    let mut library = Library::start().await;
    library.attached(Attach { owner: "n1:r.0", ..Attach::new("web", "n1") }).await;
    library.attached(Attach { owner: "n2:r.0", ..Attach::new("phone", "n2") }).await;
    // It may only have been paused, and looks after its sessions again.
    library.set_record("web", "owner", json!("")).await;
    library.set_record("web", "struck", json!("n1:r.0")).await;
    let mut controls = [library.listen("n1:r.0").await, library.listen("n2:r.0").await];
    let room = Follow { follow: &["room"], ..Follow::default() };
    library.follow(room).await;
    for control in &mut controls {
        assert_eq!(control.next().await, json!({ "kind": "topics", "user": USER }));
    }
    library.follow(room).await;
    for control in &mut controls {
        control.nothing_more(&mut library).await;
    }
}
