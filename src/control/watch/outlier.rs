//! Outlier ejection: records the backends that workers have ejected for failures of real sessions,
//! and readmits them at the end of their time.
//!
//! Workers count failures in atomics of the backend (`shared/failure_evidence.rs`) and eject it at
//! the deciding one (`Pool::eject_if_outlier`); the rules are `policy/health/outlier.rs`. Looks run
//! only while a pool has an `outlier` table. An ejection survives a reload as long as the backend
//! and its pool's table stay in the file.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::consume_budget;

use crate::config::units::show_duration;
use crate::control::plane::health_book::BackendVerdict;
use crate::control::plane::outlier_book::JudgedBackend;
use crate::control::plane::state::Plane;
use crate::control::watch::panic::judge_pool;
use crate::control::words::count;
use crate::policy::health::outlier::History;
use crate::shared::{Backend, BackendId, Pool, Snapshot};

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

/// Backends whose sessions are judged from a snapshot on, or no longer.
#[derive(Debug)]
pub(crate) struct JudgingChanges {
    started: Vec<Arc<Backend>>,
    /// Their pool has no `outlier` table any more.
    stopped: Vec<(Arc<Pool>, Arc<Backend>)>,
    gone: Vec<Arc<Backend>>,
}

impl JudgingChanges {
    /// What a snapshot changes; `left` are the backends that it no longer has.
    pub(crate) fn new(snapshot: &Snapshot, left: &[Arc<Backend>]) -> Self {
        let is_judged = |backend: &Backend| backend.state.failure_evidence.is_judged();
        let (mut started, mut stopped) = (Vec::new(), Vec::new());
        for pool in snapshot.pools.iter().flatten() {
            for backend in pool.backends() {
                match (is_judged(backend), pool.terms.outlier.is_some()) {
                    (false, true) => started.push(Arc::clone(backend)),
                    (true, false) => stopped.push((Arc::clone(pool), Arc::clone(backend))),
                    _ => {}
                }
            }
        }
        let gone = left.iter().filter(|backend| is_judged(backend)).cloned().collect();
        Self { started, stopped, gone }
    }
}

/// Judges the backends that the published snapshot wants judged; lifts all other ejections.
pub(crate) async fn take_up(plane: &Plane, changes: &JudgingChanges) {
    for backend in changes.gone.iter().chain(changes.stopped.iter().map(|(_, backend)| backend)) {
        plane.outliers.judged.lock().remove(&backend.id);
        consume_budget().await;
    }
    for backend in &changes.gone {
        // If it comes back while it has sessions, it is judged anew.
        backend.state.failure_evidence.set_judged(false);
    }
    for (pool, backend) in &changes.stopped {
        stop_judging(plane, pool, backend);
        consume_budget().await;
    }
    for backend in &changes.started {
        // Failures from before its pool had the table are no evidence.
        backend.state.failure_evidence.clear();
        backend.state.failure_evidence.set_judged(true);
        let state = Arc::clone(&backend.state);
        let judged = JudgedBackend { state, history: History::default(), spared: 0 };
        plane.outliers.judged.lock().insert(backend.id, judged);
        consume_budget().await;
    }
    if !plane.outliers.judged.lock().is_empty() {
        plane.outliers.wanted.notify_one();
    }
}

/// Its pool has no `outlier` table any more.
fn stop_judging(plane: &Plane, pool: &Pool, backend: &Backend) {
    let was_ejected = backend.state.is_ejected();
    pool.stop_judging(backend);
    if was_ejected {
        lift(plane, pool, backend);
        tracing::warn!("{} readmitted by a reload", name(backend));
    }
}

/// Readmits a backend before the end of its time, on the word of an operator.
pub(crate) fn readmit_at_once(plane: &Plane, pool: &Pool, backend: &Backend) {
    if !backend.state.is_ejected() {
        return;
    }
    let now = plane.started.elapsed();
    if let Some(known) = known_of(&mut plane.outliers.judged.lock(), backend) {
        known.history.readmit(now);
    }
    lift(plane, pool, backend);
}

/// An ejection that another process has begun.
#[derive(Debug)]
pub(crate) struct ResumedEjection<'a> {
    /// Until its end.
    pub(crate) left: Duration,
    /// How many ejections, this one included, lengthen the next one.
    pub(crate) counted: u32,
    /// Why, in words.
    pub(crate) reason: &'a str,
}

