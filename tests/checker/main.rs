//! The chaos checker, checked: clean histories pass, and of each planted fault it finds that one and nothing else.
//!
//! Also checks a recorded history again: `make check-history HISTORY=path`.

// A checked history tells its verdict.
#![allow(clippy::print_stdout)]

#[path = "../chaos/checker/mod.rs"]
mod checker;
mod clean;
#[path = "../chaos/history.rs"]
mod history;
mod planted;
mod random;
mod random_topics;
mod receipts;
mod recorded;
mod rivals;
mod story;
mod topics;
