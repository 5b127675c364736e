//! Families of metrics: one name, one help text, one value for each set of labels.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder};
use prometheus_client::metrics::MetricType;

use crate::shared::HistogramSums;

/// Opens a family of counters; the encoder appends `_total` to its name.
pub(crate) fn counter<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &str,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Counter)
}

/// Opens a family of gauges.
pub(crate) fn gauge<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &str,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)
}

/// A counter without labels.
pub(crate) fn one(family: &mut MetricEncoder<'_>, value: u64) -> fmt::Result {
    family.encode_counter::<[(&str, &str); 0], _, u64>(&value, None)
}

/// One counter of a family.
pub(crate) fn count(
    family: &mut MetricEncoder<'_>,
    labels: &impl EncodeLabelSet,
    value: u64,
) -> fmt::Result {
    family.encode_family(labels)?.encode_counter::<[(&str, &str); 0], _, u64>(&value, None)
}

/// One histogram of a family.
pub(crate) fn histogram(
    family: &mut MetricEncoder<'_>,
    labels: &impl EncodeLabelSet,
    bounds_us: &[u64; 11],
    sums: &HistogramSums,
) -> fmt::Result {
    let bounds = bounds_us.iter().map(|bound| seconds(bound * 1000));
    let pairs: Vec<(f64, u64)> = bounds.chain([f64::INFINITY]).zip(sums.buckets).collect();
    let all = sums.buckets.iter().sum();
    let sum = seconds(sums.sum_us.saturating_mul(1000));
    family.encode_family(labels)?.encode_histogram::<[(&str, &str); 0]>(sum, all, &pairs, None)
}

/// Nanoseconds as seconds.
#[allow(clippy::cast_precision_loss, reason = "a display of 15 digits is enough")]
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}
