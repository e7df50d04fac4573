//! The document at `/openapi.json` against a real node: what it says of each call is what the call does.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::harness::{Node, NodeOptions, Redis, RedisOptions};

/// One operation of the document.
struct Operation<'a> {
    method: Method,
    path: &'a str,
    description: &'a Value,
}

impl Operation<'_> {
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// The path with its examples, and with those of the query.
    fn target(&self, document: &Value) -> String {
        let mut target = self.path.to_owned();
        let mut query = Vec::new();
        for parameter in self.description["parameters"].as_array().into_iter().flatten() {
            let parameter = resolve(document, parameter);
            let name = parameter["name"].as_str().unwrap();
            let example = match &parameter["example"] {
                Value::Array(values) => {
                    values.iter().map(|value| value.as_str().unwrap()).collect::<Vec<_>>().join(",")
                }
                example => example.as_str().unwrap_or_default().to_owned(),
            };
            match parameter["in"].as_str() {
                Some("path") => target = target.replace(&format!("{{{name}}}"), &example),
                Some("query") if parameter["required"] == true => query.push(format!("{name}={example}")),
                _ => {}
            }
        }
        if query.is_empty() { target } else { format!("{target}?{}", query.join("&")) }
    }

    fn body(&self) -> Option<&Value> {
        Some(&self.description["requestBody"]["content"]["application/json"]["example"]).filter(|body| !body.is_null())
    }

    /// Whether an answer is one that the document allows; gives its status.
    async fn check(&self, document: &Value, response: reqwest::Response) -> u16 {
        let status = response.status().as_u16();
        let described = &self.description["responses"][status.to_string()]["content"];
        let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
        let media_type = content_type.split(';').next().unwrap();
        let text = response.text().await.unwrap();
        let schema = &described[media_type]["schema"];
        assert!(schema.is_object(), "{}: {status} {media_type} is not described: {text}", self.name());
        let body = if media_type == "text/html" { json!(text) } else { serde_json::from_str(&text).unwrap() };
        if let Err(wrong) = conforms(document, schema, &body) {
            panic!("{}: {status}: {wrong}: {body}", self.name());
        }
        status
    }
}

fn operations(document: &Value) -> Vec<Operation<'_>> {
    let paths = document["paths"].as_object().unwrap().iter();
    let mut operations: Vec<Operation<'_>> = paths
        .flat_map(|(path, calls)| calls.as_object().unwrap().iter().map(move |(method, call)| (path, method, call)))
        .map(|(path, method, description)| {
            let method = method.to_uppercase().parse().unwrap();
            Operation { method, path, description }
        })
        .collect();
    // What reads comes after what writes, so that lists are not empty, and what deletes comes last.
    operations.sort_by_key(|operation| match operation.method {
        Method::GET => 1,
        Method::DELETE => 2,
        _ => 0,
    });
    operations
}

fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => value,
    }
}

