//! Maglev consistent hashing: Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load
//! Balancer", NSDI 2016, section 3.4.
//!
//! Built from the *configured* members and weights only. A member that cannot serve is skipped at
//! lookup by a fixed sequence that depends on the client alone, so health changes rebuild nothing
//! and move no other member's clients. Built off the data plane, read by every worker.
//!
//! Weights: each member's number of slots is fixed first (floor or ceiling of its share, largest
//! remainders first), then its turns are spread over the rounds of the paper by a cumulative
//! counter. A round costs one step per member whatever the weights, so the build time is bounded.

use std::fmt;
use std::sync::Arc;

use super::hash::{attempt_key, name_key, scale};

/// Largest table: the first prime above five million.
pub const TABLE_SIZE_MAX: u32 = 5_000_011;
/// Slots looked at after the client's own before the members themselves are gone through.
const ATTEMPTS_MAX: u32 = 64;

/// A built table; entries are indexes into the list it was built from. A clone shares them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maglev {
    slots: Arc<[u16]>,
    /// Members with a weight, by identity: gone through when the slots tried were all ineligible.
    members: Arc<[u16]>,
    /// The least prime not below the number of members: the length of that walk.
    walk: u32,
    size: u32,
    seed: u64,
}

/// Where a client goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaglevPick {
    /// Index into the list the table was built from.
    pub member: u16,
    /// The client's own slot.
    pub slot: u32,
    /// Ineligible members met before; 0 is the client's own backend.
    pub attempts: u32,
}

/// Why no table can be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaglevError {
    /// There is no member.
    Empty,
    /// Every weight is 0.
    NoWeight,
    /// Two members have the same identity.
    Duplicate,
    /// The table size is not prime, or above [`TABLE_SIZE_MAX`].
    BadSize(u32),
    /// More members than an entry can number, or not fewer than slots.
    TooMany(usize),
}

impl fmt::Display for MaglevError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a Maglev table needs at least one backend"),
            Self::NoWeight => f.write_str("every backend has weight 0"),
            Self::Duplicate => f.write_str("two backends have the same name"),
            Self::BadSize(size) => {
                write!(f, "table size {size} is not a prime up to {TABLE_SIZE_MAX}")
            }
            Self::TooMany(members) => write!(f, "{members} backends are too many for the table"),
        }
    }
}

impl std::error::Error for MaglevError {}

impl Maglev {
    /// Builds the table of (identity, weight) members; the order of the list does not matter.
    ///
    /// Members of weight 0 get no slot. Cost: about size × ln(size) steps.
    ///
    /// # Errors
    /// See [`MaglevError`].
    pub fn new(list: &[(&str, u32)], table_size: u32, seed: u64) -> Result<Self, MaglevError> {
        let sorted = sorted_members(list, table_size)?;
        let slots = fill(turns(&sorted, table_size, seed), table_size);
        let members: Arc<[u16]> = sorted.iter().map(|&(_, _, member)| member).collect();
        let walk = (2..).find(|&n| is_prime(n) && n as usize >= members.len());
        Ok(Self {
            slots: slots.into(),
            members,
            walk: walk.unwrap_or(u32::MAX),
            size: table_size,
            seed,
        })
    }

    /// Whether it was made with this size and seed.
    #[must_use]
    pub fn is_made_with(&self, table_size: u32, seed: u64) -> bool {
        self.size == table_size && self.seed == seed
    }

    /// The slot of a client with this stable key.
    #[must_use]
    #[inline]
    pub fn slot_of(&self, key: u64) -> u32 {
        below(key, self.size)
    }

    /// Whose slot it is; `None` outside the table.
    #[must_use]
    #[inline]
    pub fn member_at(&self, slot: u32) -> Option<u16> {
        self.slots.get(slot as usize).copied()
    }

    /// The slots of all members, for display and tests.
    #[must_use]
    pub fn slots(&self) -> &[u16] {
        &self.slots
    }

    /// The first eligible member in the sequence of this client; `None` when none is eligible.
    #[inline]
    pub fn pick(&self, key: u64, mut eligible: impl FnMut(u16) -> bool) -> Option<MaglevPick> {
        let slot = self.slot_of(key);
        let member = self.member_at(slot)?;
        if eligible(member) {
            return Some(MaglevPick { member, slot, attempts: 0 });
        }
        self.pick_another(key, slot, eligible)
    }

