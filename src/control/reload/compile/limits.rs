//! The limits of a listener, and which of their tables outlive a reload.

use std::sync::Arc;

use crate::config;
use crate::policy::admit::access::NetSet;
use crate::policy::admit::admission::Rules;
use crate::policy::admit::limiter::Limiter;
use crate::policy::admit::meter::Meter;
use crate::policy::admit::shared_rate::SharedRate;
use crate::policy::terms::CLIENT_TABLE_MAX;
use crate::shared::{Limit, LimitState, Refusing};

use crate::control::host::gates::ListenerGate;
use crate::control::reload::compile::inputs::Inputs;

/// Makes the limits of a listener. `known` are those that it had before: one that has the same name
/// is the same one.
pub(crate) fn limits(
    inputs: &Inputs<'_>,
    limits: &[config::LimitConfig],
    gate: Option<&ListenerGate>,
    known: &[Limit],
) -> Box<[Limit]> {
    let known_as = |name: &str| known.iter().find(|old| *old.name == *name);
    let mut limits: Box<[Limit]> =
        limits.iter().map(|one| limit(inputs, one, known_as(&one.name))).collect();
    for (place, limit) in limits.iter_mut().enumerate() {
        if let Some(refusing) = gate.and_then(|gate| gate.limits.get(place)) {
            limit.refusing = refusing.clone();
        }
        if let Some(Some(count)) = gate.and_then(|gate| gate.counts.get(place)) {
            limit.state.in_kernel.add(count);
        }
    }
    limits
}

fn limit(inputs: &Inputs<'_>, limit: &config::LimitConfig, known: Option<&Limit>) -> Limit {
    let burst = |rate: config::EventRate| u32::try_from(rate.count).unwrap_or(u32::MAX);
    let rules = Rules {
        rate: limit.rate.and_then(|rate| meter(limit.algorithm, rate, limit.burst)),
        concurrent_max: limit.max_concurrent,
        listener_rate: limit
            .listener_rate
            .and_then(|rate| meter(limit.algorithm, rate, burst(rate))),
    };
    let listener_rate = listener_rate(inputs, rules.listener_rate, known);
    let state = known.map(|old| Arc::clone(&old.state));
    Limit {
        name: limit.name.as_str().into(),
        clients: (!limit.clients.is_empty()).then(|| NetSet::new(&limit.clients)),
        state: state.unwrap_or_else(|| Arc::new(LimitState::new(inputs.workers))),
        limiter: limiter(inputs, limit, &rules, known),
        listener_rate,
        table_size: limit.table_size,
        rules,
        key: limit.key,
        action: limit.action,
        observe: limit.observe,
        refusing: known.map_or_else(not_in_kernel, |old| old.refusing.clone()),
        exempt: (!limit.exempt.is_empty()).then(|| NetSet::new(&limit.exempt)),
    }
}

/// Where clients are refused unless something else is decided.
pub(super) fn not_in_kernel<M>() -> Refusing<M> {
    Refusing::InWorkers("it was not asked for".into())
}

/// What all clients together have used, as the new rate measures it.
fn listener_rate(
    inputs: &Inputs<'_>,
    rate: Option<Meter>,
    known: Option<&Limit>,
) -> Arc<SharedRate> {
    let Some(old) = known else { return Arc::default() };
    match (rate, old.rules.listener_rate) {
        (Some(rate), Some(earlier)) if rate.reads(&earlier) => Arc::clone(&old.listener_rate),
        (Some(rate), Some(earlier)) => {
            Arc::new(old.listener_rate.carried(&rate, &earlier, inputs.now_us))
        }
        // A rate that is new begins with its whole budget.
        _ => Arc::default(),
    }
}

/// What clients have used stays as long as the idea of one client does. Where it is stored in
/// another way it is carried over, so that no client gains by a reload.
fn limiter(
    inputs: &Inputs<'_>,
    limit: &config::LimitConfig,
    rules: &Rules,
    known: Option<&Limit>,
) -> Arc<Limiter> {
    let table_size = limit.table_size;
    let concurrent = limit.max_concurrent.map(|_| concurrent_size(inputs, table_size));
    let Some(old) = known.filter(|old| old.key == limit.key) else {
        let new = Limiter::new(table_size, concurrent, inputs.seeds);
        return Arc::new(match known {
            Some(old) => new.counting_on_from(&old.limiter),
            None => new,
        });
    };
    let is_same_size = old.table_size == table_size;
    let limiter = match (rules.rate, old.rules.rate) {
        (None, _) if is_same_size => old.limiter.with_sessions(concurrent),
        (Some(rate), Some(earlier)) if is_same_size && rate.reads(&earlier) => {
            old.limiter.with_sessions(concurrent)
        }
        (Some(rate), Some(earlier)) => old
            .limiter
            .carried(table_size, &rate, &earlier, inputs.now_us)
            .with_sessions(concurrent),
        // A rate that is new begins with its whole budget.
        _ => old.limiter.with_new_rates(table_size).with_sessions(concurrent),
    };
    Arc::new(limiter)
}

/// Room for every session to be another client's, at a load where no set overflows.
fn concurrent_size(inputs: &Inputs<'_>, table_size: u32) -> u32 {
    let wanted = inputs.sessions_max.saturating_mul(4).min(u64::from(CLIENT_TABLE_MAX));
    u32::try_from(wanted).unwrap_or(CLIENT_TABLE_MAX).max(table_size)
}

fn meter(algorithm: config::LimitAlgorithm, rate: config::EventRate, burst: u32) -> Option<Meter> {
    let config::EventRate { count, period } = rate;
    match algorithm {
        config::LimitAlgorithm::TokenBucket => Meter::token_bucket(count, period, burst),
        config::LimitAlgorithm::SlidingWindow => Meter::sliding_window(count, period),
        config::LimitAlgorithm::FixedWindow => Meter::fixed_window(count, period),
    }
}
