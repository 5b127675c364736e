//! Counters: each worker writes its own block, readers sum the blocks.
//!
//! **Synchronization.** A [`Counter`] has one writer, so adding is a relaxed load and a relaxed
//! store, no read-modify-write; a reader may see a value a moment old, never a torn one. A
//! [`Gauge`] is shared by all workers and exact: claim by increment, check, undo.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam::utils::CachePadded;

use crate::policy::sync::AtomicU64 as SharedAtomicU64;

use super::gate::{GateTotal, KernelRefusals};
use super::offenders::Offenders;
use super::reasons::{CloseReason, ConnectFailure, HeldOutcome, RefuseReason};

/// A number that only its owner adds to.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount`; only the owning thread may call this.
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// Replaces the value; only the owning thread may call this.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value now.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A shared number of places taken.
#[derive(Debug, Default)]
pub struct Gauge(CachePadded<SharedAtomicU64>);

impl Gauge {
    /// Takes a place if fewer than `max` are taken; exact under races.
    #[must_use]
    pub fn claim(&self, max: u64) -> bool {
        // Increment first, so that two sessions that race for the last place cannot both get it.
        if self.0.fetch_add(1, Ordering::Relaxed) < max {
            return true;
        }
        self.0.fetch_sub(1, Ordering::Relaxed);
        false
    }

    /// Gives a place back.
    pub fn release(&self) {
        let before = self.0.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "released more places than were taken");
    }

    /// Places taken now.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the buckets of `evenkeel_backend_connect_seconds`, in microseconds.
pub const CONNECT_SECONDS: [u64; 11] =
    [100, 250, 1_000, 2_500, 10_000, 25_000, 100_000, 250_000, 1_000_000, 2_500_000, 10_000_000];

/// Upper bounds of the buckets of `evenkeel_session_seconds`, in microseconds.
pub const SESSION_SECONDS: [u64; 11] = [
    1_000,
    10_000,
    100_000,
    500_000,
    1_000_000,
    10_000_000,
    60_000_000,
    600_000_000,
    3_600_000_000,
    36_000_000_000,
    86_400_000_000,
];

/// Upper bounds of the buckets of `evenkeel_pool_queue_seconds`, in microseconds.
pub const QUEUE_SECONDS: [u64; 11] = [
    1_000, 10_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
    30_000_000,
];

/// Durations by fixed buckets; not cumulative, the last bucket has no bound.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; 12],
    sum_us: Counter,
}

impl Histogram {
    /// Records one duration; only the owning thread may call this.
    pub fn record(&self, elapsed: Duration, bounds_us: &[u64; 11]) {
        let us = micros(elapsed);
        if let Some(counter) = self.buckets.get(bucket_of(us, bounds_us)) {
            counter.add(1);
        }
        self.sum_us.add(us);
    }

    /// Adds this histogram's buckets and sum to the given totals.
    pub fn add_to(&self, sums: &mut HistogramSums) {
        for (total, counter) in sums.buckets.iter_mut().zip(&self.buckets) {
            *total += counter.value();
        }
        sums.sum_us += self.sum_us.value();
    }
}

/// The sums of histograms, or a histogram that one thread has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HistogramSums {
    /// How many values each bucket has; the last one has no bound.
    pub buckets: [u64; 12],
    /// The sum of all values, in microseconds.
    pub sum_us: u64,
}

impl HistogramSums {
    /// Records one duration.
    pub fn record(&mut self, elapsed: Duration, bounds_us: &[u64; 11]) {
        let us = micros(elapsed);
        if let Some(count) = self.buckets.get_mut(bucket_of(us, bounds_us)) {
            *count += 1;
        }
        self.sum_us = self.sum_us.saturating_add(us);
    }
}

/// The bucket of a number of microseconds.
fn bucket_of(us: u64, bounds_us: &[u64; 11]) -> usize {
    bounds_us.iter().position(|bound| us <= *bound).unwrap_or(bounds_us.len())
}

fn micros(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

/// The way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    ToBackend,
    /// From the backend.
    ToClient,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::ToBackend, Self::ToClient];

    /// Metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::ToBackend => "to_backend",
            Self::ToClient => "to_client",
        }
    }
}

/// How bytes were moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    /// Through a buffer of this process.
    Copy,
    /// Through a pipe, by the kernel.
    Splice,
}

