//! Clients that a limit which only observes would turn away most often, or that the kernel refuses
//! for a limit, in fixed memory.
//!
//! Each worker keeps some clients with their counts. One that is not among them takes the place of
//! the one with the fewest, and begins with that count as its error (Metwally, Agrawal and El
//! Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data Streams", ICDT 2005). So
//! a client with more than its share, one in [`KEPT`], is among them, and no count is too low.
//!
//! **Synchronization.** One writer for each table, as with counters. A reader must not take the
//! count of one client for that of another: each entry has a version that is odd while the entry
//! changes (a seqlock); a reader that meets a change looks again, a few times, then does without.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Clients that one worker keeps of one limit.
pub(super) const KEPT: usize = 64;
/// Stands for a client without an address: no client has this one, in a network not given out
/// (::/8, RFC 4291, section 2.4).
const NO_ADDRESS: u128 = u64::MAX as u128;
/// Looks at an entry that keeps changing.
const LOOKS: usize = 8;

/// One client that would have been turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offender {
    /// Its address, cut to what counts as one client; `None` of a peer on a Unix socket.
    pub client: Option<IpAddr>,
    /// How often, at most.
    pub count: u64,
    /// By how much that may be too high.
    pub error: u64,
}

/// The clients that one worker keeps of one limit. Owns no memory before the first of them.
#[derive(Debug, Default)]
pub struct Offenders(OnceLock<Box<[Kept]>>);

#[derive(Debug, Default)]
struct Kept {
    version: AtomicU64,
    high: AtomicU64,
    low: AtomicU64,
    /// 0 in an entry that is not in use.
    count: AtomicU64,
    error: AtomicU64,
}

impl Offenders {
    /// Counts a client once more; only the owning thread may call this.
    #[cold]
    pub fn note(&self, client: Option<IpAddr>) {
        self.note_times(client, 1);
    }

    /// Counts a client this many times more; only the owning thread may call this.
    pub fn note_times(&self, client: Option<IpAddr>, times: u64) {
        let entries = self.0.get_or_init(|| (0..KEPT).map(|_| Kept::default()).collect());
        let (high, low) = halves(client);
        let is_it = |entry: &&Kept| {
            entry.high.load(Ordering::Relaxed) == high
                && entry.low.load(Ordering::Relaxed) == low
                && entry.count.load(Ordering::Relaxed) > 0
        };
        if let Some(entry) = entries.iter().find(is_it) {
            // No other field changes, so any reader's view is whole.
            let count = entry.count.load(Ordering::Relaxed);
            return entry.count.store(count.saturating_add(times), Ordering::Relaxed);
        }
        let fewest = entries.iter().min_by_key(|entry| entry.count.load(Ordering::Relaxed));
        if let Some(entry) = fewest {
            entry.replace(high, low, times);
        }
    }

    /// The clients kept now, in no order.
    #[must_use]
    pub fn list(&self) -> Vec<Offender> {
        let entries = self.0.get().map(|entries| &**entries).unwrap_or_default();
        entries.iter().filter_map(Kept::read).collect()
    }
}

