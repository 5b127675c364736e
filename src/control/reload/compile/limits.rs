//! The limits of a listener, and which of their tables outlive a reload.

use std::sync::Arc;

use crate::config;
use crate::policy::admit::access::NetSet;
use crate::policy::admit::admission::Rules;
use crate::policy::admit::limiter::Limiter;
use crate::policy::admit::meter::Meter;
use crate::policy::terms::CLIENT_TABLE_MAX;
use crate::shared::Limit;

use crate::control::reload::compile::inputs::Inputs;

/// Makes the limit of a listener. `known` is the one that the listener had before.
pub(super) fn limit(
    inputs: &Inputs<'_>,
    limit: &config::LimitConfig,
    known: Option<&Limit>,
) -> Limit {
    let burst = |rate: config::EventRate| u32::try_from(rate.count).unwrap_or(u32::MAX);
    let rules = Rules {
        rate: limit.rate.and_then(|rate| meter(limit.algorithm, rate, limit.burst)),
        concurrent_max: limit.max_concurrent,
        listener_rate: limit
            .listener_rate
            .and_then(|rate| meter(limit.algorithm, rate, burst(rate))),
    };
    let listener_rate = known
        .filter(|old| is_readable(rules.listener_rate, old.rules.listener_rate))
        .map_or_else(Arc::default, |old| Arc::clone(&old.listener_rate));
    Limit {
        limiter: limiter(inputs, limit, &rules, known),
        listener_rate,
        table_size: limit.table_size,
        rules,
        key: limit.key,
        action: limit.action,
        observe: limit.observe,
        exempt: (!limit.exempt.is_empty()).then(|| NetSet::new(&limit.exempt)),
    }
}

/// The tables stay as long as what they hold stays meaningful: the same size, the same idea of
/// one client. Rates begin anew, and sessions stay, when rates are counted in another way.
fn limiter(
    inputs: &Inputs<'_>,
    limit: &config::LimitConfig,
    rules: &Rules,
    known: Option<&Limit>,
) -> Arc<Limiter> {
    let table_size = limit.table_size;
    let kept = known.filter(|old| {
        old.key == limit.key
            && old.table_size == table_size
            && old.rules.concurrent_max.is_some() == rules.concurrent_max.is_some()
    });
    match kept {
        Some(old) if is_readable(rules.rate, old.rules.rate) => Arc::clone(&old.limiter),
        Some(old) => Arc::new(old.limiter.with_new_rates(table_size)),
        None => {
            let concurrent = limit.max_concurrent.map(|_| concurrent_size(inputs, table_size));
            let new = Limiter::new(table_size, concurrent, inputs.seeds);
            Arc::new(match known {
                Some(old) => new.counting_on_from(&old.limiter),
                None => new,
            })
        }
    }
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

/// Whether states that were counted in the old way can go on being used.
fn is_readable(new: Option<Meter>, old: Option<Meter>) -> bool {
    match (new, old) {
        (Some(new), Some(old)) => new.reads(&old),
        (Some(_), None) => false,
        // They are not read. A rate that is added later begins anew.
        (None, _) => true,
    }
}
