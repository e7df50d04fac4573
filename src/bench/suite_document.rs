//! The document that the standard set is written into.

use std::fmt::Write as _;

use super::options::SuiteOptions;
use super::report::Unit;
use super::suite::{Measurement, Run, Spread};

/// Figures of the overview: of which column, and under which keys.
const OVERVIEW: [(&str, &str); 7] = [
    ("delivered", "received_rate"),
    ("50 %", "latency_p50"),
    ("99 %", "latency_p99"),
    ("CPU of nodes", "cpu_nodes"),
    ("CPU of Redis", "cpu_redis"),
    ("to the floor", "ratio_all"),
    ("with sockets", "ratio_whole"),
];

/// What stands above all figures.
const INTRODUCTION: &str = "\
# Benchmarks

Written by `make bench` (`homing bench suite`). [BENCHMARKING.md](BENCHMARKING.md) says what each figure means, and how
to measure your own cluster.

Clients, nodes and Redis share one machine. Latency counts from the time at which a message was meant to be sent to its
arrival at the device, so that a queue in front of a slow server is seen (no coordinated omission). CPU is that of the
processes, from the operating system, for each message that a device received and acknowledged. The *floor* is what one
XADD with its notification, one XREADGROUP and one XACK cost on the same Redis in the same run, one entry at a time; of
a broadcast, which costs Redis next to nothing, what a frame sent and an ack received cost on bare sockets. *With sockets*
it is both, and for HTTP a request and its answer besides: what no server is spared on that machine.
Every message was delivered and acknowledged, or the run would have failed.
";

/// The document.
pub(crate) fn document(measurements: &[Measurement], options: &SuiteOptions) -> String {
    let mut text = format!("{INTRODUCTION}\n");
    let mut line = |words: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{words}");
    };
    if let Some(run) = measurements.iter().find_map(|measurement| measurement.runs.first()) {
        for (name, value) in
            run.circumstances.iter().filter(|(name, _)| ["machine", "homing", "redis"].contains(&name.as_str()))
        {
            line(format_args!("- {name}: {value}"));
        }
    }
    line(format_args!(
        "- runs: {} of each, {} s long; shown is the median, and in brackets the lowest and the highest",
        options.runs, options.seconds
    ));
    line(format_args!("\n## Overview\n"));
    let heads: Vec<&str> = OVERVIEW.iter().map(|(head, _)| *head).collect();
    line(format_args!("| messages to connected devices | {} |", heads.join(" | ")));
    line(format_args!("|---|{}", "---:|".repeat(heads.len())));
    for measurement in measurements.iter().filter(|measurement| spread(&measurement.runs, "latency_p50").is_some()) {
        let cells = OVERVIEW.map(|(_, key)| match spread(&measurement.runs, key) {
            Some((spread, unit)) => unit.show(spread.median),
            None => String::new(),
        });
        line(format_args!("| {} | {} |", measurement.standard.name, cells.join(" | ")));
    }
    for measurement in measurements {
        line(format_args!("\n## {}\n", measurement.standard.name));
        line(format_args!("`homing bench {}`\n", measurement.standard.arguments.join(" ")));
        let Some(first) = measurement.runs.first() else { continue };
        line(format_args!("{}.", first.title));
        let mut group = "";
        for (key, value) in &first.figures {
            let Some((spread, unit)) = spread(&measurement.runs, key) else { continue };
            if value.group != group {
                group = &value.group;
                line(format_args!("\n| {group} | median | lowest to highest |\n|---|---:|---:|"));
            }
            let [median, low, high] = [spread.median, spread.low, spread.high].map(|value| unit.show(value));
            let range = if low == high { String::new() } else { format!("{low} to {high}") };
            line(format_args!("| {} | {median} | {range} |", value.name));
        }
        let notes = first.notes.iter().filter(|note| !note.starts_with("Troubles"));
        notes.for_each(|note| line(format_args!("\n{note}")));
    }
    text
}

/// A figure over all runs, if all have it.
fn spread(runs: &[Run], key: &str) -> Option<(Spread, Unit)> {
    let figure = |run: &Run| run.figures.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
    let values: Vec<_> = runs.iter().map(figure).collect::<Option<_>>()?;
    let unit = values.first()?.unit;
    Some((Spread::of(values.iter().map(|value| value.value).collect())?, unit))
}

#[cfg(test)]
mod tests {
    use super::super::suite::{Standard, Value};
    use super::*;

    fn run(p50: f64) -> Run {
        let figure = |key: &str, value: f64| {
            let value =
                Value { group: "Latency".to_owned(), name: "50 % within".to_owned(), value, unit: Unit::Microseconds };
            (key.to_owned(), value)
        };
        Run {
            title: "Messages".to_owned(),
            circumstances: vec![("machine".to_owned(), "two cores".to_owned())],
            figures: vec![figure("latency_p50", p50)],
            notes: vec!["A note.".to_owned()],
        }
    }

    #[test]
    fn the_document_shows_the_median_and_the_spread() {
        let options = SuiteOptions {
            out: "x".into(),
            html: None,
            runs: std::num::NonZeroU32::new(3).unwrap(),
            seconds: std::num::NonZeroU32::new(30).unwrap(),
            scale: 100,
            only: None,
            sockets: 0,
        };
        let standard = Standard { name: "Slow".to_owned(), arguments: vec!["deliver".to_owned(), "--rate".to_owned()] };
        let text = document(&[Measurement { standard, runs: vec![run(900.0), run(700.0), run(2_000.0)] }], &options);
        for expected in [
            "- machine: two cores\n",
            "| Slow |  | 900 µs |",
            "## Slow\n\n`homing bench deliver --rate`\n",
            "| 50 % within | 900 µs | 700 µs to 2.00 ms |",
            "\nA note.\n",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }
}
