//! Metrics of listeners: what they accepted, refused, moved, and how sessions ended.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use crate::shared::{
    CloseReason, Direction, HeldOutcome, HistogramSums, Limit, LimitDecision, Listener,
    ListenerState, PathKind, RefuseReason, SESSION_SECONDS, Snapshot,
};

use crate::control::tell::metrics::family::{count, counter, gauge, histogram};
use crate::control::tell::retired;

/// Every metric with the label `listener`.
pub(crate) fn encode_listeners(
    encoder: &mut DescriptorEncoder<'_>,
    snapshot: &Snapshot,
) -> fmt::Result {
    // Once for the scrape: a session that ends meanwhile must not leave one in half of its metrics.
    let listeners = &*retired::listeners(snapshot);
    let help = "Connections that came, refused ones too";
    let mut family = counter(encoder, "evenkeel_listener_accepted", help)?;
    for listener in listeners {
        count(&mut family, &[("listener", &*listener.name)], listener.state.offered())?;
    }
    let mut family = counter(encoder, "evenkeel_listener_refused", "Connections refused")?;
    for listener in listeners {
        for reason in RefuseReason::ALL {
            let labels = [("listener", &*listener.name), ("reason", reason.label())];
            count(&mut family, &labels, listener.state.refused_for(reason))?;
        }
    }
    let help = "Of the refused ones, those that the kernel refused before they were accepted";
    let mut family = counter(encoder, "evenkeel_listener_kernel_refusals", help)?;
    for listener in listeners {
        for reason in RefuseReason::IN_KERNEL {
            let labels = [("listener", &*listener.name), ("reason", reason.label())];
            count(&mut family, &labels, listener.state.in_kernel.of(reason))?;
        }
    }
    let help = "Attempts to accept a connection that failed for a reason of the socket's own";
    let mut family = counter(encoder, "evenkeel_accept_errors", help)?;
    for listener in listeners {
        let errors = listener.state.sum(|block| &block.accept_errors);
        count(&mut family, &[("listener", &*listener.name)], errors)?;
    }
    let help = "Refused connections that were held, by what came of them";
    let mut family = counter(encoder, "evenkeel_refusal_outcomes", help)?;
    for listener in listeners {
        for outcome in HeldOutcome::ALL {
            let labels = [("listener", &*listener.name), ("outcome", outcome.label())];
            let ended = listener.state.sum(|block| &block.held[outcome.index()]);
            count(&mut family, &labels, ended)?;
        }
    }
    let mut family = gauge(encoder, "evenkeel_sessions_active", "Sessions open now")?;
    for listener in listeners {
        let active = listener.state.active.value();
        family.encode_family(&[("listener", &*listener.name)])?.encode_gauge(&active)?;
    }
    let help = "Sessions it may hold";
    let mut family = gauge(encoder, "evenkeel_listener_sessions_max", help)?;
    for listener in listeners.iter().filter(|listener| listener.sessions_max != u64::MAX) {
        let labels = [("listener", &*listener.name)];
        family.encode_family(&labels)?.encode_gauge(&listener.sessions_max)?;
    }
    encode_endings(encoder, listeners)?;
    encode_bytes(encoder, listeners)?;
    encode_limits(encoder, listeners)
}

fn encode_endings(
    encoder: &mut DescriptorEncoder<'_>,
    listeners: &[&Arc<Listener>],
) -> fmt::Result {
    let mut family = counter(encoder, "evenkeel_sessions_closed", "Sessions by why they ended")?;
    for listener in listeners {
        for reason in CloseReason::ALL {
            let labels = [("listener", &*listener.name), ("reason", reason.label())];
            let closed = listener.state.sum(|block| &block.closed[reason.index()]);
            count(&mut family, &labels, closed)?;
        }
    }
    let help = "Length of sessions";
    let mut family =
        encoder.encode_descriptor("evenkeel_session_seconds", help, None, MetricType::Histogram)?;
    for listener in listeners {
        let totals = session_lengths(&listener.state);
        histogram(&mut family, &[("listener", &*listener.name)], &SESSION_SECONDS, &totals)?;
    }
    Ok(())
}

fn session_lengths(state: &ListenerState) -> HistogramSums {
    let mut sums = HistogramSums::default();
    for block in state.blocks() {
        block.session_seconds.add_to(&mut sums);
    }
    sums
}

fn encode_bytes(encoder: &mut DescriptorEncoder<'_>, listeners: &[&Arc<Listener>]) -> fmt::Result {
    let help = "Times a session had to wait for its bandwidth";
    let mut family = counter(encoder, "evenkeel_bandwidth_waits", help)?;
    for listener in listeners {
        for direction in Direction::ALL {
            let labels = [("listener", &*listener.name), ("direction", direction.label())];
            let waits = listener.state.sum(|block| &block.bandwidth_waits[direction as usize]);
            count(&mut family, &labels, waits)?;
        }
    }
    let mut family = counter(encoder, "evenkeel_bytes", "Bytes moved")?;
    for listener in listeners {
        for direction in Direction::ALL {
            for path in PathKind::ALL {
                let labels = [
                    ("listener", &*listener.name),
                    ("direction", direction.label()),
                    ("path", path.label()),
                ];
                let select = |block: &crate::shared::ListenerCounters| {
                    block.bytes[direction as usize][path as usize].value()
                };
                let bytes = listener.state.blocks().map(select).sum();
                count(&mut family, &labels, bytes)?;
            }
        }
    }
    Ok(())
}

fn encode_limits(encoder: &mut DescriptorEncoder<'_>, listeners: &[&Arc<Listener>]) -> fmt::Result {
    let mut family = counter(encoder, "evenkeel_limit_decisions", "What limits decided")?;
    for ([listener, name], limit) in named_limits(listeners) {
        for decision in LimitDecision::ALL {
            let labels = [listener, name, ("decision", decision.label())];
            count(&mut family, &labels, limit.state.said(decision))?;
        }
    }
    let help = "Of the refused ones, those that the kernel refused before they were accepted";
    let mut family = counter(encoder, "evenkeel_limit_kernel_refusals", help)?;
    for (labels, limit) in named_limits(listeners) {
        count(&mut family, &labels, limit.state.in_kernel.value())?;
    }
    let help = "Clients forgotten early because the limit's table was full";
    let mut family = counter(encoder, "evenkeel_limit_evictions", help)?;
    for (labels, limit) in named_limits(listeners) {
        count(&mut family, &labels, limit.limiter.live_evictions())?;
    }
    let help = "Sessions let in uncounted because the table of max_concurrent was full";
    let mut family = counter(encoder, "evenkeel_limit_overflows", help)?;
    for (labels, limit) in named_limits(listeners) {
        count(&mut family, &labels, limit.limiter.overflows())?;
    }
    Ok(())
}

/// Every limit with its labels.
fn named_limits<'a>(
    listeners: &'a [&Arc<Listener>],
) -> impl Iterator<Item = ([(&'static str, &'a str); 2], &'a Limit)> {
    listeners.iter().flat_map(|listener| {
        let labels = |limit: &'a Limit| [("listener", &*listener.name), ("limit", &*limit.name)];
        listener.limits.iter().map(move |limit| (labels(limit), limit))
    })
}
