//! The dashboard and the alert rules name only metrics that exist: a typing error there shows an empty panel, or an
//! alert that never fires.

use std::collections::BTreeSet;

use super::{Kind, names, process};

const DASHBOARD: &str = include_str!("../../grafana/dashboards/homing.json");
const RULES: &str = include_str!("../../grafana/prometheus/homing.rules.yml");
const RULES_TEST: &str = include_str!("../../grafana/prometheus/homing.rules.test.yml");
const README: &str = include_str!("../../grafana/README.md");

/// Every word that looks like one of our metrics.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let is_metric = |word: &&str| word.starts_with("homing_") || word.starts_with("process_");
    text.split(|character| !is_word(character)).filter(is_metric).collect()
}

/// Every series name that this process exposes.
fn exposed() -> BTreeSet<String> {
    let mut exposed: BTreeSet<String> = process::ALL.iter().map(|name| (*name).to_owned()).collect();
    for metric in names::ALL {
        match metric.kind {
            Kind::Histogram(_) => {
                exposed.extend(["bucket", "sum", "count"].map(|suffix| format!("{}_{suffix}", metric.name)));
            }
            _ => drop(exposed.insert(metric.name.to_owned())),
        }
    }
    exposed
}

#[test]
fn the_dashboard_and_the_alert_rules_name_only_metrics_that_exist() {
    let exposed = exposed();
    for (file, text) in [("dashboard", DASHBOARD), ("rules", RULES), ("rules' test", RULES_TEST), ("README", README)] {
        let named = metrics_in(text);
        assert!(named.len() > 2, "the {file} was not read");
        let unknown: Vec<_> = named.into_iter().filter(|name| !exposed.contains(*name)).collect();
        assert!(unknown.is_empty(), "the {file} names metrics that do not exist: {unknown:?}");
    }
}

#[test]
fn every_metric_has_a_place_on_the_dashboard() {
    let shown = metrics_in(DASHBOARD);
    for metric in names::ALL {
        let bucket = format!("{}_bucket", metric.name);
        assert!(shown.contains(metric.name) || shown.contains(bucket.as_str()), "{} is on no panel", metric.name);
    }
}

#[test]
fn a_planted_wrong_name_is_found() {
    let unknown = metrics_in("sum(rate(homing_wakeups_totals{job=\"x\"}[5m])) / homing_sessions");
    let exposed = exposed();
    assert_eq!(
        unknown.into_iter().filter(|name| !exposed.contains(*name)).collect::<Vec<_>>(),
        ["homing_wakeups_totals"]
    );
}

#[test]
fn the_dashboard_is_json_and_every_panel_asks_for_something() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty() && targets.iter().all(|target| target["expr"].is_string()), "{}", panel["title"]);
    }
}
