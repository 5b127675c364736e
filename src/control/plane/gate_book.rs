//! What was told last of the clients that the kernel refuses.

use std::collections::HashMap;

use parking_lot::{Mutex, MutexGuard};

use crate::sys::gate::GateKey;

/// What was told last; locked while it is told.
#[derive(Debug, Default)]
pub(crate) struct GateBook(Mutex<ToldOfGates>);

/// What was told last of the clients that the kernel refuses.
#[derive(Debug, Default)]
pub(crate) struct ToldOfGates {
    /// All refusals.
    total: u64,
    /// Of each client that has an entry.
    of_clients: HashMap<GateKey, u64>,
    /// Clients that each limit has forgotten early, by its mark.
    forgotten: HashMap<u32, u64>,
}

impl GateBook {
    /// For as long as it is told of them.
    pub(crate) fn lock(&self) -> MutexGuard<'_, ToldOfGates> {
        self.0.lock()
    }
}

impl ToldOfGates {
    /// Whether the kernel has refused clients since this was asked last.
    pub(crate) fn has_grown(&mut self, total: u64) -> bool {
        std::mem::replace(&mut self.total, total) != total
    }

    /// The marks of the limits that have forgotten clients since this was asked last; `now` are
    /// those of all limits.
    pub(crate) fn that_forgot(&mut self, now: HashMap<u32, u64>) -> Vec<u32> {
        let before = std::mem::replace(&mut self.forgotten, now);
        let grown = self
            .forgotten
            .iter()
            .filter(|(mark, times)| **times > before.get(*mark).copied().unwrap_or(0));
        grown.map(|(mark, _)| *mark).collect()
    }

    /// Takes what the kernel has counted since entries were made; returns what it has counted since
    /// this was called last. An entry that was made anew meanwhile counts from 0.
    pub(crate) fn grown(&mut self, now: HashMap<GateKey, u64>) -> Vec<(GateKey, u64)> {
        let grown = now.iter().filter_map(|(key, times)| {
            let before = self.of_clients.get(key).copied().unwrap_or(0);
            let times = if *times < before { *times } else { times - before };
            (times > 0).then_some((*key, times))
        });
        let grown = grown.collect();
        self.of_clients = now;
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, a line of the log tells of refusals that were told before, or leaves some out.
    #[test]
    fn each_refusal_is_told_once() {
        let mut book = ToldOfGates::default();
        let key = |address| GateKey { mark: 1, address };
        let mut grown = |now: &[(u128, u64)]| {
            let now = now.iter().map(|(address, times)| (key(*address), *times)).collect();
            let mut grown = book.grown(now);
            grown.sort_by_key(|(key, _)| key.address);
            grown.iter().map(|(key, times)| (key.address, *times)).collect::<Vec<_>>()
        };
        assert_eq!(grown(&[(1, 5), (2, 7)]), [(1, 5), (2, 7)]);
        assert_eq!(grown(&[(1, 5), (2, 9)]), [(2, 2)]);
        // The entry of 2 was pushed out and made anew.
        assert_eq!(grown(&[(2, 3)]), [(2, 3)]);
        assert_eq!(grown(&[(1, 1), (2, 3)]), [(1, 1)]);
        assert!(book.has_grown(4) && !book.has_grown(4) && book.has_grown(5));
    }

    // If this fails, clients that a limit has forgotten stay refused, or all entries are looked
    // through each second.
    #[test]
    fn limits_that_forget_are_named_once() {
        let mut book = ToldOfGates::default();
        let mut forgot = |now: &[(u32, u64)]| book.that_forgot(now.iter().copied().collect());
        assert!(forgot(&[(1, 0), (2, 0)]).is_empty());
        assert_eq!(forgot(&[(1, 0), (2, 3)]), [2]);
        assert!(forgot(&[(1, 0), (2, 3)]).is_empty());
        assert_eq!(forgot(&[(1, 1), (2, 3)]), [1]);
        // A limit that has just come: what it has forgotten may be refused already.
        assert_eq!(forgot(&[(3, 4)]), [3]);
    }
}
