//! The state of the control plane, shared by its tasks: configuration, workers, verdicts.
//!
//! Everything here runs on one thread; locks are held for a few instructions and never across an
//! await.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;

use crate::config::Config;
use crate::dataplane::{Command, WorkerHandle};
use crate::policy::admit::shared_rate::SharedRate;
use crate::policy::balance::panic_mode::is_panicking;
use crate::shared::{
    Address, AdminState, Backend, BackendId, Generation, OnDown, Pool, Publisher, Snapshot,
    WorkerState,
};
use crate::sys::memory::prefer_large_pages;

use super::compile::{self, Inputs, Overrides};
use crate::control::start::listeners::{self, Bound};
use crate::control::start::sizing::Sizes;
use crate::control::tell::words::{count, too_few_healthy};
use crate::control::watch::outlier::OutlierBook;
use crate::control::watch::source_ports::SourceBook;
use crate::control::watch::trust::TlsProbes;

/// How far the process has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not everything is open yet.
    Starting,
    /// Serving.
    Serving,
    /// Asked to stop.
    Stopping,
}

/// The verdict on one backend, for people.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    /// Why it is up or down, in words.
    pub(crate) reason: String,
    /// Since when.
    pub(crate) since: SystemTime,
}

/// Results of the probes of one backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ProbeCounts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

/// What changes by a reload or an operator's verb.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) config: Config,
    pub(crate) bound: Bound,
    pub(crate) overrides: Overrides,
    pub(crate) tls: TlsProbes,
}

/// Counters of reloads.
#[derive(Debug, Default)]
pub(crate) struct ReloadCounts {
    pub(crate) ok: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// Seconds since the epoch of the latest success; 0 is never.
    pub(crate) last_success: AtomicU64,
    /// 1 when the latest attempt succeeded.
    pub(crate) last_ok: AtomicU64,
}

/// The control plane.
#[derive(Debug)]
pub(crate) struct Plane {
    pub(crate) file: PathBuf,
    pub(crate) started: Instant,
    pub(crate) sizes: Sizes,
    pub(crate) workers: Workers,
    pub(crate) publisher: Publisher,
    pub(crate) current: Mutex<Current>,
    pub(crate) health: Mutex<HealthBook>,
    pub(crate) outliers: OutlierBook,
    pub(crate) sources: SourceBook,
    pub(crate) reloads: ReloadCounts,
    phase: AtomicU8,
}

/// What is known of the probes and ejections of all backends.
#[derive(Debug, Default)]
pub(crate) struct HealthBook {
    pub(crate) verdicts: HashMap<BackendId, Verdict>,
    pub(crate) probes: HashMap<BackendId, ProbeCounts>,
    /// When the certificates expire that backends have shown, in seconds since the epoch.
    pub(crate) certificates: HashMap<BackendId, u64>,
    /// Of backends that are ejected now.
    pub(crate) ejections: HashMap<BackendId, Verdict>,
}

/// The data plane, as far as the control plane sees it.
#[derive(Debug)]
pub(crate) struct Workers {
    pub(crate) handles: Vec<WorkerHandle>,
    pub(crate) states: Vec<Arc<WorkerState>>,
}

impl Workers {
    /// The oldest generation that a worker still uses.
    pub(crate) fn acknowledged(&self) -> Generation {
        let oldest = self.states.iter().map(|state| state.generation.load(Ordering::Acquire)).min();
        Generation(oldest.unwrap_or(u64::MAX))
    }

    /// Sessions of all workers.
    pub(crate) fn sessions(&self) -> u64 {
        self.states.iter().map(|state| state.sessions.value()).sum()
    }

    /// Listening sockets of all workers.
    pub(crate) fn listening(&self) -> u64 {
        self.states.iter().map(|state| state.listening.value()).sum()
    }

    /// Refused connections that all workers hold.
    pub(crate) fn refusals_held(&self) -> u64 {
        self.states.iter().map(|state| state.refusals_held.value()).sum()
    }

    /// Makes every worker known to all others.
    ///
    /// # Errors
    /// When a worker is gone.
    pub(crate) fn introduce(&self) -> std::io::Result<()> {
        for (number, worker) in self.handles.iter().enumerate() {
            let others = self.handles.iter().enumerate().filter(|(other, _)| *other != number);
            // Each begins with its own neighbour.
            let (after, before): (Vec<_>, Vec<_>) = others.partition(|(other, _)| *other > number);
            let peers = after.into_iter().chain(before).map(|(_, other)| other.peer()).collect();
            worker.send(Command::Meet(peers))?;
        }
        Ok(())
    }

    /// Wakes every worker, so that it sees a new snapshot at once.
    pub(crate) fn wake(&self) {
        for worker in &self.handles {
            if let Err(error) = worker.wake() {
                tracing::error!(%error, "cannot wake a worker");
            }
        }
    }

    /// Sends a command to every worker.
    pub(crate) fn tell(&self, command: impl Fn() -> Command) {
        for worker in &self.handles {
            if let Err(error) = worker.send(command()) {
                tracing::error!(%error, "cannot reach a worker");
            }
        }
    }
}