    /// The sequence after the client's own slot: further slots at a stride of its own, which visits
    /// members by weight, then every member in an order of its own, which misses none.
    #[cold]
    fn pick_another(
        &self,
        key: u64,
        slot: u32,
        mut eligible: impl FnMut(u16) -> bool,
    ) -> Option<MaglevPick> {
        let stride = below(attempt_key(key, 1, self.seed), self.size - 1) + 1;
        let mut cursor = slot;
        for attempts in 1..=ATTEMPTS_MAX {
            cursor = step(cursor, stride, self.size);
            let member = self.member_at(cursor)?;
            if eligible(member) {
                return Some(MaglevPick { member, slot, attempts });
            }
        }
        let stride = below(attempt_key(key, 2, self.seed), self.walk - 1) + 1;
        let mut cursor = below(attempt_key(key, 3, self.seed), self.walk);
        for attempts in ATTEMPTS_MAX + 1..=ATTEMPTS_MAX + self.walk {
            cursor = step(cursor, stride, self.walk);
            match self.members.get(cursor as usize) {
                Some(&member) if eligible(member) => {
                    return Some(MaglevPick { member, slot, attempts });
                }
                _ => {}
            }
        }
        None
    }
}

/// One step of a walk around a ring: no division, no overflow, and both outcomes follow from the
/// cursor directly, which makes the chain of steps a third shorter.
#[inline]
fn step(cursor: u32, stride: u32, size: u32) -> u32 {
    let back = size - stride;
    if cursor >= back { cursor - back } else { cursor + stride }
}

/// A uniform number as a place in `0..size`.
#[inline]
fn below(uniform: u64, size: u32) -> u32 {
    // Always below `size`, so the conversion cannot fail and costs nothing.
    u32::try_from(scale(uniform, u64::from(size))).unwrap_or(0)
}

/// Members of weight above 0 by identity, as (identity, weight, index in the caller's list).
fn sorted_members<'a>(
    list: &[(&'a str, u32)],
    table_size: u32,
) -> Result<Vec<(&'a str, u32, u16)>, MaglevError> {
    if list.is_empty() {
        return Err(MaglevError::Empty);
    }
    if table_size > TABLE_SIZE_MAX || !is_prime(table_size) {
        return Err(MaglevError::BadSize(table_size));
    }
    if list.len() >= table_size as usize || list.len() > usize::from(u16::MAX) + 1 {
        return Err(MaglevError::TooMany(list.len()));
    }
    let mut sorted: Vec<(&str, u32, u16)> = list
        .iter()
        .zip(0..=u16::MAX)
        .map(|(&(name, weight), index)| (name, weight, index))
        .collect();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(MaglevError::Duplicate);
    }
    sorted.retain(|&(_, weight, _)| weight > 0);
    if sorted.is_empty() { Err(MaglevError::NoWeight) } else { Ok(sorted) }
}

/// One member's permutation of the slots, and how many of them it is owed.
struct Turns {
    cursor: u32,
    skip: u32,
    quota: u32,
    member: u16,
}

/// Quotas by largest remainder: floor of each share, one more for the largest fractions.
fn turns(sorted: &[(&str, u32, u16)], table_size: u32, seed: u64) -> Vec<Turns> {
    let size = u64::from(table_size);
    let total: u64 = sorted.iter().map(|&(_, weight, _)| u64::from(weight)).sum();
    let mut left = table_size;
    let mut turns = Vec::with_capacity(sorted.len());
    let mut fractions = Vec::with_capacity(sorted.len());
    for (order, &(name, weight, member)) in sorted.iter().enumerate() {
        let share = u64::from(weight) * size;
        // At most the table size, as weight is at most total.
        let quota = u32::try_from(share / total).unwrap_or(table_size);
        left -= quota;
        fractions.push((std::cmp::Reverse(share % total), order));
        let key = name_key(name, seed);
        turns.push(Turns {
            cursor: below(key, table_size),
            skip: below(attempt_key(key, 1, seed), table_size - 1) + 1,
            quota,
            member,
        });
    }
    fractions.sort_unstable();
    for &(_, order) in fractions.iter().take(left as usize) {
        turns[order].quota += 1;
    }
    turns
}

