//! The calls that change and show who follows which topics.

use homing_protocol::code::ErrorCode;
use serde_json::{Value, json};

use super::Description;
use super::describe::{KEY, NAMES, REDIS};
use super::schema::{answer, list, reference, request, time};
use crate::api::router::ApiConfig;
use crate::api::topics::TOPICS_PER_REQUEST_MAX;

const GROUP: &str = "Follows";

pub(in crate::api) fn change_many(_: &ApiConfig) -> Description {
    Description::new(GROUP, "changeFollowers", "Makes many users follow a topic, or follow it no more.")
        .text(format!("`add` and `remove` together name at most {TOPICS_PER_REQUEST_MAX} users."))
        .body("FollowersChange", json!({ "add": ["alice", "bob"], "remove": ["carol"] }))
        .answer(200, "One result for each user: those of `add`, then those of `remove`.", "FollowersChanged")
        .problem(&[ErrorCode::TooMany])
        .problem(KEY)
        .problem(NAMES)
        .problem(REDIS)
}

pub(in crate::api) fn followers(_: &ApiConfig) -> Description {
    Description::new(GROUP, "listFollowers", "Lists a topic's followers.")
        .parameter("limit")
        .parameter("scanCursor")
        .answer(200, "A page of the list, in no order.", "FollowerList")
        .problem(&[ErrorCode::BadValue])
        .problem(KEY)
        .problem(NAMES)
        .problem(REDIS)
}

pub(in crate::api) fn follow(config: &ApiConfig) -> Description {
    change_one("follow", "Makes a user follow a topic.")
        .text(format!("A user follows at most {} topics.", config.topics_per_user))
        .problem(&[ErrorCode::TooMany])
}

pub(in crate::api) fn unfollow(_: &ApiConfig) -> Description {
    change_one("unfollow", "Makes a user follow a topic no more.")
}

fn change_one(id: &'static str, summary: &'static str) -> Description {
    Description::new(GROUP, id, summary)
        .answer(200, "It is so.", "FollowChanged")
        .problem(KEY)
        .problem(NAMES)
        .problem(REDIS)
}

pub(in crate::api) fn show(_: &ApiConfig) -> Description {
    Description::new(GROUP, "showTopics", "Shows which topics a user follows.")
        .answer(200, "The topics.", "FollowedTopics")
        .problem(KEY)
        .problem(NAMES)
        .problem(REDIS)
}

pub(in crate::api) fn replace(config: &ApiConfig) -> Description {
    Description::new(GROUP, "replaceTopics", "Makes a user follow exactly these topics.")
        .text(format!("A user follows at most {} topics.", config.topics_per_user))
        .body("TopicsReplacement", json!({ "topics": ["news", "sport"] }))
        .answer(200, "The topics that the user follows now.", "FollowedTopics")
        .problem(&[ErrorCode::TooMany])
        .problem(KEY)
        .problem(NAMES)
        .problem(REDIS)
}

pub(super) fn schemas(config: &ApiConfig) -> Vec<(&'static str, Value)> {
    let names = |max: usize| json!({ "type": "array", "items": reference("Name"), "maxItems": max });
    let changed = || json!({ "type": "boolean", "description": "whether anything changed" });
    let done = answer(
        &["status", "user", "changed"],
        json!({ "status": { "const": 200 }, "user": { "type": "string" }, "changed": changed() }),
    );
    let result = json!({ "anyOf": [done, reference("FailedResult")] });
    let followed =
        answer(&["topic", "since_ms"], json!({ "topic": reference("Name"), "since_ms": time("since when") }));
    // What the handler refuses as a whole, and what the store refuses: the smaller of both.
    let topics_max = TOPICS_PER_REQUEST_MAX.min(config.topics_per_user as usize);
    vec![
        (
            "FollowersChange",
            request(&[], json!({ "add": names(TOPICS_PER_REQUEST_MAX), "remove": names(TOPICS_PER_REQUEST_MAX) })),
        ),
        ("FollowersChanged", answer(&["results"], json!({ "results": { "type": "array", "items": result } }))),
        ("FollowerList", list(answer(&["user"], json!({ "user": reference("Name") })))),
        ("FollowChanged", answer(&["changed"], json!({ "changed": changed() }))),
        ("TopicsReplacement", request(&["topics"], json!({ "topics": names(topics_max) }))),
        (
            "FollowedTopics",
            answer(
                &["user", "topics"],
                json!({ "user": reference("Name"), "topics": { "type": "array", "items": followed } }),
            ),
        ),
    ]
}
