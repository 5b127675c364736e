//! How much one client may ask for: connections per time, and sessions at once.
//!
//! Two tables of fixed size that all workers share, keyed by the masked address under a random hash
//! seed (attackers choose addresses). Rates: the payload is the state of a [`Meter`]; one that is
//! past equals a new one, so a quiet client is forgotten for nothing. When a set is full of clients
//! in use the one closest to quiet is forgotten and counted: the limiter fails open. Concurrency:
//! the payload is a count; only a 0 may go, else the newcomer is let in uncounted, and that is
//! counted.
//!
//! **Synchronization.** None beyond [`Table`]'s: each decision is one word, admitted by
//! compare-exchange from a state that allows it, so limits are exact under races.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use ahash::RandomState;
use crossbeam::utils::CachePadded;

use super::bucket::TIME_BITS;
use super::measure::Measure;
use super::meter::Meter;
use crate::policy::balance::hash::{Prefix, mask};
use crate::policy::sync::{AtomicU64, Ordering};
use crate::policy::table::{PAYLOAD_BITS, Table, Update, Worth};

const _: () = assert!(TIME_BITS == PAYLOAD_BITS, "a state is what a word of the table holds");

/// One client, as far as limits go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LimitKey(u64);

/// Whether a client may make one more connection now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It may, and it is counted.
    Allowed,
    /// It may not; nothing was counted.
    Refused {
        /// Until one more is allowed; at least 1.
        retry_after_us: u64,
        /// Until the whole budget is back.
        full_after_us: u64,
    },
}

/// Whether a client may hold one more session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Entry {
    /// It may; [`Limiter::leave`] must follow when the session ends.
    Counted,
    /// It may, but there was no place to count it; nothing must follow.
    Uncounted,
    /// It may not.
    Refused,
}

/// The limits of one listener, for all of its workers.
#[derive(Debug)]
pub struct Limiter {
    hasher: RandomState,
    /// Of the hasher.
    seeds: [u64; 4],
    rates: Arc<Table>,
    sessions: Option<Arc<OpenSessions>>,
}

/// Open sessions by client. Keys are those of the limiters that share it.
#[derive(Debug)]
pub struct OpenSessions {
    table: Table,
    overflows: CachePadded<AtomicU64>,
}

impl OpenSessions {
    fn new(size: u32, overflows: u64) -> Self {
        let overflows = CachePadded::new(AtomicU64::new(overflows));
        Self { table: Table::new(size), overflows }
    }

    /// Counts one more session of a client, whatever the maximum; whether there was room to.
    /// [`OpenSessions::leave`] must follow if so.
    pub fn count(&self, key: LimitKey) -> bool {
        self.change(key, |count| Ok(count + 1)) == Entry::Counted
    }

    /// A session that was counted has ended.
    #[inline]
    pub fn leave(&self, key: LimitKey) {
        let counted = self.table.update_if_present(key.0, |count| count.checked_sub(1));
        debug_assert!(counted, "a session left that was never counted");
    }

    #[inline]
    fn change(&self, key: LimitKey, next: impl Fn(u64) -> Result<u64, ()>) -> Entry {
        let update = self.table.update(
            key.0,
            |count| next(count.unwrap_or(0)),
            |count| if count == 0 { Worth::Nothing } else { Worth::Pinned },
        );
        match update {
            Update::Stored => Entry::Counted,
            Update::Refused(()) => Entry::Refused,
            Update::Full => {
                self.overflows.fetch_add(1, Ordering::Relaxed);
                Entry::Uncounted
            }
        }
    }
}

impl Limiter {
    /// Room for `table_size` clients' rates and, if wanted, `concurrent_size` clients' sessions.
    ///
    /// The seeds must be random per process. A limiter serves one [`Meter`], or meters of which
    /// each [`Meter::reads`] the one before.
    #[must_use]
    pub fn new(table_size: u32, concurrent_size: Option<u32>, random_seeds: [u64; 4]) -> Self {
        let [seed, seed2, seed3, seed4] = random_seeds;
        Self {
            hasher: RandomState::with_seeds(seed, seed2, seed3, seed4),
            seeds: random_seeds,
            rates: Arc::new(Table::new(table_size)),
            sessions: concurrent_size.map(|size| Arc::new(OpenSessions::new(size, 0))),
        }
    }

