//! Storage for sessions, and the tokens by which events find them.
//!
//! A token names a slot, the side of the session, and the slot's generation: an event that was
//! queued for a session which has just ended, in a slot already used again, finds no session.
//! Storage grows by chunks that never move, and is reused last in, first out.

use mio::Token;

use super::stream::wire::Side;

const CHUNK: u32 = 128;
const SIDE_BITS: u32 = 1;
const INDEX_BITS: u32 = 31;
/// Indexes from here on are slots of held clients.
const FIRST_HELD: u32 = 0x6000_0000;
/// Indexes from here on are not slots but what [`Addressed`] says.
const FIRST_LISTENER: u32 = 0x7000_0000;
const WAKER: u32 = 0x7fff_ffff;

/// Names one session, or one held client, for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotKey {
    /// Which slot.
    pub index: u32,
    /// How many values the slot has had before.
    pub generation: u32,
}

impl SlotKey {
    /// The key of nothing.
    pub(crate) const NONE: Self = Self { index: u32::MAX, generation: u32::MAX };
}

/// The receiver of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressed {
    /// The worker's waker.
    Waker,
    /// A listening socket, by its position in the worker's list.
    Listener(u32),
    /// One side of a session.
    Session(SlotKey, Side),
    /// A refused client that is held.
    Held(SlotKey),
}

impl Addressed {
    /// The token to register with.
    pub fn token(self) -> Token {
        let (generation, index, side) = match self {
            Self::Waker => (0, WAKER, 0),
            Self::Listener(position) => (0, FIRST_LISTENER + position, 0),
            Self::Session(key, side) => (key.generation, key.index, side as usize),
            Self::Held(key) => (key.generation, FIRST_HELD + key.index, 0),
        };
        Token(
            ((generation as usize) << (INDEX_BITS + SIDE_BITS))
                | ((index as usize) << SIDE_BITS)
                | side,
        )
    }

    /// The receiver that a token names.
    pub fn of(token: Token) -> Self {
        let index =
            u32::try_from((token.0 >> SIDE_BITS) & ((1 << INDEX_BITS) - 1)).unwrap_or(WAKER);
        let generation = u32::try_from(token.0 >> (INDEX_BITS + SIDE_BITS)).unwrap_or(0);
        match index {
            WAKER => Self::Waker,
            FIRST_LISTENER.. => Self::Listener(index - FIRST_LISTENER),
            FIRST_HELD.. => Self::Held(SlotKey { index: index - FIRST_HELD, generation }),
            _ => {
                let side = if token.0 & 1 == 0 { Side::Client } else { Side::Backend };
                Self::Session(SlotKey { index, generation }, side)
            }
        }
    }
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// What one worker has many of, in slots.
#[derive(Debug)]
pub struct Slots<T> {
    chunks: Vec<Box<[Slot<T>]>>,
    free: Vec<u32>,
    occupied: usize,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Slots<T> {
    /// No slots yet.
    pub fn new() -> Self {
        Self { chunks: Vec::new(), free: Vec::new(), occupied: 0 }
    }

    /// Stores a value; `None` gives it back when every index is in use.
    pub fn insert(&mut self, value: T) -> Result<SlotKey, T> {
        if self.free.is_empty() && !self.grow() {
            return Err(value);
        }
        let Some(index) = self.free.pop() else { return Err(value) };
        let Some(slot) = self.slot(index) else { return Err(value) };
        slot.value = Some(value);
        let generation = slot.generation;
        self.occupied += 1;
        Ok(SlotKey { index, generation })
    }

    /// The value of a key, unless it has ended.
    pub fn get_mut(&mut self, key: SlotKey) -> Option<&mut T> {
        let slot = self.slot(key.index)?;
        if slot.generation == key.generation { slot.value.as_mut() } else { None }
    }

    /// The value of a key, unless it has ended.
    pub fn get(&self, key: SlotKey) -> Option<&T> {
        let slot = self.chunk(key.index)?.get(within(key.index))?;
        if slot.generation == key.generation { slot.value.as_ref() } else { None }
    }

    /// The key of the value that is in a slot now.
    pub fn key_at(&self, index: u32) -> Option<SlotKey> {
        let slot = self.chunk(index)?.get(within(index))?;
        slot.value.as_ref().map(|_| SlotKey { index, generation: slot.generation })
    }

    /// Takes a value out; its key is void from then on.
    pub fn remove(&mut self, key: SlotKey) -> Option<T> {
        let slot = self.slot(key.index)?;
        if slot.generation != key.generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1) & 0x7fff_ffff;
        self.free.push(key.index);
        self.occupied -= 1;
        Some(value)
    }

