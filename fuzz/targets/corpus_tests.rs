//! The targets over the checked-in corpus, over mutations of it, and over planted bugs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use homing_protocol::id::EntryId;
use homing_protocol::message::Entry;
use homing_protocol::session::Action;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::TARGETS;

/// Mutated inputs of each target. `make fuzz` runs millions.
const CASES: u32 = 300;
/// Changes of one input.
const CHANGES_MAX: usize = 8;

/// The inputs of a target, by name.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

#[test]
fn every_input_of_the_corpus_keeps_every_promise() {
    let mut failed = Vec::new();
    for (name, target) in TARGETS {
        for (path, input) in corpus(name) {
            if catch_unwind(|| target(&input)).is_err() {
                failed.push(path);
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// One change of an input.
#[derive(Clone, Debug)]
enum Change {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    /// A piece of another input of the same target.
    Splice(prop::sample::Index, prop::sample::Index, prop::sample::Index, usize),
}

fn change() -> impl Strategy<Value = Change> {
    use prop::sample::Index;
    // Bytes that mean something in JSON, ids, heads or choices, and all others.
    let byte = prop_oneof![prop::sample::select(b"\"\\{}[]:,-0129 \n\xff\x00\x01\x07".to_vec()), any::<u8>()];
    prop_oneof![
        (any::<Index>(), byte.clone()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<Index>(), prop::collection::vec(byte, 1..6)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (any::<Index>(), 1..8usize).prop_map(|(at, count)| Change::Remove(at, count)),
        (any::<Index>(), any::<Index>(), any::<Index>(), 1..64usize)
            .prop_map(|(at, input, from, count)| Change::Splice(at, input, from, count)),
    ]
}

fn changed(mut input: Vec<u8>, changes: &[Change], corpus: &[(PathBuf, Vec<u8>)]) -> Vec<u8> {
    for change in changes {
        let end = input.len();
        match change {
            Change::Set(at, byte) if end > 0 => input[at.index(end)] = *byte,
            Change::Set(_, byte) => input.push(*byte),
            Change::Insert(at, bytes) => {
                drop(input.splice(at.index(end + 1)..at.index(end + 1), bytes.iter().copied()))
            }
            Change::Remove(at, count) => {
                let start = at.index(end + 1);
                input.drain(start..end.min(start + count));
            }
            Change::Splice(at, other, from, count) => {
                let other = &other.get(corpus).1;
                let start = from.index(other.len() + 1);
                let piece = &other[start..other.len().min(start + count)];
                input.splice(at.index(end + 1)..at.index(end + 1), piece.iter().copied());
            }
        }
    }
    input
}

#[test]
fn changed_inputs_keep_every_promise() {
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        let strategy = (any::<prop::sample::Index>(), prop::collection::vec(change(), 1..CHANGES_MAX));
        let inputs = strategy.prop_map(|(input, changes)| changed(input.get(&corpus).1.clone(), &changes, &corpus));
        let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
        // The error holds the smallest input that fails, and what it broke.
        let outcome = runner.run(&inputs, |input| {
            target(&input);
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// An oracle that lets everything pass proves nothing.
#[test]
fn planted_bugs_are_caught() {
    let caught = |check: &dyn Fn()| catch_unwind(AssertUnwindSafe(check)).is_err();
    let entry: Entry<&[u8]> =
        Entry { id: EntryId { ms: 1, seq: 2 }, fields: vec![(b"data", br#"{"n": 1.0}"#), (b"meta", b"{}")] };
    let text = entry.encode(1);
    super::entries::check_message(&entry, 1, &text);
    for (right, wrong) in [("1.0", "1"), ("1-2", "1-3"), (r#","meta":{}"#, ""), ("}", ""), (r#""ts":1"#, r#""ts":2"#)] {
        let wrong = text.replace(right, wrong);
        assert!(caught(&|| super::entries::check_message(&entry, 1, &wrong)), "{wrong}");
    }
    for text in [r#"{"type":"acked","ids":["gap-""]}"#, r#"{"type":"news"}"#, r#"{"type":"error","code":"odd"}"#] {
        assert!(caught(&|| super::session::check_frames(&[Action::Send(text.to_owned())])), "{text}");
    }
}
