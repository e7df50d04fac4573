//! Findings as one page that needs nothing else: no script, no font, no server.

use std::fmt::Write as _;

use super::{Findings, svg};

const STYLE: &str = include_str!("page.css");

/// The page.
pub(crate) fn page(all: &[Findings]) -> String {
    let title = all.first().map_or("Homing", |findings| findings.title.as_str());
    let mut body = String::new();
    for findings in all {
        body.push_str(&section(findings));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        escaped(title)
    )
}

/// Figures that stand at the top, if they are there.
const HEADLINES: [&str; 8] =
    ["latency_p50", "latency_p99", "received_rate", "cpu_nodes", "memory_node", "connecting_p99", "ratio_all", "lost"];

fn section(findings: &Findings) -> String {
    let mut html = format!(
        "<header>\n<p class=\"kind\">homing bench {}</p>\n<h1>{}</h1>\n<p><code>{}</code></p>\n</header>\n",
        escaped(&findings.measurement),
        escaped(&findings.title),
        escaped(&findings.command)
    );
    html.push_str("<section class=\"tiles\">\n");
    for figure in HEADLINES.iter().filter_map(|key| findings.figures.iter().find(|figure| figure.key == *key)) {
        // Writing to a String cannot fail.
        let _ = writeln!(
            html,
            "<div class=\"tile\"><span class=\"value\">{}</span><span class=\"what\">{}</span><span class=\"group\">{}</span></div>",
            escaped(&figure.unit.show(figure.value)),
            escaped(&figure.name),
            escaped(figure.group)
        );
    }
    html.push_str("</section>\n");
    for chart in &findings.charts {
        let Some(drawn) = svg::chart(chart) else { continue };
        let _ = write!(html, "<section class=\"chart\">\n<h2>{}</h2>\n", escaped(&chart.title));
        if chart.series.len() > 1 {
            html.push_str("<p class=\"legend\">");
            for (number, series) in chart.series.iter().enumerate() {
                let _ = write!(html, "<span class=\"key c{number}\"></span>{} ", escaped(&series.name));
            }
            html.push_str("</p>\n");
        }
        let _ = write!(html, "{drawn}\n</section>\n");
    }
    html.push_str("<section class=\"columns\">\n");
    let mut group = "";
    for figure in &findings.figures {
        if figure.group != group {
            let end = if group.is_empty() { "" } else { "</table></div>\n" };
            group = figure.group;
            let _ = writeln!(html, "{end}<div class=\"group\"><h2>{}</h2><table>", escaped(group));
        }
        let value = escaped(&figure.unit.show(figure.value));
        let _ = writeln!(html, "<tr><th>{}</th><td>{value}</td></tr>", escaped(&figure.name));
    }
    html.push_str(if group.is_empty() { "</section>\n" } else { "</table></div>\n</section>\n" });
    html.push_str("<section>\n<h2>Circumstances</h2>\n<table class=\"wide\">\n");
    for (name, value) in &findings.circumstances {
        let _ = writeln!(html, "<tr><th>{}</th><td>{}</td></tr>", escaped(name), escaped(value));
    }
    html.push_str("</table>\n");
    for note in &findings.notes {
        let _ = writeln!(html, "<p class=\"note\">{}</p>", escaped(note));
    }
    html.push_str("</section>\n");
    html
}

/// As text or an attribute's value.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::{Chart, Series, Unit};
    use super::*;

    #[test]
    fn a_page_shows_every_figure_and_curve_and_nothing_of_elsewhere() {
        let mut findings = Findings::new("deliver", "Messages & <devices>".to_owned());
        findings.figure("Latency", "latency_p99", "99 % within", 1_500.0, Unit::Microseconds);
        findings.figure("Counts", "lost", "lost", 0.0, Unit::Count);
        findings.circumstance("machine", "m");
        findings.note("n");
        findings.charts.push(Chart {
            title: "Curves".to_owned(),
            x_name: "time".to_owned(),
            x_unit: Unit::Seconds,
            y_unit: Unit::Count,
            is_logarithmic: false,
            series: vec![Series { name: "a".to_owned(), points: vec![(0.0, 1.0), (1.0, 2.0)] }],
        });
        let page = page(&[findings]);
        for expected in ["Messages &amp; &lt;devices&gt;", "1.50 ms", "<polyline", "prefers-color-scheme: dark"] {
            assert!(page.contains(expected), "{expected}: {page}");
        }
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("<script"), "{page}");
        for tag in ["table", "div", "section", "svg", "main"] {
            assert_eq!(page.matches(&format!("<{tag}")).count(), page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }
}
