//! Networks whose clients are turned away until a moment.
//!
//! Each ends by itself: whether one still holds is asked with the time of the question.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use super::access::canonical;
use crate::policy::nat64::SeenClient;

/// Networks, each with the moment at which its ban ends, in microseconds of the workers' clock.
#[derive(Debug, Clone, Default)]
pub struct BanSet {
    v4: PrefixMap<Ipv4Net, u64>,
    v6: PrefixMap<Ipv6Net, u64>,
}

impl BanSet {
    /// These networks; of one that is named twice the last counts. Host bits are ignored, and an
    /// IPv4-mapped network is its IPv4 form.
    #[must_use]
    pub fn new(bans: impl IntoIterator<Item = (IpNet, u64)>) -> Self {
        let mut set = Self::default();
        for (net, until_us) in bans {
            match canonical(net.trunc()) {
                IpNet::V4(v4) => set.v4.insert(v4, until_us),
                IpNet::V6(v6) => set.v6.insert(v6, until_us),
            };
        }
        set
    }

    /// The widest network that covers an address and whose ban has not ended by `now_us`. Takes a
    /// step for each bit of the address at most, however many networks there are.
    #[must_use]
    pub fn covering(&self, address: IpAddr, now_us: u64) -> Option<IpNet> {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let mut cover = self.v4.cover(&Ipv4Net::from(v4));
                cover.find(|(_, until_us)| **until_us > now_us).map(|(net, _)| IpNet::V4(net))
            }
            IpAddr::V6(v6) => {
                let mut cover = self.v6.cover(&Ipv6Net::from(v6));
                cover.find(|(_, until_us)| **until_us > now_us).map(|(net, _)| IpNet::V6(net))
            }
        }
    }

    /// The same of a client, by its own address or by the IPv4 address that a translator has
    /// embedded in it. One without an address (on a Unix socket) is in no network.
    #[must_use]
    pub fn covering_seen(&self, seen: SeenClient, now_us: u64) -> Option<IpNet> {
        let addresses = [seen.ip(), seen.translated_from.map(IpAddr::V6)];
        addresses.into_iter().flatten().find_map(|address| self.covering(address, now_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    fn set(bans: &[(&str, u64)]) -> BanSet {
        BanSet::new(bans.iter().map(|(net, until_us)| (net.parse().unwrap(), *until_us)))
    }

    fn covering(set: &BanSet, address: &str, now_us: u64) -> Option<String> {
        set.covering(address.parse().unwrap(), now_us).map(|net| net.to_string())
    }

    // If this fails, a ban that is over lets nobody through, or hides another that still holds.
    #[test]
    fn a_ban_ends_at_its_moment() {
        let set = set(&[("10.0.0.0/8", 5), ("10.1.0.0/16", 9), ("2001:db8::/32", u64::MAX)]);
        assert_eq!(covering(&set, "10.1.2.3", 4), Some("10.0.0.0/8".into()));
        assert_eq!(covering(&set, "10.1.2.3", 5), Some("10.1.0.0/16".into()));
        assert_eq!(covering(&set, "10.1.2.3", 9), None);
        assert_eq!(covering(&set, "10.2.2.3", 5), None);
        assert_eq!(covering(&set, "2001:db8::7", u64::MAX - 1), Some("2001:db8::/32".into()));
    }

    // If this fails, a client gets past its ban by coming over IPv6.
    #[test]
    fn mapped_addresses_are_ipv4() {
        let set = set(&[("::ffff:192.0.2.0/120", 9), ("198.51.100.7/32", 9)]);
        assert!(covering(&set, "192.0.2.1", 0).is_some());
        assert!(covering(&set, "::ffff:198.51.100.7", 0).is_some());
    }

    proptest! {
        // If this fails, some client is turned away that no ban is about, or the other way round.
        #[test]
        fn a_client_is_banned_if_some_ban_covers_it_now(
            bans in prop::collection::vec((0_u32..8, 0_u8..=32, 0_u64..4), 0..12),
            (address, now_us) in (0_u32..8, 0_u64..4),
        ) {
            let net = |(top, length): (u32, u8)| {
                IpNet::V4(Ipv4Net::new(Ipv4Addr::from_bits(top << 29), length).unwrap().trunc())
            };
            // Of one that is named twice the last counts.
            let named: Vec<(IpNet, u64)> =
                bans.iter().map(|(top, length, until)| (net((*top, *length)), *until)).collect();
            let last: BTreeMap<IpNet, u64> = named.iter().copied().collect();
            let address = IpAddr::V4(Ipv4Addr::from_bits(address << 29));
            let holds = |(net, until): (&IpNet, &u64)| net.contains(&address) && *until > now_us;
            let set = BanSet::new(named);
            prop_assert_eq!(set.covering(address, now_us).is_some(), last.iter().any(holds));
        }
    }
}
