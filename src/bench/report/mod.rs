//! What a measurement found: figures, curves, and the circumstances without which they mean nothing.
//!
//! Owns their shape and how they are shown: a table, JSON, a page. It must not know how they were measured. Invariant:
//! a figure has a key that stays, a unit, and one value.

mod html;
mod svg;
mod table;

use serde::{Deserialize, Serialize, Serializer};

use super::BenchError;
use super::options::OutputOptions;

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    Count,
    PerSecond,
    Microseconds,
    Bytes,
    Percent,
    Ratio,
    Seconds,
}

impl Unit {
    /// A value with its unit, for people.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Count => grouped(value),
            Self::PerSecond => format!("{}/s", if value < 100.0 { digits(value) } else { grouped(value) }),
            Self::Microseconds if value >= 1_000_000.0 => format!("{} s", digits(value / 1_000_000.0)),
            Self::Microseconds if value >= 1_000.0 => format!("{} ms", digits(value / 1_000.0)),
            Self::Microseconds => format!("{} µs", digits(value)),
            Self::Bytes if value.abs() >= 1024.0 * 1024.0 * 1024.0 => {
                format!("{} GiB", digits(value / 1024.0 / 1024.0 / 1024.0))
            }
            Self::Bytes if value.abs() >= 1024.0 * 1024.0 => format!("{} MiB", digits(value / 1024.0 / 1024.0)),
            Self::Bytes if value.abs() >= 1024.0 => format!("{} KiB", digits(value / 1024.0)),
            Self::Bytes => format!("{} B", digits(value)),
            Self::Percent => format!("{} %", digits(value)),
            Self::Ratio => format!("{} ×", digits(value)),
            Self::Seconds => format!("{} s", digits(value)),
        }
    }
}

impl Unit {
    /// A round value with its unit, for an axis.
    fn show_round(self, value: f64) -> String {
        if self == Self::Percent {
            // 99.9 and 99.99 must not look alike.
            return format!("{} %", (value * 1_000.0).round() / 1_000.0);
        }
        if self == Self::PerSecond && value >= 1.0 {
            return format!("{}/s", grouped(value));
        }
        let shown = self.show(value);
        let (number, unit) = shown.split_once(' ').unwrap_or((&shown, ""));
        if !number.contains('.') {
            return shown;
        }
        let number = number.trim_end_matches('0').trim_end_matches('.');
        format!("{number} {unit}").trim_end().to_owned()
    }
}

/// Three digits that matter.
fn digits(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.01 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// A whole number with thousands set apart.
fn grouped(value: f64) -> String {
    let text = format!("{:.0}", value.abs());
    let groups: Vec<&str> =
        text.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap_or_default()).collect();
    format!("{}{}", if value <= -0.5 { "-" } else { "" }, groups.join(","))
}

/// One value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Figure {
    /// For programs.
    #[serde(skip)]
    pub(crate) key: String,
    /// Figures of one group stand together.
    pub(crate) group: &'static str,
    /// For people.
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: Unit,
}

/// A curve.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Curves on one pair of axes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) x_name: String,
    pub(crate) x_unit: Unit,
    pub(crate) y_unit: Unit,
    /// For values that differ by orders of magnitude.
    pub(crate) is_logarithmic: bool,
    pub(crate) series: Vec<Series>,
}

/// All that a measurement found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Findings {
    /// Its subcommand.
    pub(crate) measurement: String,
    pub(crate) title: String,
    /// What was typed.
    pub(crate) command: String,
    /// Machine, versions, file system, and the like: name and value.
    pub(crate) circumstances: Vec<(String, String)>,
    #[serde(serialize_with = "by_key")]
    pub(crate) figures: Vec<Figure>,
    pub(crate) charts: Vec<Chart>,
    /// What one must know to read them.
    pub(crate) notes: Vec<String>,
}

fn by_key<S: Serializer>(figures: &[Figure], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(figures.iter().map(|figure| (figure.key.as_str(), figure)))
}

impl Findings {
    pub(crate) fn new(measurement: &str, title: String) -> Self {
        Self {
            measurement: measurement.to_owned(),
            title,
            command: command(),
            circumstances: Vec::new(),
            figures: Vec::new(),
            charts: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(crate) fn circumstance(&mut self, name: &str, value: impl std::fmt::Display) {
        self.circumstances.push((name.to_owned(), value.to_string()));
    }

    pub(crate) fn figure(&mut self, group: &'static str, key: &str, name: &str, value: f64, unit: Unit) {
        self.figures.push(Figure { key: key.to_owned(), group, name: name.to_owned(), value, unit });
    }

    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Writes the page if one is asked for, and gives what goes to standard output.
    ///
    /// # Errors
    /// [`BenchError::Broken`] if the page cannot be written.
    pub(crate) fn show(&self, output: &OutputOptions) -> Result<String, BenchError> {
        if let Some(path) = &output.html {
            std::fs::write(path, html::page(std::slice::from_ref(self))).map_err(BenchError::broken(path.display()))?;
        }
        match output.json {
            true => serde_json::to_string_pretty(self).map_err(BenchError::broken("the figures")),
            false => Ok(table::table(self)),
        }
    }
}

/// The command line, with the program's name alone.
fn command() -> String {
    let words = std::env::args().skip(1).map(|word| match word.contains([' ', '"', '\'']) {
        true => format!("{word:?}"),
        false => word,
    });
    std::iter::once("homing".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_with_three_digits_that_matter() {
        assert_eq!(Unit::Count.show(1_234_567.0), "1,234,567");
        assert_eq!(Unit::Microseconds.show(950.0), "950 µs");
        assert_eq!(Unit::Microseconds.show(12_345.0), "12.3 ms");
        assert_eq!(Unit::Microseconds.show(2_500_000.0), "2.50 s");
        assert_eq!(Unit::Bytes.show(1_536.0), "1.50 KiB");
        assert_eq!(Unit::PerSecond.show(25_000.4), "25,000/s");
        assert_eq!(Unit::Percent.show(0.0), "0 %");
        assert_eq!(Unit::PerSecond.show_round(50.0), "50/s");
        assert_eq!(Unit::Bytes.show_round(20.0 * 1024.0 * 1024.0), "20 MiB");
        assert_eq!(Unit::Percent.show_round(99.99), "99.99 %");
    }
}
