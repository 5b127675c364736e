//! Which listener of a snapshot accepts on an address.
//!
//! Each worker asks this of every socket when it takes a snapshot up, between two turns of its
//! sessions: one look-up each, however many listeners there are.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use crate::policy::address_range::AddressRange;
use crate::policy::terms::Address;

use super::ids::ListenerId;

/// The addresses of the listeners of a configuration, which overlap nowhere.
#[derive(Debug, Default)]
pub struct ListenerIndex {
    /// By the IP address at port 0, or by the path of a Unix socket: its ports, in order.
    hosts: HashMap<Address, Vec<Claimed>>,
}

/// Ports of a host, and the listener that has them.
#[derive(Debug)]
struct Claimed {
    ports: RangeInclusive<u16>,
    listener: ListenerId,
}

impl ListenerIndex {
    /// Of listeners and where they accept.
    #[must_use]
    pub fn new<'a>(open: impl Iterator<Item = (ListenerId, &'a [AddressRange])>) -> Self {
        let mut hosts: HashMap<Address, Vec<Claimed>> = HashMap::new();
        for (listener, ranges) in open {
            for range in ranges {
                let (host, ports) = parts(range);
                hosts.entry(host).or_default().push(Claimed { ports, listener });
            }
        }
        for claimed in hosts.values_mut() {
            claimed.sort_by_key(|claimed| *claimed.ports.start());
        }
        Self { hosts }
    }

    /// The listener that has an address.
    #[must_use]
    pub fn on(&self, address: &Address) -> Option<ListenerId> {
        self.first_of(&address.clone().into())
    }

    /// The listener that has the first address of a range which any has.
    #[must_use]
    pub fn first_of(&self, range: &AddressRange) -> Option<ListenerId> {
        let (host, ports) = parts(range);
        let claimed = self.hosts.get(&host)?;
        let before = claimed.partition_point(|claimed| claimed.ports.end() < ports.start());
        let found = claimed.get(before).filter(|found| found.ports.start() <= ports.end());
        found.map(|found| found.listener)
    }
}

/// A range as its host and its ports.
fn parts(range: &AddressRange) -> (Address, RangeInclusive<u16>) {
    (range.at(0), range.ports().unwrap_or(0..=0))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    /// Ranges that overlap nowhere: on one of two hosts, a gap and a length each.
    fn listeners() -> impl Strategy<Value = Vec<Vec<AddressRange>>> {
        let range = (0..2_u8, 1..4_u16, 0..4_u16);
        let listeners = prop::collection::vec(prop::collection::vec(range, 1..3), 0..6);
        listeners.prop_map(|listeners| {
            let mut next = [1_u16; 2];
            let mut placed = |(host, gap, more): (u8, u16, u16)| {
                let next = &mut next[usize::from(host)];
                let first = *next + gap;
                *next = first + more + 1;
                AddressRange::up_to(([10, 0, 0, host], first).into(), first + more)
            };
            let all = listeners.into_iter();
            all.map(|ranges| ranges.into_iter().map(&mut placed).collect()).collect()
        })
    }

    fn id(number: usize) -> ListenerId {
        ListenerId::new(u32::try_from(number).unwrap())
    }

    fn index(listeners: &[Vec<AddressRange>]) -> ListenerIndex {
        let all = listeners.iter().enumerate();
        ListenerIndex::new(all.map(|(number, ranges)| (id(number), &ranges[..])))
    }

    proptest! {
        // If this fails, a client is served by another listener than the one it came to, or a
        // socket that stays is closed by a reload.
        #[test]
        fn an_address_belongs_to_the_listener_that_has_it(
            listeners in listeners(),
            (host, port, more) in (0..3_u8, 1..60_u16, 0..9_u16),
        ) {
            let index = index(&listeners);
            let owner = |address: &Address| {
                let has = |ranges: &Vec<AddressRange>| ranges.iter().any(|it| it.contains(address));
                listeners.iter().position(has).map(id)
            };
            let first = ([10, 0, 0, host], port).into();
            prop_assert_eq!(index.on(&Address::Ip(first)), owner(&Address::Ip(first)));
            let range = AddressRange::up_to(first, port + more);
            let wanted = range.addresses().find_map(|address| owner(&address));
            prop_assert_eq!(index.first_of(&range), wanted);
        }
    }

    // If this fails, a client of a Unix socket is served by another listener, or a link-local
    // address of one interface is taken for that of another.
    #[test]
    fn paths_and_interfaces_are_told_apart() {
        let unix = |path: &str| AddressRange::from(Address::Unix(Path::new(path).into()));
        let link = |scope| {
            let address = std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 0, scope);
            AddressRange::from(Address::Ip(address.into()))
        };
        let all = [unix("/run/a"), unix("/run/b"), link(2), link(3)];
        let index = index(&all.clone().map(|range| vec![range]));
        let found = all.map(|range| index.on(range.first()));
        assert_eq!(found, [0, 1, 2, 3].map(|number| Some(id(number))));
        assert_eq!(index.on(unix("/run/c").first()), None);
        assert_eq!(index.on(link(4).first()), None);
    }
}
