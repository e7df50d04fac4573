//! Curves as inline SVG, drawn with the page's colours, so that they follow its light and its dark.

use std::fmt::Write as _;

use super::html::escaped;
use super::{Chart, Series, Unit};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 44.0;
/// Lines of the grid, about.
const TICKS: f64 = 5.0;
/// More points than this are not told apart, and not marked.
const MARKED_POINTS_MAX: usize = 30;

/// From values to places along one axis.
struct Axis {
    low: f64,
    high: f64,
    is_logarithmic: bool,
    begin: f64,
    end: f64,
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        let part = if self.is_logarithmic {
            (value.max(self.low).ln() - self.low.ln()) / (self.high.ln() - self.low.ln())
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.begin + (self.end - self.begin) * part
    }

    /// Round values along it.
    fn ticks(&self) -> Vec<f64> {
        if self.is_logarithmic {
            let decades = self.low.log10().round() as i32..=self.high.log10().round() as i32;
            return decades.map(|decade| 10_f64.powi(decade)).collect();
        }
        let step = round_step((self.high - self.low) / TICKS);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        (first..=last).map(|number| number as f64 * step).collect()
    }
}

/// 1, 2 or 5 times a power of ten, at least `wanted`.
fn round_step(wanted: f64) -> f64 {
    let power = 10_f64.powf(wanted.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= wanted).unwrap_or(power)
}

/// Powers of two times a round number, so that bytes have round ticks too.
fn round_bytes(high: f64) -> f64 {
    let mut unit = 1.0;
    while high / unit >= 1024.0 {
        unit *= 1024.0;
    }
    round_step(high / unit / TICKS) * unit
}

/// The chart; `None` if there is nothing to draw.
pub(crate) fn chart(chart: &Chart) -> Option<String> {
    let points = || chart.series.iter().flat_map(|series| &series.points).filter(|point| point.1.is_finite());
    let (first, _) = points().next()?;
    let (mut low, mut high) = points().fold((*first, *first), |(low, high), (x, _)| (low.min(*x), high.max(*x)));
    if low == high {
        (low, high) = (low - 1.0, high + 1.0);
    }
    let x = Axis { low, high, is_logarithmic: false, begin: LEFT, end: WIDTH - RIGHT };
    let y = y_axis(chart, points().map(|point| point.1));
    let mut svg = format!(r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}">"#, escaped(&chart.title));
    // Writing to a String cannot fail.
    for value in y.ticks() {
        let place = y.place(value);
        let _ = write!(
            svg,
            r#"<line class="grid" x1="{LEFT}" x2="{:.1}" y1="{place:.1}" y2="{place:.1}"/><text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            WIDTH - RIGHT,
            LEFT - 8.0,
            place + 4.0,
            chart.y_unit.show_round(value)
        );
    }
    let base = HEIGHT - BOTTOM;
    for value in x.ticks() {
        let place = x.place(value);
        let shown = chart.x_unit.show_round(value);
        let _ = write!(
            svg,
            r#"<line class="axis" x1="{place:.1}" x2="{place:.1}" y1="{base}" y2="{:.1}"/><text class="tick" x="{place:.1}" y="{:.1}" text-anchor="middle">{shown}</text>"#,
            base + 5.0,
            base + 19.0
        );
    }
    let _ = write!(
        svg,
        r#"<line class="axis" x1="{LEFT}" x2="{:.1}" y1="{base}" y2="{base}"/><text class="name" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
        WIDTH - RIGHT,
        WIDTH - RIGHT,
        HEIGHT - 6.0,
        escaped(&chart.x_name)
    );
    for (number, series) in chart.series.iter().enumerate() {
        svg.push_str(&curve(series, number, &x, &y, chart));
    }
    svg.push_str("</svg>");
    Some(svg)
}

fn y_axis(chart: &Chart, values: impl Iterator<Item = f64>) -> Axis {
    let (low, high) = values.fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    let (begin, end) = (HEIGHT - BOTTOM, TOP);
    if chart.is_logarithmic {
        let low = 10_f64.powf(low.max(1.0).log10().floor());
        let high = 10_f64.powf(high.max(low * 1.001).log10().ceil()).max(low * 10.0);
        return Axis { low, high, is_logarithmic: true, begin, end };
    }
    let high = if high > 0.0 { high } else { 1.0 };
    let step = if chart.y_unit == Unit::Bytes { round_bytes(high) } else { round_step(high / TICKS) };
    Axis { low: 0.0, high: (high / step).ceil() * step, is_logarithmic: false, begin, end }
}

fn curve(series: &Series, number: usize, x: &Axis, y: &Axis, chart: &Chart) -> String {
    let places: Vec<(f64, f64)> = series.points.iter().map(|(at, value)| (x.place(*at), y.place(*value))).collect();
    let line: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let mut svg = format!(r#"<polyline class="curve c{number}" points="{}"/>"#, line.join(" "));
    if series.points.len() > MARKED_POINTS_MAX {
        return svg;
    }
    for ((x, y), (at, value)) in places.iter().zip(&series.points) {
        let _ = write!(
            svg,
            r#"<circle class="point c{number}" cx="{x:.1}" cy="{y:.1}" r="3"><title>{}: {} at {}</title></circle>"#,
            escaped(&series.name),
            chart.y_unit.show(*value),
            chart.x_unit.show(*at)
        );
    }
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_chart(points: Vec<(f64, f64)>, is_logarithmic: bool) -> Chart {
        Chart {
            title: "a <chart>".to_owned(),
            x_name: "time".to_owned(),
            x_unit: Unit::Seconds,
            y_unit: Unit::Microseconds,
            is_logarithmic,
            series: vec![Series { name: "s".to_owned(), points }],
        }
    }

    #[test]
    fn every_point_lies_inside_of_its_axes() {
        for is_logarithmic in [false, true] {
            for points in [vec![(0.0, 0.0)], vec![(1.0, 5.0), (2.0, 123_456.0)], vec![(1.0, 10.0), (9.0, 10.0)]] {
                let svg = chart(&a_chart(points, is_logarithmic)).unwrap();
                assert!(svg.contains("a &lt;chart&gt;") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
                for place in svg.split("cy=\"").skip(1) {
                    let place: f64 = place.split('"').next().unwrap().parse().unwrap();
                    assert!((TOP - 0.1..=HEIGHT - BOTTOM + 0.1).contains(&place), "{svg}");
                }
            }
        }
        assert_eq!(chart(&a_chart(Vec::new(), false)), None);
    }

    #[test]
    fn ticks_are_round() {
        let axis = |low, high, is_logarithmic| Axis { low, high, is_logarithmic, begin: 0.0, end: 1.0 };
        assert_eq!(axis(0.0, 1_000.0, false).ticks(), [0.0, 200.0, 400.0, 600.0, 800.0, 1_000.0]);
        assert_eq!(axis(10.0, 10_000.0, true).ticks(), [10.0, 100.0, 1_000.0, 10_000.0]);
        assert_eq!(round_step(0.3), 0.5);
    }
}
