//! Outlier ejection: judges by what sessions have met, ejects, and readmits when the time is over.
//!
//! Workers count failures in atomics of the backend (`shared/failure_evidence.rs`); the rules are
//! `policy/outlier.rs`. Looks run only while some pool has an `outlier` table. Ejections survive a
//! reload as long as the backend and its pool's table stay in the file.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config::units::show_duration;
use crate::policy::health::outlier::{History, Rules, Standing};
use crate::shared::{Backend, BackendId, BackendState, Pool, Snapshot};

use crate::control::reload::plane::{Plane, Verdict, is_wanted};
use crate::control::tell::words::count;

/// How often failures and due readmissions are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The backends of all pools that eject.
#[derive(Debug, Default)]
pub(crate) struct OutlierBook {
    watched: Mutex<HashMap<BackendId, Watched>>,
    /// A pool wants to be looked at.
    wanted: Notify,
}

/// One backend whose sessions are judged.
#[derive(Debug)]
struct Watched {
    /// Tells a backend from a later one with the same id.
    state: Arc<BackendState>,
    history: History,
}

/// Looks after ejections for as long as the process runs.
pub(crate) async fn watch(plane: Arc<Plane>) {
    loop {
        if plane.outliers.watched.lock().is_empty() {
            plane.outliers.wanted.notified().await;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
        plane.judge_outliers();
    }
}

impl Plane {
    /// Watches what this snapshot, the published one, wants watched; lifts all other ejections.
    pub(crate) fn take_up_outliers(&self, snapshot: &Snapshot) {
        let mut watched = self.outliers.watched.lock();
        let mut before = std::mem::take(&mut *watched);
        for pool in snapshot.pools.iter().flatten() {
            for backend in pool.backends() {
                let same = |known: &Watched| Arc::ptr_eq(&known.state, &backend.state);
                let known = before.remove(&backend.id).filter(same);
                match known {
                    Some(known) if pool.outlier.is_some() => {
                        watched.insert(backend.id, known);
                        continue;
                    }
                    _ if backend.state.is_ejected() => {
                        self.lift(backend);
                        tracing::warn!("{} readmitted by a reload", name(backend));
                    }
                    _ => {}
                }
                if pool.outlier.is_some() {
                    // What was counted while nobody judged says nothing about now.
                    backend.state.failure_evidence.clear();
                    let state = Arc::clone(&backend.state);
                    watched.insert(backend.id, Watched { state, history: History::default() });
                }
            }
        }
        if !watched.is_empty() {
            self.outliers.wanted.notify_one();
        }
    }

    /// Readmits a backend before its time: an operator says that it is well.
    pub(crate) fn readmit_at_once(&self, backend: &Backend) {
        if !backend.state.is_ejected() {
            return;
        }
        let now = self.started.elapsed();
        if let Some(known) = self.outliers.watched.lock().get_mut(&backend.id) {
            known.history.readmit(now);
        }
        self.lift(backend);
    }

    /// Readmits whose time is over, then ejects who has failed too often.
    fn judge_outliers(&self) {
        let now = self.started.elapsed();
        let snapshot = self.publisher.latest();
        let mut watched = self.outliers.watched.lock();
        for pool in snapshot.pools.iter().flatten() {
            let Some(rules) = &pool.outlier else { continue };
            for backend in pool.backends() {
                let Some(known) = watched.get_mut(&backend.id) else { continue };
                if known.history.is_due(now) {
                    known.history.readmit(now);
                    self.readmit(pool, backend);
                }
            }
            for backend in pool.backends() {
                let Some(known) = watched.get_mut(&backend.id) else { continue };
                let failures = backend.state.failure_evidence.take_worst();
                if !rules.is_outlier(failures) || !is_candidate(backend) {
                    continue;
                }
                if rules.has_room(standing(pool)) {
                    self.eject(pool, backend, (rules, failures, now), &mut known.history);
                } else {
                    tracing::debug!(
                        "{} failed {failures} sessions in a row; its pool can spare no other",
                        name(backend),
                    );
                }
            }
        }
    }

    fn eject(
        &self,
        pool: &Pool,
        backend: &Backend,
        (rules, failures, now): (&Rules, u32, Duration),
        history: &mut History,
    ) {
        let out = show_duration(history.eject(rules, now));
        let why = backend.state.failure_evidence.symptom().words();
        backend.state.failure_evidence.clear();
        backend.state.set_ejected(true);
        let reason = format!("{why} ({} in a row)", count(u64::from(failures), "failure"));
        let verdict = Verdict { reason: format!("for {out}: {reason}"), since: SystemTime::now() };
        self.health.lock().ejections.insert(backend.id, verdict);
        let Standing { healthy, .. } = standing(pool);
        let total = pool.backends().count();
        tracing::warn!("{} ejected for {out}: {reason}, {healthy} of {total} left", name(backend));
        self.judge_panic(pool);
    }

    fn readmit(&self, pool: &Pool, backend: &Backend) {
        self.lift(backend);
        let Standing { healthy, .. } = standing(pool);
        let total = pool.backends().count();
        let still = if backend.state.is_up() { "" } else { " but down by its probes" };
        tracing::warn!(
            "{} readmitted{still}: its time out is over, {healthy} of {total} up",
            name(backend),
        );
        self.judge_panic(pool);
    }

    fn lift(&self, backend: &Backend) {
        // Sessions that were under way meanwhile are no reason to eject it again.
        backend.state.failure_evidence.clear();
        backend.state.set_ejected(false);
        self.health.lock().ejections.remove(&backend.id);
    }
}

/// Whether an ejection would change anything.
fn is_candidate(backend: &Backend) -> bool {
    is_wanted(backend) && backend.state.is_healthy()
}

fn standing(pool: &Pool) -> Standing {
    let wanted = || pool.backends().filter(|backend| is_wanted(backend));
    Standing {
        total: wanted().count(),
        ejected: wanted().filter(|backend| backend.state.is_ejected()).count(),
        healthy: wanted().filter(|backend| backend.state.is_healthy()).count(),
    }
}

fn name(backend: &Backend) -> String {
    format!("backend {}/{}", backend.pool_name, backend.name)
}
