//! Clients behind a translator (NAT64): the IPv4 address that is embedded in their IPv6 address
//! (RFC 6052, section 2.2).
//!
//! Behind the well-known prefix one /64 holds the whole IPv4 Internet: taken as they come, all of
//! those clients would share one limit and one place in a hash.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::Ipv6Net;

use super::client::Client;

/// The prefix lengths that RFC 6052 knows.
pub const PREFIX_LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];
/// The octet that stays zero within a longer address (bits 64 to 71).
const SKIPPED_OCTET: usize = 8;

/// The prefixes of translators.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nat64(Box<[Ipv6Net]>);

/// A client as limits, lists and hashes see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenClient {
    /// At its IPv4 address, if it is translated, else at its own.
    pub client: Client,
    /// The address it came from, if it is translated.
    pub translated_from: Option<Ipv6Addr>,
}

impl Nat64 {
    /// Those prefixes; one of another length than [`PREFIX_LENGTHS`] translates nothing.
    #[must_use]
    pub fn new(prefixes: &[Ipv6Net]) -> Self {
        let known = prefixes.iter().filter(|net| PREFIX_LENGTHS.contains(&net.prefix_len()));
        Self(known.map(Ipv6Net::trunc).collect())
    }

    /// The client as limits, lists and hashes see it.
    #[must_use]
    #[inline]
    pub fn see(&self, client: Client) -> SeenClient {
        match client {
            Client::At(SocketAddr::V6(from)) if !self.0.is_empty() => {
                self.translated(client, *from.ip())
            }
            _ => SeenClient { client, translated_from: None },
        }
    }

    fn translated(&self, client: Client, from: Ipv6Addr) -> SeenClient {
        let Some(net) = self.0.iter().find(|net| net.contains(&from)) else {
            return SeenClient { client, translated_from: None };
        };
        let to = SocketAddr::new(embedded(from, net.prefix_len()).into(), client.port());
        SeenClient { client: to.into(), translated_from: Some(from) }
    }
}

impl SeenClient {
    /// Its IP address; `None` for a peer on a Unix socket.
    #[must_use]
    #[inline]
    pub fn ip(self) -> Option<IpAddr> {
        self.client.ip()
    }
}

/// The IPv4 address in the four octets behind the prefix, of which one is skipped.
fn embedded(address: Ipv6Addr, prefix_length: u8) -> Ipv4Addr {
    let octets = address.octets().into_iter().enumerate().skip(usize::from(prefix_length / 8));
    let octets = octets.filter(|(index, _)| *index != SKIPPED_OCTET).map(|(_, octet)| octet);
    Ipv4Addr::from_bits(octets.take(4).fold(0, |bits, octet| bits << 8 | u32::from(octet)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nat64(prefixes: &[&str]) -> Nat64 {
        Nat64::new(&prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect::<Vec<_>>())
    }

    fn seen(nat64: &Nat64, address: &str) -> String {
        let address = SocketAddr::new(address.parse().unwrap(), 4_711);
        nat64.see(address.into()).client.to_string()
    }

    #[test]
    fn the_examples_of_the_rfc_hold() {
        // If this fails, a translated client has the limit and the backend of another one. The
        // addresses are those of RFC 6052, section 2.4.
        for (prefix, address) in [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
            ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
        ] {
            assert_eq!(seen(&nat64(&[prefix]), address), "192.0.2.33:4711", "{prefix}");
        }
    }

    #[test]
    fn other_clients_are_who_they_are() {
        // If this fails, a client that no translator stands before is taken for another one.
        let nat64 = nat64(&["64:ff9b::/96", "2001:db8:64::/47"]);
        for (address, shown) in [
            ("2001:db8:64::1", "[2001:db8:64::1]:4711"),
            ("64:ff9b:1::1", "[64:ff9b:1::1]:4711"),
            ("64:ff9c::1", "[64:ff9c::1]:4711"),
            ("192.0.2.1", "192.0.2.1:4711"),
            ("::ffff:192.0.2.1", "[::ffff:192.0.2.1]:4711"),
        ] {
            assert_eq!(seen(&nat64, address), shown);
        }
        assert_eq!(
            nat64.see(Client::Unix),
            SeenClient { client: Client::Unix, translated_from: None }
        );
        assert_eq!(seen(&Nat64::default(), "64:ff9b::1"), "[64:ff9b::1]:4711");
    }

    proptest! {
        #[test]
        fn what_a_translator_embeds_is_found(
            bits: u128, v4: u32, length in prop::sample::select(PREFIX_LENGTHS.to_vec()),
        ) {
            // If this fails, some prefix of an operator's network leads to wrong addresses.
            let net = Ipv6Net::new(Ipv6Addr::from_bits(bits), length).unwrap().trunc();
            // As the RFC writes it: v4 directly behind the prefix, moved apart by the zero octet.
            let shifted = u128::from(v4) << 96 >> length;
            let high = shifted >> 64 << 64;
            let low = shifted & u128::from(u64::MAX);
            let placed = if length == 96 { shifted } else { high | low >> 8 };
            let address = Ipv6Addr::from_bits(net.network().to_bits() | placed);
            let from = SocketAddr::new(address.into(), 1);
            let seen = Nat64::new(&[net]).see(from.into());
            prop_assert_eq!(seen.ip(), Some(Ipv4Addr::from_bits(v4).into()));
            prop_assert_eq!(seen.translated_from, Some(address));
        }
    }
}