/// Goes on with an ejection, if the pool of the backend still judges its sessions.
pub(crate) fn resume(plane: &Plane, pool: &Pool, backend: &Backend, ejection: &ResumedEjection) {
    let until = plane.started.elapsed().saturating_add(ejection.left);
    match known_of(&mut plane.outliers.judged.lock(), backend) {
        Some(known) => known.history = History::resumed(until, ejection.counted),
        None => return,
    }
    backend.state.set_ejected(true, &pool.state.tally);
    let verdict = BackendVerdict::from_now(ejection.reason);
    plane.health.lock().of(backend).ejection = Some(verdict);
    tracing::warn!("{} stays ejected after the upgrade: {}", name(backend), ejection.reason);
    judge_pool(plane, pool);
}

/// Readmits the backends whose time is over, and records those that have been ejected since the
/// latest look.
fn judge_all(plane: &Plane) {
    let now = plane.started.elapsed();
    let snapshot = plane.publisher.latest();
    let mut judged = plane.outliers.judged.lock();
    for pool in snapshot.pools.iter().flatten() {
        let Some(rules) = &pool.terms.outlier else { continue };
        for backend in pool.backends().filter(|backend| backend.state.is_ejected()) {
            let Some(known) = known_of(&mut judged, backend) else { continue };
            if known.history.is_due(now) {
                known.history.readmit(now);
                readmit(plane, pool, backend);
            }
        }
        for backend in pool.backends().filter(|backend| is_suspect(backend)) {
            let Some(known) = known_of(&mut judged, backend) else { continue };
            if !pool.eject_if_outlier(backend) {
                tell_spared(known, backend);
            }
            if backend.state.is_ejected() && known.history.until().is_none() {
                let time_out = known.history.eject(rules, now);
                record_ejection(plane, pool, backend, time_out);
            }
        }
    }
}

/// What is known of a backend; nothing of one that had its id before.
fn known_of<'a>(
    judged: &'a mut HashMap<BackendId, JudgedBackend>,
    backend: &Backend,
) -> Option<&'a mut JudgedBackend> {
    judged.get_mut(&backend.id).filter(|known| Arc::ptr_eq(&known.state, &backend.state))
}

/// Whether something speaks against it: the others need no look.
fn is_suspect(backend: &Backend) -> bool {
    backend.state.failure_evidence.row() > 0 || backend.state.is_ejected()
}

/// Says once for each further failure that a backend stays because its pool needs it.
fn tell_spared(known: &mut JudgedBackend, backend: &Backend) {
    let failures = backend.state.failure_evidence.row();
    if failures != known.spared {
        known.spared = failures;
        tracing::debug!(
            "{} failed {failures} sessions in a row; its pool can spare no other",
            name(backend),
        );
    }
}

fn record_ejection(plane: &Plane, pool: &Pool, backend: &Backend, time_out: Duration) {
    let out = show_duration(time_out);
    let evidence = &backend.state.failure_evidence;
    let failures = count(u64::from(evidence.decisive()), "failure");
    let reason = format!("{} ({failures} in a row)", evidence.symptom().words());
    let verdict = BackendVerdict::from_now(format!("for {out}: {reason}"));
    plane.health.lock().of(backend).ejection = Some(verdict);
    let (healthy, total) = (pool.health().healthy, pool.backends().count());
    tracing::warn!("{} ejected for {out}: {reason}, {healthy} of {total} left", name(backend));
    judge_pool(plane, pool);
}

fn readmit(plane: &Plane, pool: &Pool, backend: &Backend) {
    lift(plane, pool, backend);
    let (healthy, total) = (pool.health().healthy, pool.backends().count());
    let still = if backend.state.is_up() { "" } else { " but down by its probes" };
    tracing::warn!(
        "{} readmitted{still}: its time out is over, {healthy} of {total} up",
        name(backend),
    );
    judge_pool(plane, pool);
}

fn lift(plane: &Plane, pool: &Pool, backend: &Backend) {
    // Failures of sessions that began before the ejection are no reason for another.
    backend.state.failure_evidence.clear();
    backend.state.set_ejected(false, &pool.state.tally);
    plane.health.lock().of(backend).ejection = None;
}

fn name(backend: &Backend) -> String {
    format!("backend {}/{}", backend.pool_name, backend.name)
}
