//! Outlier ejection: judges backends by the failures of real sessions, ejects them, and readmits
//! them at the end of their time.
//!
//! Workers count failures in atomics of the backend (`shared/failure_evidence.rs`); the rules are
//! `policy/health/outlier.rs`. Looks run only while a pool has an `outlier` table. An ejection
//! survives a reload as long as the backend and its pool's table stay in the file.

use std::sync::Arc;
use std::time::Duration;

use crate::config::units::show_duration;
use crate::control::plane::configured::is_wanted;
use crate::control::plane::health_book::BackendVerdict;
use crate::control::plane::outlier_book::JudgedBackend;
use crate::control::plane::state::Plane;
use crate::control::watch::panic::judge_panic;
use crate::control::words::count;
use crate::policy::health::outlier::{History, PoolHealth};
use crate::shared::{Backend, Pool, Snapshot};

/// How often failures and due readmissions are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Looks after ejections until the process ends.
pub(crate) async fn watch(plane: Arc<Plane>) {
    loop {
        if plane.outliers.judged.lock().is_empty() {
            plane.outliers.wanted.notified().await;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
        judge_all(&plane);
    }
}

/// Judges the backends that this snapshot, the published one, wants judged; lifts all other
/// ejections.
pub(crate) fn take_up(plane: &Plane, snapshot: &Snapshot) {
    let mut judged = plane.outliers.judged.lock();
    let mut before = std::mem::take(&mut *judged);
    for pool in snapshot.pools.iter().flatten() {
        for backend in pool.backends() {
            let is_same = |known: &JudgedBackend| Arc::ptr_eq(&known.state, &backend.state);
            let known = before.remove(&backend.id).filter(is_same);
            match known {
                Some(known) if pool.terms.outlier.is_some() => {
                    judged.insert(backend.id, known);
                    continue;
                }
                _ if backend.state.is_ejected() => {
                    lift(plane, backend);
                    tracing::warn!("{} readmitted by a reload", name(backend));
                }
                _ => {}
            }
            if pool.terms.outlier.is_some() {
                // Failures from before its pool had the table are no evidence.
                backend.state.failure_evidence.clear();
                let state = Arc::clone(&backend.state);
                judged.insert(backend.id, JudgedBackend { state, history: History::default() });
            }
        }
    }
    if !judged.is_empty() {
        plane.outliers.wanted.notify_one();
    }
}

/// Readmits a backend before the end of its time, on the word of an operator.
pub(crate) fn readmit_at_once(plane: &Plane, backend: &Backend) {
    if !backend.state.is_ejected() {
        return;
    }
    let now = plane.started.elapsed();
    if let Some(known) = plane.outliers.judged.lock().get_mut(&backend.id) {
        known.history.readmit(now);
    }
    lift(plane, backend);
}

/// Readmits the backends whose time is over, then ejects those that have failed too often.
fn judge_all(plane: &Plane) {
    let now = plane.started.elapsed();
    let snapshot = plane.publisher.latest();
    let mut judged = plane.outliers.judged.lock();
    for pool in snapshot.pools.iter().flatten() {
        let Some(rules) = &pool.terms.outlier else { continue };
        for backend in pool.backends() {
            let Some(known) = judged.get_mut(&backend.id) else { continue };
            if known.history.is_due(now) {
                known.history.readmit(now);
                readmit(plane, pool, backend);
            }
        }
        for backend in pool.backends() {
            let Some(known) = judged.get_mut(&backend.id) else { continue };
            let failures = backend.state.failure_evidence.take_worst();
            if !rules.is_outlier(failures) || !is_candidate(backend) {
                continue;
            }
            if rules.has_room(standing(pool)) {
                let time_out = known.history.eject(rules, now);
                eject(plane, pool, backend, &Ejection { failures, time_out });
            } else {
                tracing::debug!(
                    "{} failed {failures} sessions in a row; its pool can spare no other",
                    name(backend),
                );
            }
        }
    }
}

/// The reason and the length of an ejection.
struct Ejection {
    /// Sessions that failed in a row.
    failures: u32,
    time_out: Duration,
}

fn eject(plane: &Plane, pool: &Pool, backend: &Backend, ejection: &Ejection) {
    let out = show_duration(ejection.time_out);
    let why = backend.state.failure_evidence.symptom().words();
    backend.state.failure_evidence.clear();
    backend.state.set_ejected(true);
    let reason = format!("{why} ({} in a row)", count(u64::from(ejection.failures), "failure"));
    let verdict = BackendVerdict::from_now(format!("for {out}: {reason}"));
    plane.health.lock().ejections.insert(backend.id, verdict);
    let PoolHealth { healthy, .. } = standing(pool);
    let total = pool.backends().count();
    tracing::warn!("{} ejected for {out}: {reason}, {healthy} of {total} left", name(backend));
    judge_panic(pool);
}

fn readmit(plane: &Plane, pool: &Pool, backend: &Backend) {
    lift(plane, backend);
    let PoolHealth { healthy, .. } = standing(pool);
    let total = pool.backends().count();
    let still = if backend.state.is_up() { "" } else { " but down by its probes" };
    tracing::warn!(
        "{} readmitted{still}: its time out is over, {healthy} of {total} up",
        name(backend),
    );
    judge_panic(pool);
}

fn lift(plane: &Plane, backend: &Backend) {
    // Failures of sessions that began before the ejection are no reason for another.
    backend.state.failure_evidence.clear();
    backend.state.set_ejected(false);
    plane.health.lock().ejections.remove(&backend.id);
}

/// Whether an ejection would change anything.
fn is_candidate(backend: &Backend) -> bool {
    is_wanted(backend) && backend.state.is_healthy()
}

fn standing(pool: &Pool) -> PoolHealth {
    let wanted = || pool.backends().filter(|backend| is_wanted(backend));
    PoolHealth {
        total: wanted().count(),
        ejected: wanted().filter(|backend| backend.state.is_ejected()).count(),
        healthy: wanted().filter(|backend| backend.state.is_healthy()).count(),
    }
}

fn name(backend: &Backend) -> String {
    format!("backend {}/{}", backend.pool_name, backend.name)
}
