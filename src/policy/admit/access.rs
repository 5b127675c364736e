//! Which clients may connect: sets of networks, and the two lists of a listener.
//!
//! Deny wins; an empty allow list admits every client. Longest-prefix sets (`prefix_trie`) make the
//! cost one walk, whatever the number of networks, and nothing when both lists are empty. An
//! IPv4-mapped IPv6 address or network is its IPv4 form first; `::/0` covers IPv6 only.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixSet;

use crate::policy::nat64::SeenClient;

/// A set of networks, both families.
#[derive(Debug, Clone, Default)]
pub struct NetSet {
    v4: PrefixSet<Ipv4Net>,
    v6: PrefixSet<Ipv6Net>,
    is_empty: bool,
}

impl NetSet {
    /// The union of `nets`; host bits are ignored.
    #[must_use]
    pub fn new(nets: &[IpNet]) -> Self {
        let mut set = Self { is_empty: nets.is_empty(), ..Self::default() };
        for net in nets {
            match canonical(net.trunc()) {
                IpNet::V4(v4) => set.v4.insert(v4),
                IpNet::V6(v6) => set.v6.insert(v6),
            };
        }
        set
    }

    /// Whether one of the networks covers `addr`.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        if self.is_empty {
            return false;
        }
        match addr.to_canonical() {
            IpAddr::V4(v4) => self.v4.get_spm(&Ipv4Net::from(v4)).is_some(),
            IpAddr::V6(v6) => self.v6.get_spm(&Ipv6Net::from(v6)).is_some(),
        }
    }

    /// The widest of the networks that cover `addr`; `None` when there is none.
    #[must_use]
    pub fn covering(&self, addr: IpAddr) -> Option<IpNet> {
        match addr.to_canonical() {
            IpAddr::V4(v4) => self.v4.get_spm(&Ipv4Net::from(v4)).map(IpNet::V4),
            IpAddr::V6(v6) => self.v6.get_spm(&Ipv6Net::from(v6)).map(IpNet::V6),
        }
    }

    /// Whether there is no network at all.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.is_empty
    }
}

/// A network inside `::ffff:0:0/96` as the IPv4 network it means.
#[must_use]
pub fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let (Some(len), Some(v4)) = (v6.prefix_len().checked_sub(96), v6.network().to_ipv4_mapped())
    else {
        return net;
    };
    Ipv4Net::new(v4, len).map_or(net, IpNet::V4)
}

/// The `allow` and `deny` lists of a listener.
#[derive(Debug, Clone)]
pub struct AccessList {
    allow: NetSet,
    deny: NetSet,
}

impl AccessList {
    /// Deny wins; an empty `allow` admits every client.
    #[must_use]
    pub fn new(allow: &[IpNet], deny: &[IpNet]) -> Self {
        Self { allow: NetSet::new(allow), deny: NetSet::new(deny) }
    }

    /// Whether there is no rule, so that every client may connect.
    #[inline]
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    /// Whether a client may connect. One without an address (on a Unix socket) is in no network.
    #[must_use]
    pub fn admits(&self, addr: Option<IpAddr>) -> bool {
        let is_in = |set: &NetSet| addr.is_some_and(|addr| set.contains(addr));
        (self.allow.is_empty() || is_in(&self.allow)) && !is_in(&self.deny)
    }

    /// Whether a client may connect, as it is seen. A rule about a translator's own prefix is about
    /// its clients as well.
    #[must_use]
    #[inline]
    pub fn admits_seen(&self, seen: SeenClient) -> bool {
        match seen.translated_from {
            None => self.admits(seen.ip()),
            Some(_) => self.judge(seen).is_admitted(),
        }
    }

    /// Whether a client is admitted, with the rule that decides.
    #[must_use]
    pub fn judge(&self, seen: SeenClient) -> Access {
        let addresses = [seen.ip(), seen.translated_from.map(IpAddr::V6)];
        let within = |set: &NetSet| addresses.into_iter().flatten().find_map(|it| set.covering(it));
        match (within(&self.deny), within(&self.allow)) {
            (Some(net), _) => Access::Denied(net),
            (None, Some(net)) => Access::Allowed(net),
            (None, None) if self.allow.is_empty() => Access::Open,
            (None, None) => Access::NotAllowed,
        }
    }
}

/// What the lists say of a client, and by which rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// No rule is about it, and every client may connect.
    Open,
    /// This network of `allow` covers it, and none of `deny`.
    Allowed(IpNet),
    /// This network of `deny` covers it.
    Denied(IpNet),
    /// There is an `allow` list, and it is not on it.
    NotAllowed,
}

