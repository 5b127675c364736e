//! Remembered choices: which backend a client had, for a while, in fixed memory.
//!
//! A choice is one word of a [`Table`], so workers read and write it without a lock. When a set of
//! the table is full, the client that would be forgotten soonest gives way. Losing a choice costs a
//! client its backend, nothing else.

use std::net::IpAddr;
use std::ops::Range;

use super::hash::{Prefix, client_key, key_without_address, value_key};
use crate::policy::table::{PAYLOAD_BITS, Table, Worth};

/// Bits of the second of a choice, from the start of the process. They come round after four years,
/// and a choice lasts at most one. The second at which it ends is not stored: `for` may change.
const SECOND_BITS: u32 = 27;
const SECOND_MASK: u64 = (1 << SECOND_BITS) - 1;
/// Clocks of workers may be on two sides of a full second.
const SKEW: u32 = 1;

const _: () = assert!(SECOND_BITS + u16::BITS <= PAYLOAD_BITS, "a choice fits into a word");

/// Longest time a choice is remembered, in seconds: a year.
pub const SECONDS_MAX: u32 = 365 * 86_400;

/// Choices of the clients of one pool.
#[derive(Debug)]
pub struct Memory {
    table: Table,
    seed: u64,
}

/// A remembered choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered {
    /// The backend's mark.
    pub backend: u16,
    /// Whether it is time to remember it anew: not at each visit, so that most only read.
    pub is_aging: bool,
}

impl Memory {
    /// Room for `size` clients, rounded up to a power of two, 8 bytes each. `random_seed` must be
    /// random per process: a client that knew it could have others forgotten.
    #[must_use]
    pub fn new(size: u32, random_seed: u64) -> Self {
        Self { table: Table::new(size), seed: random_seed }
    }

    /// With the evictions of `earlier`, whose place it takes, counted on.
    #[must_use]
    pub fn counting_on_from(self, earlier: &Self) -> Self {
        Self { table: self.table.counting_on_from(&earlier.table), ..self }
    }

    /// The client that an address (and a port, where two ports are two clients) belongs to; keys of
    /// other memories mean nothing here.
    #[must_use]
    pub fn key(&self, addr: IpAddr, port: Option<u16>, prefix: Prefix) -> u64 {
        client_key(addr, port, prefix, self.seed)
    }

    /// The one client that all peers without an address that counts are: those on Unix sockets, or
    /// all of a pool that hashes nothing of its clients.
    #[must_use]
    pub fn key_without_address(&self) -> u64 {
        key_without_address(self.seed)
    }

    /// The client that is known by the hash of what it says.
    #[must_use]
    pub fn key_of_said(&self, said: u64) -> u64 {
        value_key(&said.to_be_bytes(), self.seed)
    }

    /// The seed it was made with, which another process needs to know its clients.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What is remembered, as [`Table::words`].
    pub fn words(&self) -> impl Iterator<Item = u64> {
        self.table.words()
    }

    /// Fills a memory of the same size and seed that is not used yet, as [`Table::load`]. `mark`
    /// gives the mark that a backend has here; what names another one is left out.
    #[must_use]
    pub fn load(
        &self,
        words: impl Iterator<Item = u64>,
        mark: impl Fn(u16) -> Option<u16>,
    ) -> bool {
        self.table.load(words, |state| {
            let mark = mark(u16::try_from(state >> SECOND_BITS).ok()?)?;
            Some(u64::from(mark) << SECOND_BITS | state & SECOND_MASK)
        })
    }

    /// What is remembered of a client at `now_us`, where choices last for `seconds`.
    #[must_use]
    pub fn recall(&self, key: u64, now_us: u64, seconds: u32) -> Option<Remembered> {
        let state = self.table.get(key)?;
        let left = left(state, now_us, seconds)?;
        let backend = u16::try_from(state >> SECOND_BITS).ok()?;
        Some(Remembered { backend, is_aging: left < seconds - seconds / 8 })
    }

    /// Remembers a choice of `now_us`, where choices last for `seconds`, at most [`SECONDS_MAX`].
    pub fn remember(&self, key: u64, backend: u16, now_us: u64, seconds: u32) {
        let state = u64::from(backend) << SECOND_BITS | second(now_us) & SECOND_MASK;
        let worth = |other| match left(other, now_us, seconds) {
            None => Worth::Nothing,
            Some(left) => Worth::Live(left.into()),
        };
        // A set in which no entry gives way does not exist here; losing a choice would be harmless.
        let _stored = self.table.update(key, |_| Ok::<u64, ()>(state), worth);
    }

