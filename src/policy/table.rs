//! A fixed-size, lock-free, set-associative table: key to one small state, each one atomic word.
//!
//! A word is `tag (20 bits) | pending (1) | payload (43)`; 0 is an empty way. The low bits of the
//! hashed key choose a set of eight ways (one cache line), the high bits are the tag. Two keys of
//! one set with equal tags share a state: one pair in 1,048,576 that meet in a set, so about one
//! newcomer in 131,072 to a full set of eight. Memory is fixed; when a set is full, what a word is
//! worth decides which one gives way.
//!
//! **Synchronization.** A state is one word, so every change is one compare-exchange and no other
//! memory is published with it. A hit needs nothing more. An insertion must not leave two words for
//! one key: it places its word *pending*, then (after a SeqCst fence) looks at the other ways, then
//! commits by compare-exchange. Of two that insert at once, both fences are passed before both
//! looks, so at least one sees the other and one gives way or is killed; a killed one notices
//! because its commit fails. A pending payload is a ticket unique within the set, so that commit
//! cannot mistake a later word for its own. Readers treat pending words as absent.

use std::ops::Range;

use crossbeam::utils::CachePadded;

use crate::policy::sync::{AtomicU64, Ordering, fence, relax};

/// Bits of state per key.
pub const PAYLOAD_BITS: u32 = 43;
const PAYLOAD_MASK: u64 = (1 << PAYLOAD_BITS) - 1;
const PENDING: u64 = 1 << PAYLOAD_BITS;
const TAG_SHIFT: u32 = PAYLOAD_BITS + 1;
/// Models are small: what matters is that two threads can use different ways.
const WAYS: usize = if cfg!(evenkeel_loom) { 2 } else { 8 };
/// Ticket counters; sets share them, so that inserters rarely do.
const TICKET_SHARDS: usize = if cfg!(evenkeel_loom) { 1 } else { 64 };
/// After this many withdrawals an insertion no longer waits for the other one.
const PATIENCE: u32 = if cfg!(evenkeel_loom) { 2 } else { 16 };
/// After this many tries an insertion gives up as if the table were full; never seen in practice.
const TRIES_MAX: u32 = 10_000;

/// The table.
#[derive(Debug)]
pub struct Table {
    sets: Box<[Set]>,
    tickets: Box<[CachePadded<AtomicU64>]>,
    live_evictions: CachePadded<AtomicU64>,
    #[cfg(test)]
    collisions: CachePadded<AtomicU64>,
}

/// One cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

/// What a stored state is worth when its place is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worth {
    /// Equals a new state: losing it loses nothing.
    Nothing,
    /// In use; among those the lowest number goes first, and is counted.
    Live(u64),
    /// Must not be lost.
    Pinned,
}

/// How an update ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update<R> {
    /// The change is stored.
    Stored,
    /// The change was refused; nothing was written.
    Refused(R),
    /// The key has no state and no way of its set may be given up.
    Full,
}

impl Table {
    /// A table of at least `words` states, rounded up to a power of two; 8 bytes each.
    #[must_use]
    pub fn new(words: u32) -> Self {
        let sets = (words as usize).div_ceil(WAYS).next_power_of_two();
        Self {
            sets: (0..sets).map(|_| Set(std::array::from_fn(|_| AtomicU64::new(0)))).collect(),
            tickets: (0..TICKET_SHARDS).map(|_| CachePadded::new(AtomicU64::new(0))).collect(),
            live_evictions: CachePadded::new(AtomicU64::new(0)),
            #[cfg(test)]
            collisions: CachePadded::new(AtomicU64::new(0)),
        }
    }

    /// With the evictions of `earlier`, whose place it takes, counted on.
    #[must_use]
    pub fn counting_on_from(self, earlier: &Self) -> Self {
        self.count_on_from(earlier);
        self
    }

    /// Takes over the evictions of `earlier`, whose place it takes.
    pub(crate) fn count_on_from(&self, earlier: &Self) {
        self.live_evictions.store(earlier.live_evictions(), Ordering::Relaxed);
    }

