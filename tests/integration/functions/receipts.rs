//! `homing_1_announce`, `homing_1_record`, `homing_1_await` and `homing_1_ack`: what becomes of messages is told once
//! and never missed.

use std::collections::HashMap;

use futures_util::StreamExt;
use homing::store::{Function, Key};
use homing_protocol::name::Name;
use redis::Value;

use super::tend::NO_AGE_MS;
use super::{Attach, Library, USER};
use crate::harness::within;

impl Library {
    fn receipt_key(&self, id: &str) -> String {
        let id = id.parse().expect("an entry id");
        self.keys.name(Key::Receipt(&Name::parse(USER).expect("a plain name"), id))
    }

    async fn record_receipts(&mut self, device: &str, receipts: &[(&str, &str, &str)]) -> Vec<u8> {
        let names: Vec<String> = receipts.iter().map(|(id, ..)| self.receipt_key(id)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let channels = self.keys.control_prefix();
        let mut args = vec!["60", channels.as_str(), device];
        args.extend(receipts.iter().flat_map(|(_, event, aimed)| [*event, *aimed]));
        self.call(Function::Record, &names, &args).await
    }

    pub(super) fn asked_key(&self) -> String {
        self.keys.name(Key::Asked(&Name::parse(USER).expect("a plain name")))
    }

    /// Publishes a message that asks, with fields beside; gives its id, and 1 if it was appended now.
    async fn ask(&mut self, once: Option<&str>, fields: &[&str]) -> (String, u8) {
        let mut keys = vec![self.inbox.clone(), self.asked_key()];
        keys.extend(once.map(|key| self.once_key(key)));
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let args = [&["60", "60", "data", "x", "receipt", "1"], fields].concat();
        self.call(Function::PublishAsking, &keys, &args).await
    }

    async fn asked(&mut self) -> Vec<String> {
        let key = self.asked_key();
        self.query(&["ZRANGE", &key, "0", "-1"]).await
    }

    async fn receipt(&mut self, id: &str) -> HashMap<String, String> {
        let key = self.receipt_key(id);
        self.query(&["HGETALL", &key]).await
    }
}

#[tokio::test]
async fn announcements_are_entries_of_one_stream_that_keeps_about_so_many() {
    let mut library = Library::start().await;
    let stream = library.keys.name(Key::Receipts);
    let args = ["1000", USER, "web", "5-0", "delivered", "", "5-0", "acked", "order-7"];
    assert_eq!(library.call::<u64>(Function::Announce, &[&stream], &args).await, 2);
    let entries: Vec<(String, HashMap<String, String>)> = library.query(&["XRANGE", &stream, "-", "+"]).await;
    let expected = [("user", USER), ("device", "web"), ("id", "5-0"), ("event", "acked"), ("key", "order-7")];
    for (name, value) in expected {
        assert_eq!(entries[1].1[name], value);
    }
    assert!(!entries[0].1.contains_key("key") && entries[0].1["at_ms"].parse::<u64>().is_ok_and(|at_ms| at_ms > 0));
    for _ in 0..50 {
        let many: Vec<&str> = ["10", USER, "web"].into_iter().chain(["6-0", "acked", ""].repeat(100)).collect();
        library.call::<u64>(Function::Announce, &[&stream], &many).await;
    }
    // `~` trims whole nodes of the stream.
    assert!((10..=210).contains(&library.query::<u64>(&["XLEN", &stream]).await));
}

#[tokio::test]
async fn the_first_record_of_an_event_counts_and_is_kept_for_its_time() {
    let mut library = Library::start().await;
    let both = [("5-0", "delivered", "0"), ("6-0", "delivered", "1")];
    assert_eq!(library.record_receipts("web", &both).await, [1, 1]);
    let first = library.receipt("5-0").await;
    assert_eq!(library.record_receipts("web", &[both[0], ("5-0", "acked", "0")]).await, [0, 1]);
    let receipt = library.receipt("5-0").await;
    assert_eq!(receipt["delivered web"], first["delivered web"]);
    assert!(receipt.contains_key("acked web") && !receipt.contains_key("aim"));
    assert_eq!(library.receipt("6-0").await["aim"], "web");
    assert_eq!(library.record_receipts("phone", &both[..1]).await, [1], "each device has its own");
    let key = library.receipt_key("5-0");
    assert!((1..=60).contains(&library.query::<i64>(&["TTL", &key]).await));
}

// Who begins to wait either finds the record or is told of it.
#[tokio::test]
async fn who_waits_is_told_of_an_end_and_of_nothing_else() {
    let mut library = Library::start().await;
    let key = library.receipt_key("5-0");
    for (waiting, count) in [("n1:r.0#1", 1), ("n2:r.1#7", 2)] {
        assert_eq!(library.call::<u64>(Function::Await, &[&key], &["60", waiting]).await, count);
    }
    let mut heard = library.redis.client().get_async_pubsub().await.expect("a connection");
    for owner in ["n1:r.0", "n2:r.1"] {
        heard.subscribe(library.keys.control_channel(owner)).await.expect("a subscription");
    }
    library.record_receipts("web", &[("5-0", "delivered", "0")]).await;
    library.record_receipts("web", &[("5-0", "acked", "0")]).await;
    library.record_receipts("web", &[("5-0", "acked", "0")]).await;
    library.record_receipts("phone", &[("5-0", "expired", "0")]).await;
    let mut messages = heard.into_on_message();
    let mut told = Vec::new();
    while told.len() < 4 {
        let message = within("a word", messages.next()).await.expect("the connection lives");
        let word: serde_json::Value = serde_json::from_slice(message.get_payload_bytes()).expect("JSON");
        assert_eq!(word["kind"], "receipt");
        told.push(format!("{} {} {}", word["token"], word["device"], word["event"]).replace('"', ""));
    }
    told.sort();
    assert_eq!(told, ["1 phone expired", "1 web acked", "7 phone expired", "7 web acked"]);
}

#[tokio::test]
async fn of_many_who_wait_the_last_ones_are_told() {
    let mut library = Library::start().await;
    let key = library.receipt_key("5-0");
    for number in 1..=20 {
        library.call::<u64>(Function::Await, &[&key], &["60", &format!("n1:r.0#{number}")]).await;
    }
    let waiting: String = library.query(&["HGET", &key, "waiting"]).await;
    let waiting: Vec<&str> = waiting.split(' ').collect();
    assert_eq!((waiting.len(), waiting[0]), (16, "n1:r.0#20"));
}

#[tokio::test]
async fn a_message_that_asks_for_a_receipt_stays_pending_until_its_session_has_told() {
    let mut library = Library::start().await;
    library.attached(Attach::new("web", "1")).await;
    let inbox = library.inbox.clone();
    let entries: [(&str, &[&str]); 8] = [
        ("1-0", &["data", "x"]),
        ("2-0", &["data", "x", "receipt", "1", "key", "k"]),
        ("3-0", &["data", "x", "receipt", "0"]),
        ("4-0", &["receipt", "1", "celsius", "20"]),
        ("5-0", &["data", "x", "receipt", "1", "device", "phone"]),
        ("6-0", &["data", "x", "receipt", "1", "device", "web"]),
        ("7-0", &["data", "x", "receipt", "1"]),
        ("8-0", &["data", "x", "receipt", "1"]),
    ];
    for (id, fields) in entries {
        library.query::<String>(&[&["XADD", inbox.as_str(), id], fields].concat()).await;
    }
    library.read("web", 7).await;
    library.ack("web", &["7-0"]).await;
    let ids = ["web", "1-0", "2-0", "3-0", "4-0", "5-0", "6-0", "7-0", "8-0", "99-0"];
    let outcomes: Vec<Value> = library.call(Function::Ack, &[&inbox], &ids).await;
    let withheld = |key: &str, aimed| Value::Array(vec![Value::BulkString(key.into()), Value::Int(aimed)]);
    let (yes, no) = (Value::Int(1), Value::Int(0));
    let expected = [
        yes.clone(),
        withheld("k", 0),
        yes.clone(),
        yes.clone(),
        yes,
        withheld("", 1),
        no.clone(),
        // Not delivered yet, and never appended.
        no.clone(),
        no,
    ];
    assert_eq!(outcomes, expected);
    assert_eq!(library.pending("web").await, ["2-0", "6-0"]);
    assert_eq!(library.call::<Vec<u8>>(Function::Ack, &[&inbox], &["nobody", "1-0"]).await, [0]);
    library.query::<()>(&["SET", "homing:{bob}:inbox", "no stream"]).await;
    assert!(library.try_call::<Value>(Function::Ack, &["homing:{bob}:inbox"], &["web", "1-0"]).await.is_err());
}

// Between a receipt that is refused and an ack that is executed, a message would be acked untold.
#[tokio::test]
async fn with_full_memory_receipts_are_written_as_acks_are() {
    let mut library = Library::start().await;
    library.attached(Attach::new("web", "1")).await;
    library.add(&["1-0"]).await;
    library.read("web", 1).await;
    library.redis.config_set("maxmemory", "1").await;
    let (inbox, stream) = (library.inbox.clone(), library.keys.name(Key::Receipts));
    library.call::<u64>(Function::Announce, &[&stream], &["10", USER, "web", "1-0", "acked", ""]).await;
    assert_eq!(library.record_receipts("web", &[("1-0", "acked", "0")]).await, [1]);
    assert_eq!(library.call::<Vec<u8>>(Function::Ack, &[&inbox], &["web", "1-0"]).await, [1]);
    let key = library.receipt_key("1-0");
    assert!(library.try_call::<u64>(Function::Await, &[&key], &["60", "n1:r.0#1"]).await.is_err(), "waiting can wait");
}

#[tokio::test]
async fn a_message_that_asks_is_appended_and_noted_or_neither() {
    let mut library = Library::start().await;
    let (plain, appended) = library.ask(None, &[]).await;
    assert_eq!(appended, 1);
    let (keyed, appended) = library.ask(Some("k"), &["key", "k"]).await;
    assert_eq!((appended, library.ask(Some("k"), &["key", "k"]).await), (1, (keyed.clone(), 0)));
    assert_eq!(library.ids().await, [plain.clone(), keyed.clone()]);
    assert_eq!(library.asked().await, [plain.clone(), keyed]);
    let inbox = library.inbox.clone();
    let entry: Vec<(String, Vec<String>)> = library.query(&["XRANGE", &inbox, &plain, &plain]).await;
    assert_eq!(entry[0].1, ["data", "x", "receipt", "1"]);
    let (asked, once) = (library.asked_key(), library.once_key("k"));
    for key in [&asked, &once] {
        assert!((1..=60).contains(&library.query::<i64>(&["TTL", key]).await));
    }
    library.redis.config_set("maxmemory", "1").await;
    let outcome =
        library.try_call::<Value>(Function::PublishAsking, &[&inbox, &asked], &["60", "60", "data", "x"]).await;
    assert!(outcome.is_err());
    assert_eq!(library.asked().await.len(), 2);
}

#[tokio::test]
async fn retention_says_for_whom_it_dropped_a_message_that_asked() {
    let mut library = Library::start().await;
    for device in ["web", "phone"] {
        library.attached(Attach::new(device, "1")).await;
    }
    let (acked, _) = library.ask(None, &[]).await;
    let (shown, _) = library.ask(None, &["key", "k"]).await;
    library.read("web", 2).await;
    library.ack("web", &[&acked]).await;
    let (aimed, _) = library.ask(None, &["device", "phone"]).await;
    library.query::<String>(&["XADD", "homing:{alice}:inbox", "*", "data", "asks for nothing"]).await;
    let (kept, _) = library.ask(None, &[]).await;
    let (more, receipts) = library.tend_for_receipts(1, NO_AGE_MS, 100).await;
    let row = |device: &str, id: &str, key: &str, aimed| (device.to_owned(), id.to_owned(), key.to_owned(), aimed);
    let mut expected = [
        row("phone", &acked, "", 0),
        row("phone", &shown, "k", 0),
        row("phone", &aimed, "", 1),
        row("web", &shown, "k", 0),
    ];
    expected.sort();
    assert_eq!((more, receipts), (0, expected.to_vec()));
    assert_eq!(library.ids().await, [kept.as_str()]);
    assert_eq!(library.tend_for_receipts(1, NO_AGE_MS, 100).await, (0, vec![]));
    // What is gone is not remembered, but for what came in the millisecond of what is kept.
    let ms = |id: &str| id.split('-').next().map(str::to_owned);
    let asked = library.asked().await;
    assert!(asked.contains(&kept) && asked.iter().all(|id| ms(id) == ms(&kept)), "{asked:?}");
    // By age, everything.
    library.redis.query::<()>(&["DEBUG", "SLEEP", "0.005"]).await;
    let (_, receipts) = library.tend_for_receipts(10, 0, 100).await;
    assert_eq!(receipts, [row("phone", &kept, "", 0), row("web", &kept, "", 0)]);
    library.tend_for_receipts(10, 0, 100).await;
    assert_eq!(library.asked().await, [""; 0]);
}

#[tokio::test]
async fn retention_by_age_goes_page_by_page_through_what_asked() {
    let mut library = Library::start().await;
    library.attached(Attach::new("web", "1")).await;
    let asked = library.asked_key();
    let ids: Vec<String> = (1..=7).flat_map(|ms| [format!("{ms}-9"), format!("{ms}-10")]).collect();
    let inbox = library.inbox.clone();
    for id in &ids {
        library.query::<String>(&["XADD", &inbox, id, "data", "x", "receipt", "1"]).await;
        let ms = id.split('-').next().expect("an id has a time");
        library.query::<u64>(&["ZADD", &asked, ms, id]).await;
    }
    let mut told = Vec::new();
    let mut calls = 0;
    loop {
        let (more, receipts) = library.tend_for_receipts(100, 1, 3).await;
        // At most two of a millisecond more than a page.
        assert!(receipts.len() <= 5, "{receipts:?}");
        told.extend(receipts.into_iter().map(|(_, id, ..)| id));
        calls += 1;
        if more == 0 {
            break;
        }
    }
    let mut expected = ids.clone();
    expected.sort();
    told.sort();
    assert_eq!(told, expected);
    assert!(calls > 3, "{calls}");
    assert_eq!(library.ids().await, [""; 0]);
}
