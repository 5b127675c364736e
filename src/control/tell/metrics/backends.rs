//! Metrics of backends: sessions, connection attempts, probes.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use crate::shared::{
    AdminState, Backend, CONNECT_SECONDS, ConnectFailure, Direction, HistogramSums, Snapshot, Spill,
};

use crate::control::plane::health_book::HealthBook;
use crate::control::tell::metrics::family::{count, counter, gauge, histogram};
use crate::control::tell::metrics::pools::encode_pools;
use crate::control::tell::retired;
use crate::control::watch::source_ports;

/// Every metric with the label `pool`, most with `backend`.
pub(crate) fn encode_backends(
    encoder: &mut DescriptorEncoder<'_>,
    snapshot: &Snapshot,
    now_us: u64,
    health: &HealthBook,
) -> fmt::Result {
    encode_pools(encoder, snapshot)?;
    encode_verdicts(encoder, snapshot)?;
    encode_orders(encoder, snapshot)?;
    let help = "1 while it is left out because sessions failed there in a row";
    let mut family = gauge(encoder, "evenkeel_backend_ejected", help)?;
    for backend in backends(snapshot) {
        let ejected = u64::from(backend.state.is_ejected());
        family.encode_family(&names(backend))?.encode_gauge(&ejected)?;
    }
    let help = "Times it was left out because sessions failed there in a row";
    let mut family = counter(encoder, "evenkeel_backend_ejections", help)?;
    for backend in backends(snapshot) {
        count(&mut family, &names(backend), backend.state.ejections())?;
    }
    encode_sessions(encoder, snapshot)?;
    encode_connects(encoder, snapshot)?;
    encode_latencies(encoder, snapshot, now_us)?;
    encode_sources(encoder, snapshot)?;
    encode_probes(encoder, snapshot, health)?;
    encode_certificates(encoder, snapshot, health)
}

fn encode_sessions(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let help = "Sessions open now, those being connected too";
    let mut family = gauge(encoder, "evenkeel_backend_sessions_active", help)?;
    for backend in backends(snapshot) {
        family.encode_family(&names(backend))?.encode_gauge(&backend.state.active())?;
    }
    for ((pool, name), active) in retired::backend_sessions(snapshot) {
        family.encode_family(&[("pool", pool), ("backend", name)])?.encode_gauge(&active)?;
    }
    let mut family = counter(encoder, "evenkeel_backend_sessions", "Sessions connected")?;
    for backend in backends(snapshot) {
        count(&mut family, &names(backend), backend.state.sum(|block| &block.sessions))?;
    }
    let mut family = gauge(encoder, "evenkeel_backend_sessions_max", "Sessions it may hold")?;
    for backend in backends(snapshot) {
        if let Some(max) = backend.sessions_max {
            family.encode_family(&names(backend))?.encode_gauge(&max)?;
        }
    }
    let mut family = counter(encoder, "evenkeel_backend_bytes", "Bytes of its sessions")?;
    for backend in backends(snapshot) {
        for direction in Direction::ALL {
            let [pool, name] = names(backend);
            let bytes = backend.state.sum(|block| block.bytes_moved(direction));
            count(&mut family, &[pool, name, ("direction", direction.label())], bytes)?;
        }
    }
    Ok(())
}

/// What its probes say of each backend, and how often they changed their mind.
fn encode_verdicts(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let mut family = gauge(encoder, "evenkeel_backend_up", "1 while its probes pass")?;
    for backend in backends(snapshot) {
        let up = u64::from(backend.state.is_up());
        family.encode_family(&names(backend))?.encode_gauge(&up)?;
    }
    let help = "Times the verdict of its probes became this one";
    let mut family = counter(encoder, "evenkeel_backend_state_changes", help)?;
    for backend in backends(snapshot) {
        for (state, up) in [("up", true), ("down", false)] {
            let [pool, name] = names(backend);
            count(&mut family, &[pool, name, ("state", state)], backend.state.turned(up))?;
        }
    }
    Ok(())
}

/// What operators want of each backend.
fn encode_orders(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let help = "1 for the state in which operators, or the file, have it";
    let mut family = gauge(encoder, "evenkeel_backend_admin_state", help)?;
    for backend in backends(snapshot) {
        for state in [AdminState::Ready, AdminState::Drain, AdminState::Maint] {
            let [pool, name] = names(backend);
            let labels = [pool, name, ("state", state.word())];
            let is_it = u64::from(backend.state.admin() == state);
            family.encode_family(&labels)?.encode_gauge(&is_it)?;
        }
    }
    let help = "Its share of new sessions, as configured or set at run time";
    let mut family = gauge(encoder, "evenkeel_backend_weight", help)?;
    for backend in backends(snapshot) {
        family.encode_family(&names(backend))?.encode_gauge(&backend.weight)?;
    }
    Ok(())
}

