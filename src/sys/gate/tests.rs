//! Gates before real sockets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use super::*;
use crate::sys::process::{kernel_time as now, may_load_programs};
use crate::sys::socket;

/// Two sockets of one group; those of IPv6 take IPv4 clients, too.
fn sockets_on(address: SocketAddr) -> Vec<OwnedFd> {
    let (mut address, mut sockets) = (address, Vec::new());
    for _ in 0..2 {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        if address.is_ipv6() {
            socket.set_only_v6(false).unwrap();
        }
        socket.bind(&address.into()).unwrap();
        socket.listen(64).unwrap();
        address = socket.local_addr().unwrap().as_socket().unwrap();
        sockets.push(socket.into());
    }
    sockets
}

fn key(mark: u32, ip: IpAddr) -> GateKey {
    let address = match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    GateKey { mark, address }
}

fn loopback(last: [u8; 2]) -> IpAddr {
    Ipv4Addr::new(127, 0, last[0], last[1]).into()
}

/// Whether a client at this address is let in.
fn is_let_in(from: IpAddr, to: SocketAddr) -> bool {
    let client = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    client.bind(&SocketAddr::new(from, 0).into()).unwrap();
    match client.connect(&to.into()) {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED), "{from}");
            false
        }
    }
}

const SIZES: GateSizes = GateSizes { entries: 1_024, counts: 16, refused: 1_024 };

/// The maps; `None` where programs cannot be loaded, which has to be the reason.
fn maps() -> Option<GateMaps> {
    match GateMaps::new(SIZES) {
        Ok(maps) => Some(maps),
        Err(error) => {
            assert!(!may_load_programs(), "{error}");
            None
        }
    }
}

/// Maps and, at an address with two sockets, a gate that looks at mark 7 by /24 and /64, and at
/// mark 9 by the whole address. `None` where programs cannot be loaded.
fn gate(
    address: SocketAddr,
    translators: &[(Ipv6Addr, u8)],
) -> Option<(GateMaps, Vec<OwnedFd>, SocketAddr)> {
    let maps = maps()?;
    maps.count(1).unwrap();
    maps.count(2).unwrap();
    let watches = vec![
        GateWatch { mark: 7, slot: 1, v4: 24, v6: 64 },
        GateWatch { mark: 9, slot: 2, v4: 32, v6: 128 },
    ];
    let plan = GatePlan { watches, translators: translators.to_vec(), ..GatePlan::default() };
    let code = maps.code(&plan).unwrap();
    let sockets = sockets_on(address);
    code.put_before(sockets[0].as_fd()).unwrap();
    let address = socket::local_address(sockets[0].as_fd()).unwrap();
    Some((maps, sockets, address))
}

// If this fails, the kernel refuses other clients than those that are over their limit, counts
// them wrongly, or never lets them in again.
#[test]
fn clients_with_an_entry_in_force_are_refused_and_counted() {
    let Some((maps, sockets, to)) = gate((Ipv4Addr::LOCALHOST, 0).into(), &[]) else { return };
    let [one, other] = [loopback([3, 1]), loopback([4, 1])];
    assert!(is_let_in(one, to) && is_let_in(other, to));
    maps.enter(key(7, loopback([3, 0])), now() + Duration::from_secs(60)).unwrap();
    maps.enter(key(9, other), now() + Duration::from_secs(60)).unwrap();
    for last in 1..=3 {
        assert!(!is_let_in(loopback([3, last]), to), "all of the network are one client");
    }
    assert!(!is_let_in(other, to));
    assert!(is_let_in(loopback([4, 2]), to), "another address is another client");
    assert_eq!((maps.refused(1).unwrap(), maps.refused(2).unwrap()), (3, 1));
    let mut seen = Vec::new();
    maps.for_each_refused(|key, times| seen.push((key, times))).unwrap();
    seen.sort_by_key(|(_, times)| *times);
    assert_eq!(seen, [(key(9, other), 1), (key(7, loopback([3, 0])), 3)]);
    // An entry that ends earlier changes nothing; one that is over refuses no client.
    maps.enter(key(9, other), now()).unwrap();
    assert!(!is_let_in(other, to));
    maps.forget(key(9, other)).unwrap();
    maps.enter(key(9, other), now()).unwrap();
    assert!(is_let_in(other, to));
    // The limit is gone: so are its refusals.
    maps.stop_counting(1).unwrap();
    assert!(is_let_in(one, to));
    assert_eq!(maps.refused(1).unwrap(), 0);
    maps.count(1).unwrap();
    assert!(!is_let_in(one, to));
    // The gate stands before the address, not before one socket.
    open(sockets[1].as_fd()).unwrap();
    assert!(is_let_in(one, to));
    open(sockets[1].as_fd()).unwrap();
}

