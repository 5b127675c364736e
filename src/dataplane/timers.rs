//! A coarse timer wheel for the connections of one worker, driven by an injected `now`.
//!
//! Each slot has at most one timer, held in lists threaded through one array, so arming and
//! cancelling touch a few words and never allocate. Deadlines further away than one turn of the
//! wheel are parked at its end and looked at again: callers keep the true deadline and re-arm
//! (lazily, on expiry), so traffic never touches the wheel. Never early; late by at most one tick.
//! After Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", SOSP 1987, scheme 6.

#![allow(clippy::indexing_slicing, reason = "every index here is one the wheel itself made")]

use super::clock::Tick;

/// One tick: 2^14 µs, about 16 ms.
const TICK_SHIFT: u32 = 14;
const BUCKETS: usize = 1024;
/// Buckets that one word tells of.
const WORD: usize = 64;
const WORDS: usize = BUCKETS / WORD;
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Link {
    next: u32,
    previous: u32,
    /// The bucket it is in, or `NONE`.
    bucket: u32,
}

/// Timers by slot index.
#[derive(Debug)]
pub struct Timers {
    heads: [u32; BUCKETS],
    /// A bit for each bucket that has timers, and one for each of these words that is not zero.
    occupied: [u64; WORDS],
    words: u16,
    links: Vec<Link>,
    /// Ticks up to and including this one have been expired.
    done: u64,
}

impl Timers {
    /// No timers, at `now`.
    pub fn new(now: Tick) -> Self {
        Self {
            heads: [NONE; BUCKETS],
            occupied: [0; WORDS],
            words: 0,
            links: Vec::new(),
            done: now.micros() >> TICK_SHIFT,
        }
    }

    /// Arms the timer of a slot; one that is armed already is moved.
    pub fn arm(&mut self, slot: u32, deadline: Tick) {
        self.cancel(slot);
        let due = (deadline.micros() >> TICK_SHIFT) + 1;
        let tick = due.clamp(self.done + 1, self.done + BUCKETS as u64 - 1);
        let bucket = bucket_of(tick);
        let index = slot as usize;
        if index >= self.links.len() {
            let link = Link { next: NONE, previous: NONE, bucket: NONE };
            self.links.resize(index + 1, link);
        }
        let head = self.heads[bucket];
        self.links[index] =
            Link { next: head, previous: NONE, bucket: u32::try_from(bucket).unwrap_or(NONE) };
        if head != NONE {
            self.links[head as usize].previous = slot;
        }
        self.heads[bucket] = slot;
        self.occupied[bucket / WORD] |= 1 << (bucket % WORD);
        self.words |= 1 << (bucket / WORD);
    }

    /// Disarms the timer of a slot, if it is armed.
    pub fn cancel(&mut self, slot: u32) {
        let Some(link) = self.links.get(slot as usize).copied() else { return };
        if link.bucket == NONE {
            return;
        }
        let bucket = link.bucket as usize;
        match link.previous {
            NONE => self.heads[bucket] = link.next,
            previous => self.links[previous as usize].next = link.next,
        }
        if link.next != NONE {
            self.links[link.next as usize].previous = link.previous;
        }
        if self.heads[bucket] == NONE {
            self.occupied[bucket / WORD] &= !(1 << (bucket % WORD));
            if self.occupied[bucket / WORD] == 0 {
                self.words &= !(1 << (bucket / WORD));
            }
        }
        self.links[slot as usize].bucket = NONE;
    }

    /// Disarms every timer that is due and appends its slot to `due`. The caller re-arms those
    /// whose true deadline lies further ahead.
    pub fn expire(&mut self, now: Tick, due: &mut Vec<u32>) {
        let current = now.micros() >> TICK_SHIFT;
        // After a long sleep every bucket is due once; more turns would find nothing new.
        let first = (self.done + 1).max(current.saturating_sub(BUCKETS as u64 - 1));
        for tick in first..=current {
            let bucket = bucket_of(tick);
            while self.heads[bucket] != NONE {
                let slot = self.heads[bucket];
                self.cancel(slot);
                due.push(slot);
            }
        }
        self.done = self.done.max(current);
    }

