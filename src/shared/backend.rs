//! What stays of a backend and of a pool over reloads: verdicts, sessions, counters.
//!
//! **Synchronization.** Flags are written by the control plane and read by workers, relaxed: a
//! worker that sees a change a moment late makes a choice that was right a moment ago. The number
//! of active sessions is exact: claim by increment, check, undo.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crossbeam::utils::CachePadded;

use crate::policy::balance::least_latency::Latency;
use crate::policy::health::rise_fall::Belief;

use super::failure_evidence::FailureEvidence;
use super::stats::{BackendCounters, Counter, Gauge};
use super::tally::{AdminState, BackendStanding, Tally};
use super::waiting::WaitingLine;

/// The outcome of [`BackendState::claim`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// A place was taken; [`BackendState::release`] gives it back.
    Taken,
    /// The backend holds as many sessions as it may.
    Full,
}

/// Verdicts, sessions and counters of one backend.
#[derive(Debug)]
pub struct BackendState {
    standing: BackendStanding,
    /// By which `sticky` knows it: unlike an id, a mark is not given to the next backend.
    mark: u16,
    /// Failures that its sessions met.
    pub failure_evidence: FailureEvidence,
    ejections: AtomicU64,
    /// Changes of the verdict: to down, to up.
    verdicts: [AtomicU64; 2],
    active: Gauge,
    latency: CachePadded<AtomicU64>,
    /// When it came up, or was added, in microseconds of the workers' clock; 0 from the start.
    since_us: AtomicU64,
    workers: Box<[CachePadded<BackendCounters>]>,
}

impl BackendState {
    /// A backend without sessions. Unless it is `up` it gets none until a probe has judged it.
    /// `mark` is unique in its pool.
    #[must_use]
    pub fn new(workers: usize, up: bool, mark: u16) -> Self {
        Self {
            standing: BackendStanding::new(up),
            mark,
            failure_evidence: FailureEvidence::default(),
            ejections: AtomicU64::new(0),
            verdicts: Default::default(),
            active: Gauge::default(),
            latency: CachePadded::default(),
            since_us: AtomicU64::new(0),
            workers: (0..workers).map(|_| CachePadded::default()).collect(),
        }
    }