// If this fails, clients of an IPv6 address, or IPv4 clients of a socket for both, are never
// refused by the kernel, or all of them are.
#[test]
fn both_families_have_their_own_key() {
    let Some((maps, _sockets, to)) = gate((Ipv6Addr::UNSPECIFIED, 0).into(), &[]) else { return };
    let v6: IpAddr = Ipv6Addr::LOCALHOST.into();
    let v6_to = SocketAddr::new(v6, to.port());
    let v4_to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), to.port());
    assert!(is_let_in(v6, v6_to) && is_let_in(loopback([3, 1]), v4_to));
    let later = now() + Duration::from_secs(60);
    // The network of ::1 is ::/64, in which IPv4 addresses are mapped.
    maps.enter(key(7, Ipv6Addr::UNSPECIFIED.into()), later).unwrap();
    assert!(!is_let_in(v6, v6_to) && is_let_in(loopback([3, 1]), v4_to));
    maps.enter(key(9, loopback([3, 1])), later).unwrap();
    assert!(!is_let_in(loopback([3, 1]), v4_to) && is_let_in(loopback([3, 2]), v4_to));
}

// If this fails, one client behind a translator has all of them refused, or none is ever refused.
#[test]
fn clients_of_a_translator_have_the_key_of_their_ipv4_address() {
    let to = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 0);
    let own: IpAddr = Ipv6Addr::LOCALHOST.into();
    let later = now() + Duration::from_secs(60);
    let elsewhere = ("2001:db8::".parse().unwrap(), 32);
    // ::1 is 0.0.0.1 behind ::/96.
    let of_96 = [elsewhere, (Ipv6Addr::UNSPECIFIED, 96)];
    let Some((maps, _sockets, to_own)) = gate(to, &of_96) else { return };
    maps.enter(key(9, own), later).unwrap();
    maps.enter(key(7, Ipv6Addr::UNSPECIFIED.into()), later).unwrap();
    assert!(is_let_in(own, to_own), "not by the address that it came from");
    maps.enter(key(9, Ipv4Addr::new(0, 0, 0, 1).into()), later).unwrap();
    assert!(!is_let_in(own, to_own));
    // Behind ::/64 its address is in the middle: 0.0.0.0.
    let (maps, _sockets, to_own) = gate(to, &[elsewhere, (Ipv6Addr::UNSPECIFIED, 64)]).unwrap();
    maps.enter(key(9, own), later).unwrap();
    assert!(is_let_in(own, to_own));
    maps.enter(key(9, Ipv4Addr::UNSPECIFIED.into()), later).unwrap();
    assert!(!is_let_in(own, to_own));
    let (maps, _sockets, to_own) = gate(to, &[elsewhere]).unwrap();
    maps.enter(key(9, own), later).unwrap();
    assert!(!is_let_in(own, to_own));
}

// If this fails, a connection that exists is refused: only its first packet is the gate's.
#[test]
fn what_is_no_first_packet_passes() {
    let Some((maps, _sockets, to)) = gate((Ipv4Addr::LOCALHOST, 0).into(), &[]) else { return };
    let client = TcpStream::connect(to).unwrap();
    let own = client.local_addr().unwrap().ip();
    maps.enter(key(9, own), now() + Duration::from_secs(60)).unwrap();
    assert_eq!(client.take_error().unwrap().map(|error| error.kind()), None);
    drop(client);
    assert_eq!(maps.refused(2).unwrap(), 0);
    assert!(!is_let_in(own, to));
}

// If this fails, a socket that cannot have a gate is taken to have one.
#[test]
fn sockets_without_a_group_are_named() {
    let Some(maps) = maps() else { return };
    let watches = vec![GateWatch { mark: 1, slot: 1, v4: 32, v6: 64 }];
    let code = maps.code(&GatePlan { watches, ..GatePlan::default() }).unwrap();
    let alone = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let refused = code.put_before(alone.as_fd()).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EINVAL));
}

/// A network of IPv4, mapped into IPv6.
fn network(first: [u8; 2], length: u8) -> (u128, u8) {
    (key(0, loopback(first)).address, 96 + length)
}

