//! Subscriptions against a real server.

use super::*;
use crate::store::test_server::TestServer;

fn channels(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("channel-{number}"))
}

async fn next_payloads(hints: &mut Hints) -> Vec<String> {
    let taken = hints.next().await.unwrap();
    taken.hints().map(|hint| String::from_utf8_lossy(hint.payload).into_owned()).collect()
}

/// Who is told too early reads before its subscription, and sleeps through the next message.
#[tokio::test]
async fn subscriptions_change_until_redis_has_confirmed_every_one() {
    let server = TestServer::start(&[]);
    let mut other = server.connect().await;
    let mut hints = Hints::new(server.store().await.dial().await.unwrap());
    let count = 2 * SUBSCRIBE_COUNT_MAX + 500;
    hints.follow(channels(count), std::iter::empty());
    while hints.is_changing() {
        assert!(next_payloads(&mut hints).await.is_empty());
    }
    let last = format!("channel-{}", count - 1);
    let receivers: u32 = redis::cmd("PUBLISH").arg(&last).arg("hello").query_async(&mut other).await.unwrap();
    assert_eq!((receivers, next_payloads(&mut hints).await), (1, vec!["hello".to_owned()]));

    hints.follow(std::iter::empty(), [last.clone()].into_iter());
    assert!(hints.is_changing());
    while hints.is_changing() {
        next_payloads(&mut hints).await;
    }
    let receivers: u32 = redis::cmd("PUBLISH").arg(&last).arg("gone").query_async(&mut other).await.unwrap();
    assert_eq!(receivers, 0);
}

#[tokio::test]
async fn a_flood_arrives_whole_and_in_order() {
    let server = TestServer::start(&[]);
    let mut other = server.connect().await;
    let mut hints = Hints::new(server.store().await.dial().await.unwrap());
    hints.follow(channels(1), std::iter::empty());
    while hints.is_changing() {
        next_payloads(&mut hints).await;
    }
    let count = 3 * TAKE_MAX;
    let mut flood = redis::Pipeline::new();
    (0..count).for_each(|number| _ = flood.cmd("PUBLISH").arg("channel-0").arg(number).ignore());
    flood.query_async::<()>(&mut other).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < count {
        seen.extend(next_payloads(&mut hints).await);
    }
    assert_eq!(seen, (0..count).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_refused_subscription_is_an_error() {
    let server = TestServer::start(&[]);
    let mut other = server.connect().await;
    let rule = ["SETUSER", "default", "resetchannels"];
    redis::cmd("ACL").arg(&rule).query_async::<()>(&mut other).await.unwrap();
    let mut hints = Hints::new(server.store().await.dial().await.unwrap());
    hints.follow(channels(1), std::iter::empty());
    assert!(hints.next().await.is_err());
}
