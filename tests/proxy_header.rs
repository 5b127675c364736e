//! What evenkeel reads in a PROXY header, beside what the crate `ppp` reads in the same bytes: what
//! evenkeel takes, `ppp` takes alike. Evenkeel is stricter: it takes headers of TCP connections
//! only, and whole TLVs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use evenkeel::policy::first_bytes::proxy_header::{
    Ends, Malformed, ProxyVersion, Statement, encode, parse,
};
use ppp::{HeaderResult, v1, v2};
use proptest::prelude::*;
use proptest::sample::Index;

/// Length and ends of a header.
type Said = (usize, Option<Ends>);

fn four(it: v1::IPv4) -> Option<Ends> {
    let source = SocketAddr::from((it.source_address, it.source_port));
    let destination = SocketAddr::from((it.destination_address, it.destination_port));
    Some(Ends { source, destination })
}

fn six(it: v1::IPv6) -> Option<Ends> {
    let source = SocketAddr::from((it.source_address, it.source_port));
    let destination = SocketAddr::from((it.destination_address, it.destination_port));
    Some(Ends { source, destination })
}

/// What `ppp` reads; `None` when it takes no header.
fn read_by_ppp(bytes: &[u8]) -> Option<Said> {
    match HeaderResult::parse(bytes) {
        HeaderResult::V1(Ok(header)) => {
            let ends = match header.addresses {
                v1::Addresses::Tcp4(it) => four(it),
                v1::Addresses::Tcp6(it) => six(it),
                v1::Addresses::Unknown => None,
            };
            Some((header.header.len(), ends))
        }
        HeaderResult::V2(Ok(header)) => {
            let ends = match header.addresses {
                // With LOCAL the addresses are to be ignored (section 2.2).
                _ if header.command == v2::Command::Local => None,
                v2::Addresses::IPv4(it) => four(it),
                v2::Addresses::IPv6(it) => six(it),
                v2::Addresses::Unix(_) | v2::Addresses::Unspecified => None,
            };
            Some((header.len(), ends))
        }
        _ => None,
    }
}

/// What evenkeel reads; `None` when it takes no header.
fn read_by_evenkeel(bytes: &[u8]) -> Option<Said> {
    parse(bytes).ok().flatten().map(|header| (header.length, header.ends))
}

fn any_ends() -> impl Strategy<Value = Ends> {
    let ports = (any::<u16>(), any::<u16>());
    let four =
        (any::<[Ipv4Addr; 2]>(), ports).prop_map(|(ips, ports)| (ips.map(IpAddr::V4), ports));
    let six = (any::<[Ipv6Addr; 2]>(), ports).prop_map(|(ips, ports)| (ips.map(IpAddr::V6), ports));
    prop_oneof![four, six].prop_map(|([source, destination], (from, to))| Ends {
        source: SocketAddr::new(source, from),
        destination: SocketAddr::new(destination, to),
    })
}

/// A header as evenkeel writes it.
fn any_header() -> impl Strategy<Value = Vec<u8>> {
    let id = prop::collection::vec(any::<u8>(), 1..64);
    let host = prop::option::of("[a-z.]{1,40}");
    (prop::option::of(any_ends()), id, host, any::<bool>()).prop_map(|(ends, id, host, binary)| {
        let version = if binary { ProxyVersion::V2 } else { ProxyVersion::V1 };
        let host = host.as_deref().unwrap_or_default();
        let length = u8::try_from(host.len()).unwrap();
        let tlvs = [&[2, 0, length], host.as_bytes()].concat();
        encode(version, &Statement { tlvs: &tlvs, ..Statement::new(ends, &id) })
    })
}

proptest! {
    #[test]
    fn both_read_the_same_in_a_header(bytes in any_header()) {
        // If this fails, a backend that uses another parser sees another client.
        let read = read_by_evenkeel(&bytes);
        prop_assert!(read.is_some());
        prop_assert_eq!(read, read_by_ppp(&bytes));
    }

    #[test]
    fn what_evenkeel_takes_with_a_byte_changed_ppp_takes_alike(
        mut bytes in any_header(), at: Index, byte: u8,
    ) {
        // If this fails, a damaged header is believed, or believed to say something else.
        *at.get_mut(&mut bytes) = byte;
        // Of LOCAL a receiver ignores the family (section 2.2); ppp does not.
        let is_local = bytes.get(12) == Some(&0x20);
        if let Some(read) = read_by_evenkeel(&bytes).filter(|_| !is_local) {
            prop_assert_eq!(Some(read), read_by_ppp(&bytes));
        }
    }
}

#[test]
fn only_whole_headers_of_tcp_connections_are_taken() {
    // If this fails, evenkeel is no longer stricter than other parsers, or they have become strict.
    let ends = Ends {
        source: "192.0.2.1:5000".parse().unwrap(),
        destination: "192.0.2.2:443".parse().unwrap(),
    };
    let statement = Statement::new(Some(ends), b"x");
    let whole = encode(ProxyVersion::V2, &statement);
    assert!(parse(&whole).unwrap().is_some());
    let mut datagram = whole.clone();
    datagram[13] = 0x12;
    let mut cut_tlv = whole.clone();
    // Behind 16 bytes and 12 of addresses: the type and the length of the first TLV.
    cut_tlv[30] = 0xff;
    for (bytes, malformed) in [(datagram, Malformed::Unknown), (cut_tlv, Malformed::Length)] {
        assert_eq!(parse(&bytes), Err(malformed));
        assert!(read_by_ppp(&bytes).is_some());
    }
}
