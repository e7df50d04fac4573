//! The recorder of all metrics and their rendering for Prometheus.

use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use metrics::{Key, KeyName, Level, Metadata, Recorder as _, SharedString, Unit as MetricsUnit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::metric::{Kind, Label, Metric, Unit};
use super::names;
use super::process::Process;

/// Time between two drains of the histograms' samples, which wait in memory until then: at 100,000 messages a second
/// about 5 MB.
const UPKEEP: Duration = Duration::from_secs(1);

static INSTALLED: OnceLock<Recorder> = OnceLock::new();

/// Renders what was recorded. Cloning is cheap.
#[derive(Clone)]
pub struct Recorder {
    handle: PrometheusHandle,
    process: Process,
}

impl Recorder {
    /// Installs the recorder of this process and starts its upkeep; the second call returns the same one.
    ///
    /// The crate `metrics` knows one recorder per process, hence the only global of Homing. Call it before anything
    /// keeps a handle of a metric.
    #[must_use]
    pub fn install() -> Self {
        INSTALLED.get_or_init(install).clone()
    }

    /// All metrics in Prometheus's text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = self.handle.render();
        self.process.render(&mut text);
        text
    }
}

fn install() -> Recorder {
    let mut builder = PrometheusBuilder::new();
    for metric in names::ALL {
        if let Kind::Histogram(bounds) = metric.kind {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), bounds)
                .expect("every histogram of the list has buckets; a test says so");
        }
    }
    let recorder = builder.build_recorder();
    for metric in names::ALL {
        announce(&recorder, metric);
    }
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::error!("another metrics recorder is installed in this process; Homing's metrics stay at zero");
    }
    keep_up(handle.clone());
    metrics::gauge!(names::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Recorder { handle, process: Process::starting_now() }
}

/// Describes a metric and makes the series that are known beforehand.
fn announce(recorder: &PrometheusRecorder, metric: &Metric) {
    let name = KeyName::from_const_str(metric.name);
    let unit = match metric.unit {
        Unit::Count | Unit::Flag => MetricsUnit::Count,
        Unit::Seconds => MetricsUnit::Seconds,
    };
    let help = SharedString::const_str(metric.help);
    match metric.kind {
        Kind::Counter => recorder.describe_counter(name, Some(unit), help),
        Kind::Gauge | Kind::ClusterGauge => recorder.describe_gauge(name, Some(unit), help),
        Kind::Histogram(_) => recorder.describe_histogram(name, Some(unit), help),
    }
    for labels in known_series(metric.labels) {
        let key = Key::from_parts(metric.name, labels);
        let origin = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));
        match metric.kind {
            Kind::Counter => recorder.register_counter(&key, &origin).absolute(0),
            Kind::Gauge => recorder.register_gauge(&key, &origin).set(0.0),
            Kind::ClusterGauge => recorder.register_gauge(&key, &origin).set(f64::NAN),
            Kind::Histogram(_) => drop(recorder.register_histogram(&key, &origin)),
        }
    }
}

/// Every combination of label values; none if the values of a label are not known beforehand.
fn known_series(labels: &[Label]) -> Vec<Vec<metrics::Label>> {
    let mut series: Vec<Vec<metrics::Label>> = vec![Vec::new()];
    for label in labels {
        let mut longer = Vec::new();
        for before in &series {
            for value in label.values {
                longer.push([before.as_slice(), &[metrics::Label::new(label.name, *value)]].concat());
            }
        }
        series = longer;
    }
    series
}

/// Drains the histograms from time to time, for as long as the process lives.
///
/// A thread and not a task: without it samples pile up until memory is full, so it must run whichever runtime is busy
/// and even if nobody ever scrapes.
fn keep_up(handle: PrometheusHandle) {
    let upkeep = move || loop {
        #[expect(clippy::disallowed_methods, reason = "a thread of its own")]
        thread::sleep(UPKEEP);
        handle.run_upkeep();
    };
    if let Err(error) = thread::Builder::new().name("metrics".to_owned()).spawn(upkeep) {
        tracing::error!(%error, "the metrics thread could not be started; memory grows until /metrics is scraped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The other tests of this process record too, so only presence is asserted.
    #[test]
    fn every_metric_of_the_list_is_rendered_with_its_help_and_type() {
        let recorder = Recorder::install();
        for metric in names::ALL {
            let labels: Vec<_> = metric.labels.iter().map(|label| metrics::Label::new(label.name, "test")).collect();
            match metric.kind {
                Kind::Counter => metrics::counter!(metric.name, labels).increment(1),
                Kind::Gauge => metrics::gauge!(metric.name, labels).increment(0.0),
                Kind::ClusterGauge => {}
                Kind::Histogram(_) => metrics::histogram!(metric.name, labels).record(0.5),
            }
        }
        let text = recorder.render();
        for metric in names::ALL {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge | Kind::ClusterGauge => "gauge",
                Kind::Histogram(_) => "histogram",
            };
            assert!(text.contains(&format!("# TYPE {} {kind}\n", metric.name)), "{} is missing", metric.name);
            assert!(text.contains(&format!("# HELP {} {}\n", metric.name, metric.help)), "{} lacks help", metric.name);
        }
        assert!(text.contains("homing_publish_to_delivery_seconds_bucket{le=\"0.004\"}"));
        assert!(text.contains("homing_messages_dropped_total{reason=\"too_big\"}"), "known label values are announced");
        assert!(text.contains("process_open_fds"));
    }

    #[test]
    fn installing_twice_renders_the_same_recorder() {
        let (first, second) = (Recorder::install(), Recorder::install());
        metrics::counter!(names::PROBE_FAILURES).increment(1);
        for recorder in [first, second] {
            let text = recorder.render();
            let line = text.lines().find(|line| line.starts_with(names::PROBE_FAILURES)).unwrap();
            assert!(!line.ends_with(" 0"), "{line}");
        }
    }

    #[test]
    fn series_are_announced_for_every_combination_of_known_values() {
        let two = Label { name: "two", values: &["a", "b"] };
        let three = Label { name: "three", values: &["x", "y", "z"] };
        let open = Label { name: "open", values: &[] };
        assert_eq!(known_series(&[]).len(), 1);
        assert_eq!(known_series(&[two, three]).len(), 6);
        assert_eq!(known_series(&[two, open]).len(), 0);
    }
}
