//! Active probes: one task for each backend of a pool that has a health table.
//!
//! A task owns the pace and the row of results of its backend, and reports changes of the verdict
//! to the plane. Reloads reach it through a watch channel, so its row outlives them; dropping its
//! entry in `roster` ends the task. First probes of a new configuration are spread over one second
//! at most, so that a backend dead at start is noticed soon. `probe` makes one probe, `pace` sets
//! its time.

mod failure;
mod http;
mod orders;
mod pace;
mod probe;
pub(crate) mod roster;
mod send_expect;
mod source;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use crate::policy::health::rise_fall::Change;
use crate::shared::{AdminState, Backend};

use crate::control::plane::clock::seconds_now;
use crate::control::plane::health_book::BackendVerdict;
use crate::control::plane::state::Plane;
use crate::control::watch::certificate::{expiry, is_near, shown_time};
use crate::control::watch::prober::failure::ProbeFailure;
use crate::control::watch::prober::orders::Orders;
use crate::control::watch::prober::pace::{Others, Pace, WAIT_MIN};
use crate::control::watch::prober::probe::{ProbeQuestion, ProbeResult, probe};
use crate::control::watch::verdict::set_verdict;

/// Probes once, when a permit is free: many backends that hang at once must not use up the
/// descriptors of sessions. A probe may be over without a wait, as where the kernel refuses at
/// once: it keeps its permit while others act, so that thousands that are due together do not take
/// the thread from clients that ask it something. With the result comes how long the probe took,
/// without the wait for the permit.
async fn probe_with_permit(
    at_once: &Semaphore,
    question: ProbeQuestion<'_>,
) -> (ProbeResult, Duration) {
    // The semaphore is never closed.
    let _permit = at_once.acquire().await.ok();
    let started = Instant::now();
    let found = probe(question).await;
    let took = started.elapsed();
    yield_now().await;
    (found, took)
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
            let (found, took) = tokio::select! {
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
            due = (started + self.judge(verdict, took)).max(Instant::now() + WAIT_MIN);
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
    fn judge(&mut self, outcome: Result<(), ProbeFailure>, took: Duration) -> Duration {
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
        self.plane.health.lock().of(&self.backend).probes.count(failure.is_none(), took);
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
