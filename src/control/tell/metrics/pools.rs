//! Metrics of pools: what the verdicts on their backends come to, and clients that wait.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use crate::shared::{HistogramSums, Pool, QUEUE_SECONDS, Snapshot};

use crate::control::tell::metrics::family::{count, counter, gauge, histogram};

/// Every metric of which `pool` is the only label.
pub(super) fn encode_pools(
    encoder: &mut DescriptorEncoder<'_>,
    snapshot: &Snapshot,
) -> fmt::Result {
    encode_health(encoder, snapshot)?;
    encode_queues(encoder, snapshot)?;
    let help = "Clients whose remembered backend was forgotten early because the table was full";
    let mut family = counter(encoder, "evenkeel_sticky_evictions", help)?;
    for pool in pools(snapshot) {
        let evictions = pool.sticky.as_ref().map_or(0, |sticky| sticky.memory.live_evictions());
        count(&mut family, &labels(pool), evictions)?;
    }
    Ok(())
}

fn encode_health(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let help = "Backends with a weight that no operator keeps out";
    let mut family = gauge(encoder, "evenkeel_pool_backends_wanted", help)?;
    for pool in pools(snapshot) {
        let wanted = u64::try_from(pool.health().total).unwrap_or(u64::MAX);
        family.encode_family(&labels(pool))?.encode_gauge(&wanted)?;
    }
    let help = "Of the wanted ones, those that are neither down nor ejected";
    let mut family = gauge(encoder, "evenkeel_pool_backends_healthy", help)?;
    for pool in pools(snapshot) {
        let healthy = u64::try_from(pool.health().healthy).unwrap_or(u64::MAX);
        family.encode_family(&labels(pool))?.encode_gauge(&healthy)?;
    }
    let help = "1 while verdicts are ignored because too few backends are healthy";
    let mut family = gauge(encoder, "evenkeel_pool_panicking", help)?;
    for pool in pools(snapshot) {
        let panicking = u64::from(pool.state.is_panicking());
        family.encode_family(&labels(pool))?.encode_gauge(&panicking)?;
    }
    Ok(())
}

fn encode_queues(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let help = "Clients that wait for a place";
    let mut family = gauge(encoder, "evenkeel_pool_waiting", help)?;
    for pool in pools(snapshot) {
        family.encode_family(&labels(pool))?.encode_gauge(&pool.state.line.len())?;
    }
    let help = "Clients that may wait for a place";
    let mut family = gauge(encoder, "evenkeel_pool_waiting_max", help)?;
    for pool in pools(snapshot) {
        if let Some(queue) = pool.terms.queue {
            family.encode_family(&labels(pool))?.encode_gauge(&queue.max)?;
        }
    }
    let help = "How long clients waited for a place, those too that got none";
    let kind = MetricType::Histogram;
    let mut family = encoder.encode_descriptor("evenkeel_pool_queue_seconds", help, None, kind)?;
    for pool in pools(snapshot) {
        let mut sums = HistogramSums::default();
        pool.state.line.waits().add_to(&mut sums);
        histogram(&mut family, &labels(pool), &QUEUE_SECONDS, &sums)?;
    }
    Ok(())
}

fn pools(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<Pool>> {
    snapshot.pools.iter().flatten()
}

fn labels(pool: &Pool) -> [(&'static str, &str); 1] {
    [("pool", &pool.name)]
}
