//! `homing_1_trim`: only what every device has acknowledged may go.

use super::{Attach, Library};

#[tokio::test]
async fn a_trim_never_takes_a_message_from_the_slower_device() {
    let mut library = Library::start().await;
    library.attached(Attach::new("fast", "1")).await;
    library.attached(Attach::new("slow", "2")).await;
    library.add(&["1-0", "2-0", "3-0"]).await;
    library.read("fast", 9).await;
    library.ack("fast", &["1-0", "2-0", "3-0"]).await;
    assert_eq!(library.trim().await, 0, "the slow device was given nothing yet");

    library.read("slow", 2).await;
    assert_eq!(library.trim().await, 0, "the slow device has acknowledged nothing yet");
    library.ack("slow", &["1-0"]).await;
    assert_eq!(library.trim().await, 1);
    library.ack("slow", &["2-0"]).await;
    assert_eq!(library.trim().await, 1);
    assert_eq!(library.ids().await, ["3-0"], "undelivered to the slow device");
    assert_eq!(library.read("slow", 9).await, ["3-0"]);
}

#[tokio::test]
async fn an_ack_out_of_order_waits_for_those_before_it() {
    let mut library = Library::start().await;
    library.attached(Attach::new("a", "1")).await;
    library.add(&["1-0", "2-0", "3-0"]).await;
    library.read("a", 9).await;
    library.ack("a", &["2-0", "3-0"]).await;
    assert_eq!(library.trim().await, 0);
    library.ack("a", &["1-0"]).await;
    assert_eq!(library.trim().await, 3);
}

// A known device without its group will be repaired at the start: all that is there is still its own.
#[tokio::test]
async fn nothing_is_trimmed_while_a_known_device_lacks_its_group() {
    let mut library = Library::start().await;
    library.attached(Attach::new("a", "1")).await;
    library.attached(Attach::new("b", "2")).await;
    library.add(&["1-0"]).await;
    library.read("a", 9).await;
    library.ack("a", &["1-0"]).await;
    let inbox = library.inbox.clone();
    library.query::<()>(&["XGROUP", "DESTROY", &inbox, "b"]).await;
    assert_eq!(library.trim().await, 0);
    library.attached(Attach::new("b", "3")).await;
    assert_eq!(library.read("b", 9).await, ["1-0"]);
    library.ack("b", &["1-0"]).await;
    assert_eq!(library.trim().await, 1);
}

#[tokio::test]
async fn nothing_is_trimmed_before_the_first_device_or_without_an_inbox() {
    let mut library = Library::start().await;
    assert_eq!(library.trim().await, 0);
    library.add(&["1-0"]).await;
    assert_eq!(library.trim().await, 0);
    assert_eq!(library.ids().await, ["1-0"]);
}

#[tokio::test]
async fn an_inbox_that_everybody_acknowledged_has_length_zero() {
    let mut library = Library::start().await;
    library.attached(Attach::new("a", "1")).await;
    library.attached(Attach::new("b", "2")).await;
    let ids: Vec<String> = (1..=250).map(|number| format!("{number}-0")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    library.add(&ids).await;
    for device in ["a", "b"] {
        library.read(device, 999).await;
        library.ack(device, &ids).await;
    }
    assert_eq!(library.trim().await, 250);
    assert_eq!(library.ids().await, Vec::<String>::new());
    library.add(&["*"]).await;
    assert_eq!(library.read("a", 9).await.len(), 1, "the group lives on");
}

// 2^64-1 has more digits than a Lua number keeps; and text order is not number order: "10" < "9".
#[tokio::test]
async fn ids_are_compared_as_numbers_of_twenty_digits() {
    let mut library = Library::start().await;
    let max = u64::MAX;
    library.attached(Attach::new("a", "1")).await;
    library.attached(Attach::new("b", "2")).await;
    let ids = [
        "9-9".to_owned(),
        "9-10".to_owned(),
        "10-0".to_owned(),
        format!("9007199254740993-{}", max - 1),
        format!("9007199254740993-{max}"),
        "9007199254740994-0".to_owned(),
        format!("{}-{max}", max - 1),
        format!("{max}-0"),
        format!("{max}-{}", max - 1),
    ];
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    library.add(&ids).await;
    library.read("a", 99).await;
    library.ack("a", &ids).await;
    for (position, id) in ids.iter().enumerate() {
        assert_eq!(library.read("b", 1).await, [*id]);
        assert_eq!(library.trim().await, 0, "{id} is pending");
        library.ack("b", &[id]).await;
        assert_eq!(library.trim().await, 1, "{id} is acknowledged");
        assert_eq!(library.ids().await, ids[position + 1..]);
    }
}

#[tokio::test]
async fn the_very_last_id_can_be_trimmed() {
    let mut library = Library::start().await;
    library.attached(Attach::new("a", "1")).await;
    let last = format!("{max}-{max}", max = u64::MAX);
    library.add(&["1-0", &last]).await;
    library.read("a", 1).await;
    library.ack("a", &["1-0"]).await;
    assert_eq!(library.trim().await, 1);
    library.read("a", 1).await;
    assert_eq!(library.trim().await, 0);
    library.ack("a", &[&last]).await;
    assert_eq!(library.trim().await, 1);
    assert_eq!(library.ids().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_message_that_was_deleted_by_others_does_not_hold_up_the_trim_once_acknowledged() {
    let mut library = Library::start().await;
    library.attached(Attach::new("a", "1")).await;
    library.add(&["1-0", "2-0"]).await;
    library.read("a", 9).await;
    let inbox = library.inbox.clone();
    library.query::<()>(&["XDEL", &inbox, "1-0"]).await;
    assert_eq!(library.trim().await, 0);
    library.ack("a", &["1-0", "2-0"]).await;
    assert_eq!(library.trim().await, 1);
}
