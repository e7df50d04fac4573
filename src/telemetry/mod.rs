//! What an operator sees: the list of metrics, their recorder, and logs.
//!
//! Owns every metric's name, help, buckets and label values, the process's one recorder, and the form of the logs. It
//! must not know what is measured: others record by the names here. Invariants: a metric that is not in
//! [`names::ALL`] does not exist; no user, device, token or message content stands in a label or a log line.

pub mod logs;
pub mod metric;
pub mod names;
pub mod process;
pub mod recorder;

#[cfg(test)]
mod grafana_test;

pub use metric::{Kind, Label, Metric, Unit};
pub use recorder::Recorder;
