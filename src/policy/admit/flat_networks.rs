//! Networks of which the longest that covers an address has the whole answer.
//!
//! A longest-prefix map of the kernel never looks at a wider network. So each network carries the
//! greatest value of all that cover it, and one that adds nothing to those is left out. What the
//! lists of a listener or the bans say is such a greatest value: `deny` is more than `allow`, the
//! later end of a ban more than the earlier.

use std::net::IpAddr;

use ipnet::IpNet;

use super::access::canonical;

/// What an address has that no network covers.
pub const UNLISTED: u64 = 0;
/// The value of a network in `allow`.
pub const ALLOWED: u64 = 1;
/// The value of a network in `deny`.
pub const DENIED: u64 = 2;

/// The network of IPv6 into which IPv4 is mapped.
pub const MAPPED: FlatNetwork = FlatNetwork { address: 0xffff << 32, length: 96 };

/// A network of IPv6, or one of IPv4 mapped into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlatNetwork {
    /// Its bits, zeros behind the prefix.
    pub address: u128,
    /// The length of the prefix, at most 128.
    pub length: u8,
}

impl FlatNetwork {
    /// Whether it is one address.
    #[must_use]
    pub fn is_whole_address(self) -> bool {
        self.length == 128
    }

    /// Whether it covers all addresses of another.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        let shift = 128 - u32::from(self.length);
        let differs = (self.address ^ other.address).checked_shr(shift).unwrap_or(0);
        self.length <= other.length && differs == 0
    }
}

impl From<IpAddr> for FlatNetwork {
    fn from(address: IpAddr) -> Self {
        Self::from(IpNet::from(address))
    }
}

impl From<IpNet> for FlatNetwork {
    fn from(network: IpNet) -> Self {
        match canonical(network.trunc()) {
            IpNet::V4(v4) => Self {
                address: v4.network().to_ipv6_mapped().to_bits(),
                length: MAPPED.length + v4.prefix_len(),
            },
            IpNet::V6(v6) => Self { address: v6.network().to_bits(), length: v6.prefix_len() },
        }
    }
}

/// Makes them of networks that may cover one another, in the order of their addresses; of one that
/// is named twice the greatest value counts. A network of IPv6 covers no IPv4 address, however wide
/// it is.
#[must_use]
pub fn flat(networks: impl IntoIterator<Item = (IpNet, u64)>) -> Vec<(FlatNetwork, u64)> {
    let named = networks.into_iter().map(|(network, value)| (FlatNetwork::from(network), value));
    let mut sorted: Vec<(FlatNetwork, Option<u64>)> =
        named.map(|(network, value)| (network, Some(value))).collect();
    if sorted.iter().any(|(network, _)| network.covers(MAPPED) && *network != MAPPED) {
        sorted.push((MAPPED, None));
    }
    sorted.sort_unstable();
    let mut out: Vec<(FlatNetwork, u64)> = Vec::new();
    // Those that cover what comes next, the widest first.
    let mut wider: Vec<(FlatNetwork, u64)> = Vec::new();
    for (network, value) in sorted {
        while wider.last().is_some_and(|(last, _)| !last.covers(network)) {
            wider.pop();
        }
        let inherited = wider.last().map_or(UNLISTED, |(_, value)| *value);
        let value = value.map_or(UNLISTED, |value| value.max(inherited));
        wider.push((network, value));
        match out.last_mut() {
            Some((last, known)) if *last == network => *known = value,
            _ if value != inherited => out.push((network, value)),
            _ => {}
        }
    }
    out
}

/// The lists of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlatAccess {
    /// With [`ALLOWED`], [`DENIED`] or, where a wider one ends, [`UNLISTED`].
    pub networks: Vec<(FlatNetwork, u64)>,
    /// The value of clients that may connect. Of a client that a translator has two addresses for
    /// the greater value counts.
    pub admitted: u64,
}

impl FlatAccess {
    /// The same rule as [`AccessList::judge`](super::access::AccessList::judge).
    #[must_use]
    pub fn new(allow: &[IpNet], deny: &[IpNet]) -> Self {
        let listed = |list: &[IpNet], value| list.iter().map(|net| (*net, value)).collect();
        let (mut all, denied): (Vec<_>, Vec<_>) = (listed(allow, ALLOWED), listed(deny, DENIED));
        all.extend(denied);
        let admitted = if allow.is_empty() { UNLISTED } else { ALLOWED };
        Self { networks: flat(all), admitted }
    }
}

