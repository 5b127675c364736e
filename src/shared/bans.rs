//! Bans of operators, in force in every worker from one moment on.
//!
//! They are no part of a snapshot: each would be a new configuration to compile and to count. All
//! snapshots share them.
//!
//! **Synchronization.** As snapshots are handed over: the set is stored under a mutex, then its
//! number with `Release`. A worker compares the number each time that it takes a connection
//! (`Acquire`) and takes the mutex only when it has changed.

use std::sync::Arc;

use crate::policy::admit::ban_set::BanSet;
use crate::policy::sync::{AtomicU64, Mutex, Ordering};

/// The bans in force.
#[derive(Debug)]
pub struct Bans {
    /// How often the set has been replaced.
    number: AtomicU64,
    /// `None`: there is none.
    set: Mutex<Option<Arc<BanSet>>>,
}

impl Default for Bans {
    fn default() -> Self {
        Self { number: AtomicU64::new(0), set: Mutex::new(None) }
    }
}

impl Bans {
    /// Replaces all; `None` ends all.
    pub fn replace(&self, bans: Option<BanSet>) {
        let mut set = self.set.lock();
        *set = bans.map(Arc::new);
        let number = self.number.load(Ordering::Relaxed);
        self.number.store(number.wrapping_add(1), Ordering::Release);
    }

    /// Those in force.
    #[must_use]
    pub fn latest(&self) -> Option<Arc<BanSet>> {
        self.set.lock().clone()
    }
}

/// A worker's end: its own reference to the bans.
#[derive(Debug)]
pub struct BanReader {
    bans: Arc<Bans>,
    number: u64,
    set: Option<Arc<BanSet>>,
}

impl BanReader {
    /// Reads these bans from now on.
    #[must_use]
    pub fn new(bans: Arc<Bans>) -> Self {
        // A number that no set has: the first look fetches.
        Self { bans, number: u64::MAX, set: None }
    }

    /// Sees what is in force now: one atomic load where nothing has changed.
    #[inline]
    pub fn follow(&mut self) {
        let number = self.bans.number.load(Ordering::Acquire);
        if number != self.number {
            self.fetch(number);
        }
    }

    #[cold]
    fn fetch(&mut self, number: u64) {
        // What is there may be newer than its number: the next look fetches once more.
        self.set = self.bans.latest();
        self.number = number;
    }

    /// What it saw when it last followed; `None`: no ban.
    #[inline]
    #[must_use]
    pub fn set(&self) -> Option<&BanSet> {
        self.set.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, a ban comes into force late in some worker, or an unban never does.
    #[test]
    fn a_reader_sees_each_change() {
        let bans = Arc::new(Bans::default());
        let mut reader = BanReader::new(Arc::clone(&bans));
        let mut is_banned = || {
            reader.follow();
            let set = reader.set();
            set.is_some_and(|set| set.covering("192.0.2.7".parse().unwrap(), 0).is_some())
        };
        assert!(!is_banned());
        bans.replace(Some(BanSet::new([("192.0.2.0/24".parse().unwrap(), 1)])));
        assert!(is_banned() && is_banned());
        bans.replace(None);
        assert!(!is_banned());
    }
}
