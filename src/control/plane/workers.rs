//! The control plane's view of the workers: their numbers, and commands to them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::dataplane::{Command, WorkerHandle};
use crate::shared::{Generation, WorkerState};
use crate::sys::process::thread_cpu_ns;

/// How long the workers may take to take up a snapshot before a reload goes on without them.
const UP_TO_DEADLINE: Duration = Duration::from_millis(100);

/// The workers of the data plane.
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

    /// Whether every worker has taken up this generation and obeyed all that it was told.
    pub(crate) fn are_up_to(&self, generation: Generation) -> bool {
        self.acknowledged() >= generation && self.handles.iter().all(WorkerHandle::has_obeyed)
    }

    /// Waits until [`Self::are_up_to`] is so, at most [`UP_TO_DEADLINE`]. A turn of a worker is
    /// short; one that is stuck is not waited for. Not on the thread `control`.
    pub(crate) fn await_up_to(&self, generation: Generation) {
        let deadline = Instant::now() + UP_TO_DEADLINE;
        while !self.are_up_to(generation) && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_micros(200));
        }
    }

    /// Whether the threads of all workers have ended.
    pub(crate) fn have_ended(&self) -> bool {
        self.handles.iter().all(WorkerHandle::has_ended)
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

/// CPU time of a worker's thread, in seconds.
#[allow(clippy::cast_precision_loss, reason = "a display of 15 digits is enough")]
pub(crate) fn busy_seconds(worker: &WorkerState) -> f64 {
    thread_cpu_ns(worker.thread.value()) as f64 / 1e9
}