    /// When something may be due; `None` when nothing is armed. Asked in every turn of the loop.
    pub fn next_due(&self) -> Option<Tick> {
        let start = self.done + 1;
        let first = bucket_of(start);
        let word = first / WORD;
        let rest_of_word = self.occupied[word] >> (first % WORD);
        let ahead = if rest_of_word == 0 {
            // The words behind it, in a circle; the last is its own, for the bits before `first`.
            let behind = self.words.rotate_right(u32::try_from(word).unwrap_or(0) + 1);
            let steps = behind.trailing_zeros() as usize;
            let next = (word + 1 + steps) % WORDS;
            let bucket = next * WORD + self.occupied[next].trailing_zeros() as usize;
            (bucket + BUCKETS - first) % BUCKETS
        } else {
            rest_of_word.trailing_zeros() as usize
        };
        (self.words != 0).then(|| Tick::from_micros((start + ahead as u64) << TICK_SHIFT))
    }
}

const _: () = assert!(WORDS == u16::BITS as usize, "a bit of `words` for each word");

fn bucket_of(tick: u64) -> usize {
    usize::try_from(tick % BUCKETS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn at(micros: u64) -> Tick {
        Tick::from_micros(micros)
    }

    // If this fails, sessions time out early, or hang because their timer never fires.
    #[test]
    fn fires_once_and_not_before_its_time() {
        let mut timers = Timers::new(at(0));
        timers.arm(3, at(100_000));
        let mut due = Vec::new();
        timers.expire(at(99_999), &mut due);
        assert!(due.is_empty());
        timers.expire(at(100_000 + (1 << TICK_SHIFT)), &mut due);
        assert_eq!(due, [3]);
        timers.expire(at(10_000_000), &mut due);
        assert_eq!(due, [3]);
    }

    // If this fails, a worker sleeps past a deadline.
    #[test]
    fn next_due_is_never_after_the_first_timer() {
        let mut timers = Timers::new(at(5_000_000));
        assert_eq!(timers.next_due(), None);
        timers.arm(0, at(9_000_000));
        timers.arm(1, at(5_300_000));
        let next = timers.next_due().unwrap();
        assert!(next.micros() >= 5_300_000 && next.micros() <= 5_300_000 + (2 << TICK_SHIFT));
        timers.cancel(1);
        assert!(timers.next_due().unwrap().micros() >= 9_000_000);
    }

    proptest! {
        // If this fails, some order of arming, cancelling and expiring loses or repeats a timer.
        #[test]
        fn agrees_with_a_sorted_map(
            steps in proptest::collection::vec((0_u32..40, 0_u64..30_000_000, 0_u8..4), 1..300)
        ) {
            let mut timers = Timers::new(at(0));
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let mut now = 0;
            for (slot, amount, action) in steps {
                match action {
                    0 => {
                        timers.cancel(slot);
                        model.remove(&slot);
                    }
                    1 => {
                        now += amount / 8;
                        let mut due = Vec::new();
                        timers.expire(at(now), &mut due);
                        for slot in due {
                            let deadline = model[&slot];
                            if deadline <= now {
                                model.remove(&slot);
                            } else {
                                // Parked at the end of the wheel: the owner re-arms.
                                timers.arm(slot, at(deadline));
                            }
                        }
                        for deadline in model.values() {
                            prop_assert!(*deadline + (2 << TICK_SHIFT) > now, "missed its time");
                        }
                    }
                    _ => {
                        timers.arm(slot, at(now + amount));
                        model.insert(slot, now + amount);
                    }
                }
                let start = timers.done + 1;
                let armed = |tick: &u64| timers.heads[bucket_of(*tick)] != NONE;
                let first = (start..start + BUCKETS as u64).find(armed);
                let first = first.map(|tick| at(tick << TICK_SHIFT));
                prop_assert_eq!(first.is_some(), !model.is_empty());
                prop_assert_eq!(timers.next_due(), first);
            }
        }
    }
}
