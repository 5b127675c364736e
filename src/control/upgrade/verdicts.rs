//! What probes and sessions have said of backends, for the process after an upgrade: a backend that
//! is down or ejected gets nothing there either.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::control::plane::health_book::BackendVerdict;
use crate::control::plane::state::Plane;
use crate::control::watch::outlier;
use crate::control::watch::verdict::set_verdict;
use crate::policy::health::rise_fall::Belief;

/// What is known of one backend.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PassedVerdict {
    pool: String,
    backend: String,
    address: String,
    /// `None` when no probe has judged it.
    is_up: Option<bool>,
    /// Why, in words.
    reason: Option<String>,
    ejection: Option<PassedEjection>,
}

/// An ejection that is not over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PassedEjection {
    /// Until its end, in milliseconds.
    left_ms: u64,
    /// How many ejections, this one included, lengthen the next one.
    counted: u32,
    reason: Option<String>,
}

/// Of every backend of which there is something to say.
pub(crate) fn passed(plane: &Plane) -> Vec<PassedVerdict> {
    let snapshot = plane.publisher.latest();
    let (now, health) = (plane.started.elapsed(), plane.health.lock());
    let judged = plane.outliers.judged.lock();
    let mut list = Vec::new();
    for pool in snapshot.pools.iter().flatten() {
        for backend in pool.backends() {
            let known = health.get(backend);
            let history = judged.get(&backend.id).map(|judged| judged.history);
            let history = history.filter(|_| backend.state.is_ejected()).map(|mut history| {
                // A worker has just ejected it, and no look has taken note yet.
                if let Some(rules) = pool.terms.outlier.filter(|_| history.until().is_none()) {
                    history.eject(&rules, now);
                }
                history
            });
            let reason = |verdict: Option<&BackendVerdict>| verdict.map(|it| it.reason.clone());
            list.push(PassedVerdict {
                pool: backend.pool_name.clone(),
                backend: backend.name.clone(),
                address: backend.address.to_string(),
                is_up: match backend.state.belief() {
                    Belief::Up => Some(true),
                    Belief::Down => Some(false),
                    Belief::Unjudged => None,
                },
                reason: reason(known.and_then(|known| known.verdict.as_ref())),
                ejection: history.and_then(|history| {
                    let left = history.until()?.saturating_sub(now).as_millis();
                    Some(PassedEjection {
                        left_ms: u64::try_from(left).unwrap_or(u64::MAX),
                        counted: history.counted(),
                        reason: reason(known.and_then(|known| known.ejection.as_ref())),
                    })
                }),
            });
        }
    }
    list
}

/// Puts them in force for the backends that the file still has and still judges. Before the first
/// probe, which goes on from there.
pub(crate) fn take_up(plane: &Plane, passed: &[PassedVerdict]) {
    let snapshot = plane.publisher.latest();
    let config = Arc::clone(&plane.current.lock().config);
    let probed = config.pools.iter().filter(|pool| pool.health.is_some());
    let probed: HashSet<&str> = probed.map(|pool| pool.name.as_str()).collect();
    let members = snapshot.pools.iter().flatten().flat_map(|pool| {
        pool.backends().map(move |backend| ((&*pool.name, &*backend.name), (pool, backend)))
    });
    let members: HashMap<(&str, &str), _> = members.collect();
    for verdict in passed {
        let found = members.get(&(verdict.pool.as_str(), verdict.backend.as_str()));
        let Some((pool, backend)) = found else { continue };
        if backend.address.to_string() != verdict.address {
            continue;
        }
        let reason = verdict.reason.as_deref().unwrap_or("as before the upgrade");
        let changed = verdict.is_up.filter(|is_up| *is_up != backend.state.is_up());
        if let Some(is_up) = changed.filter(|_| probed.contains(pool.name.as_str())) {
            set_verdict(plane, backend, is_up, reason);
        }
        if let Some(ejection) = &verdict.ejection {
            let left = Duration::from_millis(ejection.left_ms);
            let reason = ejection.reason.as_deref().unwrap_or("as before the upgrade");
            let resumed = outlier::ResumedEjection { left, counted: ejection.counted, reason };
            outlier::resume(plane, pool, backend, &resumed);
        }
    }
}
