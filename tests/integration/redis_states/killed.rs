//! Redis dies with publishes under way.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::json;

use crate::harness::redis_server::inbox;
use crate::harness::{Client, ConnectOptions, Node, NodeOptions, Redis, RedisOptions};

/// Producers that publish at the same time.
const PRODUCERS: usize = 16;
/// Messages that are accepted before Redis dies.
const ACCEPTED_FIRST: usize = 500;

/// What a producer was answered, by its message.
#[derive(Default)]
struct Answers {
    accepted: Vec<(String, String)>,
    refused: Vec<String>,
    unknown: Vec<String>,
}

/// A 201 is in the stream, a 503 is not; what was under way is told as unknown. A 503 for a message that is there makes
/// a producer publish it twice; a 201 for one that is not loses it.
#[tokio::test]
async fn each_answer_is_true_when_redis_is_killed_in_the_middle_of_publishes() {
    let mut redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default()).await;
    let mut client = Client::connect(&node, "alice", "d", ConnectOptions::default()).await;
    client.round_trip().await;
    let mut told = Answers::default();
    for round in 0..3 {
        #[allow(clippy::disallowed_methods, reason = "one message for each publish of a round that ends")]
        let (answers, accepted) = tokio::sync::mpsc::unbounded_channel();
        let load = publish_until_refused(&node, round, answers);
        let killer = kill_when_busy(&mut redis, accepted);
        let (outcomes, ()) = tokio::join!(load, killer);
        for answers in outcomes {
            told.accepted.extend(answers.accepted);
            told.refused.extend(answers.refused);
            told.unknown.extend(answers.unknown);
        }
        redis.start_again().await;
        node.wait_readyz(200).await;
    }
    println!("accepted {}, refused {}, unknown {}", told.accepted.len(), told.refused.len(), told.unknown.len());
    assert!(!told.refused.is_empty(), "Redis was away");
    // `homing` trims what its one device has acked, and this one acks nothing.
    let entries: Vec<(String, Vec<(String, String)>)> = redis.query(&["XRANGE", &inbox("alice"), "-", "+"]).await;
    let present: HashSet<(&str, &str)> =
        entries.iter().map(|(id, fields)| (id.as_str(), fields[0].1.trim_matches('"'))).collect();
    let lost: Vec<_> =
        told.accepted.iter().filter(|(id, data)| !present.contains(&(id.as_str(), data.as_str()))).collect();
    assert!(lost.is_empty(), "answered with 201 and not there: {lost:?}");
    let data: HashSet<&str> = present.iter().map(|(_, data)| *data).collect();
    let written: Vec<_> = told.refused.iter().filter(|text| data.contains(text.as_str())).collect();
    assert!(written.is_empty(), "answered with 503 and there: {written:?}");
    let accounted = told.accepted.len() + told.unknown.len();
    assert!(data.len() <= accounted, "{} are there, {accounted} can be", data.len());
}

/// Each producer goes on until it was refused, or the outcome of one is unknown and the next was refused.
async fn publish_until_refused(
    node: &Node,
    round: usize,
    accepted: tokio::sync::mpsc::UnboundedSender<()>,
) -> Vec<Answers> {
    let producers = (0..PRODUCERS).map(|producer| {
        let accepted = accepted.clone();
        async move {
            let mut answers = Answers::default();
            for number in 0.. {
                let text = format!("{round}-{producer}-{number}");
                let mut body = json!({ "data": text });
                // Keys lead through a function, others do not.
                if number % 2 == 0 {
                    body["key"] = json!(text);
                }
                let (status, answer) = node.post("/v1/users/alice/messages", &body).await;
                match status {
                    201 => {
                        answers.accepted.push((answer["id"].as_str().expect("an id").to_owned(), text));
                        let _ = accepted.send(());
                    }
                    504 => answers.unknown.push(text),
                    503 => {
                        answers.refused.push(text);
                        return answers;
                    }
                    _ => panic!("{status} {answer}"),
                }
            }
            answers
        }
    });
    let outcomes = futures_util::future::join_all(producers).await;
    drop(accepted);
    outcomes
}

async fn kill_when_busy(redis: &mut Redis, mut accepted: tokio::sync::mpsc::UnboundedReceiver<()>) {
    let enough = async {
        for _ in 0..ACCEPTED_FIRST {
            accepted.recv().await.expect("producers go on until Redis is gone");
        }
    };
    tokio::time::timeout(Duration::from_secs(30), enough).await.expect("messages are accepted");
    redis.kill9();
}