/// The paper's fill: members in turn take the next free slot of their own permutation.
fn fill(mut turns: Vec<Turns>, table_size: u32) -> Box<[u16]> {
    let mut slots = vec![0_u16; table_size as usize].into_boxed_slice();
    let mut free = Free::new(table_size);
    let members = u32::try_from(turns.len()).unwrap_or(u32::MAX);
    let rounds = table_size.div_ceil(members);
    // Credit starts one short of a turn: a member that has a slot at all takes one in the first
    // round, and after the last round each has had exactly its quota.
    let mut credits = vec![rounds - 1; turns.len()];
    for _ in 0..rounds {
        for (turn, credit) in turns.iter_mut().zip(&mut credits) {
            *credit += turn.quota;
            while *credit >= rounds {
                *credit -= rounds;
                let slot = free.take(turn);
                slots[slot as usize] = turn.member;
                turn.cursor = step(slot, turn.skip, table_size);
            }
        }
    }
    slots
}

/// The slots that no member has yet.
struct Free {
    /// One bit per slot stays in the first-level cache where the entries would not.
    taken: Box<[u64]>,
    /// The last few, listed: going through a nearly full table for each of them would be two of
    /// five steps of the build.
    last: Vec<u32>,
    /// Slots to take before the rest is listed.
    before_last: u32,
    size: u32,
}

impl Free {
    fn new(size: u32) -> Self {
        let taken = vec![0; size.div_ceil(64) as usize].into_boxed_slice();
        // A longer list costs more for each of its slots, a shorter one leaves more steps to the
        // walk; at this length the build was measured to be shortest.
        Self { taken, last: Vec::new(), before_last: size - size.isqrt() * 2 / 3, size }
    }

    /// Takes the first free slot at or after the cursor in this member's permutation.
    #[inline]
    fn take(&mut self, turn: &Turns) -> u32 {
        if self.before_last == 0 {
            return self.take_last(turn);
        }
        let mut cursor = turn.cursor;
        while self.is_taken(cursor) {
            cursor = step(cursor, turn.skip, self.size);
        }
        self.taken[cursor as usize / 64] |= 1 << (cursor % 64);
        self.before_last -= 1;
        if self.before_last == 0 {
            self.last = (0..self.size).filter(|slot| !self.is_taken(*slot)).collect();
        }
        cursor
    }

    /// The same by arithmetic: slot s is (s - cursor) / skip steps away, modulo the prime size.
    fn take_last(&mut self, turn: &Turns) -> u32 {
        let size = u64::from(self.size);
        let inverse = inverse(u64::from(turn.skip), size);
        let modulus = Modulus::new(size);
        let steps = |slot: u32| {
            modulus.remainder((u64::from(slot) + size - u64::from(turn.cursor)) * inverse)
        };
        let nearest = (0..self.last.len()).min_by_key(|&index| steps(self.last[index]));
        nearest.map_or(turn.cursor, |index| self.last.swap_remove(index))
    }

    #[inline]
    fn is_taken(&self, slot: u32) -> bool {
        self.taken[slot as usize / 64] >> (slot % 64) & 1 == 1
    }
}

/// Remainders of values below 2^63 by one number, without division (Barrett reduction).
#[derive(Clone, Copy)]
struct Modulus {
    number: u64,
    /// (2^64 - 1) / number, rounded down.
    reciprocal: u64,
}

impl Modulus {
    fn new(number: u64) -> Self {
        Self { number, reciprocal: u64::MAX / number }
    }

    #[inline]
    fn remainder(self, value: u64) -> u64 {
        // Scaling gives the quotient or one less.
        let rest = value - scale(value, self.reciprocal) * self.number;
        if rest >= self.number { rest - self.number } else { rest }
    }
}

/// The inverse modulo a prime below 2^31, by Fermat: number^(prime - 2).
fn inverse(number: u64, prime: u64) -> u64 {
    let (mut power, mut square, mut exponent) = (1, number, prime - 2);
    while exponent > 0 {
        if exponent & 1 == 1 {
            power = power * square % prime;
        }
        square = square * square % prime;
        exponent >>= 1;
    }
    power
}

/// Whether a number has no divisor but 1 and itself; the size of a table has to be such a number.
#[must_use]
pub fn is_prime(number: u32) -> bool {
    let mut divisors = (2..).take_while(|divisor| divisor * divisor <= number);
    number >= 2 && divisors.all(|divisor| !number.is_multiple_of(divisor))
}

#[cfg(test)]
mod tests;
