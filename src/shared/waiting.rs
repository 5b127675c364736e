//! Clients that wait for a place at a pool, over all workers, in the order in which they came. One
//! that leaves for a backend that then fails comes back to where it stood.
//!
//! A place that becomes free calls the worker of the client that has waited longest; that client
//! stays first until its worker has found it a backend, then the next is called, so that places
//! that become free together are all seen. No client is overtaken: newcomers join the line while
//! there is one.
//!
//! **Synchronization.** The line is under a mutex, taken only in pools where clients wait. A
//! worker that gives a place back looks at the number of waiting clients after that; one whose
//! client joins looks for a place after joining. With a SeqCst fence between the two steps of each,
//! one sees the other.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::sync::{AtomicU64, Mutex, Ordering, fence};

use super::stats::{Histogram, QUEUE_SECONDS};

/// A worker, as far as another that has a place for its client needs it.
pub trait Callable: fmt::Debug + Send + Sync {
    /// Has it look for a backend for its client that is first in line.
    fn call(&self);
}

/// One client in the line.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// When it joined a line for the first time, in microseconds of the workers' clock.
    pub since_us: u64,
    /// The session's number, unique within the process.
    pub number: u64,
    /// The token by which its worker knows it.
    pub token: u64,
    /// Its worker.
    pub worker: Arc<dyn Callable>,
}

/// The line of one pool.
#[derive(Debug)]
pub struct WaitingLine {
    waiting: AtomicU64,
    line: Mutex<VecDeque<Waiting>>,
    /// How long those that have left it have waited; written under the mutex.
    waits: Histogram,
}

impl Default for WaitingLine {
    fn default() -> Self {
        Self {
            waiting: AtomicU64::new(0),
            line: Mutex::new(VecDeque::new()),
            waits: Histogram::default(),
        }
    }
}

impl WaitingLine {
    /// Joins behind all that wait for as long or longer; false when `max` wait already, which does
    /// not matter (`None`) to a client that comes back. The caller has to look for a place once
    /// more: one that was given back meanwhile has called no worker.
    #[must_use]
    pub fn join(&self, waiting: Waiting, max: Option<u32>) -> bool {
        let mut line = self.line.lock();
        let max = max.and_then(|max| usize::try_from(max).ok());
        if max.is_some_and(|max| line.len() >= max) {
            return false;
        }
        let ahead = line.iter().rposition(|other| other.since_us <= waiting.since_us);
        line.insert(ahead.map_or(0, |last| last + 1), waiting);
        self.waiting.store(line.len() as u64, Ordering::Relaxed);
        drop(line);
        fence(Ordering::SeqCst);
        true
    }

    /// Leaves, wherever it stands, at `now_us` of the workers' clock; whether it was there.
    pub fn leave(&self, number: u64, now_us: u64) -> bool {
        let mut line = self.line.lock();
        let place = line.iter().position(|waiting| waiting.number == number);
        let left = place.and_then(|place| line.remove(place));
        if let Some(waiting) = &left {
            let waited = Duration::from_micros(now_us.saturating_sub(waiting.since_us));
            self.waits.record(waited, &QUEUE_SECONDS);
        }
        self.waiting.store(line.len() as u64, Ordering::Relaxed);
        left.is_some()
    }

    /// How long each client that has left the line waited, in the buckets of [`QUEUE_SECONDS`]. One
    /// that comes back to its place, after its backend has failed, is in it each time it leaves.
    #[must_use]
    pub fn waits(&self) -> &Histogram {
        &self.waits
    }

    /// The client that has waited longest.
    #[must_use]
    pub fn first(&self) -> Option<Waiting> {
        self.line.lock().front().cloned()
    }

    /// Says that there may be a place; to be called after it has been given back.
    pub fn place_is_free(&self) {
        fence(Ordering::SeqCst);
        if !self.is_empty() {
            self.call_first();
        }
    }

    /// Clients that wait.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether no client waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[cold]
    fn call_first(&self) {
        if let Some(first) = self.first() {
            first.worker.call();
        }
    }
}

#[cfg(test)]
#[cfg(not(evenkeel_loom))]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::shared::HistogramSums;
    use proptest::prelude::*;

    #[derive(Debug, Default)]
    struct Bell(AtomicUsize);

    impl Callable for Bell {
        fn call(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn waiting(number: u64, worker: &Arc<Bell>) -> Waiting {
        let worker: Arc<dyn Callable> = Arc::<Bell>::clone(worker);
        Waiting { since_us: number, number, token: number, worker }
    }

    #[test]
    fn a_free_place_calls_the_client_that_came_first() {
        // If this fails, a client waits although there is a place, or is overtaken.
        let line = WaitingLine::default();
        let bells = [Arc::new(Bell::default()), Arc::new(Bell::default())];
        line.place_is_free();
        assert!(line.join(waiting(1, &bells[0]), Some(2)));
        assert!(line.join(waiting(2, &bells[1]), Some(2)));
        assert!(!line.join(waiting(3, &bells[1]), Some(2)), "no room for a third");
        line.place_is_free();
        line.place_is_free();
        let rung = || [0, 1].map(|bell: usize| bells[bell].0.load(Ordering::Relaxed));
        assert_eq!(rung(), [2, 0]);
        assert!(line.leave(1, 5_001) && !line.leave(1, 5_001));
        line.place_is_free();
        assert_eq!(rung(), [2, 1]);
        assert!(line.leave(2, 2) && line.is_empty());
        let mut waits = HistogramSums::default();
        line.waits().add_to(&mut waits);
        assert_eq!((waits.buckets[..2].to_vec(), waits.sum_us), (vec![1, 1], 5_000));
        line.place_is_free();
        assert_eq!(rung(), [2, 1]);
    }

    proptest! {
        #[test]
        fn it_is_a_line(steps in prop::collection::vec((any::<bool>(), 0_u64..12), 0..80)) {
            // If this fails, a client that left is called, or one that comes back finds itself
            // behind clients that came after it.
            let (line, bell) = (WaitingLine::default(), Arc::new(Bell::default()));
            let mut model: Vec<u64> = Vec::new();
            for (joins, number) in steps {
                if joins && !model.contains(&number) {
                    // Even ones come back.
                    let max = (number % 2 == 1).then_some(5);
                    let joined = line.join(waiting(number, &bell), max);
                    prop_assert_eq!(joined, max.is_none() || model.len() < 5);
                    model.extend(joined.then_some(number));
                    model.sort_unstable();
                } else {
                    let was_there = model.contains(&number);
                    model.retain(|other| *other != number);
                    prop_assert_eq!(line.leave(number, number), was_there);
                }
                prop_assert_eq!(line.first().map(|first| first.number), model.first().copied());
                prop_assert_eq!(line.len(), model.len() as u64);
            }
        }
    }
}