    /// Whether its probes pass (true when it has none).
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.standing.belief() == Belief::Up
    }

    /// What its probes say of it.
    #[must_use]
    pub fn belief(&self) -> Belief {
        self.standing.belief()
    }

    /// Records the verdict of its probes. `tally` is its pool's, here and below.
    pub fn set_up(&self, up: bool, tally: &Tally) {
        if self.standing.set_up(up, tally) != up {
            self.verdicts[usize::from(up)].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Times the verdict of its probes became this one.
    #[must_use]
    pub fn turned(&self, up: bool) -> u64 {
        self.verdicts[usize::from(up)].load(Ordering::Relaxed)
    }

    /// By which `sticky` knows it.
    #[must_use]
    pub fn mark(&self) -> u16 {
        self.mark
    }

    /// Whether it failed too many sessions in a row, and its time out is not over.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.standing.is_ejected()
    }

    /// Ejects it, which is counted, or readmits it.
    pub fn set_ejected(&self, ejected: bool, tally: &Tally) {
        let was_ejected = self.standing.set_ejected(ejected, tally);
        if ejected && !was_ejected {
            self.ejections.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Times it was ejected.
    #[must_use]
    pub fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// Whether no verdict speaks against it: neither its probes nor its sessions.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.standing.is_healthy()
    }

    /// Whether the verdicts let it serve; `panicking` ignores those that have been given.
    #[must_use]
    #[inline]
    pub fn may_serve(&self, panicking: bool) -> bool {
        self.standing.may_serve(panicking)
    }

    /// When it came up, or was added by a reload, in microseconds of the workers' clock; 0: it was
    /// there from the start.
    #[must_use]
    pub fn since_us(&self) -> u64 {
        self.since_us.load(Ordering::Relaxed)
    }

    /// Records that it begins to serve at this moment.
    pub fn begin(&self, now_us: u64) {
        self.since_us.store(now_us.max(1), Ordering::Relaxed);
    }

    /// What the operator wants of it.
    #[must_use]
    pub fn admin(&self) -> AdminState {
        self.standing.admin()
    }

    /// Records what the operator wants of it.
    pub fn set_admin(&self, state: AdminState, tally: &Tally) {
        self.standing.set_admin(state, tally);
    }

    /// Whether its pool counts it with a weight above 0, or without; as a backup, or not.
    #[must_use]
    pub fn is_member(&self, has_weight: bool, is_backup: bool) -> bool {
        self.standing.is_member(has_weight, is_backup)
    }

    /// Has its pool count it as such.
    pub fn join(&self, has_weight: bool, is_backup: bool, tally: &Tally) {
        self.standing.join(has_weight, is_backup, tally);
    }

    /// Has its pool count it no more: the pool has lost it.
    pub fn leave(&self, tally: &Tally) {
        self.standing.leave(tally);
    }

    /// Takes a place for one session, exactly up to `max`.
    #[must_use]
    pub fn claim(&self, max: Option<u32>) -> Claim {
        if self.active.claim(max.map_or(u64::MAX, u64::from)) { Claim::Taken } else { Claim::Full }
    }

    /// Gives the place of a session back.
    pub fn release(&self) {
        self.active.release();
    }

    /// Sessions open now, those still being connected too.
    #[must_use]
    pub fn active(&self) -> u64 {
        self.active.value()
    }

    /// How long it has taken to connect to it, as far as its pool measures that.
    #[must_use]
    pub fn latency(&self) -> Latency {
        Latency::from_word(self.latency.load(Ordering::Relaxed))
    }

    /// Takes in one time it took to connect, in microseconds, at `now_us` of the workers' clock.
    pub fn observe_latency(&self, elapsed_us: u64, now_us: u64) {
        let observe = |word| Some(Latency::from_word(word).observe(elapsed_us, now_us).word());
        // No other memory is published with the word. `observe` always gives one.
        let _always = self.latency.fetch_update(Ordering::Relaxed, Ordering::Relaxed, observe);
    }

    /// The counters of one worker.
    ///
    /// # Panics
    /// When there is no such worker.
    #[must_use]
    #[allow(clippy::indexing_slicing, reason = "the number of workers is fixed at start")]
    pub fn counters(&self, worker: usize) -> &BackendCounters {
        &self.workers[worker]
    }

    /// Every worker's counters.
    pub fn blocks(&self) -> impl Iterator<Item = &BackendCounters> {
        self.workers.iter().map(|padded| &**padded)
    }

    /// The sum of one counter over the workers.
    pub fn sum(&self, select: impl Fn(&BackendCounters) -> &Counter) -> u64 {
        self.blocks().map(|block| select(block).value()).sum()
    }
}

/// What stays of a pool over reloads.
#[derive(Debug, Default)]
pub struct PoolState {
    panicking: AtomicBool,
    serving: AtomicBool,
    /// What the verdicts on its backends come to.
    pub tally: Tally,
    /// Primaries that can serve, as of the latest change.
    primaries: AtomicUsize,
    /// Held for an ejection.
    is_ejecting: AtomicBool,
    /// The number of marks given to backends.
    marks: AtomicU32,
    /// Clients that wait for a place.
    pub line: Arc<WaitingLine>,
}

impl PoolState {
    /// Whether verdicts are ignored because too few backends are healthy.
    #[must_use]
    pub fn is_panicking(&self) -> bool {
        self.panicking.load(Ordering::Relaxed)
    }

    /// Records it; returns what was recorded before.
    pub fn set_panicking(&self, panicking: bool) -> bool {
        self.panicking.swap(panicking, Ordering::Relaxed)
    }

    /// Whether a verdict lets at least one backend serve, as of the latest change.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Relaxed)
    }

    /// Records it; returns what was recorded before.
    pub fn set_serving(&self, serving: bool) -> bool {
        self.serving.swap(serving, Ordering::Relaxed)
    }

    /// Records how many primaries the verdicts and operators let serve; returns what was recorded
    /// before.
    pub fn set_primaries(&self, count: usize) -> usize {
        self.primaries.swap(count, Ordering::Relaxed)
    }

    /// Does this unless another thread does it for the pool at this moment. Returns whether it was
    /// done.
    pub(super) fn eject_alone(&self, eject: impl FnOnce()) -> bool {
        let is_free = !self.is_ejecting.swap(true, Ordering::Acquire);
        if is_free {
            eject();
            self.is_ejecting.store(false, Ordering::Release);
        }
        is_free
    }

    /// A mark for a new backend: one that no backend has had, or after 65,536 of them one that no
    /// present backend has. `taken` says which those are.
    pub fn next_mark(&self, taken: impl Fn(u16) -> bool) -> u16 {
        for _ in 0..=u16::MAX {
            let number = self.marks.fetch_add(1, Ordering::Relaxed);
            // The lower half: marks come round.
            let [low, high, ..] = number.to_le_bytes();
            let mark = u16::from_le_bytes([low, high]);
            if number <= u32::from(u16::MAX) || !taken(mark) {
                return mark;
            }
        }
        u16::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, a backend that waits for its first verdict serves, or one that a broken probe
    // took out is not tried in a panic.
    #[test]
    fn panic_ignores_verdicts_and_waits_for_the_first() {
        let state = BackendState::new(1, false, 0);
        assert_eq!(state.belief(), Belief::Unjudged);
        assert!(!state.is_up() && !state.may_serve(false) && !state.may_serve(true));
        let tally = Tally::default();
        state.set_up(false, &tally);
        assert_eq!(state.belief(), Belief::Down);
        assert!(!state.may_serve(false) && state.may_serve(true));
        state.set_up(true, &tally);
        assert_eq!(state.belief(), Belief::Up);
        assert!(state.may_serve(false));
        state.set_ejected(true, &tally);
        assert!(!state.may_serve(false) && state.may_serve(true));
    }

    // If this fails, clients of a removed backend stick to the one that came after it.
    #[test]
    fn marks_are_not_given_twice_while_they_are_in_use() {
        let pool = PoolState::default();
        let first = pool.next_mark(|_| false);
        for _ in 0..u16::MAX {
            assert_ne!(pool.next_mark(|mark| mark == first), first);
        }
        assert_eq!(pool.next_mark(|mark| mark == first), first + 1, "they have come round");
        assert_eq!(pool.next_mark(|_| true), u16::MAX, "all are taken");
    }
}
