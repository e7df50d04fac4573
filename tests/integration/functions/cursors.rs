//! `homing_1_forget_cursors` and `homing_1_rewind_cursors`: what is removed or taken back too late is left alone.

use homing::store::Function;
use homing_protocol::topic::cursor_score;
use redis::RedisResult;

use super::follow::Follow;
use super::tend_topic::News;

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

// Another connection of the device may have been faster, and gone on since.
#[tokio::test]
async fn a_cursor_is_taken_back_from_where_it_was_found_and_from_nowhere_else() {
    let mut news = News::start().await;
    let cursors = news.cursors.clone();
    let score = |id: &str| cursor_score(id.parse().expect("an id")).to_string();
    // Where it is, where it was found, where it is to go, where it is then.
    let cases = [
        (Some("9-0"), "9-0", "5-0", "5-0"),
        (Some("7-1"), "9-0", "5-0", "7-1"),
        (Some("9-1"), "9-0", "5-0", "9-1"),
        (Some("4-0"), "9-0", "5-0", "5-0"),
        (None, "9-0", "5-0", "5-0"),
    ];
    let mut args = Vec::new();
    for (number, (at, from, to, _)) in cases.iter().enumerate() {
        let member = format!("alice/{number}");
        if let Some(at) = at {
            news.set_cursor(&member, at).await;
        }
        args.extend([member, score(from), score(to)]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    assert_eq!(news.library.call::<u64>(Function::RewindCursors, &[&cursors], &args).await, 1);
    for round in 0..2 {
        for (number, (.., then)) in cases.iter().enumerate() {
            let stands: String = news.library.query(&["ZSCORE", &cursors, &format!("alice/{number}")]).await;
            assert_eq!(stands, score(then), "alice/{number}, round {round}");
        }
        assert_eq!(news.library.call::<u64>(Function::RewindCursors, &[&cursors], &args).await, 0, "a repetition");
    }
    assert_eq!(news.library.call::<u64>(Function::RewindCursors, &[&cursors], &[]).await, 0);

    for args in [&["alice/x"][..], &["alice/x", "1"], &["alice/x", "1", "x"]] {
        let reply: RedisResult<u64> = news.library.try_call(Function::RewindCursors, &[&cursors], args).await;
        assert!(reply.is_err(), "{args:?} gave {reply:?}");
    }
    assert_eq!(news.members().await.len(), cases.len());
    news.library.query::<()>(&["SET", &cursors, "a text"]).await;
    let reply: RedisResult<u64> = news.library.try_call(Function::RewindCursors, &[&cursors], &args).await;
    assert_eq!(reply.expect_err("a wrong type").code(), Some("WRONGTYPE"));
}
