//! `/metrics`: the counters of all workers, summed at the moment of the scrape.
//!
//! Nothing is registered and kept: each scrape walks the snapshot, so what is configured has all
//! its series, at zero from the start. A listener that is gone keeps them while it has sessions.
//! The text is OpenMetrics 1.0, or the older text format for a scraper that prefers it.

mod backends;
mod family;
pub(crate) mod format;
mod listeners;
mod pools;
mod process;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::control::log::Logging;
use crate::control::plane::state::Plane;
use crate::control::plane::workers::busy_seconds;
use crate::control::tell::metrics::backends::encode_backends;
use crate::control::tell::metrics::family::{count, counter, gauge, one};
use crate::control::tell::metrics::format::Exposition;
use crate::control::tell::metrics::listeners::encode_listeners;
use crate::control::tell::metrics::process::encode_process;

/// All metrics of the process as text.
pub(crate) fn text(plane: &Arc<Plane>, logging: &Arc<Logging>, format: Exposition) -> String {
    let mut registry = Registry::default();
    let source = MetricsSource { plane: Arc::clone(plane), logging: Arc::clone(logging) };
    registry.register_collector(Box::new(source));
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    format.of(text)
}

#[derive(Debug)]
struct MetricsSource {
    plane: Arc<Plane>,
    logging: Arc<Logging>,
}

impl Collector for MetricsSource {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let plane = &self.plane;
        let snapshot = plane.publisher.latest();
        encode_build(&mut encoder)?;
        encode_config(&mut encoder, plane)?;
        gauge(&mut encoder, "evenkeel_ready", "1 while new sessions can be served")?
            .encode_gauge(&u64::from(plane.is_ready()))?;
        gauge(&mut encoder, "evenkeel_bans", "Networks that operators ban")?
            .encode_gauge(&plane.bans.count(plane.now_us()))?;
        gauge(&mut encoder, "evenkeel_sessions_max", "Sessions the process may hold")?
            .encode_gauge(&snapshot.sessions_max)?;
        encode_listeners(&mut encoder, &snapshot)?;
        let health = plane.health.lock().clone();
        encode_backends(&mut encoder, &snapshot, plane.now_us(), &health)?;
        encode_workers(&mut encoder, plane)?;
        let help = "Log lines that stderr did not take, or not in time";
        one(&mut counter(&mut encoder, "evenkeel_log_dropped", help)?, self.logging.dropped())?;
        encode_process(&mut encoder, plane)
    }
}

fn encode_build(encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Always 1; the version is in the label";
    encoder
        .encode_descriptor("evenkeel_build", help, None, MetricType::Info)?
        .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
}

fn encode_config(encoder: &mut DescriptorEncoder<'_>, plane: &Plane) -> fmt::Result {
    let generation = plane.publisher.latest().generation.0;
    gauge(encoder, "evenkeel_config_generation", "Number of the configuration in force")?
        .encode_gauge(&generation)?;
    let reloads = &plane.reloads;
    let mut family = counter(encoder, "evenkeel_config_reloads", "Reloads by what came of them")?;
    count(&mut family, &[("result", "ok")], reloads.ok.load(Ordering::Relaxed))?;
    count(&mut family, &[("result", "refused")], reloads.refused.load(Ordering::Relaxed))?;
    let name = "evenkeel_config_last_reload_successful";
    gauge(encoder, name, "1 when the latest reload, or the start, succeeded")?
        .encode_gauge(&u64::from(plane.reloads.is_last_ok()))?;
    let name = "evenkeel_config_last_reload_success_timestamp_seconds";
    let reloaded = reloads.last_success.load(Ordering::Relaxed);
    let since = if reloaded > 0 { reloaded } else { plane.started_at };
    gauge(encoder, name, "When the configuration in force was put in force")?.encode_gauge(&since)
}

fn encode_workers(encoder: &mut DescriptorEncoder<'_>, plane: &Plane) -> fmt::Result {
    let states = &plane.workers.states;
    let name = "evenkeel_worker_busy_seconds";
    let mut family = counter(encoder, name, "Time a worker has worked rather than slept")?;
    for (number, state) in states.iter().enumerate() {
        let busy = busy_seconds(state);
        let labels = [("worker", number.to_string())];
        let mut metric = family.encode_family(&labels)?;
        metric.encode_counter::<[(&str, &str); 0], f64, u64>(&busy, None)?;
    }
    let mut family = gauge(encoder, "evenkeel_pipes_in_use", "Pipes that hold bytes of a session")?;
    for (number, state) in states.iter().enumerate() {
        let labels = [("worker", number.to_string())];
        family.encode_family(&labels)?.encode_gauge(&state.pipes_in_use.value())?;
    }
    let name = "evenkeel_refusals_held";
    let mut family = gauge(encoder, name, "Refused connections that are answered or kept waiting")?;
    for (number, state) in states.iter().enumerate() {
        let labels = [("worker", number.to_string())];
        family.encode_family(&labels)?.encode_gauge(&state.refusals_held.value())?;
    }
    let name = "evenkeel_worker_stalls";
    let mut family = counter(encoder, name, "Times a worker was found stuck")?;
    for (number, state) in states.iter().enumerate() {
        count(&mut family, &[("worker", number.to_string())], state.stalls.value())?;
    }
    let mut family = gauge(encoder, "evenkeel_worker_sessions", "Sessions of a worker")?;
    for (number, state) in states.iter().enumerate() {
        let labels = [("worker", number.to_string())];
        family.encode_family(&labels)?.encode_gauge(&state.sessions.value())?;
    }
    let name = "evenkeel_worker_handed_over";
    let mut family = counter(encoder, name, "Sessions handed to a worker with fewer")?;
    for (number, state) in states.iter().enumerate() {
        count(&mut family, &[("worker", number.to_string())], state.handed_over.value())?;
    }
    Ok(())
}
