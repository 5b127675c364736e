//! What the verdicts on the backends of a pool come to, counted as they change: a pool of thousands
//! of backends is judged by five numbers instead of a walk.
//!
//! **Synchronization.** All that counts of a backend is one word, a [`BackendStanding`]. Each
//! change of it is one exchange, whose words before and after move the counts of its pool. The
//! changes of one backend form a chain, so the counts are exact as soon as no change is under way.
//! A look meanwhile may see a change made in one count and not yet in another; the thread that
//! makes the change sees all of it.

use std::sync::atomic::{AtomicIsize, AtomicU8, Ordering};

use crate::policy::health::pool_health::PoolHealth;
use crate::policy::health::rise_fall::Belief;

/// Its probes fail, or have not passed yet.
const DOWN: u8 = 1;
/// It failed too many sessions in a row.
const EJECTED: u8 = 2;
/// It is down only until a probe has judged it; never without [`DOWN`].
const UNJUDGED: u8 = 4;
/// What speaks against it.
const VERDICTS: u8 = DOWN | EJECTED | UNJUDGED;
/// Its pool has it now.
const MEMBER: u8 = 8;
/// It has a weight above 0 there.
const WEIGHTED: u8 = 16;
/// It is a backup there.
const BACKUP: u8 = 32;
/// What its pool has it for.
const MEMBERSHIP: u8 = MEMBER | WEIGHTED | BACKUP;
/// An operator or the file wants it to take no new sessions.
const DRAIN: u8 = 64;
/// Neither new sessions nor probes.
const MAINT: u8 = 128;

/// What the operator wants of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminState {
    /// Serve.
    Ready,
    /// Keep sessions, take no new ones.
    Drain,
    /// Take no new sessions and send no probes.
    Maint,
}

impl AdminState {
    /// The verb that sets it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

/// A backend's verdicts, what the operator wants of it, and what its pool has it for.
#[derive(Debug)]
pub(super) struct BackendStanding(AtomicU8);

impl BackendStanding {
    /// Of a backend that no pool has yet. Unless it is `up`, a probe has to judge it first.
    pub(super) fn new(up: bool) -> Self {
        Self(AtomicU8::new(if up { 0 } else { DOWN | UNJUDGED }))
    }

    #[inline]
    fn word(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    /// What its probes say of it.
    pub(super) fn belief(&self) -> Belief {
        match self.word() {
            word if word & UNJUDGED != 0 => Belief::Unjudged,
            word if word & DOWN != 0 => Belief::Down,
            _ => Belief::Up,
        }
    }

    /// Whether it is ejected.
    pub(super) fn is_ejected(&self) -> bool {
        self.word() & EJECTED != 0
    }

    /// Whether no verdict speaks against it.
    pub(super) fn is_healthy(&self) -> bool {
        self.word() & VERDICTS == 0
    }

    /// Whether the verdicts let it serve; `panicking` ignores those that have been given.
    #[inline]
    pub(super) fn may_serve(&self, panicking: bool) -> bool {
        let word = self.word();
        word & VERDICTS == 0 || (panicking && word & UNJUDGED == 0)
    }

    /// What the operator wants of it.
    #[inline]
    pub(super) fn admin(&self) -> AdminState {
        match self.word() & (DRAIN | MAINT) {
            0 => AdminState::Ready,
            DRAIN => AdminState::Drain,
            _ => AdminState::Maint,
        }
    }

    /// Whether its pool has it for this.
    pub(super) fn is_member(&self, has_weight: bool, is_backup: bool) -> bool {
        self.word() & MEMBERSHIP == membership(has_weight, is_backup)
    }

    /// Records the verdict of its probes. Returns whether it was up.
    pub(super) fn set_up(&self, up: bool, tally: &Tally) -> bool {
        self.change(DOWN | UNJUDGED, if up { 0 } else { DOWN }, tally) & DOWN == 0
    }

    /// Records whether it is ejected. Returns whether it was.
    pub(super) fn set_ejected(&self, ejected: bool, tally: &Tally) -> bool {
        self.change(EJECTED, if ejected { EJECTED } else { 0 }, tally) & EJECTED != 0
    }

    /// Records what the operator wants.
    pub(super) fn set_admin(&self, admin: AdminState, tally: &Tally) {
        let word = match admin {
            AdminState::Ready => 0,
            AdminState::Drain => DRAIN,
            AdminState::Maint => MAINT,
        };
        self.change(DRAIN | MAINT, word, tally);
    }

    /// Records that its pool, which has this tally, has it for this.
    pub(super) fn join(&self, has_weight: bool, is_backup: bool, tally: &Tally) {
        self.change(MEMBERSHIP, membership(has_weight, is_backup), tally);
    }

    /// Records that its pool has it no more.
    pub(super) fn leave(&self, tally: &Tally) {
        self.change(MEMBERSHIP, 0, tally);
    }

    /// Puts `bits` in place of those of `mask`, and counts that. Returns the word before.
    fn change(&self, mask: u8, bits: u8, tally: &Tally) -> u8 {
        let change = |word: u8| Some(word & !mask | bits);
        // No other memory is published with the word. `change` always gives one.
        let before = match self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change) {
            Ok(before) | Err(before) => before,
        };
        tally.shift(before, before & !mask | bits);
        before
    }
}

fn membership(has_weight: bool, is_backup: bool) -> u8 {
    MEMBER | if has_weight { WEIGHTED } else { 0 } | if is_backup { BACKUP } else { 0 }
}

/// In how many backends of a pool something is so. Below 0 only while a change is under way.
#[derive(Debug, Default)]
struct Count(AtomicIsize);

impl Count {
    fn shift(&self, was: bool, is: bool) {
        match (was, is) {
            (false, true) => self.0.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.0.fetch_sub(1, Ordering::Relaxed),
            _ => return,
        };
    }

