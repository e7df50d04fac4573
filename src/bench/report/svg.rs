//! Curves as inline SVG, drawn with the page's colours, so that they follow its light and its dark.

use std::fmt::Write as _;

use super::html::escaped;
use super::{Chart, Series, Unit};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 26.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 44.0;
/// Lines of the grid, about.
const TICKS: f64 = 5.0;
/// More points than this are not told apart, and not marked.
const MARKED_POINTS_MAX: usize = 30;

/// How values lie along an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scale {
    /// With the distance of the ticks.
    Linear(f64),
    Logarithmic,
    /// Percent, the logarithm of what is missing to 100: 90, 99 and 99.9 are as far from each other.
    Tail,
}

/// From values to places along one axis.
struct Axis {
    low: f64,
    high: f64,
    scale: Scale,
    begin: f64,
    end: f64,
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        let stretched = |value: f64| match self.scale {
            Scale::Linear(_) => value,
            Scale::Logarithmic => value.max(self.low).ln(),
            Scale::Tail => -(100.0 - value.min(self.high)).log10(),
        };
        let (low, high) = (stretched(self.low), stretched(self.high));
        self.begin + (self.end - self.begin) * (stretched(value) - low) / (high - low)
    }

    /// Round values along it.
    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear(step) => {
                let (first, last) = ((self.low / step - 1e-9).ceil() as i64, (self.high / step + 1e-9).floor() as i64);
                (first..=last).map(|number| number as f64 * step).collect()
            }
            Scale::Logarithmic => {
                // Over a few powers of ten, the values between are worth a line.
                let factors: &[f64] = if self.high / self.low <= 1_000.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
                let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
                let values = decades.flat_map(|decade| factors.iter().map(move |factor| factor * 10_f64.powi(decade)));
                values.filter(|value| (self.low * 0.999..=self.high * 1.001).contains(value)).collect()
            }
            Scale::Tail => {
                let values = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999];
                values.into_iter().filter(|value| *value <= self.high).collect()
            }
        }
    }
}

/// 1, 2 or 5 times a power of ten, at least `wanted`.
fn round_up(wanted: f64) -> f64 {
    let power = 10_f64.powf(wanted.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power);
    steps.into_iter().find(|step| *step >= wanted * 0.999).unwrap_or(power)
}

/// 1, 2 or 5 times a power of ten, at most `wanted`.
fn round_down(wanted: f64) -> f64 {
    let power = 10_f64.powf(wanted.log10().floor());
    let steps = [5.0, 2.0, 1.0].into_iter().map(|factor| factor * power);
    steps.into_iter().find(|step| *step <= wanted * 1.001).unwrap_or(power)
}

/// The distance of ticks up to `high`; of bytes, it is round in the unit in which they are shown.
fn step(high: f64, unit: Unit) -> f64 {
    let mut scale = 1.0;
    while unit == Unit::Bytes && high / scale >= 1024.0 {
        scale *= 1024.0;
    }
    round_up(high / scale / TICKS) * scale
}

/// The chart; `None` if there is nothing to draw.
pub(crate) fn chart(chart: &Chart) -> Option<String> {
    let points = || chart.series.iter().flat_map(|series| &series.points).filter(|point| point.1.is_finite());
    points().next()?;
    let x = x_axis(chart, points().map(|point| point.0));
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

fn x_axis(chart: &Chart, values: impl Iterator<Item = f64>) -> Axis {
    let (begin, end) = (LEFT, WIDTH - RIGHT);
    if chart.x_unit == Unit::Percent {
        // 100 % lies infinitely far away: the last point that is not is the end.
        let high = values.filter(|value| *value < 100.0).fold(90.0, f64::max);
        return Axis { low: 0.0, high, scale: Scale::Tail, begin, end };
    }
    let (mut low, mut high) = values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    if chart.x_unit == Unit::Seconds {
        low = 0.0;
    }
    if low == high {
        (low, high) = (low - 1.0, high + 1.0);
    }
    Axis { low, high, scale: Scale::Linear(step(high - low, chart.x_unit)), begin, end }
}

fn y_axis(chart: &Chart, values: impl Iterator<Item = f64>) -> Axis {
    let (low, high) = values.fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    let (begin, end) = (HEIGHT - BOTTOM, TOP);
    if chart.is_logarithmic {
        let low = round_down(low.max(1.0));
        let high = round_up(high.max(low * 2.0));
        return Axis { low, high, scale: Scale::Logarithmic, begin, end };
    }
    let high = if high > 0.0 { high } else { 1.0 };
    let step = step(high, chart.y_unit);
    Axis { low: 0.0, high: (high / step - 1e-9).ceil() * step, scale: Scale::Linear(step), begin, end }
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
            chart.x_unit.show_round(*at)
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
        let axis = |low, high, scale| Axis { low, high, scale, begin: 0.0, end: 1.0 };
        assert_eq!(
            axis(0.0, 1_000.0, Scale::Linear(step(1_000.0, Unit::Count))).ticks(),
            [0.0, 200.0, 400.0, 600.0, 800.0, 1_000.0]
        );
        let mebi = 1024.0 * 1024.0;
        assert_eq!(axis(0.0, 3.0 * mebi, Scale::Linear(step(3.0 * mebi, Unit::Bytes))).ticks().len(), 4);
        assert_eq!(step(3.0 * mebi, Unit::Bytes), mebi);
        assert_eq!(axis(20.0, 200.0, Scale::Logarithmic).ticks(), [20.0, 50.0, 100.0, 200.0]);
        assert_eq!(axis(1.0, 10_000.0, Scale::Logarithmic).ticks(), [1.0, 10.0, 100.0, 1_000.0, 10_000.0]);
        assert_eq!((round_up(0.3), round_down(0.3), round_up(20.0), round_down(20.0)), (0.5, 0.2, 20.0, 20.0));
    }

    #[test]
    fn each_nine_takes_as_much_room_as_the_one_before() {
        let axis = Axis { low: 0.0, high: 99.9, scale: Scale::Tail, begin: 0.0, end: 3.0 };
        let places = [0.0, 90.0, 99.0, 99.9, 100.0].map(|percent| (axis.place(percent) * 1_000.0).round());
        assert_eq!(places, [0.0, 1_000.0, 2_000.0, 3_000.0, 3_000.0]);
        assert_eq!(axis.ticks(), [0.0, 50.0, 90.0, 99.0, 99.9]);
    }
}
