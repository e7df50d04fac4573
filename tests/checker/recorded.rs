//! Histories as files: cut, broken, and those of real runs.

use std::fs::File;
use std::io::BufReader;

use super::checker::bounds::Bounds;
use super::checker::check_reader;
use super::story::Story;

fn written(story: &Story) -> Vec<u8> {
    let lines = story.lines.iter().map(|line| serde_json::to_string(line).expect("a line is JSON") + "\n");
    lines.collect::<String>().into_bytes()
}

#[test]
fn a_recorded_history_is_judged_as_the_one_in_memory() {
    let mut story = Story::with_alice();
    story.accept("a", 1).drained_and_over();
    let verdict = check_reader(written(&story).as_slice(), Bounds::default()).expect("memory can be read");
    assert_eq!(verdict.to_string(), story.shows("lost").to_string());
}

#[test]
fn the_cut_last_line_of_a_killed_run_is_tolerated_and_reported() {
    let mut story = Story::with_alice();
    story.accept("a", 1).message(1, "a", 1, 1);
    let mut text = written(&story);
    text.truncate(text.len() - 10);
    let verdict = check_reader(text.as_slice(), Bounds::default()).expect("memory can be read");
    assert!(verdict.truncated && verdict.is_clean() && !verdict.complete, "{verdict}");
    assert!(verdict.to_string().contains("the last line is cut"), "{verdict}");
}

#[test]
fn a_broken_line_in_the_middle_is_a_violation() {
    let mut story = Story::with_alice();
    story.drained_and_over();
    let mut text = b"{\"at_us\":1,\"what\":\"begin\"\n".to_vec();
    text.extend(written(&story));
    let verdict = check_reader(text.as_slice(), Bounds::default()).expect("memory can be read");
    assert_eq!(verdict.violations_by_kind["bad_history"], 1, "{verdict}");
}

/// Checks the history that `HOMING_HISTORY` names.
#[test]
#[ignore = "needs a history: make check-history HISTORY=path"]
fn a_recorded_run_keeps_the_promise() {
    let path = std::env::var("HOMING_HISTORY").expect("HOMING_HISTORY names a history");
    let file = File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let verdict = check_reader(BufReader::new(file), Bounds::default()).expect("the history can be read");
    println!("{verdict}");
    assert!(verdict.is_clean() && verdict.complete, "{path} breaks a promise, or does not reach its end");
}