impl Kept {
    fn replace(&self, high: u64, low: u64, times: u64) {
        let version = self.version.load(Ordering::Relaxed);
        let fewest = self.count.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.high.store(high, Ordering::Relaxed);
        self.low.store(low, Ordering::Relaxed);
        self.error.store(fewest, Ordering::Relaxed);
        self.count.store(fewest.saturating_add(times), Ordering::Relaxed);
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    fn read(&self) -> Option<Offender> {
        for _ in 0..LOOKS {
            let before = self.version.load(Ordering::Acquire);
            let [high, low, count, error] = [&self.high, &self.low, &self.count, &self.error]
                .map(|word| word.load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == before {
                let client = address(high, low);
                return (count > 0).then_some(Offender { client, count, error });
            }
        }
        None
    }
}

/// The most frequent of several workers' lists, a client that is in more than one added up. A
/// worker that remembers as many as it can may have counted any other as often as its rarest.
#[must_use]
pub fn most_frequent(lists: impl Iterator<Item = Vec<Offender>>, most: usize) -> Vec<Offender> {
    let mut all: Vec<Offender> = Vec::new();
    let mut unseen = 0_u64;
    for mut list in lists {
        let rarest = list.iter().map(|offender| offender.count).min().unwrap_or(0);
        let floor = if list.len() < KEPT { 0 } else { rarest };
        unseen = unseen.saturating_add(floor);
        for offender in &mut list {
            // Until the end `error` is how often at least, and `count` what it is above the floor.
            offender.error = offender.count.saturating_sub(offender.error);
            offender.count = offender.count.saturating_sub(floor);
        }
        all.append(&mut list);
    }
    all.sort_by_key(|offender| offender.client);
    all.dedup_by(|next, kept| {
        let is_same = next.client == kept.client;
        if is_same {
            kept.count = kept.count.saturating_add(next.count);
            kept.error = kept.error.saturating_add(next.error);
        }
        is_same
    });
    for offender in &mut all {
        offender.count = offender.count.saturating_add(unseen);
        offender.error = offender.count.saturating_sub(offender.error);
    }
    // Equal counts keep the order of their addresses, so that two looks show the same.
    all.sort_by_key(|offender| std::cmp::Reverse(offender.count));
    all.truncate(most);
    all
}

#[allow(clippy::cast_possible_truncation, reason = "the two halves of the number")]
fn halves(client: Option<IpAddr>) -> (u64, u64) {
    let bits = match client {
        Some(IpAddr::V4(v4)) => v4.to_ipv6_mapped().to_bits(),
        Some(IpAddr::V6(v6)) => v6.to_bits(),
        None => NO_ADDRESS,
    };
    ((bits >> 64) as u64, bits as u64)
}

fn address(high: u64, low: u64) -> Option<IpAddr> {
    let bits = u128::from(high) << 64 | u128::from(low);
    (bits != NO_ADDRESS).then(|| std::net::Ipv6Addr::from_bits(bits).to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::sync::atomic::AtomicBool;

    fn client(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn few_clients_are_counted_exactly() {
        // If this fails, an operator enforces a limit against the wrong clients.
        let workers = [Offenders::default(), Offenders::default()];
        let kept = u32::try_from(KEPT).unwrap();
        for times in 0..kept {
            for worker in &workers {
                (0..=times).for_each(|_| worker.note(Some(client(times))));
            }
        }
        let v6: IpAddr = "2001:db8::".parse().unwrap();
        let all = most_frequent(workers.iter().map(Offenders::list), 3);
        let expected = [64, 63, 62].map(|times: u32| Offender {
            client: Some(client(times - 1)),
            count: u64::from(times) * 2,
            error: 0,
        });
        assert_eq!(all, expected);
        let other = Offenders::default();
        assert!(other.list().is_empty());
        other.note(Some(v6));
        other.note(None);
        let once = |client| Offender { client, count: 1, error: 0 };
        assert_eq!(other.list(), [once(Some(v6)), once(None)]);
    }

    #[test]
    fn a_reader_never_mixes_two_clients() {
        // If this fails, one client is shown with the count of another.
        let offenders = Offenders::default();
        let stop = AtomicBool::new(false);
        let doubled =
            |number: u64| Ipv6Addr::from_bits(u128::from(number) << 64 | u128::from(number));
        let is_whole = |found: &Offender| {
            let (high, low) = halves(found.client);
            assert_eq!(high, low, "{found:?}");
            assert!(found.error < found.count, "{found:?}");
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 1..300_000_u64 {
                    offenders.note(Some(doubled(number << 32).into()));
                }
                stop.store(true, Ordering::Relaxed);
            });
            while !stop.load(Ordering::Relaxed) {
                offenders.list().iter().for_each(is_whole);
            }
        });
    }

    proptest! {
        #[test]
        fn counts_are_bounds_and_whoever_has_its_share_is_kept(
            clients in proptest::collection::vec(
                (prop_oneof![3 => 0_u32..5, 2 => 0_u32..500], 0_usize..2), 0..2_000,
            )
        ) {
            // If this fails, the worst client is missing, or counted too low.
            let workers = [Offenders::default(), Offenders::default()];
            let mut real: HashMap<IpAddr, u64> = HashMap::new();
            for (number, worker) in &clients {
                workers[*worker].note(Some(client(*number)));
                *real.entry(client(*number)).or_default() += 1;
            }
            prop_assert!(workers.iter().all(|worker| worker.list().len() <= KEPT));
            let list = most_frequent(workers.iter().map(Offenders::list), usize::MAX);
            for found in &list {
                let real = real[&found.client.unwrap()];
                prop_assert!(found.count >= real && found.count - found.error <= real);
            }
            for (client, count) in real {
                if count > clients.len() as u64 / KEPT as u64 {
                    prop_assert!(list.iter().any(|found| found.client == Some(client)));
                }
            }
        }
    }
}
