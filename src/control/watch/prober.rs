//! Active probes: one task for each backend of a pool that has a health table.
//!
//! A task owns the pace and the row of results of its backend, and reports changes of the verdict
//! to the plane. Reloads reach it through a watch channel, so its row outlives them; dropping its
//! entry here ends the task. First probes of a new configuration are spread over one second at
//! most, so that a backend dead at start is noticed soon. `probe` makes one probe, `pace` sets its
//! time.

mod failure;
mod http;
mod pace;
mod probe;
mod send_expect;
mod source;
mod tls;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use crate::config::{Config, Health};
use crate::policy::health::backoff::spread;
use crate::policy::health::rise_fall::Change;
use crate::shared::{AdminState, Backend, BackendId};

use crate::control::host::trust::TlsProbe;
use crate::control::plane::clock::seconds_now;
use crate::control::plane::configured::configured_backends;
use crate::control::plane::health_book::BackendVerdict;
use crate::control::plane::state::Plane;
use crate::control::watch::certificate::{expiry, is_near, shown_time};
use crate::control::watch::prober::failure::ProbeFailure;
use crate::control::watch::prober::pace::{Others, Pace, WAIT_MIN};
use crate::control::watch::prober::probe::{ProbeQuestion, ProbeResult, probe};
use crate::control::watch::verdict::set_verdict;

/// First probes of new backends are spread over their interval, at most over this time.
const START_SPREAD_MAX: Duration = Duration::from_secs(1);

/// All probes of the process.
#[derive(Debug)]
pub(crate) struct Prober {
    plane: Arc<Plane>,
    tasks: Mutex<HashMap<BackendId, Task>>,
    /// As many permits as probes may run at once.
    at_once: Arc<Semaphore>,
}

/// The probes of one backend; dropping it ends them at once.
#[derive(Debug)]
struct Task {
    backend: Arc<Backend>,
    orders: watch::Sender<Orders>,
    abort: AbortHandle,
}

/// The settings of a backend's probes.
#[derive(Debug, Clone)]
struct Orders {
    health: Health,
    /// Names, roots and client of TLS probes.
    tls: Option<Arc<TlsProbe>>,
}

