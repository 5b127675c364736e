//! Which connections to the admin interface are open, and which one gives way to a new one.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use tokio::task::AbortHandle;

/// The open connections of one listener.
#[derive(Debug)]
pub(crate) struct Places {
    most: usize,
    next: u64,
    /// By number, which grows: the first is the oldest.
    taken: BTreeMap<u64, TakenPlace>,
}

/// One connection.
#[derive(Debug)]
struct TakenPlace {
    /// `None` on a Unix socket.
    peer: Option<IpAddr>,
    task: AbortHandle,
}

impl Places {
    /// Room for `most` connections.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, next: 0, taken: BTreeMap::new() }
    }

    /// The number of the next connection.
    pub(crate) fn next_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Takes a connection in. Where there is no room, the oldest one of the peer that has most
    /// gives way.
    pub(crate) fn enter(&mut self, number: u64, peer: Option<IpAddr>, task: AbortHandle) {
        self.taken.insert(number, TakenPlace { peer, task });
        if self.taken.len() > self.most
            && let Some(place) = self.to_give_way().and_then(|oldest| self.taken.remove(&oldest))
        {
            place.task.abort();
        }
    }

    /// A connection has ended.
    pub(crate) fn leave(&mut self, number: u64) {
        self.taken.remove(&number);
    }

    fn to_give_way(&self) -> Option<u64> {
        let mut counts: HashMap<Option<IpAddr>, usize> = HashMap::new();
        for place in self.taken.values() {
            *counts.entry(place.peer).or_default() += 1;
        }
        let most = counts.values().copied().max()?;
        let oldest = self.taken.iter().find(|(_, place)| counts.get(&place.peer) == Some(&most));
        oldest.map(|(number, _)| *number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn placed(most: usize, peers: &[u8]) -> Vec<u64> {
        let mut places = Places::new(most);
        for peer in peers {
            let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
            let number = places.next_number();
            places.enter(number, Some(IpAddr::from([192, 0, 2, *peer])), task);
        }
        places.taken.keys().copied().collect()
    }

    // If this fails, a client that holds connections open takes those of others away.
    #[tokio::test]
    async fn the_peer_that_has_most_gives_way() {
        assert_eq!(placed(4, &[1, 2, 2, 2]).await, [1, 2, 3, 4]);
        assert_eq!(placed(4, &[1, 2, 2, 2, 2, 2]).await, [1, 4, 5, 6]);
        assert_eq!(placed(4, &[1, 2, 2, 2, 3]).await, [1, 3, 4, 5]);
        // Where all have as many, the oldest.
        assert_eq!(placed(3, &[1, 2, 3, 4]).await, [2, 3, 4]);
    }
}
