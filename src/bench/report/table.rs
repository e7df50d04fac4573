//! Figures as a table for a terminal.

use std::fmt::Write as _;

use super::Findings;

/// The table, with circumstances above and notes below.
pub(crate) fn table(findings: &Findings) -> String {
    let mut text = format!("{}\n", findings.title);
    let names =
        findings.circumstances.iter().map(|(name, _)| name).chain(findings.figures.iter().map(|figure| &figure.name));
    let width = names.map(|name| name.chars().count()).max().unwrap_or(0) + 2;
    let shown: Vec<String> = findings.figures.iter().map(|figure| figure.unit.show(figure.value)).collect();
    let value_width = shown.iter().map(|value| value.chars().count()).max().unwrap_or(0);
    // Writing to a String cannot fail.
    for (name, value) in &findings.circumstances {
        let _ = writeln!(text, "  {name:width$}{value}");
    }
    let mut group = "";
    for (figure, value) in findings.figures.iter().zip(&shown) {
        if figure.group != group {
            group = figure.group;
            let _ = writeln!(text, "\n{group}");
        }
        let _ = writeln!(text, "  {:width$}{value:>value_width$}", figure.name);
    }
    if !findings.notes.is_empty() {
        text.push('\n');
    }
    for note in &findings.notes {
        let _ = writeln!(text, "{note}");
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::super::Unit;
    use super::*;

    #[test]
    fn values_stand_below_each_other_in_their_groups() {
        let mut findings = Findings::new("x", "A title".to_owned());
        findings.circumstance("machine", "one core");
        findings.figure("Latency", "p50", "median", 900.0, Unit::Microseconds);
        findings.figure("Latency", "p99", "99 %", 12_000.0, Unit::Microseconds);
        findings.figure("Counts", "sent", "sent", 5.0, Unit::Count);
        findings.note("Mind this.");
        let expected = "A title\n  machine  one core\n\nLatency\n  median    900 µs\n  99 %     12.0 ms\n\nCounts\n  \
                        sent           5\n\nMind this.";
        assert_eq!(table(&findings), expected);
    }
}