    /// A table of at least `words` states that takes this one's place: it holds what `carry` makes
    /// of each state of this one, `None` being nothing, and counts its evictions on. `worth` judges
    /// carried states where several sets become one.
    ///
    /// Where one set becomes several, each gets every state, since a word does not tell the whole
    /// key: the others are of no key that is asked for, and are forgotten when they are worthless.
    /// A change of this table that happens meanwhile may be missed.
    #[must_use]
    pub fn carried(
        &self,
        words: u32,
        carry: impl Fn(u64) -> Option<u64>,
        worth: impl Fn(u64) -> Worth,
    ) -> Self {
        let mut table = Self::new(words).counting_on_from(self);
        let (here, there) = (self.sets.len(), table.sets.len());
        for (index, set) in table.sets.iter_mut().enumerate() {
            let sources = self.sets.iter().skip(index & (here - 1)).step_by(there.min(here));
            let words = sources.take(here.div_ceil(there)).flat_map(|source| &source.0);
            let words = words.filter_map(|way| carried_word(way.load(Ordering::Acquire), &carry));
            fill(set, words, &worth);
        }
        table
    }

    /// Changes the state of `key`, which is uniform over `u64`, or stores its first one.
    ///
    /// `change` gets the state (`None`: there is none) and gives the next, of 43 bits; it may be
    /// called several times, on whatever state is current. `worth` judges others of the set when
    /// the key needs a place.
    pub fn update<R>(
        &self,
        key: u64,
        change: impl Fn(Option<u64>) -> Result<u64, R>,
        worth: impl Fn(u64) -> Worth,
    ) -> Update<R> {
        let place = self.place(key);
        for tries in 0..TRIES_MAX {
            if let Some(update) = self.update_present(&place, &change) {
                return update;
            }
            let first = match change(None) {
                Ok(first) => first & PAYLOAD_MASK,
                Err(refusal) => return Update::Refused(refusal),
            };
            match self.insert(&place, first, tries, &worth) {
                Insertion::Committed => return Update::Stored,
                Insertion::Full => return Update::Full,
                Insertion::Lost => self.count_collision(),
            }
        }
        Update::Full
    }

    /// Changes the state of `key` only if there is one; whether it did.
    pub fn update_if_present(&self, key: u64, change: impl Fn(u64) -> Option<u64>) -> bool {
        let change = |state: Option<u64>| state.and_then(&change).ok_or(());
        matches!(self.update_present(&self.place(key), &change), Some(Update::Stored))
    }

    /// The state of `key`.
    #[must_use]
    pub fn get(&self, key: u64) -> Option<u64> {
        self.place(key).find().map(|(_, word)| word & PAYLOAD_MASK)
    }

    /// Forgets every state that `is_spent`; returns how many are left.
    pub fn sweep(&self, is_spent: impl Fn(u64) -> bool) -> usize {
        let mut left = 0;
        for way in self.sets.iter().flat_map(|set| &set.0) {
            let word = way.load(Ordering::Acquire);
            if word == 0 {
                continue;
            }
            let spent = word & PENDING == 0 && is_spent(word & PAYLOAD_MASK);
            if !(spent && exchange(way, word, 0).is_ok()) {
                left += 1;
            }
        }
        left
    }

    /// Every word as it is, for [`Self::load`]; one that is being inserted is none yet.
    pub fn words(&self) -> impl Iterator<Item = u64> {
        let words = self.sets.iter().flat_map(|set| &set.0);
        words
            .map(|way| Some(way.load(Ordering::Acquire)).filter(|word| word & PENDING == 0))
            .map(Option::unwrap_or_default)
    }

    /// Fills a table that is not used yet with the words of one of the same capacity, of which
    /// `carry` makes each state; `None` is nothing. Returns whether they were as many.
    #[must_use]
    pub fn load(
        &self,
        mut words: impl Iterator<Item = u64>,
        carry: impl Fn(u64) -> Option<u64>,
    ) -> bool {
        for way in self.sets.iter().flat_map(|set| &set.0) {
            let Some(word) = words.next() else { return false };
            way.store(carried_word(word, &carry).unwrap_or(0), Ordering::Release);
        }
        words.next().is_none()
    }

