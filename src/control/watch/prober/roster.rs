//! Which backends are probed, and what a new configuration changes of that.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, consume_budget};

use crate::config::Config;
use crate::control::host::trust::TlsProbes;
use crate::control::plane::configured::configured_backends;
use crate::control::plane::state::Plane;
use crate::control::watch::prober::ProbedBackend;
use crate::control::watch::prober::orders::Orders;
use crate::control::watch::prober::pace::Pace;
use crate::policy::health::backoff::spread;
use crate::shared::{Backend, BackendId, Snapshot};

/// First probes of new backends are spread over their interval, at most over this time.
const START_SPREAD_MAX: Duration = Duration::from_secs(1);

/// All probes of the process.
#[derive(Debug)]
pub(crate) struct Prober {
    plane: Arc<Plane>,
    tasks: Mutex<HashMap<BackendId, Task>>,
    /// As many permits as probes may run at once.
    pub(super) at_once: Arc<Semaphore>,
}

/// The probes of one backend; dropping it ends them at once.
#[derive(Debug)]
struct Task {
    backend: Arc<Backend>,
    orders: watch::Sender<Orders>,
    abort: AbortHandle,
}

/// Backends whose probes start, end, or change.
#[derive(Debug, Default)]
pub(crate) struct ProbeChanges {
    started: Vec<(Arc<Backend>, Orders)>,
    ordered: Vec<(BackendId, Orders)>,
    ended: Vec<BackendId>,
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

    /// What a configuration with its snapshot changes. Looks at all backends: not on the thread
    /// `control`, once it serves.
    pub(crate) fn changes(
        &self,
        config: &Config,
        snapshot: &Snapshot,
        tls: &TlsProbes,
    ) -> ProbeChanges {
        let tasks = self.tasks.lock();
        let mut changes = ProbeChanges::default();
        let mut stay = HashSet::new();
        for (pool, _, backend) in configured_backends(config, snapshot) {
            let Some(health) = &pool.health else { continue };
            let tls = tls.of(&pool.name);
            // A later backend may have the id of one that is gone, never its state.
            let is_same = |task: &&Task| Arc::ptr_eq(&task.backend.state, &backend.state);
            let known = tasks.get(&backend.id).filter(is_same);
            if known.is_some() {
                stay.insert(backend.id);
            }
            if known.is_some_and(|task| task.orders.borrow().are(health, tls)) {
                continue;
            }
            let orders = Orders { health: health.clone(), tls: tls.cloned() };
            match known {
                Some(_) => changes.ordered.push((backend.id, orders)),
                None => changes.started.push((Arc::clone(backend), orders)),
            }
        }
        changes.ended = tasks.keys().filter(|id| !stay.contains(id)).copied().collect();
        changes
    }

    /// Obeys what [`Self::changes`] has found, with no other change between. Needs a tokio runtime.
    pub(crate) async fn take_up(&self, changes: ProbeChanges) {
        for id in changes.ended {
            if let Some(task) = self.tasks.lock().remove(&id) {
                self.plane.health.lock().forget_probes(&task.backend);
            }
            consume_budget().await;
        }
        for (id, orders) in changes.ordered {
            if let Some(task) = self.tasks.lock().get(&id) {
                task.orders.send_replace(orders);
            }
            consume_budget().await;
        }
        let count = changes.started.len();
        for (position, (backend, orders)) in changes.started.into_iter().enumerate() {
            let first = spread(orders.health.interval.min(START_SPREAD_MAX), position, count);
            let (id, task) = (backend.id, self.start(backend, orders, first));
            self.tasks.lock().insert(id, task);
            consume_budget().await;
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