impl Access {
    /// Whether it may connect.
    #[must_use]
    pub fn is_admitted(self) -> bool {
        matches!(self, Self::Open | Self::Allowed(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

    use crate::policy::client::Client;
    use crate::policy::nat64::Nat64;

    /// A client at this address, behind a translator at the well-known prefix.
    fn seen(addr: Option<IpAddr>) -> SeenClient {
        let client = Client::from(addr.map(|ip| SocketAddr::new(ip, 1)));
        Nat64::new(&["64:ff9b::/96".parse().unwrap()]).see(client)
    }

    #[test]
    fn a_translated_client_is_on_the_lists_in_both_forms() {
        // If this fails, a translator is a way around `deny`, or its clients are not let in.
        for (allow, deny, is_admitted) in [
            (&[][..], &["192.0.2.0/24"][..], false),
            (&[], &["64:ff9b::/96"], false),
            (&["192.0.2.7"], &[], true),
            (&["64:ff9b::/96"], &[], true),
            (&["2001:db8::/32", "192.0.3.0/24"], &[], false),
            (&["64:ff9b::/96"], &["192.0.2.7/32"], false),
        ] {
            let allow: Vec<_> = allow.iter().map(|it| net(it)).collect();
            let deny: Vec<_> = deny.iter().map(|it| net(it)).collect();
            let client = seen(Some("64:ff9b::192.0.2.7".parse().unwrap()));
            let list = AccessList::new(&allow, &deny);
            assert_eq!(list.admits_seen(client), is_admitted, "{allow:?} {deny:?}");
            assert_eq!(list.judge(client).is_admitted(), is_admitted);
        }
    }

    /// A network, or an address alone.
    fn net(text: &str) -> IpNet {
        text.parse().unwrap_or_else(|_| text.parse::<IpAddr>().unwrap().into())
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn admits(list: &AccessList, addr: &str) -> bool {
        list.admits(Some(addr.parse().unwrap()))
    }

    #[test]
    fn no_lists_admit_every_client() {
        // If this fails, a listener without rules refuses its clients.
        let list = AccessList::new(&[], &[]);
        assert!(admits(&list, "192.0.2.1") && admits(&list, "2001:db8::1"));
    }

    #[test]
    fn deny_wins_over_a_longer_allow() {
        // If this fails, a denied network gets in through a more specific permission.
        let list = AccessList::new(&nets(&["10.1.2.0/24"]), &nets(&["10.0.0.0/8"]));
        assert!(!admits(&list, "10.1.2.3"));
        let list = AccessList::new(&nets(&["10.0.0.0/8"]), &nets(&["10.1.2.0/24"]));
        assert!(admits(&list, "10.1.3.3") && !admits(&list, "10.1.2.3"));
        assert!(!admits(&list, "192.0.2.1") && !admits(&list, "2001:db8::1"));
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        // If this fails, a dual-stack socket lets a denied IPv4 client in.
        let list = AccessList::new(&[], &nets(&["192.0.2.0/24", "::ffff:198.51.100.0/120"]));
        assert!(!admits(&list, "::ffff:192.0.2.1") && !admits(&list, "192.0.2.1"));
        assert!(!admits(&list, "::ffff:198.51.100.9") && !admits(&list, "198.51.100.9"));
        assert!(admits(&list, "198.51.101.9"));
    }

    #[test]
    fn a_peer_without_an_address_is_in_no_network() {
        // If this fails, a peer on a Unix socket passes a list that names no such peer.
        for (allow, deny, is_admitted) in [
            (&[][..], &[][..], true),
            (&[], &["0.0.0.0/0", "::/0"], true),
            (&["0.0.0.0/0", "::/0"], &[], false),
        ] {
            assert_eq!(AccessList::new(&nets(allow), &nets(deny)).admits(None), is_admitted);
        }
    }

    #[test]
    fn host_bits_and_whole_families_are_understood() {
        // If this fails, "10.1.2.3/8" or "0.0.0.0/0" matches the wrong clients.
        let list = AccessList::new(&nets(&["10.1.2.3/8", "::/0"]), &[]);
        assert!(admits(&list, "10.200.0.1") && admits(&list, "2001:db8::1"));
        assert!(!admits(&list, "192.0.2.1"));
    }

    #[test]
    fn the_rule_that_decides_is_named() {
        // If this fails, an operator who asks why a client was refused looks at the wrong line.
        let list = AccessList::new(&nets(&["10.0.0.0/8", "10.1.0.0/16"]), &nets(&["10.9.0.0/16"]));
        let judge = |addr: &str| list.judge(seen(Some(addr.parse().unwrap())));
        assert_eq!(judge("10.1.2.3"), Access::Allowed("10.0.0.0/8".parse().unwrap()));
        assert_eq!(judge("10.9.2.3"), Access::Denied("10.9.0.0/16".parse().unwrap()));
        assert_eq!(judge("192.0.2.1"), Access::NotAllowed);
        assert_eq!(list.judge(seen(None)), Access::NotAllowed);
        assert_eq!(AccessList::new(&[], &[]).judge(seen(None)), Access::Open);
    }

    fn any_net() -> impl Strategy<Value = IpNet> {
        // Few distinct leading bits, so that random addresses and networks do meet.
        prop_oneof![
            (0_u32..64, 0_u8..=32).prop_map(|(top, len)| {
                IpNet::V4(Ipv4Net::new(Ipv4Addr::from_bits(top << 26 | top), len).unwrap())
            }),
            (0_u128..64, 0_u8..=128).prop_map(|(top, len)| {
                IpNet::V6(Ipv6Net::new(Ipv6Addr::from_bits(top << 122 | top), len).unwrap())
            }),
        ]
    }

    fn any_addr() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0_u32..64, 0_u32..64)
                .prop_map(|(top, low)| Ipv4Addr::from_bits(top << 26 | low).into()),
            (0_u128..64, 0_u128..64)
                .prop_map(|(top, low)| Ipv6Addr::from_bits(top << 122 | low).into()),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_a_linear_scan(
            allow in prop::collection::vec(any_net(), 0..8),
            deny in prop::collection::vec(any_net(), 0..8),
            addrs in prop::collection::vec(any_addr(), 1..32),
        ) {
            // If this fails, the trie and the written rule disagree about some client.
            let list = AccessList::new(&allow, &deny);
            for addr in addrs {
                let addr: IpAddr = addr.to_canonical();
                let covers = |net: &IpNet| net.trunc().contains(&addr);
                let expected =
                    (allow.is_empty() || allow.iter().any(covers)) && !deny.iter().any(covers);
                prop_assert_eq!(list.admits(Some(addr)), expected, "{}", addr);
                prop_assert_eq!(list.judge(seen(Some(addr))).is_admitted(), expected, "{}", addr);
            }
        }
    }
}