impl PathKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Copy, Self::Splice];

    /// Metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Splice => "splice",
        }
    }
}

/// The decision of a limit on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitDecision {
    /// Under the limit.
    Allowed,
    /// Over it, turned away.
    Refused,
    /// Over it, let through because the limit only observes.
    WouldRefuse,
}

impl LimitDecision {
    /// All of them, in the order of their indexes.
    pub const ALL: [Self; 3] = [Self::Allowed, Self::Refused, Self::WouldRefuse];

    /// Metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
            Self::WouldRefuse => "would_refuse",
        }
    }
}

/// What one worker counts for one listener.
#[derive(Debug, Default)]
pub struct ListenerCounters {
    /// Accepted connections, refused ones too.
    pub accepted: Counter,
    /// Attempts to accept that failed for a reason of the socket's own.
    pub accept_errors: Counter,
    /// Sockets of which the latest attempt was one of these.
    pub accept_failing: Counter,
    /// The reason of the latest of them, as errno(3) has it.
    pub accept_errno: Counter,
    /// By [`RefuseReason::index`].
    pub refused: [Counter; RefuseReason::ALL.len()],
    /// Refusals that were held, by [`HeldOutcome::index`].
    pub held: [Counter; HeldOutcome::ALL.len()],
    /// By [`CloseReason::index`].
    pub closed: [Counter; CloseReason::ALL.len()],
    /// By [`Direction`], then [`PathKind`].
    pub bytes: [[Counter; 2]; 2],
    /// By [`Direction`]: times a session had to wait for its bandwidth.
    pub bandwidth_waits: [Counter; 2],
    /// Length of sessions.
    pub session_seconds: Histogram,
}

impl ListenerCounters {
    /// Connections refused for one reason.
    #[must_use]
    pub fn refused_for(&self, reason: RefuseReason) -> &Counter {
        &self.refused[reason.index()]
    }

    /// Refusals that were held, by what came of them.
    #[must_use]
    pub fn held_until(&self, outcome: HeldOutcome) -> &Counter {
        &self.held[outcome.index()]
    }

    /// Sessions closed for one reason.
    #[must_use]
    pub fn closed_for(&self, reason: CloseReason) -> &Counter {
        &self.closed[reason.index()]
    }

    /// Bytes that went one way on one path.
    #[must_use]
    pub fn bytes_moved(&self, direction: Direction, path: PathKind) -> &Counter {
        &self.bytes[direction as usize][path as usize]
    }
}

/// What one worker counts for one limit.
#[derive(Debug, Default)]
pub struct LimitCounters {
    decisions: [Counter; LimitDecision::ALL.len()],
    /// Clients that it would turn away, if it only observes.
    pub offenders: Offenders,
}

impl LimitCounters {
    /// Connections of which the limit said this.
    #[must_use]
    pub fn said(&self, decision: LimitDecision) -> &Counter {
        &self.decisions[decision as usize]
    }
}

/// What stays of a limit over reloads, beside what its clients have used.
#[derive(Debug)]
pub struct LimitState {
    workers: Box<[CachePadded<LimitCounters>]>,
    /// Clients over it that the kernel has refused.
    pub in_kernel: GateTotal,
    /// Clients that the kernel refuses, as the control plane has seen them last.
    pub kernel_offenders: Offenders,
}

impl LimitState {
    /// Zeros for `workers` workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers).map(|_| CachePadded::default()).collect(),
            in_kernel: GateTotal::default(),
            kernel_offenders: Offenders::default(),
        }
    }

    /// The block of one worker.
    ///
    /// # Panics
    /// When there is no such worker.
    #[must_use]
    #[allow(clippy::indexing_slicing, reason = "the number of workers is fixed at start")]
    pub fn counters(&self, worker: usize) -> &LimitCounters {
        &self.workers[worker]
    }

    /// Every worker's block.
    pub fn blocks(&self) -> impl Iterator<Item = &LimitCounters> {
        self.workers.iter().map(|padded| &**padded)
    }

    /// Connections of which the limit said this, over all workers and the kernel.
    #[must_use]
    pub fn said(&self, decision: LimitDecision) -> u64 {
        let by_workers: u64 = self.blocks().map(|block| block.said(decision).value()).sum();
        match decision {
            LimitDecision::Refused => by_workers + self.in_kernel.value(),
            LimitDecision::Allowed | LimitDecision::WouldRefuse => by_workers,
        }
    }
}