    /// Where its table is, for the code that advises the kernel about memory.
    #[must_use]
    pub fn extent(&self) -> Range<*const u8> {
        self.table.extent()
    }

    /// Clients that were forgotten before their time for want of room.
    #[must_use]
    pub fn live_evictions(&self) -> u64 {
        self.table.live_evictions()
    }
}

fn second(now_us: u64) -> u64 {
    now_us / 1_000_000
}

/// Seconds until a state is over; `None` when it is.
fn left(state: u64, now_us: u64, seconds: u32) -> Option<u32> {
    let age = second(now_us).wrapping_sub(state) & SECOND_MASK;
    let is_ahead = age > SECOND_MASK - u64::from(SKEW);
    let age = if is_ahead { 0 } else { u32::try_from(age).ok()? };
    seconds.checked_sub(age).filter(|left| *left > 0)
}

#[cfg(test)]
#[cfg(not(evenkeel_loom))]
mod tests {
    use super::*;
    use crate::policy::balance::hash::attempt_key;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const SECOND: u64 = 1_000_000;

    fn key(number: u64) -> u64 {
        attempt_key(number, 1, 0)
    }

    #[test]
    fn a_choice_is_kept_for_its_time() {
        // If this fails, a client changes its backend while it should not, or never may.
        let memory = Memory::new(64, 5);
        assert_eq!(memory.recall(key(1), 0, 16), None);
        memory.remember(key(1), 7, 100 * SECOND, 16);
        let recalled = |second| memory.recall(key(1), second * SECOND, 16);
        assert_eq!(recalled(100), Some(Remembered { backend: 7, is_aging: false }));
        assert_eq!(
            recalled(99),
            Some(Remembered { backend: 7, is_aging: false }),
            "a clock behind"
        );
        assert_eq!(recalled(103), Some(Remembered { backend: 7, is_aging: true }));
        assert_eq!(recalled(115), Some(Remembered { backend: 7, is_aging: true }));
        assert_eq!(recalled(116), None);
        assert_eq!(recalled(1_000_000), None);
        assert_eq!(memory.recall(key(2), 100 * SECOND, 16), None);
    }

    #[test]
    fn seconds_may_come_round() {
        // If this fails, a process that has run for four years forgets every choice.
        let memory = Memory::new(64, 5);
        let round = 1 << SECOND_BITS;
        memory.remember(key(1), 65_535, (round - 3) * SECOND, 10);
        let backend = |second| memory.recall(key(1), second * SECOND, 10).map(|c| c.backend);
        assert_eq!(backend(round + 6), Some(65_535));
        assert_eq!(backend(round + 7), None);
    }

    #[test]
    fn the_oldest_gives_way() {
        // If this fails, a client that comes all the time is forgotten for one that came once.
        let memory = Memory::new(8, 5);
        for number in 0..8 {
            memory.remember(key(number), 1, number * SECOND, 100);
        }
        memory.remember(key(0), 1, 50 * SECOND, 100);
        memory.remember(key(99), 2, 60 * SECOND, 100);
        let knows = |number| memory.recall(key(number), 61 * SECOND, 100).is_some();
        assert!(knows(0) && knows(99) && !knows(1) && knows(2));
        assert_eq!(memory.live_evictions(), 1);
    }

    /// Sometimes, the time for which choices last from now on.
    fn reloaded() -> impl Strategy<Value = Option<u32>> {
        prop::option::weighted(0.1, 1_u32..12)
    }

    proptest! {
        #[test]
        fn what_is_recalled_was_the_last_choice(
            before_round in 0_u64..100,
            steps in prop::collection::vec(
                (0_u64..6, any::<u16>(), 0_u64..4, any::<bool>(), reloaded()),
                1..80,
            ),
        ) {
            // If this fails, a client is sent to a backend that another client chose; or when the
            // clock comes round, or a reload changes `for`, choices are lost that should last, the
            // latest first, or last that should not.
            let memory = Memory::new(1024, 9);
            let mut model: HashMap<u64, (u16, u64)> = HashMap::new();
            let mut now = (1 << SECOND_BITS) - before_round;
            let mut lasts = 6;
            for (client, backend, pause, remembers, reloaded) in steps {
                now += pause;
                lasts = reloaded.unwrap_or(lasts);
                if remembers {
                    memory.remember(key(client), backend, now * SECOND, lasts);
                    model.insert(client, (backend, now));
                }
                let wanted = model.get(&client).filter(|(_, at)| now < at + u64::from(lasts));
                let found = memory.recall(key(client), now * SECOND, lasts);
                prop_assert_eq!(found.map(|c| c.backend), wanted.map(|(backend, _)| *backend));
            }
        }
    }
}