    fn value(&self) -> usize {
        usize::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(0)
    }
}

/// The counts of one pool, over all its snapshots.
#[derive(Debug, Default)]
pub struct Tally {
    total: Count,
    healthy: Count,
    healthy_backups: Count,
    unjudged: Count,
    ejected: Count,
}

impl Tally {
    /// What the verdicts come to.
    #[must_use]
    pub fn health(&self) -> PoolHealth {
        PoolHealth {
            total: self.total.value(),
            healthy: self.healthy.value(),
            healthy_backups: self.healthy_backups.value(),
            unjudged: self.unjudged.value(),
            ejected: self.ejected.value(),
        }
    }

    fn shift(&self, before: u8, after: u8) {
        let counts = [
            (&self.total, 0, 0),
            (&self.healthy, VERDICTS, 0),
            (&self.healthy_backups, VERDICTS | BACKUP, BACKUP),
            (&self.unjudged, UNJUDGED, UNJUDGED),
            (&self.ejected, EJECTED, EJECTED),
        ];
        for (count, mask, bits) in counts {
            let is_counted = |word: u8| is_wanted(word) && word & mask == bits;
            count.shift(is_counted(before), is_counted(after));
        }
    }
}

/// Whether a pool has it, with a weight, and no operator keeps it out.
fn is_wanted(word: u8) -> bool {
    word & (MEMBER | WEIGHTED | DRAIN | MAINT) == MEMBER | WEIGHTED
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The counts, found by looking at every backend.
    fn walked(standings: &[BackendStanding]) -> PoolHealth {
        let mut health = PoolHealth::default();
        for word in standings.iter().map(BackendStanding::word).filter(|word| is_wanted(*word)) {
            health.total += 1;
            health.healthy += usize::from(word & VERDICTS == 0);
            health.healthy_backups += usize::from(word & VERDICTS == 0 && word & BACKUP != 0);
            health.unjudged += usize::from(word & UNJUDGED != 0);
            health.ejected += usize::from(word & EJECTED != 0);
        }
        health
    }

    fn change(standing: &BackendStanding, what: u8, tally: &Tally) {
        match what % 12 {
            0 | 1 => _ = standing.set_up(what == 1, tally),
            2 | 3 => _ = standing.set_ejected(what == 3, tally),
            4 => standing.set_admin(AdminState::Ready, tally),
            5 => standing.set_admin(AdminState::Drain, tally),
            6 => standing.set_admin(AdminState::Maint, tally),
            7 => standing.leave(tally),
            bits => standing.join(bits & 1 != 0, bits & 2 != 0, tally),
        }
    }

    proptest! {
        // If this fails, a pool panics, or gives up its backends, by numbers that are not true.
        #[test]
        fn counts_kept_are_counts_walked(
            ups in prop::collection::vec(any::<bool>(), 1..8),
            steps in prop::collection::vec((0..8_usize, 0..12_u8), 0..200),
        ) {
            let tally = Tally::default();
            let standings = ups.iter().map(|up| BackendStanding::new(*up));
            let standings: Vec<BackendStanding> = standings.collect();
            for (which, what) in steps {
                change(&standings[which % standings.len()], what, &tally);
                prop_assert_eq!(tally.health(), walked(&standings));
            }
        }
    }

    // If this fails, a worker that ejects while a probe judges leaves a count wrong for good.
    #[test]
    fn counts_are_exact_after_changes_from_several_threads() {
        let tally = Tally::default();
        let standings: Vec<BackendStanding> = (0..4).map(|_| BackendStanding::new(true)).collect();
        let at_random = &|seed| {
            let mut random = fastrand::Rng::with_seed(seed);
            (0..20_000)
                .for_each(|_| change(&standings[random.usize(..4)], random.u8(0..12), &tally));
        };
        std::thread::scope(|scope| {
            (0..3).for_each(|seed| _ = scope.spawn(move || at_random(seed)));
        });
        assert_eq!(tally.health(), walked(&standings));
    }
}
