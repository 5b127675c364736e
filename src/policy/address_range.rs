//! Where a listener accepts, as the configuration writes it: one address, or each port of a range.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use super::terms::Address;

/// Most ports of a range: as many as IANA leaves to programs, 49152 to 65535.
pub const RANGE_PORTS_MAX: u16 = 16_384;

/// One address, or the ports of an IP address from one to another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AddressRange {
    first: Address,
    /// Ports behind the first; 0 for a Unix socket and for port 0.
    more: u16,
}

impl AddressRange {
    /// The ports of `first` and of as many behind it as reach `last`; one below is the first alone.
    #[must_use]
    pub fn up_to(first: SocketAddr, last: u16) -> Self {
        Self { first: Address::Ip(first), more: last.saturating_sub(first.port()) }
    }

    /// As it really is, where its first address is this one: port 0 has become another.
    #[must_use]
    pub fn beginning_at(&self, first: Address) -> Self {
        Self { first, more: self.more }
    }

    /// The first address, or the only one.
    #[must_use]
    pub fn first(&self) -> &Address {
        &self.first
    }

    /// How many addresses it has; at least 1.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::from(self.more) + 1
    }

    /// Its ports; `None` of a Unix socket. From 0 to 0: the kernel chooses.
    #[must_use]
    pub fn ports(&self) -> Option<RangeInclusive<u16>> {
        let first = self.first.ip()?.port();
        Some(first..=first.saturating_add(self.more))
    }

    /// Its address at a port; of a Unix socket, the socket.
    #[must_use]
    pub fn at(&self, port: u16) -> Address {
        match self.first.ip() {
            Some(mut address) => {
                address.set_port(port);
                Address::Ip(address)
            }
            None => self.first.clone(),
        }
    }

    /// Each of its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = Address> + '_ {
        let ports = self.ports().unwrap_or(0..=0);
        ports.map(|port| self.at(port))
    }

    /// Whether an address is one of them.
    #[must_use]
    pub fn contains(&self, address: &Address) -> bool {
        let port = address.ip().map(|address| address.port());
        match (self.ports(), port) {
            (Some(ports), Some(port)) => ports.contains(&port) && self.at(port) == *address,
            _ => self.first == *address,
        }
    }

    /// Whether a client that reached `local` may have come to it: it is one of its addresses, or
    /// the wildcard for it. That of IPv6 takes clients of IPv4, too.
    #[must_use]
    pub fn covers(&self, local: SocketAddr) -> bool {
        let Some(own) = self.first.ip() else { return false };
        let is_port = self.ports().is_some_and(|ports| ports.contains(&local.port()));
        let is_wild = own.ip().is_unspecified() && (own.is_ipv6() || local.is_ipv4());
        is_port && (is_wild || own.ip() == local.ip())
    }

    /// The first port that both have, of whatever address; port 0 is no port yet.
    #[must_use]
    pub fn first_common_port(&self, other: &Self) -> Option<u16> {
        let (own, other) = (self.ports()?, other.ports()?);
        let first = *own.start().max(other.start());
        (first > 0 && first <= *own.end().min(other.end())).then_some(first)
    }
}

impl From<Address> for AddressRange {
    fn from(first: Address) -> Self {
        Self { first, more: 0 }
    }
}

impl fmt::Display for AddressRange {
    /// As the configuration has it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.first)?;
        match self.ports() {
            Some(ports) if self.more > 0 => write!(out, "-{}", ports.end()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn range(first: &str, last: u16) -> AddressRange {
        AddressRange::up_to(first.parse().unwrap(), last)
    }

    // If this fails, the log names an address to which the client did not come.
    #[test]
    fn a_wildcard_covers_every_address_of_its_family() {
        let covers =
            |first: &str, last, local: &str| range(first, last).covers(local.parse().unwrap());
        assert!(covers("0.0.0.0:80", 80, "192.0.2.1:80"));
        assert!(covers("[::]:80", 90, "[2001:db8::1]:85"));
        assert!(covers("[::]:80", 80, "192.0.2.1:80"), "a socket of both families");
        assert!(covers("192.0.2.1:80", 80, "192.0.2.1:80"));
        assert!(!covers("0.0.0.0:80", 80, "[2001:db8::1]:80"));
        assert!(!covers("0.0.0.0:80", 80, "192.0.2.1:81"));
        assert!(!covers("192.0.2.2:80", 80, "192.0.2.1:80"));
        assert!(
            !AddressRange::from(Address::Unix(Path::new("/s").into()))
                .covers("1.1.1.1:1".parse().unwrap())
        );
    }

    // If this fails, status and log name addresses that no socket is bound to.
    #[test]
    fn a_range_is_shown_as_it_is_written() {
        assert_eq!(range("10.0.0.1:5000", 5099).to_string(), "10.0.0.1:5000-5099");
        assert_eq!(range("[::]:5000", 5001).to_string(), "[::]:5000-5001");
        assert_eq!(range("10.0.0.1:5000", 5000).to_string(), "10.0.0.1:5000");
        let unix = AddressRange::from(Address::Unix(Path::new("/run/a-9.sock").into()));
        assert_eq!((unix.to_string().as_str(), unix.count()), ("unix:/run/a-9.sock", 1));
        assert!(unix.contains(unix.first()) && unix.ports().is_none());
        assert_eq!(unix.addresses().collect::<Vec<_>>(), [unix.first().clone()]);
    }

    proptest! {
        // If this fails, a port of a range has no socket, or a socket that no listener knows.
        #[test]
        fn a_range_contains_exactly_its_addresses(
            first in 1..=u16::MAX,
            more in 0..300_u16,
            other: u16,
        ) {
            let last = first.saturating_add(more);
            let range = range(&format!("10.0.0.1:{first}"), last);
            let all: Vec<Address> = range.addresses().collect();
            prop_assert_eq!(all.len(), range.count());
            prop_assert_eq!(all.len(), usize::from(last - first) + 1);
            prop_assert!(all.iter().all(|address| range.contains(address)));
            let asked = Address::Ip(([10, 0, 0, 1], other).into());
            prop_assert_eq!(range.contains(&asked), (first..=last).contains(&other));
            prop_assert!(!range.contains(&Address::Ip(([10, 0, 0, 2], first).into())));
        }

        // If this fails, two sockets for one port pass `check`, or two ranges that do not meet are
        // refused.
        #[test]
        fn ranges_meet_where_a_port_is_in_both(
            one in (0..60_u16, 0..9_u16),
            other in (0..60_u16, 0..9_u16),
        ) {
            let of = |(first, more): (u16, u16)| {
                let more = if first == 0 { 0 } else { more };
                range(&format!("10.0.0.1:{first}"), first + more)
            };
            let (one, other) = (of(one), of(other));
            let ports = |range: &AddressRange| range.ports().unwrap();
            let common = ports(&one).find(|port| *port > 0 && ports(&other).contains(port));
            prop_assert_eq!(one.first_common_port(&other), common);
            prop_assert_eq!(other.first_common_port(&one), common);
        }
    }
}
