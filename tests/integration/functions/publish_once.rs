//! `homing_1_publish_once`: the entry and its key exist both or neither.

use homing::store::{Function, Key};
use homing_protocol::name::Name;

use super::{Library, USER};

impl Library {
    pub(super) fn once_key(&self, key: &str) -> String {
        self.keys.name(Key::Once(&Name::parse(USER).expect("a plain name"), key))
    }

    async fn publish_once(&mut self, key: &str, data: &str) -> (String, u8) {
        let (inbox, once) = (self.inbox.clone(), self.once_key(key));
        self.call(Function::PublishOnce, &[&inbox, &once], &["60", "data", data, "key", key]).await
    }
}

#[tokio::test]
async fn a_second_publish_with_the_same_key_answers_the_first_id_and_appends_nothing() {
    let mut library = Library::start().await;
    let (id, appended) = library.publish_once("k", "first").await;
    assert_eq!(appended, 1);
    assert_eq!(library.publish_once("k", "second").await, (id.clone(), 0));
    let (other, appended) = library.publish_once("k2", "third").await;
    assert_eq!(appended, 1);
    assert_eq!(library.ids().await, [id.clone(), other]);
    let inbox = library.inbox.clone();
    let entry: Vec<(String, Vec<String>)> = library.query(&["XRANGE", &inbox, &id, &id]).await;
    assert_eq!(entry[0].1, ["data", "first", "key", "k"]);
}

#[tokio::test]
async fn a_key_is_remembered_for_its_time_only() {
    let mut library = Library::start().await;
    library.publish_once("k", "x").await;
    let once = library.once_key("k");
    let seconds: i64 = library.query(&["TTL", &once]).await;
    assert!((1..=60).contains(&seconds), "{seconds}");
}

// The stream is at the end of its range: XADD fails, so the key must not be remembered either.
#[tokio::test]
async fn a_publish_that_fails_leaves_no_key() {
    let mut library = Library::start().await;
    library.add(&[&format!("{max}-{max}", max = u64::MAX)]).await;
    let (inbox, once) = (library.inbox.clone(), library.once_key("k"));
    let outcome = library.try_call::<redis::Value>(Function::PublishOnce, &[&inbox, &once], &["60", "data", "x"]).await;
    assert!(outcome.is_err());
    assert_eq!(library.query::<u64>(&["EXISTS", &once]).await, 0);
}
