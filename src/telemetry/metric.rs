//! What is known about a metric before it is recorded.

/// One metric of [`super::names::ALL`].
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Full name, with prefix and unit.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// What is counted.
    pub unit: Unit,
    /// One sentence for people; the doc comment of the name's constant.
    pub help: &'static str,
    /// Its labels, in the order in which they are documented.
    pub labels: &'static [Label],
}

/// How a metric behaves over time.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Only grows, from 0 at the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A gauge that only one node of the cluster can measure; on every other it is NaN, which `min` and `max` of
    /// Prometheus leave out.
    ClusterGauge,
    /// Samples in explicit buckets, given by their upper bounds.
    Histogram(&'static [f64]),
}

/// What a metric's number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things that the name says: messages, sessions, …
    Count,
    /// Seconds; the name says so.
    Seconds,
    /// 1 for yes, 0 for no.
    Flag,
}

/// A label and what it may say.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// The label's name.
    pub name: &'static str,
    /// Every value, when they are a closed list: their series then exist from the start, at 0, so that the first event
    /// is seen as an increase. Empty when the values come from a longer list elsewhere (close codes, error codes).
    pub values: &'static [&'static str],
}