    /// Values stored now.
    pub(crate) fn len(&self) -> usize {
        self.occupied
    }

    /// Slots that have ever been used: every index is below this.
    pub(crate) fn capacity(&self) -> usize {
        self.chunks.len() * CHUNK as usize
    }

    /// Keys of all values stored now.
    pub fn keys(&self) -> Vec<SlotKey> {
        let slots = u32::try_from(self.capacity()).unwrap_or(u32::MAX);
        // Low slots are taken first: the last value is found long before the last slot.
        (0..slots).filter_map(|index| self.key_at(index)).take(self.occupied).collect()
    }

    fn chunk(&self, index: u32) -> Option<&[Slot<T>]> {
        self.chunks.get((index / CHUNK) as usize).map(|chunk| &**chunk)
    }

    fn slot(&mut self, index: u32) -> Option<&mut Slot<T>> {
        self.chunks.get_mut((index / CHUNK) as usize)?.get_mut(within(index))
    }

    fn grow(&mut self) -> bool {
        let Ok(first) = u32::try_from(self.capacity()) else { return false };
        let Some(end) = first.checked_add(CHUNK).filter(|end| *end < FIRST_LISTENER - FIRST_HELD)
        else {
            return false;
        };
        self.chunks.push((0..CHUNK).map(|_| Slot { generation: 0, value: None }).collect());
        self.free.extend((first..end).rev());
        true
    }
}

/// Position of an index within its chunk.
fn within(index: u32) -> usize {
    (index % CHUNK) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // If this fails, events reach the wrong socket or the wrong session.
    #[test]
    fn tokens_round_trip() {
        let key = SlotKey { index: 12_345, generation: 0x7fff_fffe };
        for addressed in [
            Addressed::Waker,
            Addressed::Listener(0),
            Addressed::Listener(77),
            Addressed::Session(key, Side::Client),
            Addressed::Session(key, Side::Backend),
            Addressed::Held(key),
            Addressed::Held(SlotKey { index: 0, generation: 0 }),
        ] {
            assert_eq!(Addressed::of(addressed.token()), addressed);
        }
    }

    // If this fails, an event of an ended session acts on the session that took its slot.
    #[test]
    fn a_key_is_void_once_its_value_is_gone() {
        let mut slots = Slots::new();
        let old = slots.insert("old").unwrap();
        assert_eq!(slots.remove(old), Some("old"));
        let new = slots.insert("new").unwrap();
        assert_eq!(new.index, old.index, "slots are reused last in, first out");
        assert_eq!(slots.get_mut(old), None);
        assert_eq!(slots.remove(old), None);
        assert_eq!(slots.get_mut(new), Some(&mut "new"));
    }

    proptest! {
        // If this fails, sessions are lost or found twice under churn.
        #[test]
        fn behaves_like_a_map(
            steps in proptest::collection::vec((any::<bool>(), any::<usize>()), 1..400)
        ) {
            let mut slots = Slots::new();
            let mut model: Vec<(SlotKey, usize)> = Vec::new();
            for (insert, number) in steps {
                if insert || model.is_empty() {
                    let key = slots.insert(number).unwrap();
                    model.push((key, number));
                } else {
                    let (key, stored) = model.swap_remove(number % model.len());
                    prop_assert_eq!(slots.remove(key), Some(stored));
                }
                prop_assert_eq!(slots.len(), model.len());
                for (key, stored) in &model {
                    prop_assert_eq!(slots.get_mut(*key).copied(), Some(*stored));
                }
            }
        }
    }
}
