//! The document says of every call what the router does.

use std::collections::BTreeSet;
use std::time::Duration;

use homing_protocol::code::ErrorCode;
use homing_protocol::id::EntryId;
use homing_protocol::name::Name;
use serde_json::Value;

use super::document;
use super::page::{render, resolve};
use super::schema::{ID_EXAMPLE, name_pattern};
use crate::api::calls;
use crate::api::router::ApiConfig;

fn config() -> ApiConfig {
    ApiConfig {
        payload_bytes_max: 12_345,
        topics_per_user: 67,
        body_timeout: Duration::from_secs(30),
        node_dead_after: Duration::from_secs(6),
        hosts: None,
    }
}

/// Path, method and operation.
fn operations(document: &Value) -> Vec<(&String, &String, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, calls)| calls.as_object().unwrap().iter().map(move |(method, call)| (path, method, call)))
        .collect()
}

fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|value| references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_row_of_the_table_is_an_operation_and_every_operation_a_row() {
    let document = document(&config());
    let described: BTreeSet<(String, String)> =
        operations(&document).iter().map(|(path, method, _)| ((*path).clone(), method.to_uppercase())).collect();
    let rows: Vec<(String, String)> = calls::all().map(|call| (call.path.to_owned(), call.method.to_owned())).collect();
    assert_eq!(rows.len(), described.len(), "no row stands twice");
    assert_eq!(rows.into_iter().collect::<BTreeSet<_>>(), described);
}

/// Else a call could be added beside the table, and nobody would be told of it.
#[test]
fn the_router_has_no_routes_but_those_of_the_table_and_the_admin_listener() {
    let source = include_str!("../router.rs");
    let (producers, admin) = (source.matches(".route(call.path,").count(), source.matches(".route(\"/").count());
    assert_eq!((producers, admin), (1, 3));
    assert_eq!(source.matches(".route(").count(), 4);
}

#[test]
fn every_reference_leads_somewhere_and_every_shared_part_is_used() {
    let document = document(&config());
    let mut found = Vec::new();
    references(&document, &mut found);
    for reference in &found {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
    for kind in ["schemas", "parameters"] {
        for name in document["components"][kind].as_object().unwrap().keys() {
            let reference = format!("#/components/{kind}/{name}");
            assert!(found.contains(&reference.as_str()), "{reference} is used by nobody");
        }
    }
}

#[test]
fn every_operation_has_a_good_answer_and_problems_of_known_codes() {
    let document = document(&config());
    let known: BTreeSet<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        assert!(ids.insert(operation["operationId"].as_str()), "{method} {path}: its id is another's, too");
        assert!(operation["summary"].as_str().is_some_and(|words| words.ends_with('.')), "{method} {path}");
        let answers = operation["responses"].as_object().unwrap();
        assert!(answers.keys().any(|status| status.starts_with('2')), "{method} {path} has no good answer");
        assert!(answers.contains_key("421"), "{method} {path} has no problem");
        let keyed = operation["security"].as_array().is_some_and(|schemes| !schemes.is_empty());
        for status in ["401", "403"] {
            assert_eq!(answers.contains_key(status), keyed, "{method} {path}: {status}");
        }
        assert_eq!(answers.contains_key("415"), operation.get("requestBody").is_some(), "{method} {path}: 415");
        for answer in answers.values() {
            let content = &answer["content"]["application/problem+json"]["schema"]["allOf"][1]["properties"]["code"];
            for code in content["enum"].as_array().into_iter().flatten() {
                assert!(known.contains(code.as_str().unwrap()), "{method} {path}: {code}");
            }
        }
    }
    let codes = &document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"];
    assert_eq!(codes.as_array().unwrap().len(), ErrorCode::ALL.len());
}

#[test]
fn every_parameter_of_a_path_is_described() {
    let document = document(&config());
    for (path, method, operation) in operations(&document) {
        let in_path: Vec<&str> = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        let parameters = operation["parameters"].as_array().unwrap();
        let parameters: Vec<&Value> = parameters.iter().map(|parameter| resolve(&document, parameter)).collect();
        let described: Vec<&str> = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        assert_eq!(in_path, described, "{method} {path}");
    }
}

#[test]
fn the_limits_are_those_of_this_node() {
    let document = document(&config());
    let schemas = &document["components"]["schemas"];
    let data = schemas["Message"]["properties"]["data"]["description"].as_str().unwrap();
    assert!(data.contains("12345"), "{data}");
    assert_eq!(schemas["TopicsReplacement"]["properties"]["topics"]["maxItems"], 67);
    assert_eq!(schemas["Message"]["properties"]["key"]["maxLength"], 128);
    assert_eq!(document["components"]["parameters"]["limit"]["schema"]["maximum"], 100);
}

#[test]
fn the_pattern_of_names_has_the_alphabet_of_names() {
    let pattern = name_pattern();
    let class = pattern.strip_prefix("[A-Za-z0-9").and_then(|rest| rest.strip_suffix("]{1,255}")).unwrap();
    assert!(class.ends_with('-'), "elsewhere than at the end it would be a range: {class}");
    for character in (0..=127u8).map(char::from) {
        let allowed = character.is_ascii_alphanumeric() || class.contains(character);
        // Two of it, because one dot alone is no name; nor are two.
        assert_eq!(Name::parse(&format!("a{character}")).is_ok(), allowed, "{character:?}");
    }
    assert!(EntryId::parse(ID_EXAMPLE.as_bytes()).is_ok());
}

#[test]
fn the_page_shows_every_call_and_loads_nothing() {
    let document = document(&config());
    let page = render(&document);
    for (path, method, operation) in operations(&document) {
        assert!(page.contains(&format!("<code>{} {path}</code>", method.to_uppercase())), "{method} {path}");
        assert!(page.contains(operation["summary"].as_str().unwrap()), "{method} {path}");
    }
    for code in ErrorCode::ALL {
        assert!(page.contains(code.as_str()), "{code:?}");
    }
    for loader in ["src=", "url(", "@import", "<script", "<link", "http://", "https://"] {
        assert!(!page.contains(loader), "{loader}");
    }
}