    /// States in use that gave way to others.
    #[must_use]
    pub fn live_evictions(&self) -> u64 {
        self.live_evictions.load(Ordering::Relaxed)
    }

    /// Words in the table.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.sets.len() * WAYS
    }

    /// Memory, all of it taken at the start.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.sets) + size_of_val(&*self.tickets) + size_of::<Self>()
    }

    /// The memory of the words, for advice to the kernel.
    #[must_use]
    pub fn extent(&self) -> Range<*const u8> {
        let sets = self.sets.as_ptr_range();
        sets.start.cast()..sets.end.cast()
    }

    #[inline]
    fn place(&self, key: u64) -> Home<'_> {
        // The number of sets is a power of two, at most 2^29: disjoint from the tag's 20 bits.
        let mask = self.sets.len() - 1;
        let index = usize::try_from(key & u64::from(u32::MAX)).unwrap_or(0) & mask;
        let tag = (key >> TAG_SHIFT).max(1);
        Home { set: &self.sets[index], tag, ticket: &self.tickets[index % TICKET_SHARDS] }
    }

    /// A hit; `None` if the key has no committed word.
    #[inline]
    fn update_present<R>(
        &self,
        place: &Home<'_>,
        change: &impl Fn(Option<u64>) -> Result<u64, R>,
    ) -> Option<Update<R>> {
        while let Some((way, word)) = place.find() {
            let next = match change(Some(word & PAYLOAD_MASK)) {
                Ok(next) => place.word(next & PAYLOAD_MASK),
                Err(refusal) => return Some(Update::Refused(refusal)),
            };
            if exchange(way, word, next).is_ok() {
                return Some(Update::Stored);
            }
            self.count_collision();
        }
        None
    }

    fn insert(
        &self,
        place: &Home<'_>,
        first: u64,
        tries: u32,
        worth: &impl Fn(u64) -> Worth,
    ) -> Insertion {
        let Some(victim) = choose_victim(place.set, worth) else {
            return Insertion::Full;
        };
        let ticket = place.ticket.fetch_add(1, Ordering::Relaxed) & PAYLOAD_MASK;
        let mine = place.word(ticket) | PENDING;
        let way = &place.set.0[victim.way];
        if exchange(way, victim.word, mine).is_err() {
            return Insertion::Lost;
        }
        if victim.is_live {
            self.live_evictions.fetch_add(1, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
        if !prevails(place, victim.way, tries >= PATIENCE) {
            // Failing means that another thread has removed it.
            let _removed = exchange(way, mine, 0);
            relax();
            return Insertion::Lost;
        }
        match exchange(way, mine, place.word(first)) {
            Ok(()) => Insertion::Committed,
            Err(_killed) => Insertion::Lost,
        }
    }

    /// Compare-exchanges lost to other threads, so that a stress test can prove there were any.
    #[inline]
    fn count_collision(&self) {
        #[cfg(test)]
        self.collisions.fetch_add(1, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn collisions(&self) -> u64 {
        self.collisions.load(Ordering::Relaxed)
    }
}

/// Where a key lives.
struct Home<'a> {
    set: &'a Set,
    /// Never 0, so that a committed word never is.
    tag: u64,
    ticket: &'a AtomicU64,
}

impl<'a> Home<'a> {
    /// The committed word of the key, and where it is.
    #[inline]
    fn find(&self) -> Option<(&'a AtomicU64, u64)> {
        let mut words = self.set.0.iter().map(|way| (way, way.load(Ordering::Acquire)));
        words.find(|(_, word)| is_committed(*word, self.tag))
    }

    fn word(&self, payload: u64) -> u64 {
        self.tag << TAG_SHIFT | payload
    }
}

enum Insertion {
    Committed,
    /// Another thread was there: look again.
    Lost,
    Full,
}

struct Victim {
    way: usize,
    word: u64,
    is_live: bool,
}

/// A committed word with what `carry` makes of its state.
fn carried_word(word: u64, carry: &impl Fn(u64) -> Option<u64>) -> Option<u64> {
    if word == 0 || word & PENDING != 0 {
        return None;
    }
    Some((word & !PAYLOAD_MASK) | (carry(word & PAYLOAD_MASK)? & PAYLOAD_MASK))
}

/// Fills an empty set with the words that are worth most.
fn fill(set: &mut Set, words: impl Iterator<Item = u64>, worth: &impl Fn(u64) -> Worth) {
    for word in words {
        let rank = |word: u64| match worth(word & PAYLOAD_MASK) {
            _ if word == 0 => 0,
            Worth::Nothing => 1,
            Worth::Live(rank) => rank.saturating_add(2),
            Worth::Pinned => u64::MAX,
        };
        let least = set.0.iter().min_by_key(|way| rank(way.load(Ordering::Relaxed)));
        if let Some(least) = least.filter(|way| rank(way.load(Ordering::Relaxed)) < rank(word)) {
            least.store(word, Ordering::Relaxed);
        }
    }
}

/// An empty way, else a worthless word, else the least worth of those that may go.
fn choose_victim(set: &Set, worth: &impl Fn(u64) -> Worth) -> Option<Victim> {
    let mut least: Option<(u64, Victim)> = None;
    let mut spent: Option<Victim> = None;
    for (way, cell) in set.0.iter().enumerate() {
        let word = cell.load(Ordering::Acquire);
        if word == 0 {
            return Some(Victim { way, word, is_live: false });
        }
        if word & PENDING != 0 {
            continue;
        }
        match worth(word & PAYLOAD_MASK) {
            Worth::Nothing => spent = spent.or(Some(Victim { way, word, is_live: false })),
            Worth::Live(rank) if least.as_ref().is_none_or(|(lowest, _)| rank < *lowest) => {
                least = Some((rank, Victim { way, word, is_live: true }));
            }
            Worth::Live(_) | Worth::Pinned => {}
        }
    }
    spent.or(least.map(|(_, victim)| victim))
}

/// Whether my pending word in way `mine` is the one to commit: no other committed word of this
/// key, and every other pending one killed. The lower way wins, unless patience is at its end.
fn prevails(place: &Home<'_>, mine: usize, impatient: bool) -> bool {
    for (way, cell) in place.set.0.iter().enumerate().filter(|(way, _)| *way != mine) {
        let mut word = cell.load(Ordering::Acquire);
        while word != 0 && word >> TAG_SHIFT == place.tag {
            if word & PENDING == 0 || !(impatient || way > mine) {
                return false;
            }
            match exchange(cell, word, 0) {
                Ok(()) => break,
                Err(current) => word = current,
            }
        }
    }
    true
}

#[inline]
fn is_committed(word: u64, tag: u64) -> bool {
    word >> PAYLOAD_BITS == tag << 1
}

/// Compare-exchange; on failure the word that is there.
#[inline]
fn exchange(cell: &AtomicU64, old: u64, new: u64) -> Result<(), u64> {
    cell.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).map(|_| ())
}

#[cfg(test)]
#[cfg(not(evenkeel_loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// A key of the given set and tag.
    fn key(set: u64, tag: u64) -> u64 {
        tag << TAG_SHIFT | set
    }

    fn put(table: &Table, key: u64, state: u64, worth: impl Fn(u64) -> Worth) -> Update<()> {
        table.update(key, |_| Ok(state), worth)
    }

    #[test]
    fn a_set_is_one_cache_line() {
        // If this fails, one lookup costs two cache misses.
        assert_eq!(size_of::<Set>(), 64);
        assert_eq!(align_of::<Set>(), 64);
        assert_eq!(Table::new(1).capacity(), 8);
        assert_eq!(Table::new(65_536).capacity(), 65_536);
        assert_eq!(Table::new(65_537).capacity(), 131_072);
    }

    #[test]
    fn a_refusal_writes_nothing() {
        // If this fails, a flood of refused clients makes workers fight over cache lines.
        let table = Table::new(8);
        assert_eq!(
            table.update(key(0, 1), |_| Err("no"), |_| Worth::Pinned),
            Update::Refused("no")
        );
        assert_eq!(table.get(key(0, 1)), None);
        put(&table, key(0, 1), 7, |_| Worth::Pinned);
        assert_eq!(
            table.update(key(0, 1), |_| Err("no"), |_| Worth::Pinned),
            Update::Refused("no")
        );
        assert_eq!(table.get(key(0, 1)), Some(7));
    }

    #[test]
    fn the_worthless_go_first_then_the_least_and_never_the_pinned() {
        // If this fails, a client in use is forgotten while a quiet one keeps its place.
        let table = Table::new(8);
        for tag in 1..=8 {
            put(&table, key(0, tag), 10 * tag, |_| Worth::Pinned);
        }
        let full: Update<()> = put(&table, key(0, 9), 90, |_| Worth::Pinned);
        assert_eq!(full, Update::Full);
        put(
            &table,
            key(0, 9),
            90,
            |state| if state == 50 { Worth::Nothing } else { Worth::Live(state) },
        );
        assert_eq!((table.get(key(0, 5)), table.get(key(0, 9))), (None, Some(90)));
        assert_eq!(table.live_evictions(), 0);
        put(&table, key(0, 10), 100, Worth::Live);
        assert_eq!((table.get(key(0, 1)), table.get(key(0, 10))), (None, Some(100)));
        assert_eq!(table.live_evictions(), 1);
    }

    #[test]
    fn a_sweep_forgets_only_the_spent() {
        // If this fails, cleaning up loses clients in use.
        let table = Table::new(64);
        for tag in 1..=5 {
            put(&table, key(tag, tag), tag, |_| Worth::Pinned);
        }
        assert_eq!(table.sweep(|state| state < 3), 3);
        assert_eq!((table.get(key(2, 2)), table.get(key(3, 3))), (None, Some(3)));
    }

    #[test]
    fn threads_count_exactly_and_do_meet() {
        // If this fails, a change of one worker is lost under another's, or nothing was tested.
        // On a busy machine it may take a while until two run at once.
        let start = std::time::Instant::now();
        for round in (0_u64..).take_while(|_| start.elapsed().as_secs() < 20) {
            let table = Table::new(8);
            let barrier = std::sync::Barrier::new(4);
            let work = || {
                barrier.wait();
                for step in 0..400 {
                    let change = |state: Option<u64>| Ok::<_, ()>(state.unwrap_or(0) + 1);
                    let update = table.update(key(0, 1 + step % 4), change, |_| Worth::Pinned);
                    assert_eq!(update, Update::Stored);
                }
            };
            std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(work))));
            for tag in 1..=4 {
                assert_eq!(table.get(key(0, tag)), Some(400), "round {round}");
            }
            if round > 20 && table.collisions() > 0 {
                return;
            }
        }
        panic!("no two threads ever met");
    }

    proptest! {
        #[test]
        fn agrees_with_a_map(
            ops in prop::collection::vec((0_u64..8, 1_u64..8, 0_u64..100), 0..200)
        ) {
            // If this fails, clients see each other's state, or lose their own.
            let table = Table::new(64);
            let mut map = HashMap::new();
            for (set, tag, add) in ops {
                let key = key(set, tag);
                let change = |state: Option<u64>| {
                    let next = state.unwrap_or(0) + add;
                    if add % 7 == 0 { Err(next) } else { Ok(next) }
                };
                let expected = change(map.get(&key).copied());
                let got = table.update(key, change, |_| Worth::Pinned);
                match expected {
                    Ok(next) => {
                        map.insert(key, next);
                        prop_assert_eq!(got, Update::Stored);
                    }
                    Err(next) => prop_assert_eq!(got, Update::Refused(next)),
                }
                prop_assert_eq!(table.get(key), map.get(&key).copied());
            }
        }
    }
}