/// What one worker counts for one backend.
#[derive(Debug, Default)]
pub struct BackendCounters {
    /// Sessions that were connected.
    pub sessions: Counter,
    /// By [`ConnectFailure::index`].
    pub connect_failures: [Counter; ConnectFailure::ALL.len()],
    /// Time until the handshake was done.
    pub connect_seconds: Histogram,
    /// Bytes of its sessions, by [`Direction`].
    pub bytes: [Counter; 2],
}

impl BackendCounters {
    /// Bytes that went one way.
    #[must_use]
    pub fn bytes_moved(&self, direction: Direction) -> &Counter {
        &self.bytes[direction as usize]
    }

    /// Connection attempts that failed for one reason.
    #[must_use]
    pub fn failed_for(&self, failure: ConnectFailure) -> &Counter {
        &self.connect_failures[failure.index()]
    }
}

/// What stays of a listener over reloads.
#[derive(Debug)]
pub struct ListenerState {
    /// Sessions open now.
    pub active: Gauge,
    /// Clients that the kernel has refused.
    pub in_kernel: KernelRefusals,
    workers: Box<[CachePadded<ListenerCounters>]>,
}

impl ListenerState {
    /// Zeros for `workers` workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            active: Gauge::default(),
            in_kernel: KernelRefusals::default(),
            workers: (0..workers).map(|_| CachePadded::default()).collect(),
        }
    }

    /// The block of one worker.
    ///
    /// # Panics
    /// When there is no such worker.
    #[must_use]
    #[allow(clippy::indexing_slicing, reason = "the number of workers is fixed at start")]
    pub fn counters(&self, worker: usize) -> &ListenerCounters {
        &self.workers[worker]
    }

    /// The sum of one counter over the workers.
    pub fn sum(&self, select: impl Fn(&ListenerCounters) -> &Counter) -> u64 {
        self.workers.iter().map(|block| select(block).value()).sum()
    }

    /// Every worker's block.
    pub fn blocks(&self) -> impl Iterator<Item = &ListenerCounters> {
        self.workers.iter().map(|padded| &**padded)
    }

    /// Connections that came, refused ones too.
    #[must_use]
    pub fn offered(&self) -> u64 {
        self.sum(|block| &block.accepted) + self.in_kernel.value()
    }

    /// Connections refused for any reason.
    #[must_use]
    pub fn refused(&self) -> u64 {
        let by_workers: u64 =
            self.blocks().flat_map(|block| &block.refused).map(Counter::value).sum();
        by_workers + self.in_kernel.value()
    }

    /// Connections refused for one reason.
    #[must_use]
    pub fn refused_for(&self, reason: RefuseReason) -> u64 {
        self.sum(|block| block.refused_for(reason)) + self.in_kernel.of(reason)
    }
}

/// What one worker says of itself.
#[derive(Debug, Default)]
pub struct WorkerState {
    /// Turns of the event loop; the watchdog wants to see it move.
    pub turns: CachePadded<Counter>,
    /// Times that its loop was found not to have turned; written by the watchdog.
    pub stalls: Counter,
    /// The kernel's id of the thread, by which its CPU time is read; 0 before it runs.
    pub thread: Counter,
    /// Pipes that hold bytes of a session.
    pub pipes_in_use: Counter,
    /// Sessions open now.
    pub sessions: Counter,
    /// Numbers that it has given to sessions, and to clients that became none.
    pub numbered: Counter,
    /// Sessions that other workers have handed to this one and that it has not opened yet.
    pub arriving: CachePadded<AtomicU64>,
    /// Sessions that this worker has handed to others.
    pub handed_over: Counter,
    /// Refused connections held now, to be answered or kept waiting.
    pub refusals_held: Counter,
    /// Attempts to accept that failed for a reason of their socket's own.
    pub accept_errors: Counter,
    /// Commands of the control plane that it has obeyed.
    pub obeyed: Counter,
    /// The generation this worker has taken up; older ones are no longer used by it.
    pub generation: AtomicU64,
    /// Sockets this worker still accepts on.
    pub listening: Counter,
}
