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
    rates: Table,
    sessions: Option<Arc<OpenSessions>>,
}

/// Open sessions by client.
#[derive(Debug)]
struct OpenSessions {
    table: Table,
    overflows: CachePadded<AtomicU64>,
}

impl Limiter {
    /// Room for `table_size` clients' rates and, if wanted, `concurrent_size` clients' sessions.
    ///
    /// The seeds must be random per process. A limiter serves one [`Meter`], or meters of which
    /// each [`Meter::reads`] the one before.
    #[must_use]
    pub fn new(table_size: u32, concurrent_size: Option<u32>, random_seeds: [u64; 4]) -> Self {
        let [seed, seed2, seed3, seed4] = random_seeds;
        let sessions = |size| {
            let overflows = CachePadded::new(AtomicU64::new(0));
            Arc::new(OpenSessions { table: Table::new(size), overflows })
        };
        Self {
            hasher: RandomState::with_seeds(seed, seed2, seed3, seed4),
            rates: Table::new(table_size),
            sessions: concurrent_size.map(sessions),
        }
    }

    /// The same sessions of the same clients, and rates of `table_size` clients as if none had
    /// ever come: for a meter that cannot read the states of the one before.
    #[must_use]
    pub fn with_new_rates(&self, table_size: u32) -> Self {
        Self {
            hasher: self.hasher.clone(),
            rates: Table::new(table_size).counting_on_from(&self.rates),
            sessions: self.sessions.clone(),
        }
    }

    /// With what had no room in `earlier`, whose place it takes, counted on.
    #[must_use]
    pub fn counting_on_from(self, earlier: &Self) -> Self {
        if let Some(sessions) = &self.sessions {
            sessions.overflows.store(earlier.overflows(), Ordering::Relaxed);
        }
        Self { rates: self.rates.counting_on_from(&earlier.rates), ..self }
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
        let update = self.rates.update(
            key.0,
            |state| meter.ask(state, now_us),
            |state| match meter.used(state, now_us) {
                0 => Worth::Nothing,
                used => Worth::Live(used),
            },
        );
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
        let update = sessions.table.update(
            key.0,
            |count| match count.unwrap_or(0) {
                count if count < u64::from(max) => Ok(count + 1),
                _ => Err(()),
            },
            |count| if count == 0 { Worth::Nothing } else { Worth::Pinned },
        );
        match update {
            Update::Stored => Entry::Counted,
            Update::Refused(()) => Entry::Refused,
            Update::Full => {
                sessions.overflows.fetch_add(1, Ordering::Relaxed);
                Entry::Uncounted
            }
        }
    }

    /// A session that was [`Entry::Counted`] has ended.
    #[inline]
    pub fn leave(&self, key: LimitKey) {
        if let Some(sessions) = &self.sessions {
            let counted = sessions.table.update_if_present(key.0, |count| count.checked_sub(1));
            debug_assert!(counted, "a session left that was never counted");
        }
    }

    /// Sessions this client holds now, as far as they are counted.
    #[must_use]
    pub fn sessions(&self, key: LimitKey) -> u64 {
        self.sessions.as_ref().and_then(|sessions| sessions.table.get(key.0)).unwrap_or(0)
    }

    /// Forgets clients whose budget is whole; returns how many others there are. To be called now
    /// and then, before stored times come round, or a client that was away for exactly that long
    /// would find its old state for a moment.
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
        sessions.chain([&self.rates]).map(Table::extent)
    }

    /// Memory, all of it taken at the start.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let sessions = self.sessions.as_ref().map_or(0, |sessions| sessions.table.memory_bytes());
        self.rates.memory_bytes() + sessions
    }
}

#[cfg(test)]
#[cfg(not(evenkeel_loom))]
mod tests;
