//! Sets of networks: differences and intersections, exactly.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Most networks that a difference may have: beyond that a list is no longer readable.
const NETWORKS_MAX: usize = 4096;

/// Every IPv4 and every IPv6 address.
pub(super) fn everything() -> Vec<IpNet> {
    let v4 = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);
    let v6 = Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0);
    vec![IpNet::V4(v4), IpNet::V6(v6)]
}

/// A network or an address, as both peers write it: `10.0.0.0/8`, `::1`, `10.0.0.0/255.0.0.0`.
pub(super) fn network(text: &str) -> Option<IpNet> {
    if let Ok(net) = text.parse::<IpNet>() {
        return Some(net.trunc());
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(IpNet::from(ip));
    }
    let (ip, mask) = text.split_once('/')?;
    let net = IpNet::with_netmask(ip.parse().ok()?, mask.parse().ok()?).ok()?;
    Some(net.trunc())
}

/// What is in `all` and not in `without`; `None` when that takes too many networks.
pub(super) fn difference(all: &[IpNet], without: &[IpNet]) -> Option<Vec<IpNet>> {
    let mut left = Vec::new();
    let mut open: Vec<IpNet> = all.iter().rev().copied().collect();
    while let Some(net) = open.pop() {
        if without.iter().any(|other| other.contains(&net)) {
            continue;
        }
        if !without.iter().any(|other| net.contains(other)) {
            left.push(net);
        } else if let Ok(halves) = net.subnets(net.prefix_len() + 1) {
            let halves: Vec<IpNet> = halves.collect();
            open.extend(halves.into_iter().rev());
        }
        if left.len() + open.len() > NETWORKS_MAX {
            return None;
        }
    }
    Some(left)
}

/// What is in both.
pub(super) fn intersection(left: &[IpNet], right: &[IpNet]) -> Vec<IpNet> {
    let mut both = Vec::new();
    for net in left {
        for other in right {
            let smaller = if net.contains(other) {
                other
            } else if other.contains(net) {
                net
            } else {
                continue;
            };
            if !both.contains(smaller) {
                both.push(*smaller);
            }
        }
    }
    both
}

/// A network as evenkeel's lists have it: an address alone without its prefix.
pub(super) fn shown(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nets(text: &str) -> Vec<IpNet> {
        text.split_whitespace().map(|net| network(net).unwrap()).collect()
    }

    // If this fails, an exception of an access list opens or closes more than it did.
    #[test]
    fn a_difference_leaves_what_is_around_the_hole() {
        let left = difference(&nets("10.0.0.0/30"), &nets("10.0.0.1")).unwrap();
        assert_eq!(left, nets("10.0.0.0/32 10.0.0.2/31"));
        assert_eq!(difference(&nets("10.0.0.0/8"), &nets("0.0.0.0/0")).unwrap(), []);
        assert_eq!(nets("10.0.0.0/255.255.0.0"), nets("10.0.0.0/16"));
    }

    proptest! {
        /// If it fails, a client is judged otherwise than by the rules in their order.
        #[test]
        fn difference_and_intersection_are_those_of_addresses(
            left in prop::collection::vec((any::<u32>(), 0_u8..=32), 0..5),
            right in prop::collection::vec((any::<u32>(), 0_u8..=32), 0..5),
            ip: u32,
        ) {
            let nets = |list: &[(u32, u8)]| -> Vec<IpNet> {
                let nets = list.iter().map(|(bits, length)| {
                    Ipv4Net::new(Ipv4Addr::from(*bits), *length).unwrap().trunc()
                });
                nets.map(IpNet::V4).collect()
            };
            let (left, right) = (nets(&left), nets(&right));
            let near = left.first().or(right.first()).map(|net| net.addr());
            for ip in [IpAddr::V4(Ipv4Addr::from(ip))].into_iter().chain(near) {
                let is_in = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&ip));
                let without = difference(&left, &right).unwrap();
                prop_assert_eq!(is_in(&without), is_in(&left) && !is_in(&right));
                let both = intersection(&left, &right);
                prop_assert_eq!(is_in(&both), is_in(&left) && is_in(&right));
            }
        }
    }
}
