//! The calls that publish to topics and to everybody, and tell what became of such messages.

use homing_protocol::code::ErrorCode;
use homing_protocol::topic::BROADCAST;
use serde_json::{Value, json};

use super::Description;
use super::describe::{KEY, NAMES, REDIS};
use super::messages::{delivered, members};
use super::schema::{answer, count, list, or_null, reference, request};
use crate::api::router::ApiConfig;
use crate::api::topics::TOPICS_PER_REQUEST_MAX;

const GROUP: &str = "Topics";

pub(in crate::api) fn publish(_: &ApiConfig) -> Description {
    one("publishToTopic", "Appends one message to a topic.").problem(NAMES)
}

pub(in crate::api) fn broadcast(_: &ApiConfig) -> Description {
    one("broadcast", "Appends one message for every device.")
}

fn one(id: &'static str, summary: &'static str) -> Description {
    Description::new(GROUP, id, summary)
        .parameter("traceparent")
        .body("TopicMessage", json!({ "data": { "text": "hello, all" }, "key": "news-1", "ttl_s": 3600 }))
        .answer(201, "It was appended.", "TopicPublished")
        .answer(200, "Its `key` was seen: nothing was appended, and the id is the first message's.", "TopicPublished")
        .problem(KEY)
        .problem(REDIS)
}

pub(in crate::api) fn several(_: &ApiConfig) -> Description {
    Description::new(GROUP, "publishToTopics", "Appends one message to several topics.")
        .parameter("traceparent")
        .body("TopicsMessage", json!({ "topics": ["news", "sport"], "data": { "text": "hello, some" } }))
        .answer(200, "One result for each topic, in order.", "TopicResults")
        .problem(&[ErrorCode::TooMany])
        .problem(KEY)
        .problem(REDIS)
}

pub(in crate::api) fn browse(_: &ApiConfig) -> Description {
    Description::new(GROUP, "listTopicMessages", "Lists what a topic holds, oldest first.")
        .text(format!("The topic `{BROADCAST}` holds what was broadcast."))
        .with_broadcast()
        .parameter("limit")
        .parameter("entryCursor")
        .answer(200, "A page of the list.", "TopicMessageList")
        .problem(&[ErrorCode::BadValue])
        .problem(KEY)
        .problem(NAMES)
        .problem(REDIS)
}

pub(in crate::api) fn receipt(_: &ApiConfig) -> Description {
    Description::new(GROUP, "showTopicMessage", "Counts who has acknowledged a topic's message.")
        .with_broadcast()
        .answer(200, "The counts.", "TopicReceipt")
        .problem(&[ErrorCode::BadId])
        .problem(KEY)
        .problem(NAMES)
        .problem(REDIS)
}

pub(in crate::api) fn receipt_followers(_: &ApiConfig) -> Description {
    Description::new(GROUP, "listTopicMessageFollowers", "Lists who follows, and whose devices acknowledged a message.")
        .parameter("limit")
        .parameter("scanCursor")
        .answer(200, "A page of the list.", "FollowerStateList")
        .problem(&[ErrorCode::BadId, ErrorCode::BadValue])
        .problem(KEY)
        .problem(NAMES)
        .problem(REDIS)
}

pub(super) fn schemas(config: &ApiConfig) -> Vec<(&'static str, Value)> {
    let members = members(config);
    let mut several = members.clone();
    several.insert(
        "topics".to_owned(),
        json!({ "type": "array", "items": reference("Name"), "maxItems": TOPICS_PER_REQUEST_MAX }),
    );
    let topic = json!({ "anyOf": [reference("Name"), { "const": BROADCAST }] });
    let required = ["id", "topic", "ts", "data", "attempt"];
    let device = answer(&["device", "acked"], json!({ "device": reference("Name"), "acked": { "type": "boolean" } }));
    vec![
        ("TopicMessage", request(&["data"], Value::Object(members))),
        ("TopicsMessage", request(&["topics", "data"], Value::Object(several))),
        ("TopicMessageList", list(delivered(&required, reference("TopicId"), &[("topic", topic)]))),
        (
            "TopicReceipt",
            answer(
                &["id", "exists", "followers", "followers_acked", "followers_unacked", "devices_acked"],
                json!({
                    "id": reference("TopicId"),
                    "exists": { "type": "boolean", "description": "whether the topic still holds it" },
                    "followers": or_null(count("users who follow the topic; `null` for a broadcast")),
                    "followers_acked": or_null(count(
                        "users of whom a device is done with it and with everything before it; `null` if more than \
                         10,000 devices are",
                    )),
                    "followers_unacked": or_null(count("the other `followers`; `null` if one of the two is")),
                    "devices_acked": count(
                        "devices that are done with it and with everything before it, those among them that began to \
                         follow later and are further now",
                    ),
                }),
            ),
        ),
        (
            "FollowerStateList",
            list(answer(
                &["user", "devices"],
                json!({ "user": reference("Name"), "devices": { "type": "array", "items": device } }),
            )),
        ),
    ]
}
