//! How much one client may ask for: connections per time, and sessions at once.
//!
//! Two tables of fixed size that all workers share, keyed by the masked address under a random hash
//! seed (attackers choose addresses). Rates: the payload is the TAT of a [`Quota`]; a past one
//! equals a new one, so a quiet client is forgotten for nothing. When a set is full of clients in
//! use the one closest to quiet is forgotten and counted: the limiter fails open. Concurrency: the
//! payload is a count; only a 0 may go, else the newcomer is let in uncounted, and that is counted.
//!
//! **Synchronization.** None beyond [`Table`]'s: each decision is one word, admitted by
//! compare-exchange from a state that allows it, so limits are exact whoever races.

use std::net::IpAddr;

use ahash::RandomState;
use crossbeam::utils::CachePadded;

use super::bucket::{Answer, Quota, Refusal, TIME_BITS};
use super::hash::{Prefix, mask};
use super::sync::{AtomicU64, Ordering};
use super::table::{PAYLOAD_BITS, Table, Update, Worth};

const _: () = assert!(TIME_BITS == PAYLOAD_BITS, "a TAT is what a word of the table holds");

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
        /// Until the whole burst is back.
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
    concurrent: Option<Table>,
    overflows: CachePadded<AtomicU64>,
}

impl Limiter {
    /// Room for `table_size` clients' rates and, if wanted, `concurrent_size` clients' sessions.
    ///
    /// The seeds must be random per process. A limiter serves one [`Quota`]; under another one a
    /// known client's bucket may at first be anywhere between empty and full.
    #[must_use]
    pub fn new(table_size: u32, concurrent_size: Option<u32>, random_seeds: [u64; 4]) -> Self {
        let [seed, seed2, seed3, seed4] = random_seeds;
        Self {
            hasher: RandomState::with_seeds(seed, seed2, seed3, seed4),
            rates: Table::new(table_size),
            concurrent: concurrent_size.map(Table::new),
            overflows: CachePadded::new(AtomicU64::new(0)),
        }
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
    pub fn admit(&self, key: LimitKey, now_us: u64, quota: &Quota) -> Decision {
        let now = quota.ticks(now_us);
        let update = self.rates.update(
            key.0,
            |tat| match quota.ask(tat.unwrap_or(now), now) {
                Answer::Admit { new_tat } => Ok(new_tat),
                Answer::Refuse(refusal) => Err(refusal),
            },
            |tat| match quota.ahead(tat, now) {
                0 => Worth::Nothing,
                ahead => Worth::Live(ahead),
            },
        );
        match update {
            // Full: every way is being inserted into at this moment. Fail open.
            Update::Stored | Update::Full => Decision::Allowed,
            Update::Refused(Refusal { retry_after_us, full_after_us }) => {
                Decision::Refused { retry_after_us, full_after_us }
            }
        }
    }

    /// What [`Limiter::admit`] would answer, without counting anything.
    #[must_use]
    pub fn peek(&self, key: LimitKey, now_us: u64, quota: &Quota) -> Decision {
        let now = quota.ticks(now_us);
        match quota.ask(self.rates.get(key.0).unwrap_or(now), now) {
            Answer::Admit { .. } => Decision::Allowed,
            Answer::Refuse(Refusal { retry_after_us, full_after_us }) => {
                Decision::Refused { retry_after_us, full_after_us }
            }
        }
    }

    /// Asks for one more session at once, of `max`. Without a table for it: always `Uncounted`.
    #[inline]
    pub fn enter(&self, key: LimitKey, max: u32) -> Entry {
        let Some(table) = &self.concurrent else { return Entry::Uncounted };
        let update = table.update(
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
                self.overflows.fetch_add(1, Ordering::Relaxed);
                Entry::Uncounted
            }
        }
    }

    /// A session that was [`Entry::Counted`] has ended.
    #[inline]
    pub fn leave(&self, key: LimitKey) {
        if let Some(table) = &self.concurrent {
            let counted = table.update_if_present(key.0, |count| count.checked_sub(1));
            debug_assert!(counted, "a session left that was never counted");
        }
    }

    /// Sessions this client holds now, as far as they are counted.
    #[must_use]
    pub fn sessions(&self, key: LimitKey) -> u64 {
        self.concurrent.as_ref().and_then(|table| table.get(key.0)).unwrap_or(0)
    }

    /// Forgets quiet clients; returns how many are left. Not needed for correctness: keeps an idle
    /// table's stored times from ever wrapping.
    pub fn sweep(&self, now_us: u64, quota: &Quota) -> usize {
        let now = quota.ticks(now_us);
        self.rates.sweep(|tat| quota.ahead(tat, now) == 0)
    }

    /// Clients in use whose rate was forgotten for want of room.
    #[must_use]
    pub fn live_evictions(&self) -> u64 {
        self.rates.live_evictions()
    }

    /// Sessions let in uncounted for want of room.
    #[must_use]
    pub fn overflows(&self) -> u64 {
        self.overflows.load(Ordering::Relaxed)
    }

    /// Memory, all of it taken at the start.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.rates.memory_bytes() + self.concurrent.as_ref().map_or(0, Table::memory_bytes)
    }
}

#[cfg(test)]
#[cfg(not(evenkeel_loom))]
mod tests;