impl Plane {
    /// A plane that serves nothing yet.
    pub(crate) fn new(
        file: PathBuf,
        started: Instant,
        sizes: Sizes,
        workers: Workers,
        (publisher, current): (Publisher, Current),
    ) -> Self {
        Self {
            file,
            started,
            sizes,
            workers,
            publisher,
            current: Mutex::new(current),
            health: Mutex::default(),
            outliers: OutlierBook::default(),
            sources: SourceBook::default(),
            reloads: ReloadCounts::default(),
            phase: AtomicU8::new(Phase::Starting as u8),
        }
    }

    /// How far the process has come.
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            _ => Phase::Stopping,
        }
    }

    /// Records how far the process has come.
    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Whether listeners accept and some pool that a listener uses can serve by a healthy backend.
    pub(crate) fn is_ready(&self) -> bool {
        let snapshot = self.publisher.latest();
        let serves = snapshot.open_listeners().any(|listener| {
            let routes = listener.routing.iter().flat_map(|routing| &routing.routes);
            let mut pools = routes.map(|route| route.target).chain([listener.pool]);
            pools.any(|id| {
                snapshot.pool(id).is_some_and(|pool| {
                    pool.backends().any(|backend| backend.state.is_healthy() && is_wanted(backend))
                })
            })
        });
        self.phase() == Phase::Serving && serves
    }

    /// Publishes the snapshot of a configuration and sets what the operator wants of its backends.
    ///
    /// # Errors
    /// In words, as [`compile::compile`].
    pub(crate) fn publish(
        &self,
        config: &Config,
        addresses: &[Vec<Address>],
        overrides: &Overrides,
    ) -> Result<Arc<Snapshot>, String> {
        let previous = self.publisher.latest();
        let inputs = Inputs {
            previous: &previous,
            acknowledged: self.workers.acknowledged(),
            addresses,
            overrides,
            workers: self.workers.states.len(),
            now_us: self.now_us(),
            sessions_max: self.sizes.sessions(config),
            source_ports: crate::sys::process::source_ports(),
            seeds: [(); 4].map(|()| fastrand::u64(..)),
        };
        let snapshot = Arc::new(compile::compile(config, &inputs)?);
        map_tables(&snapshot);
        apply_admin_states(config, &snapshot, overrides);
        self.publisher.publish(Arc::clone(&snapshot));
        self.lift_probeless(config, &snapshot);
        self.take_up_outliers(&snapshot);
        self.take_up_sources(&snapshot);
        for pool in snapshot.pools.iter().flatten() {
            self.judge_panic(pool);
        }
        self.workers.wake();
        Ok(snapshot)
    }

    /// The time by the workers' clock, in microseconds.
    pub(crate) fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Forgets clients whose budget is whole, before their stored times could come round.
    pub(crate) fn forget_quiet_clients(&self) {
        let now_us = self.now_us();
        for listener in self.publisher.latest().open_listeners() {
            if let Some(limit) = &listener.limit
                && let Some(meter) = &limit.rules.rate
            {
                limit.limiter.sweep(now_us, meter);
            }
        }
    }

    /// Records the verdict of a backend's probes and says it in the log. `reason` tells why.
    pub(crate) fn set_verdict(&self, backend: &Backend, up: bool, reason: &str) {
        if up && !backend.state.is_up() {
            backend.state.begin(self.now_us());
        }
        backend.state.set_up(up);
        let verdict = Verdict { reason: reason.to_owned(), since: SystemTime::now() };
        self.health.lock().verdicts.insert(backend.id, verdict);
        let snapshot = self.publisher.latest();
        let Some(pool) = snapshot.pool(backend.pool) else { return };
        // Whoever reads the line may count on what it says.
        let panic = decide_panic(pool);
        let total = pool.backends().count();
        let left = pool.backends().filter(|b| b.state.is_healthy() && is_wanted(b)).count();
        let (word, tail) = if up { ("up", "up") } else { ("down", "left") };
        tracing::warn!(
            "backend {}/{} {word}: {reason}, {left} of {total} {tail}",
            backend.pool_name,
            backend.name,
        );
        if let Some(panic) = panic {
            tell_panic(pool, &panic);
        }
        if !up {
            self.end_sessions_of(backend, pool);
        }
    }

    /// Has the sessions of a backend that went down reset, if its pool says so. A pool that panics
    /// because of its threshold does not believe the verdict.
    fn end_sessions_of(&self, backend: &Backend, pool: &Pool) {
        let is_doubted = pool.panic_threshold > 0 && pool.state.is_panicking();
        if pool.on_down == OnDown::Keep || is_doubted {
            return;
        }
        let left = backend.state.active();
        if left > 0 {
            let sessions = count(left, "session");
            tracing::warn!("backend {}/{} is down: resetting {sessions}", pool.name, backend.name);
        }
        let pace = Arc::new(SharedRate::default());
        self.workers.tell(|| Command::BackendDown { backend: backend.id, pace: Arc::clone(&pace) });
    }

    /// Records why a verdict stands that nothing has changed.
    pub(crate) fn explain_verdict(&self, backend: BackendId, reason: String) {
        let verdict = Verdict { reason, since: SystemTime::now() };
        self.health.lock().verdicts.insert(backend, verdict);
    }

    /// A pool without probes has no verdicts: its backends are up.
    fn lift_probeless(&self, config: &Config, snapshot: &Snapshot) {
        for (pool, _, built) in configured_backends(config, snapshot) {
            if pool.health.is_none() && !built.state.is_up() {
                self.set_verdict(built, true, "its pool has no probes any more");
            }
        }
    }

    /// Counts the result of one probe.
    pub(crate) fn count_probe(&self, backend: BackendId, passed: bool) {
        let mut health = self.health.lock();
        let counts = health.probes.entry(backend).or_default();
        if passed {
            counts.passed += 1;
        } else {
            counts.failed += 1;
        }
    }

    /// Drops what is known of the probes of a backend that has none (yet).
    pub(crate) fn forget_probes(&self, backend: BackendId) {
        let mut health = self.health.lock();
        health.verdicts.remove(&backend);
        health.probes.remove(&backend);
        health.certificates.remove(&backend);
    }

    /// Records when the certificate of a backend expires, or that it has none to speak of.
    pub(crate) fn set_certificate(&self, backend: BackendId, not_after: Option<u64>) {
        let certificates = &mut self.health.lock().certificates;
        match not_after {
            Some(not_after) => certificates.insert(backend, not_after),
            None => certificates.remove(&backend),
        };
    }

    /// Decides anew whether a pool believes its probes, and says it when that changes.
    pub(crate) fn judge_panic(&self, pool: &Pool) {
        if let Some(panic) = decide_panic(pool) {
            tell_panic(pool, &panic);
        }
    }
}