    /// Keeps clients and their sessions, and moves rates into a table of `table_size` clients that
    /// holds what each had used by `now_us` as `earlier` measured it, for `meter`: see
    /// [`Meter::carry`]. What a worker still admits by this one meanwhile is not in it.
    #[must_use]
    pub fn carried(&self, table_size: u32, meter: &Meter, earlier: &Meter, now_us: u64) -> Self {
        let carry = |state| meter.carry(earlier, state, now_us);
        let rates = self.rates.carried(table_size, carry, worth(meter, now_us));
        Self { rates: Arc::new(rates), ..self.share() }
    }

    /// Keeps clients and their sessions, and has rates of `table_size` clients begin anew.
    #[must_use]
    pub fn with_new_rates(&self, table_size: u32) -> Self {
        let rates = Table::new(table_size).counting_on_from(&self.rates);
        Self { rates: Arc::new(rates), ..self.share() }
    }

    /// Keeps clients and their rates; makes room for the sessions of `concurrent_size` clients,
    /// none of which is counted yet, or for none. A table that has the room already stays as it is.
    #[must_use]
    pub fn with_sessions(&self, concurrent_size: Option<u32>) -> Self {
        let has_room =
            |sessions: &&Arc<OpenSessions>, size: u32| sessions.table.capacity() >= size as usize;
        let sessions = concurrent_size.map(|size| {
            let kept = self.sessions.as_ref().filter(|sessions| has_room(sessions, size));
            kept.cloned().unwrap_or_else(|| Arc::new(OpenSessions::new(size, self.overflows())))
        });
        Self { sessions, ..self.share() }
    }

    /// Another handle of the clients, rates and sessions.
    fn share(&self) -> Self {
        let Self { hasher, seeds, rates, sessions } = self;
        Self {
            hasher: hasher.clone(),
            seeds: *seeds,
            rates: Arc::clone(rates),
            sessions: sessions.clone(),
        }
    }

    /// The seeds it was made with, which another process needs to know its clients.
    #[must_use]
    pub fn seeds(&self) -> [u64; 4] {
        self.seeds
    }

    /// What clients have used, as [`Table::words`].
    pub fn rate_words(&self) -> impl Iterator<Item = u64> {
        self.rates.words()
    }

    /// Fills the table of a limiter with the same seeds that is not used yet, as [`Table::load`].
    #[must_use]
    pub fn load_rates(&self, words: impl Iterator<Item = u64>) -> bool {
        self.rates.load(words, Some)
    }

    /// With what had no room in `earlier`, whose place it takes, counted on.
    #[must_use]
    pub fn counting_on_from(self, earlier: &Self) -> Self {
        if let Some(sessions) = &self.sessions {
            sessions.overflows.store(earlier.overflows(), Ordering::Relaxed);
        }
        self.rates.count_on_from(&earlier.rates);
        self
    }

