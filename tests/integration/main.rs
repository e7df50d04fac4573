//! Homing tested from outside: real `redis-server` processes, real `homing` processes, real sockets.
//!
//! Every test starts its own Redis and its own nodes in a folder of its own, so tests run side by side. Nothing here
//! sleeps to let something happen: it waits for what it can observe, with a deadline that fails the test.

// A test prints what it measured, and the logs of its processes when it fails.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod along;
mod bench;
mod delivery;
mod durability;
mod embedded;
mod fan_out;
mod follow_lists;
mod frames;
mod functions;
#[allow(dead_code, reason = "the chaos tests use more of it")]
mod harness;
mod hostile;
mod http;
mod migrating_page;
mod old_calls;
mod openapi;
mod overload;
mod presence;
mod prometheus;
mod raw_producers;
mod reads;
mod real_input;
mod receipts;
mod redis_loss;
mod redis_states;
mod sessions;
mod slow_clients;
mod takeover;
mod tokens;
mod topic_beginnings;
mod topic_confirmations;
mod topic_cursors;
mod topic_messages;
mod topic_retention;
mod topic_scale;
mod topics;
mod waits;