/// Has the tables that workers look up at random lie on large pages. What does is left alone.
fn map_tables(snapshot: &Snapshot) {
    let limits = snapshot.open_listeners().filter_map(|listener| listener.limit.as_ref());
    let choices = snapshot.pools.iter().flatten().filter_map(|pool| pool.sticky.as_ref());
    limits
        .flat_map(|limit| limit.limiter.extents())
        .chain(choices.map(|sticky| sticky.memory.extent()))
        .for_each(prefer_large_pages);
}

/// A change of whether a pool believes its probes and sessions.
struct PanicChange {
    panicking: bool,
    healthy: usize,
    wanted: usize,
}

/// Puts in force whether a pool believes its probes; what has changed by it.
fn decide_panic(pool: &Pool) -> Option<PanicChange> {
    let wanted: Vec<_> = pool.backends().filter(|backend| is_wanted(backend)).collect();
    let healthy = wanted.iter().filter(|backend| backend.state.is_healthy()).count();
    let panicking = is_panicking(healthy, wanted.len(), pool.panic_threshold);
    let was_panicking = pool.state.set_panicking(panicking);
    (was_panicking != panicking).then_some(PanicChange { panicking, healthy, wanted: wanted.len() })
}

fn tell_panic(pool: &Pool, change: &PanicChange) {
    if change.panicking {
        let words = too_few_healthy(change.healthy as u64, change.wanted as u64);
        tracing::error!("pool {}: {words}", pool.name);
    } else {
        tracing::warn!("pool {}: enough healthy backends again", pool.name);
    }
}

/// Whether an operator lets a backend serve.
pub(crate) fn is_wanted(backend: &Backend) -> bool {
    backend.state.admin() == AdminState::Ready && backend.weight > 0
}

/// Real addresses of each listener, in the order of the configuration.
pub(crate) fn real_addresses(config: &Config, bound: &Bound) -> Vec<Vec<Address>> {
    let real = |asked| bound.get(asked).map(|known| known.real.clone());
    let listeners = listeners::asked(config);
    listeners.iter().map(|addresses| addresses.iter().filter_map(real).collect()).collect()
}

/// Each backend of a configuration with its pool, and what it became in the snapshot.
pub(crate) fn configured_backends<'a>(
    config: &'a Config,
    snapshot: &'a Snapshot,
) -> impl Iterator<
    Item = (&'a crate::config::PoolConfig, &'a crate::config::BackendConfig, &'a Arc<Backend>),
> {
    config.pools.iter().flat_map(move |pool| {
        let built = snapshot.pools.iter().flatten().filter(|built| built.name == pool.name);
        let members = built.flat_map(|built| built.backends());
        let by_name: HashMap<&str, &Arc<Backend>> =
            members.map(|backend| (backend.name.as_ref(), backend)).collect();
        pool.backends
            .iter()
            .filter_map(move |backend| Some((pool, backend, *by_name.get(backend.name.as_str())?)))
    })
}

fn apply_admin_states(config: &Config, snapshot: &Snapshot, overrides: &Overrides) {
    for (pool, backend, built) in configured_backends(config, snapshot) {
        let set = overrides.get(&(pool.name.clone(), backend.name.clone()));
        let by_file = if backend.drain { AdminState::Drain } else { AdminState::Ready };
        built.state.set_admin(set.and_then(|set| set.admin).unwrap_or(by_file));
    }
}
