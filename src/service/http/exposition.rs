//! Samples in the text format of Prometheus.

use std::collections::BTreeMap;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

use super::process::{CPU_SECONDS, Process};
use crate::metrics::{LATENCY_BUCKETS_SECONDS, Sample, Source, Value};

/// All metrics of `source` and of the process.
pub fn text(source: &dyn Source) -> prometheus::Result<String> {
    let families = Exposition {
        sources: [source, &Process, &Build],
    }
    .collect();
    let mut out = Vec::new();
    TextEncoder::new().encode(&families, &mut out)?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// Says which version runs.
struct Build;

impl Source for Build {
    fn samples(&self, out: &mut Vec<Sample>) {
        out.push(Sample {
            name: "tidegate_build_info",
            help: "Always 1; the label says which version runs.",
            labels: vec![("version", env!("CARGO_PKG_VERSION").to_owned())],
            value: Value::Gauge(1.0),
        });
    }
}

struct Exposition<'a> {
    sources: [&'a dyn Source; 3],
}

impl Collector for Exposition<'_> {
    /// Nothing is described in advance: which metrics there are is for the engine to say.
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    /// One family per name in order of names, each with its samples in order of labels.
    fn collect(&self) -> Vec<MetricFamily> {
        let mut samples = Vec::new();
        self.sources.iter().for_each(|source| source.samples(&mut samples));
        let mut families: BTreeMap<&str, BTreeMap<Vec<(&str, String)>, Sample>> = BTreeMap::new();
        for sample in samples {
            let mut labels = sample.labels.clone();
            labels.sort_unstable();
            // Two samples with the same name and labels would make the whole answer invalid: the last one stays.
            families.entry(sample.name).or_default().insert(labels, sample);
        }
        families
            .into_values()
            .filter_map(|samples| family(samples.into_values().collect()))
            .collect()
    }
}

fn family(samples: Vec<Sample>) -> Option<MetricFamily> {
    let first = samples.first()?;
    let kind = metric_type(first);
    let mut family = MetricFamily::default();
    family.set_name(first.name.to_owned());
    family.set_help(first.help.to_owned());
    family.set_field_type(kind);
    family.set_metric(
        samples
            .iter()
            .filter(|sample| metric_type(sample) == kind)
            .map(metric)
            .collect(),
    );
    Some(family)
}

fn metric_type(sample: &Sample) -> MetricType {
    match sample.value {
        Value::Counter(_) => MetricType::COUNTER,
        Value::Gauge(_) if sample.name == CPU_SECONDS => MetricType::COUNTER,
        Value::Gauge(_) => MetricType::GAUGE,
        Value::Histogram(..) => MetricType::HISTOGRAM,
    }
}

fn metric(sample: &Sample) -> Metric {
    let mut metric = Metric::default();
    let label = |(name, value): &(&str, String)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value.clone());
        pair
    };
    metric.set_label(sample.labels.iter().map(label).collect());
    match &sample.value {
        Value::Counter(value) => metric.set_counter(counter(*value as f64)),
        Value::Gauge(value) if sample.name == CPU_SECONDS => metric.set_counter(counter(*value)),
        Value::Gauge(value) => {
            let mut gauge = Gauge::default();
            gauge.set_value(*value);
            metric.set_gauge(gauge);
        }
        Value::Histogram(counts, count, sum_seconds) => metric.set_histogram(histogram(counts, *count, *sum_seconds)),
    }
    metric
}

fn counter(value: f64) -> Counter {
    let mut counter = Counter::default();
    counter.set_value(value);
    counter
}

/// The engine counts each bucket by itself; Prometheus wants each to contain the ones below.
fn histogram(counts: &[u64], count: u64, sum_seconds: f64) -> Histogram {
    let mut below = 0;
    let buckets = LATENCY_BUCKETS_SECONDS
        .iter()
        .zip(counts)
        .map(|(upper_bound, counted)| {
            below += counted;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*upper_bound);
            bucket.set_cumulative_count(below);
            bucket
        });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    // Counters are read one after the other while they grow: the total is never less than the last bucket.
    histogram.set_sample_count(count.max(below));
    histogram.set_sample_sum(sum_seconds);
    histogram
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Fake(Vec<Sample>);

    impl Source for Fake {
        fn samples(&self, out: &mut Vec<Sample>) {
            out.extend(self.0.iter().cloned());
        }
    }

    fn sample(name: &'static str, task: &str, value: Value) -> Sample {
        Sample {
            name,
            help: "Some help.",
            labels: vec![("task", task.to_owned())],
            value,
        }
    }

    #[test]
    fn samples_become_families_with_help_and_type_once() {
        let latency = crate::metrics::Histogram::default();
        latency.observe(Duration::from_millis(2));
        latency.observe(Duration::from_millis(30));
        latency.observe(Duration::from_secs(120));
        let (buckets, count, sum) = latency.snapshot();
        let text = text(&Fake(vec![
            sample("tidegate_records_total", "0_1", Value::Counter(7)),
            sample("tidegate_lag", "0_0", Value::Gauge(-1.5)),
            sample("tidegate_records_total", "0_0", Value::Counter(5)),
            sample("tidegate_records_total", "odd\"\\\nname", Value::Counter(1)),
            sample(
                "tidegate_commit_latency_seconds",
                "0_0",
                Value::Histogram(buckets, count, sum),
            ),
            sample("tidegate_records_total", "0_1", Value::Counter(8)),
        ]))
        .expect("samples can be encoded");
        let records = "# HELP tidegate_records_total Some help.\n# TYPE tidegate_records_total counter\n\
            tidegate_records_total{task=\"0_0\"} 5\ntidegate_records_total{task=\"0_1\"} 8\n\
            tidegate_records_total{task=\"odd\\\"\\\\\\nname\"} 1\n";
        assert!(text.contains(records), "{text}");
        assert!(
            text.contains("# TYPE tidegate_lag gauge\ntidegate_lag{task=\"0_0\"} -1.5\n"),
            "{text}"
        );
        for line in [
            "tidegate_commit_latency_seconds_bucket{task=\"0_0\",le=\"0.001\"} 0",
            "tidegate_commit_latency_seconds_bucket{task=\"0_0\",le=\"0.0025\"} 1",
            "tidegate_commit_latency_seconds_bucket{task=\"0_0\",le=\"0.05\"} 2",
            "tidegate_commit_latency_seconds_bucket{task=\"0_0\",le=\"60\"} 2",
            "tidegate_commit_latency_seconds_bucket{task=\"0_0\",le=\"+Inf\"} 3",
            "tidegate_commit_latency_seconds_sum{task=\"0_0\"} 120.032",
            "tidegate_commit_latency_seconds_count{task=\"0_0\"} 3",
        ] {
            assert!(text.lines().any(|l| l == line), "no line {line} in {text}");
        }
    }

    #[test]
    fn the_process_and_the_version_are_there_without_any_engine() {
        let text = text(&Fake(Vec::new())).expect("samples can be encoded");
        assert!(text.contains("tidegate_build_info{version=\""), "{text}");
        if cfg!(target_os = "linux") {
            assert!(text.contains("# TYPE process_cpu_seconds_total counter"), "{text}");
            assert!(text.contains("process_resident_memory_bytes "), "{text}");
        }
    }
}