/// Whether a value is what a schema says, in the few words of JSON Schema that the document uses for answers. Stricter
/// in one thing: a member that is not described is an error.
fn conforms(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let schema = resolve(document, schema);
    if let Some(choices) = schema["anyOf"].as_array() {
        let mut errors = choices.iter().map(|choice| conforms(document, choice, value));
        return if errors.any(|outcome| outcome.is_ok()) { Ok(()) } else { Err("no choice fits".to_owned()) };
    }
    if let Some([shared, own]) = schema["allOf"].as_array().map(Vec::as_slice) {
        conforms(document, shared, value)?;
        let own = own["properties"].as_object().unwrap();
        return own.iter().try_for_each(|(name, schema)| conforms(document, schema, &value[name]));
    }
    if !schema["const"].is_null() && schema["const"] != *value {
        return Err(format!("{value} is not {}", schema["const"]));
    }
    if schema["enum"].as_array().is_some_and(|values| !values.contains(value)) {
        return Err(format!("{value} is none of {}", schema["enum"]));
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = match &schema["type"] {
        Value::Null => true,
        Value::Array(kinds) => kinds.contains(&json!(kind)),
        only => only == kind,
    };
    if !fits {
        return Err(format!("{value} is no {}", schema["type"]));
    }
    for item in value.as_array().into_iter().flatten().filter(|_| schema["items"].is_object()) {
        conforms(document, &schema["items"], item)?;
    }
    match (&schema["properties"], value) {
        (Value::Object(properties), Value::Object(members)) => {
            conforms_by_member(document, schema, properties, members)
        }
        _ => Ok(()),
    }
}

fn conforms_by_member(
    document: &Value,
    schema: &Value,
    properties: &Map<String, Value>,
    members: &Map<String, Value>,
) -> Result<(), String> {
    for name in schema["required"].as_array().into_iter().flatten() {
        if !members.contains_key(name.as_str().unwrap()) {
            return Err(format!("{name} is missing"));
        }
    }
    members.iter().try_for_each(|(name, value)| match properties.get(name) {
        Some(schema) => conforms(document, schema, value).map_err(|wrong| format!("{name}: {wrong}")),
        None => Err(format!("{name} is not described")),
    })
}

async fn node_and_document() -> (Redis, Node, Value) {
    let redis = Redis::start(RedisOptions::default()).await;
    let node = Node::start(&redis, NodeOptions::default()).await;
    let response = reqwest::get(format!("http://{}/openapi.json", node.address())).await.unwrap();
    assert_eq!(response.status(), 200, "no key is needed");
    let document = response.json().await.unwrap();
    (redis, node, document)
}

#[tokio::test]
async fn each_call_answers_its_example_as_the_document_says() {
    let (_redis, node, document) = node_and_document().await;
    for operation in operations(&document) {
        let mut request = node.request(operation.method.clone(), &operation.target(&document));
        if let Some(body) = operation.body() {
            request = request.json(body);
        }
        let status = operation.check(&document, request.send().await.unwrap()).await;
        assert!((200..300).contains(&status), "{}: an example is refused with {status}", operation.name());
    }
}

#[tokio::test]
async fn each_call_refuses_as_the_document_says() {
    let (_redis, node, document) = node_and_document().await;
    for operation in operations(&document) {
        let target = operation.target(&document);
        let url = format!("http://{}{target}", node.address());
        let response = reqwest::Client::new().request(operation.method.clone(), url).send().await.unwrap();
        let keyed = operation.description["security"].as_array().is_some_and(|schemes| !schemes.is_empty());
        let status = operation.check(&document, response).await;
        assert_eq!(status == 401, keyed, "{}: {status} without a key", operation.name());

        if operation.body().is_some() {
            for (body, content_type, status) in [
                ("{}", "text/plain", 415),
                ("[]", "application/json", 400),
                (r#"{"colour":1}"#, "application/json", 400),
            ] {
                let request = node.request(operation.method.clone(), &target).header("content-type", content_type);
                let answered = operation.check(&document, request.body(body).send().await.unwrap()).await;
                assert_eq!(answered, status, "{}: {body} as {content_type}", operation.name());
            }
        }
        if target.contains("alice") && operation.path.starts_with("/v1/users") {
            let request = node.request(operation.method.clone(), &target.replace("alice", "a%20b"));
            let answered = operation.check(&document, request.send().await.unwrap()).await;
            assert_eq!(answered, 400, "{}: a bad name", operation.name());
        }
    }
}

/// The other way round: the router answers no method that the document does not name.
#[tokio::test]
async fn each_path_has_the_methods_of_the_document_and_no_others() {
    let (_redis, node, document) = node_and_document().await;
    for (path, calls) in document["paths"].as_object().unwrap() {
        let any = operations(&document).into_iter().find(|operation| operation.path == path).unwrap();
        let response = node.request(Method::PATCH, &any.target(&document)).send().await.unwrap();
        assert_eq!(response.status(), 405, "{path}");
        let allowed = response.headers()["allow"].to_str().unwrap().to_owned();
        // Who answers GET answers HEAD.
        let allowed: BTreeSet<String> =
            allowed.split(',').map(str::to_lowercase).filter(|method| method != "head").collect();
        assert_eq!(allowed, calls.as_object().unwrap().keys().cloned().collect(), "{path}");
    }
}

#[tokio::test]
async fn the_document_is_a_page_as_well() {
    let (_redis, node, document) = node_and_document().await;
    let page = node.request(Method::GET, "/docs/api").send().await.unwrap().text().await.unwrap();
    for path in document["paths"].as_object().unwrap().keys() {
        assert!(page.contains(path), "{path}");
    }
}

/// The check of answers is shown to find what is wrong.
#[tokio::test]
async fn an_answer_that_differs_from_the_document_is_found() {
    let (_redis, _node, document) = node_and_document().await;
    let schema = json!({ "$ref": "#/components/schemas/MessageStates" });
    let device = json!({ "device": "web", "state": "acked", "delivered_at_ms": null, "acked_at_ms": 1 });
    let good = json!({ "id": "1-0", "state": "acked", "receipt": true, "devices": [device] });
    conforms(&document, &schema, &good).unwrap();
    for (pointer, wrong) in [
        ("", json!({ "id": "1-0" })),
        ("/state", json!("lost")),
        ("/receipt", json!("yes")),
        ("/devices/0/acked_at_ms", json!("1")),
        ("/devices/0", json!({ "device": "web", "state": "acked", "delivered_at_ms": null, "acked_at_ms": 1, "x": 1 })),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = wrong;
        assert!(conforms(&document, &schema, &bad).is_err(), "{bad}");
    }
}