// If this fails, a list refuses other clients than it names, a ban lasts for ever or not at all, or
// what is refused is not counted, or not by client.
#[test]
fn lists_refuse_by_the_longest_network_and_are_asked_before_limits() {
    let Some(maps) = maps() else { return };
    let (bans, access) = (NetworkTable::new(4, 4).unwrap(), NetworkTable::new(4, 4).unwrap());
    let store = |table: &NetworkTable, (address, length): (u128, u8), value| {
        table.store(address, length, value).unwrap();
    };
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap();
    store(&bans, network([5, 0], 24), nanos(now() + Duration::from_secs(60)));
    store(&bans, network([5, 7], 32), u64::MAX);
    store(&bans, network([6, 0], 24), nanos(now()));
    store(&access, network([0, 0], 8), 1);
    store(&access, network([7, 0], 24), 2);
    store(&access, network([7, 7], 32), 1);
    for slot in 1..=3 {
        maps.count(slot).unwrap();
    }
    let lists = vec![
        GateList { networks: &bans, slot: 1, meaning: ListMeaning::RefusedUntil },
        GateList { networks: &access, slot: 2, meaning: ListMeaning::Admitted(1) },
    ];
    let watches = vec![GateWatch { mark: 9, slot: 3, v4: 32, v6: 128 }];
    let code = maps.code(&GatePlan { lists, watches, translators: Vec::new() }).unwrap();
    let sockets = sockets_on((Ipv4Addr::LOCALHOST, 0).into());
    code.put_before(sockets[0].as_fd()).unwrap();
    let to = socket::local_address(sockets[0].as_fd()).unwrap();
    let is_in = |last| is_let_in(loopback(last), to);

    for last in [[5, 1], [5, 7], [7, 1], [7, 7], [6, 1]] {
        maps.enter(key(9, loopback(last)), now() + Duration::from_secs(60)).unwrap();
    }
    assert!(!is_in([5, 1]) && !is_in([5, 1]) && !is_in([5, 7]), "banned");
    assert_eq!([1, 2, 3].map(|slot| maps.refused(slot).unwrap()), [3, 0, 0]);
    assert!(!is_in([7, 1]), "denied");
    assert!(!is_in([7, 7]) && !is_in([6, 1]), "only over their limit");
    assert_eq!([1, 2, 3].map(|slot| maps.refused(slot).unwrap()), [3, 1, 2]);
    assert!(is_in([8, 8]));
    let mut seen = Vec::new();
    maps.for_each_refused(|key, times| seen.push((key.mark, key.address, times))).unwrap();
    seen.retain(|(mark, ..)| *mark != 9);
    seen.sort_unstable();
    let address = |last| key(0, loopback(last)).address;
    let expected = [(1, address([5, 1]), 2), (1, address([5, 7]), 1), (2, address([7, 1]), 1)];
    assert_eq!(seen, expected);
    // What is taken out, and a list that is gone, refuse no client any more.
    maps.forget(key(9, loopback([5, 7]))).unwrap();
    bans.remove(network([5, 7], 32).0, 128).unwrap();
    assert!(!is_in([5, 7]));
    bans.remove(network([5, 0], 24).0, 120).unwrap();
    assert!(is_in([5, 7]));
    maps.forget(key(9, loopback([7, 1]))).unwrap();
    maps.stop_counting(2).unwrap();
    assert!(is_in([7, 1]));
}

// If this fails, a client behind a translator gets past a list by which of its addresses it names.
#[test]
fn a_translated_client_is_looked_for_by_both_addresses() {
    let Some(maps) = maps() else { return };
    let own = Ipv6Addr::LOCALHOST;
    let embedded = key(0, Ipv4Addr::new(0, 0, 0, 1).into()).address;
    let translators = vec![(Ipv6Addr::UNSPECIFIED, 96)];
    maps.count(1).unwrap();
    for (address, value, admitted, is_in) in [
        (own.to_bits(), 2, 0, false),
        (embedded, 2, 0, false),
        (own.to_bits(), 1, 1, true),
        (embedded, 1, 1, true),
        (embedded + 1, 1, 1, false),
    ] {
        let networks = NetworkTable::new(1, 0).unwrap();
        networks.store(address, 128, value).unwrap();
        let meaning = ListMeaning::Admitted(admitted);
        let lists = vec![GateList { networks: &networks, slot: 1, meaning }];
        let plan = GatePlan { lists, translators: translators.clone(), ..GatePlan::default() };
        let code = maps.code(&plan).unwrap();
        let sockets = sockets_on((own, 0).into());
        code.put_before(sockets[0].as_fd()).unwrap();
        let to = socket::local_address(sockets[0].as_fd()).unwrap();
        assert_eq!(is_let_in(own.into(), to), is_in, "{address:x} {value} {admitted}");
    }
}