fn encode_probes(
    encoder: &mut DescriptorEncoder<'_>,
    snapshot: &Snapshot,
    health: &HealthBook,
) -> fmt::Result {
    let mut family = counter(encoder, "evenkeel_backend_probes", "Probes by their result")?;
    for backend in backends(snapshot) {
        let counts = health.get(backend).map(|known| known.probes).unwrap_or_default();
        for (result, times) in [("pass", counts.passed), ("fail", counts.failed)] {
            let [pool, name] = names(backend);
            count(&mut family, &[pool, name, ("result", result)], times)?;
        }
    }
    let name = "evenkeel_backend_probe_seconds";
    let kind = MetricType::Histogram;
    let mut family = encoder.encode_descriptor(name, "Length of its probes", None, kind)?;
    for backend in backends(snapshot) {
        let counts = health.get(backend).map(|known| known.probes).unwrap_or_default();
        histogram(&mut family, &names(backend), &CONNECT_SECONDS, &counts.seconds)?;
    }
    Ok(())
}

/// Only of those that have shown one: there is no number that would mean "none".
fn encode_certificates(
    encoder: &mut DescriptorEncoder<'_>,
    snapshot: &Snapshot,
    health: &HealthBook,
) -> fmt::Result {
    let help = "When the certificate expires that its latest TLS probe was shown";
    let name = "evenkeel_backend_certificate_expiry_timestamp_seconds";
    let mut family = gauge(encoder, name, help)?;
    for backend in backends(snapshot) {
        if let Some(not_after) = health.get(backend).and_then(|known| known.certificate) {
            family.encode_family(&names(backend))?.encode_gauge(&not_after)?;
        }
    }
    Ok(())
}

fn encode_connects(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let help = "Connection attempts that failed";
    let mut family = counter(encoder, "evenkeel_backend_connect_failures", help)?;
    for backend in backends(snapshot) {
        for reason in ConnectFailure::ALL {
            let [pool, name] = names(backend);
            let labels = [pool, name, ("reason", reason.label())];
            let failures = backend.state.sum(|block| &block.connect_failures[reason.index()]);
            count(&mut family, &labels, failures)?;
        }
    }
    let help = "Time until a connection to the backend was made";
    let mut family = encoder.encode_descriptor(
        "evenkeel_backend_connect_seconds",
        help,
        None,
        MetricType::Histogram,
    )?;
    for backend in backends(snapshot) {
        let mut sums = HistogramSums::default();
        for block in backend.state.blocks() {
            block.connect_seconds.add_to(&mut sums);
        }
        histogram(&mut family, &names(backend), &CONNECT_SECONDS, &sums)?;
    }
    Ok(())
}

fn encode_latencies(
    encoder: &mut DescriptorEncoder<'_>,
    snapshot: &Snapshot,
    now_us: u64,
) -> fmt::Result {
    let help = "Time to connect, as the pool's balance sees it";
    let mut family = gauge(encoder, "evenkeel_backend_latency_seconds", help)?;
    for backend in backends(snapshot) {
        let latency = backend.state.latency().time_at(now_us);
        family.encode_family(&names(backend))?.encode_gauge(&latency.as_secs_f64())?;
    }
    Ok(())
}

fn encode_sources(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let labels = |backend: &Backend, own: &str| {
        let [pool, name] = names(backend).map(|(key, value)| (key, value.to_owned()));
        [pool, name, ("source", own.to_owned())]
    };
    let help = "Ports of a source that sessions have, those being connected too";
    let mut family = gauge(encoder, "evenkeel_source_ports_in_use", help)?;
    for (backend, source, _) in source_ports::sources(snapshot) {
        let labels = labels(backend, &source.address().to_string());
        family.encode_family(&labels)?.encode_gauge(&source.in_use())?;
    }
    let help = "Ports of a source that sessions may have";
    let mut family = gauge(encoder, "evenkeel_source_ports_max", help)?;
    for (backend, source, most) in source_ports::sources(snapshot) {
        let labels = labels(backend, &source.address().to_string());
        family.encode_family(&labels)?.encode_gauge(&u64::from(most))?;
    }
    let help = "Times a source had nothing to connect from and the next was asked";
    let mut family = counter(encoder, "evenkeel_source_spills", help)?;
    for (backend, source, _) in source_ports::sources(snapshot) {
        for why in Spill::ALL {
            let [pool, name, own] = labels(backend, &source.address().to_string());
            let reason = ("reason", why.label().to_owned());
            count(&mut family, &[pool, name, own, reason], source.spills(why))?;
        }
    }
    Ok(())
}

fn backends(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<Backend>> {
    snapshot.pools.iter().flatten().flat_map(|pool| pool.backends())
}

fn names(backend: &Backend) -> [(&'static str, &str); 2] {
    [("pool", &backend.pool_name), ("backend", &backend.name)]
}