impl Orders {
    fn is_same(&self, other: &Self) -> bool {
        let address = |orders: &Self| orders.tls.as_ref().map(Arc::as_ptr);
        self.health == other.health && address(self) == address(other)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

impl Prober {
    /// No probes yet.
    pub(crate) fn new(plane: Arc<Plane>) -> Self {
        let at_once = Arc::new(Semaphore::new(plane.sizes.probes()));
        Self { plane, tasks: Mutex::default(), at_once }
    }

    /// Probes the backends of this configuration, the published one. Needs a tokio runtime.
    pub(crate) fn take_up(&self, config: &Config) {
        let snapshot = self.plane.publisher.latest();
        let tls = self.plane.current.lock().tls.clone();
        let mut tasks = self.tasks.lock();
        let mut before = std::mem::take(&mut *tasks);
        let mut new = Vec::new();
        for (pool, _, backend) in configured_backends(config, &snapshot) {
            let Some(health) = &pool.health else { continue };
            let orders = Orders { health: health.clone(), tls: tls.of(&pool.name).cloned() };
            // A later backend may have the id of one that is gone, never its state.
            let same = |task: &Task| Arc::ptr_eq(&task.backend.state, &backend.state);
            match before.remove(&backend.id).filter(same) {
                Some(task) => {
                    task.order(orders);
                    tasks.insert(backend.id, task);
                }
                None => new.push((Arc::clone(backend), orders)),
            }
        }
        for backend in before.values().map(|task| &task.backend).chain(new.iter().map(|(b, _)| b)) {
            self.plane.health.lock().forget_probes(backend);
        }
        let count = new.len();
        for (position, (backend, orders)) in new.into_iter().enumerate() {
            let first = spread(orders.health.interval.min(START_SPREAD_MAX), position, count);
            tasks.insert(backend.id, self.start(backend, orders, first));
        }
    }

    fn start(&self, backend: Arc<Backend>, orders: Orders, first: Duration) -> Task {
        // The state of a new backend begins as configured; a known backend keeps its verdict.
        let pace = Pace::new(&orders.health, backend.state.belief());
        let (orders, receiver) = watch::channel(orders);
        let watched = ProbedBackend {
            plane: Arc::clone(&self.plane),
            backend: Arc::clone(&backend),
            at_once: Arc::clone(&self.at_once),
            loss: self.plane.loss_bells.of(backend.pool),
            pace,
            has_told: false,
            is_explained: false,
            warned_of: None,
        };
        let abort = tokio::spawn(watched.run(receiver, first)).abort_handle();
        Task { backend, orders, abort }
    }
}

impl Task {
    /// Sends the task its settings, if they have changed.
    fn order(&self, orders: Orders) {
        self.orders.send_if_modified(|current| {
            let is_new = !current.is_same(&orders);
            if is_new {
                *current = orders;
            }
            is_new
        });
    }
}

/// Probes once, when a permit is free: many backends that hang at once must not use up the
/// descriptors of sessions.
async fn probe_with_permit(at_once: &Semaphore, question: ProbeQuestion<'_>) -> ProbeResult {
    // The semaphore is never closed.
    let _permit = at_once.acquire().await.ok();
    probe(question).await
}

/// One backend, as its task sees it.
struct ProbedBackend {
    plane: Arc<Plane>,
    backend: Arc<Backend>,
    /// A probe runs only with one of these permits.
    at_once: Arc<Semaphore>,
    /// Rings when the pool has lost its last healthy backend.
    loss: Arc<Notify>,
    pace: Pace,
    /// Whether it is logged that probes cannot be made at present.
    has_told: bool,
    /// Whether a probe has confirmed the verdict, which is an assumption before that.
    is_explained: bool,
    /// The certificate that was logged: its end, and whether it had expired.
    warned_of: Option<(u64, bool)>,
}

impl ProbedBackend {
    async fn run(mut self, mut orders: watch::Receiver<Orders>, first: Duration) {
        let Orders { mut health, mut tls } = orders.borrow_and_update().clone();
        let mut due = Instant::now() + first;
        loop {
            tokio::select! {
                biased;
                ordered = orders.changed() => {
                    if ordered.is_err() {
                        return;
                    }
                    Orders { health, tls } = orders.borrow_and_update().clone();
                    self.pace.retune(&health);
                    if tls.is_none() {
                        self.plane.health.lock().of(&self.backend).certificate = None;
                    }
                    due = due.min(Instant::now() + self.pace.anywhere(fastrand::u64(..)));
                    continue;
                }
                () = self.loss.notified() => {
                    if let Some(wait) = self.pace.hurry(fastrand::u64(..)) {
                        due = due.min(Instant::now() + wait);
                    }
                    continue;
                }
                () = sleep_until(due) => {}
            }
            if self.is_in_maintenance() {
                // The end of a maintenance has no event; a look costs one atomic load.
                self.pace.interrupt(&health);
                due = Instant::now() + self.pace.soon(fastrand::u64(..));
                continue;
            }
            let started = Instant::now();
            let address = self.backend.address.clone();
            let question = ProbeQuestion { address, health: &health, tls: tls.as_deref() };
            let found = tokio::select! {
                biased;
                _ = orders.changed() => {
                    // The answer would be to an outdated question: ask the new one.
                    orders.mark_changed();
                    continue;
                }
                found = probe_with_permit(&self.at_once, question) => found,
            };
            let ProbeResult { verdict, not_after } = found;
            if let Some(not_after) = not_after {
                self.note_certificate(not_after);
            }
            // From start to start: a death is noticed within `fall` intervals and one timeout.
            due = (started + self.judge(verdict)).max(Instant::now() + WAIT_MIN);
        }
    }

    fn is_in_maintenance(&self) -> bool {
        self.backend.state.admin() == AdminState::Maint
    }

    /// Records the end of the backend's certificate; logs it once when it is near, and once when it
    /// has passed.
    fn note_certificate(&mut self, not_after: u64) {
        self.plane.health.lock().of(&self.backend).certificate = Some(not_after);
        let now = seconds_now();
        let warning = (not_after, now > not_after);
        if is_near(not_after, now) && self.warned_of != Some(warning) {
            self.warned_of = Some(warning);
            let Backend { pool_name, name, .. } = &*self.backend;
            let end = shown_time(not_after);
            tracing::warn!(
                "certificate of backend {pool_name}/{name} {} ({end})",
                expiry(not_after, now)
            );
        }
    }

    /// Judges the result of one probe. Returns the time from its start to the next.
    fn judge(&mut self, outcome: Result<(), ProbeFailure>) -> Duration {
        if self.is_in_maintenance() {
            return WAIT_MIN;
        }
        let name = || format!("{}/{}", self.backend.pool_name, self.backend.name);
        let (failure, asked) = match outcome {
            Ok(()) => (None, None),
            Err(ProbeFailure::Backend(reason)) => (Some(reason), None),
            Err(ProbeFailure::Later { reason, after }) => (Some(reason), Some(after)),
            Err(ProbeFailure::Ourselves(reason)) => {
                if !self.has_told {
                    tracing::warn!("cannot probe backend {}, its verdict stays: {reason}", name());
                }
                self.has_told = true;
                return self.pace.soon(fastrand::u64(..));
            }
        };
        if let Some(reason) = &failure {
            tracing::debug!("probe of backend {} failed: {reason}", name());
        }
        self.has_told = false;
        self.plane.health.lock().of(&self.backend).probes.count(failure.is_none());
        let change = self.pace.record(failure.is_none());
        let row = self.pace.row();
        match (change, failure) {
            (Change::Down, Some(reason)) => {
                let reason = format!("{reason} ({row} of {row} probes failed)");
                set_verdict(&self.plane, &self.backend, false, &reason);
                self.is_explained = true;
            }
            (Change::Up, None) => {
                let reason = format!("{row} of {row} probes passed");
                set_verdict(&self.plane, &self.backend, true, &reason);
                self.is_explained = true;
            }
            (_, failure) if !self.is_explained => self.explain(failure),
            _ => {}
        }
        let others = if self.is_pool_serving() { Others::Serve } else { Others::Fail };
        match asked {
            Some(after) => self.pace.wait_as_asked(after, others, fastrand::u64(..)),
            None => self.pace.wait(others, fastrand::u64(..)),
        }
    }

    fn is_pool_serving(&self) -> bool {
        let snapshot = self.plane.publisher.latest();
        snapshot.pool(self.backend.pool).is_some_and(|pool| pool.state.is_serving())
    }

    /// Records the evidence for or against a verdict that is still an assumption.
    fn explain(&mut self, failure: Option<String>) {
        let passed = failure.is_none();
        let reason = match failure {
            None => "probe passed".to_owned(),
            Some(reason) => format!("probe failed: {reason}"),
        };
        let verdict = BackendVerdict::from_now(reason);
        self.plane.health.lock().of(&self.backend).verdict = Some(verdict);
        self.is_explained = passed == self.backend.state.is_up();
    }
}

#[cfg(test)]
mod tests;
