//! OpenMetrics' text, as the crate `prometheus-client` writes it.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};

use super::{
    catalogue::Kind,
    families::{Family, Sample, Value},
};

/// The type of an answer.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Writes all of it down.
pub(super) fn write(families: Vec<Family>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(families)));
    let mut out = String::new();
    // Writing to a string does not fail.
    let _infallible = text::encode(&mut out, &registry);
    out
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Family { metric, samples } in &self.0 {
            let kind = match metric.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
                Kind::Info => MetricType::Info,
            };
            let mut family = encoder.encode_descriptor(metric.name, metric.meaning, None, kind)?;
            for Sample { labels, value } in samples {
                let labels: Vec<(&str, &str)> = (metric.labels.iter().copied())
                    .zip(labels.iter().map(String::as_str))
                    .collect();
                match value {
                    // Its labels are what it says.
                    Value::Info => family.encode_info(&labels)?,
                    value if labels.is_empty() => number(&mut family, value)?,
                    value => number(&mut family.encode_family(&labels)?, value)?,
                }
            }
        }
        Ok(())
    }
}

fn number(encoder: &mut MetricEncoder<'_>, value: &Value) -> fmt::Result {
    match value {
        Value::Counter(count) => encoder.encode_counter::<NoLabelSet, _, u64>(count, None),
        Value::Gauge(value) => encoder.encode_gauge(value),
        Value::Histogram(found) => {
            let buckets: Vec<(f64, u64)> = found.buckets().collect();
            let sum = found.sum().as_secs_f64();
            encoder.encode_histogram::<NoLabelSet>(sum, found.passed(), &buckets, None)
        }
        Value::Info => Ok(()),
    }
}