    /// The client that `addr` belongs to; keys of other limiters mean nothing here.
    #[must_use]
    #[inline]
    pub fn key(&self, addr: IpAddr, prefix: Prefix) -> LimitKey {
        let bits = match mask(addr, prefix) {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        LimitKey(self.hasher.hash_one(bits))
    }

    /// The one client that all peers without an address are (Unix sockets).
    #[must_use]
    pub fn key_without_address(&self) -> LimitKey {
        LimitKey(self.hasher.hash_one(u64::MAX))
    }

    /// Asks for one more connection at `now_us`, which all workers count from the same start.
    #[inline]
    pub fn admit(&self, key: LimitKey, now_us: u64, meter: &Meter) -> Decision {
        match meter {
            Meter::TokenBucket(quota) => self.admit_by(key, now_us, quota),
            Meter::SlidingWindow(window) => self.admit_by(key, now_us, window),
            Meter::FixedWindow(window) => self.admit_by(key, now_us, window),
        }
    }

    #[inline]
    fn admit_by(&self, key: LimitKey, now_us: u64, meter: &impl Measure) -> Decision {
        let update =
            self.rates.update(key.0, |state| meter.ask(state, now_us), worth(meter, now_us));
        match update {
            // Full: every way is being inserted into at this moment. Fail open.
            Update::Stored | Update::Full => Decision::Allowed,
            Update::Refused(refusal) => refusal.into(),
        }
    }

    /// What [`Limiter::admit`] would answer, without counting anything.
    #[must_use]
    pub fn peek(&self, key: LimitKey, now_us: u64, meter: &Meter) -> Decision {
        meter.ask(self.rates.get(key.0), now_us).into()
    }

    /// How many more connections the client may make at once; see [`Meter::left`].
    #[must_use]
    pub fn left(&self, key: LimitKey, now_us: u64, meter: &Meter) -> u64 {
        meter.left(self.rates.get(key.0), now_us)
    }

    /// Takes back what [`Limiter::admit`] allowed at `now_us`. Gives nothing to a client that has
    /// been forgotten since.
    pub fn give_back(&self, key: LimitKey, now_us: u64, meter: &Meter) {
        self.rates.update_if_present(key.0, |state| meter.give_back(state, now_us));
    }

    /// Asks for one more session at once, of `max`. Without a table for it: always `Uncounted`.
    #[inline]
    pub fn enter(&self, key: LimitKey, max: u32) -> Entry {
        let Some(sessions) = &self.sessions else { return Entry::Uncounted };
        sessions.change(key, |count| if count < u64::from(max) { Ok(count + 1) } else { Err(()) })
    }

    /// A session that was [`Entry::Counted`] has ended.
    #[inline]
    pub fn leave(&self, key: LimitKey) {
        if let Some(sessions) = &self.sessions {
            sessions.leave(key);
        }
    }

    /// Where open sessions are counted, if they are.
    #[must_use]
    pub fn open_sessions(&self) -> Option<&Arc<OpenSessions>> {
        self.sessions.as_ref()
    }

    /// Sessions this client holds now, as far as they are counted.
    #[must_use]
    pub fn sessions(&self, key: LimitKey) -> u64 {
        self.sessions.as_ref().and_then(|sessions| sessions.table.get(key.0)).unwrap_or(0)
    }

    /// Forgets clients whose budget is whole; returns how many others there are. To be called
    /// within every [`Meter::turn_us`], or a client that was away for that long would find its old
    /// state.
    pub fn sweep(&self, now_us: u64, meter: &Meter) -> usize {
        self.rates.sweep(|state| meter.used(state, now_us) == 0)
    }

    /// Clients in use whose rate was forgotten for want of room.
    #[must_use]
    pub fn live_evictions(&self) -> u64 {
        self.rates.live_evictions()
    }

    /// Sessions let in uncounted for want of room.
    #[must_use]
    pub fn overflows(&self) -> u64 {
        self.sessions.as_ref().map_or(0, |sessions| sessions.overflows.load(Ordering::Relaxed))
    }

    /// The memory of its tables, for advice to the kernel.
    pub fn extents(&self) -> impl Iterator<Item = Range<*const u8>> {
        let sessions = self.sessions.iter().map(|sessions| &sessions.table);
        sessions.chain([&*self.rates]).map(Table::extent)
    }

    /// Memory, all of it taken at the start.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let sessions = self.sessions.as_ref().map_or(0, |sessions| sessions.table.memory_bytes());
        self.rates.memory_bytes() + sessions
    }
}

/// What a client's state is worth when another needs its place.
fn worth(meter: &impl Measure, now_us: u64) -> impl Fn(u64) -> Worth {
    move |state| match meter.used(state, now_us) {
        0 => Worth::Nothing,
        used => Worth::Live(used),
    }
}

#[cfg(test)]
#[cfg(not(evenkeel_loom))]
mod tests;
