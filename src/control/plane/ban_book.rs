//! The bans that operators have set, with their reasons and ends.
//!
//! The book is the truth; after each change the workers get a set made of it ([`Bans`]), and the
//! kernel a table. Whoever keeps it for another process takes [`BanBook::list`] and gives it back
//! to [`BanBook::put`].

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use parking_lot::Mutex;

use crate::control::host::gates::Gates;
use crate::policy::admit::access::canonical;
use crate::policy::admit::ban_set::BanSet;
use crate::shared::Bans;

/// Bans that may be in force at once.
pub(crate) const BANS_MAX: usize = 65_536;

/// One ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ban {
    /// Whose clients are turned away.
    pub(crate) network: IpNet,
    /// When it began, in seconds since the epoch.
    pub(crate) since: u64,
    /// When it ends; `None` is never.
    pub(crate) until: Option<BanEnd>,
    /// Why, in the words of the operator; may be empty.
    pub(crate) reason: String,
}

/// The end of a ban, by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BanEnd {
    /// In microseconds of the workers' clock.
    pub(crate) us: u64,
    /// In seconds since the epoch.
    pub(crate) at: u64,
}

impl Ban {
    fn until_us(&self) -> u64 {
        self.until.map_or(u64::MAX, |end| end.us)
    }
}

/// More bans than may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BookIsFull;

/// All bans. What changes them makes a set of all, which takes milliseconds for thousands: not on
/// the thread `control`.
#[derive(Debug)]
pub(crate) struct BanBook {
    by_network: Mutex<BTreeMap<IpNet, Ban>>,
    in_force: Arc<Bans>,
    /// Refuse the clients before workers do.
    gates: Arc<Gates>,
}

impl BanBook {
    /// An empty book; its bans come into force there.
    pub(crate) fn new(in_force: Arc<Bans>, gates: Arc<Gates>) -> Self {
        Self { by_network: Mutex::default(), in_force, gates }
    }

    /// Adds bans, or replaces those of the same networks, and forgets those that are over.
    ///
    /// # Errors
    /// There would be more than [`BANS_MAX`]; nothing is changed then.
    pub(crate) fn put(&self, bans: Vec<Ban>, now_us: u64) -> Result<(), BookIsFull> {
        let mut book = self.by_network.lock();
        book.retain(|_, ban| ban.until_us() > now_us);
        let new = bans.iter().filter(|ban| !book.contains_key(&whole(ban.network))).count();
        if book.len() + new > BANS_MAX {
            return Err(BookIsFull);
        }
        for ban in bans {
            let network = whole(ban.network);
            book.insert(network, Ban { network, ..ban });
        }
        self.bring_into_force(&book);
        Ok(())
    }

    /// Ends the ban of exactly this network; whether there was one.
    pub(crate) fn remove(&self, network: IpNet, now_us: u64) -> bool {
        let mut book = self.by_network.lock();
        let was_there = book.remove(&whole(network)).is_some_and(|ban| ban.until_us() > now_us);
        self.bring_into_force(&book);
        was_there
    }

    /// Ends all; returns how many there were.
    pub(crate) fn clear(&self, now_us: u64) -> u64 {
        let mut book = self.by_network.lock();
        book.retain(|_, ban| ban.until_us() > now_us);
        let count = std::mem::take(&mut *book).len();
        self.bring_into_force(&book);
        count as u64
    }

    /// Those that hold, by network.
    pub(crate) fn list(&self, now_us: u64) -> Vec<Ban> {
        let book = self.by_network.lock();
        book.values().filter(|ban| ban.until_us() > now_us).cloned().collect()
    }

    /// How many hold.
    pub(crate) fn count(&self, now_us: u64) -> u64 {
        self.by_network.lock().values().filter(|ban| ban.until_us() > now_us).count() as u64
    }

    /// The widest ban that covers a network and holds.
    pub(crate) fn covering(&self, network: IpNet, now_us: u64) -> Option<Ban> {
        let network = whole(network);
        let book = self.by_network.lock();
        let mut holding = book.values().filter(|ban| ban.until_us() > now_us);
        holding.find(|ban| ban.network.contains(&network)).cloned()
    }

    /// Forgets those that are over, so that workers have nothing to ask once all are.
    pub(crate) fn sweep(&self, now_us: u64) {
        let mut book = self.by_network.lock();
        let before = book.len();
        book.retain(|_, ban| ban.until_us() > now_us);
        if book.len() < before {
            self.bring_into_force(&book);
        }
    }

    fn bring_into_force(&self, book: &BTreeMap<IpNet, Ban>) {
        let all = || book.values().map(|ban| (ban.network, ban.until_us()));
        self.in_force.replace((!book.is_empty()).then(|| BanSet::new(all())));
        self.gates.replace_bans(all());
    }
}

/// A network as it is kept: without host bits, an IPv4-mapped one in its IPv4 form.
fn whole(network: IpNet) -> IpNet {
    canonical(network.trunc())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn ban(network: &str, until_us: u64) -> Ban {
        let until = Some(BanEnd { us: until_us, at: 0 });
        Ban { network: network.parse().unwrap(), since: 0, until, reason: String::new() }
    }

    // If this fails, an unban leaves the ban in force, or a book that was full once stays full.
    #[test]
    fn the_workers_have_what_the_book_has() {
        let bans = Arc::new(Bans::default());
        let gates = Arc::new(Gates::new(Instant::now()));
        let book = BanBook::new(Arc::clone(&bans), gates);
        let is_banned = |now_us| {
            let set = bans.latest();
            set.is_some_and(|set| set.covering("192.0.2.7".parse().unwrap(), now_us).is_some())
        };
        book.put(vec![ban("192.0.2.7/24", 5), ban("::ffff:192.0.2.0/120", 9)], 0).unwrap();
        assert_eq!(book.count(0), 1, "both are the same network, and the latest word counts");
        assert!(is_banned(8) && !is_banned(9));
        assert!(book.remove("192.0.2.0/24".parse().unwrap(), 0));
        assert!(!is_banned(0) && !book.remove("192.0.2.0/24".parse().unwrap(), 0));

        let host = |number: usize| {
            let address = std::net::Ipv6Addr::from_bits(1 << 120 | number as u128);
            ban(&format!("{address}/128"), 5)
        };
        assert_eq!(book.put((0..=BANS_MAX).map(host).collect(), 0), Err(BookIsFull));
        assert_eq!(book.count(0), 0);
        book.put((0..BANS_MAX).map(host).collect(), 0).unwrap();
        book.put(vec![host(0)], 0).unwrap();
        assert_eq!(book.put(vec![ban("192.0.2.7/32", 9)], 0), Err(BookIsFull));
        book.put(vec![ban("192.0.2.7/32", 9)], 5).unwrap();
        assert_eq!(book.list(5).len(), 1);
        book.sweep(9);
        assert!(bans.latest().is_none(), "nothing is left to ask");
    }
}