#[cfg(test)]
#[cfg(not(evenkeel_loom))]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

    use ipnet::{Ipv4Net, Ipv6Net};
    use proptest::prelude::*;

    use super::*;
    use crate::policy::admit::access::AccessList;
    use crate::policy::admit::ban_set::BanSet;
    use crate::policy::client::Client;
    use crate::policy::nat64::{Nat64, SeenClient};

    /// As a map of the kernel answers: the longest that covers the address.
    fn value(networks: &[(FlatNetwork, u64)], address: IpAddr) -> u64 {
        let address = FlatNetwork::from(address.to_canonical());
        let covering = networks.iter().filter(|(network, _)| network.covers(address));
        covering.max_by_key(|(network, _)| network.length).map_or(UNLISTED, |(_, value)| *value)
    }

    /// As the program asks: by each address of a client.
    fn value_of(networks: &[(FlatNetwork, u64)], seen: SeenClient) -> u64 {
        let addresses = [seen.ip(), seen.translated_from.map(IpAddr::V6)];
        addresses.into_iter().flatten().map(|it| value(networks, it)).max().unwrap_or(UNLISTED)
    }

    /// Few distinct bits, so that networks and addresses do meet; among them networks around and
    /// inside the one in which IPv4 is mapped, and behind translators.
    fn any_net() -> impl Strategy<Value = IpNet> {
        let v6 = |bits, length| IpNet::V6(Ipv6Net::new(Ipv6Addr::from_bits(bits), length).unwrap());
        prop_oneof![
            3 => (0_u32..16, 0_u8..=32).prop_map(|(top, length)| {
                IpNet::V4(Ipv4Net::new(Ipv4Addr::from_bits(top << 28 | top), length).unwrap())
            }),
            2 => (0_u128..16, 0_u8..=128).prop_map(move |(top, length)| v6(top << 124, length)),
            2 => (0_u128..16, 0_u8..=128)
                .prop_map(move |(low, length)| v6(MAPPED.address | low << 28, length)),
            1 => (0_u128..16, 0_u8..=128)
                .prop_map(move |(low, length)| v6(0x64_ff9b << 96 | low << 28, length)),
        ]
    }

    fn any_address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0_u32..16).prop_map(|top| Ipv4Addr::from_bits(top << 28 | top).into()),
            (0_u128..16).prop_map(|top| Ipv6Addr::from_bits(top << 124).into()),
            (0_u128..16).prop_map(|low| Ipv6Addr::from_bits(MAPPED.address | low << 28).into()),
            (0_u128..16).prop_map(|low| Ipv6Addr::from_bits(0x64_ff9b << 96 | low << 28).into()),
        ]
    }

    fn seen(address: IpAddr) -> SeenClient {
        let nat64 = Nat64::new(&["64:ff9b::/96".parse().unwrap(), "8000::/32".parse().unwrap()]);
        nat64.see(Client::At(SocketAddr::new(address.to_canonical(), 1)))
    }

    proptest! {
        #[test]
        fn the_lists_and_their_flat_form_give_one_verdict(
            allow in prop::collection::vec(any_net(), 0..8),
            deny in prop::collection::vec(any_net(), 0..8),
            addresses in prop::collection::vec(any_address(), 1..32),
        ) {
            // If this fails, the kernel refuses a client that a worker would let in, or the other
            // way round.
            let (flat, list) = (FlatAccess::new(&allow, &deny), AccessList::new(&allow, &deny));
            for address in addresses {
                let seen = seen(address);
                let is_admitted = value_of(&flat.networks, seen) == flat.admitted;
                prop_assert_eq!(is_admitted, list.admits_seen(seen), "{}", address);
            }
        }

        #[test]
        fn the_bans_and_their_flat_form_give_one_verdict(
            bans in prop::collection::vec((any_net(), 1_u64..6), 0..12),
            addresses in prop::collection::vec(any_address(), 1..16),
        ) {
            // If this fails, a wider ban that lasts longer is hidden by one that is over, or a ban
            // of IPv6 networks is about IPv4 clients.
            let bans: BTreeMap<IpNet, u64> =
                bans.into_iter().map(|(net, until)| (canonical(net.trunc()), until)).collect();
            let (flat, set) = (flat(bans.clone()), BanSet::new(bans));
            for address in addresses {
                let seen = seen(address);
                for now in 0..6 {
                    let is_banned = set.covering_seen(seen, now).is_some();
                    prop_assert_eq!(value_of(&flat, seen) > now, is_banned, "{}", address);
                }
            }
        }
    }

    fn net(text: &str) -> FlatNetwork {
        FlatNetwork::from(text.parse::<IpNet>().unwrap())
    }

    // If this fails, lists take more of the kernel's memory than they need.
    #[test]
    fn what_adds_nothing_is_left_out() {
        let nets = |texts: &[&str]| texts.iter().map(|it| it.parse().unwrap()).collect::<Vec<_>>();
        let deny = nets(&["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "2001:db8::/32"]);
        let access = FlatAccess::new(&nets(&["10.9.0.0/16", "192.0.2.0/24"]), &deny);
        let expected = [
            (net("10.0.0.0/8"), DENIED),
            (net("192.0.2.0/24"), ALLOWED),
            (net("2001:db8::/32"), DENIED),
        ];
        assert_eq!((&access.networks[..], access.admitted), (&expected[..], ALLOWED));
        // A network of IPv6 ends where IPv4 begins.
        let all = FlatAccess::new(&[], &nets(&["::/0"]));
        assert_eq!(all.networks, [(net("::/0"), DENIED), (net("0.0.0.0/0"), UNLISTED)]);
        assert_eq!(all.admitted, UNLISTED);
    }
}
