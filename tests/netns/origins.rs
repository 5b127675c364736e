//! Where connections to backends come from: ports that run out, and clients' own addresses.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::books::Books;
use crate::net::{Keys, Link, Net, Side};
use crate::show;
use crate::support::{
    Proxy, connect, connect_from, read_all, read_line, reset_when_dropped, try_connect, within,
};

/// A second address of evenkeel's host on the backend's side.
const SECOND: &str = "10.2.0.253";
const FIRST: &str = "10.2.0.254";

/// A server in the backend's namespace that says in a line from where it was connected, then sends
/// back what it receives. It ends with the test's process.
fn telling(net: &Net, address: SocketAddr) {
    let listener = net.on(Side::Backend, || TcpListener::bind(address).unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let from = stream.peer_addr()?.ip();
                stream.write_all(format!("{from}\n").as_bytes())?;
                std::io::copy(&mut stream.try_clone()?, &mut stream)?;
                stream.shutdown(std::net::Shutdown::Write)
            });
        }
    });
}

/// Namespaces where evenkeel has two addresses towards its backends and these source ports.
fn with_ports(range: &str, reserved: &str) -> Net {
    let net = Net::new(Link::PLAIN);
    let address = format!("{SECOND}/24");
    net.run(Side::Evenkeel, "ip", &["address", "add", &address, "dev", "ek-down"]);
    let range = format!("net.ipv4.ip_local_port_range={range}");
    let reserved = format!("net.ipv4.ip_local_reserved_ports={reserved}");
    net.run(Side::Evenkeel, "sysctl", &["-q", "-w", &range, &reserved]);
    telling(&net, net.backend(1));
    net
}

fn ports(proxy: &Proxy, source: &str) -> f64 {
    proxy.metric("evenkeel_source_ports_in_use", &[("source", source)])
}

/// Connections of evenkeel's host from one of its addresses, as the kernel sees them.
fn established(net: &Net, source: &str) -> usize {
    let mut command = net.command(Side::Evenkeel, "ss");
    let output = command.args(["-tnH", "state", "established", "src", source]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().count()
}

/// If it fails, sessions fail while another source has ports, or more are promised than there are,
/// or the log is silent about it.
#[test]
fn ports_run_out_at_one_source_after_the_other() {
    // Twelve, of which two are reserved.
    let net = with_ports("20000 20011", "20003,20007");
    let pool = format!("source = [\"{FIRST}\", \"{SECOND}\"]\nretries = 0");
    let proxy = net.evenkeel(&[1], Keys { global: "workers = 2", pool: &pool, ..Keys::default() });
    let books = Books::open(&proxy);
    let most = proxy.metric("evenkeel_source_ports_max", &[("source", FIRST)]);
    let mut seen = [0, 0];
    let mut clients: Vec<TcpStream> = Vec::new();
    for _ in 0..20 {
        let mut client = net.on(Side::Client, || connect(proxy.address()));
        let from = read_line(&mut client).unwrap();
        seen[usize::from(from == SECOND)] += 1;
        clients.push(client);
    }
    let used = [FIRST, SECOND].map(|source| ports(&proxy, source));
    let held = [FIRST, SECOND].map(|source| established(&net, source));
    let refused = (0..3).filter(|_| {
        let client = net.on(Side::Client, || try_connect(proxy.address()));
        client.and_then(|mut client| read_line(&mut client)).is_err()
    });
    let refused = refused.count();
    let labels = [("reason", "no_port")];
    let counted = proxy.metric("evenkeel_backend_connect_failures_total", &labels);
    let spilled = proxy.metric("evenkeel_source_spills_total", &[("reason", "full")]);
    for source in [FIRST, SECOND] {
        proxy.wait_for_line(&format!("source {source} has few ports left"));
    }
    clients.iter().for_each(reset_when_dropped);
    drop(clients);
    for source in [FIRST, SECOND] {
        proxy.wait_for_line(&format!("source {source} has ports again"));
    }
    show(
        "10 source ports at each of two addresses, 23 clients that stay",
        "20 served, 10 from each; 3 refused and counted; the log says it; all given back",
        &format!(
            "{most} ports each, {seen:?} served, metrics {used:?}, kernel {held:?}, {refused} \
             refused, {counted} counted, {spilled} spilled"
        ),
    );
    assert_eq!((seen, held, refused), ([10, 10], [10, 10], 3));
    assert!((most - 10.0).abs() < 0.5 && (counted - 3.0).abs() < 0.5 && spilled > 0.5);
    assert!(used.iter().all(|used| (used - 10.0).abs() < 0.5), "{used:?}");
    proxy.wait_for_metric("evenkeel_source_ports_in_use", &[], 0.0);
    books.close(&proxy);
}

/// If it fails, ports that the kernel keeps for closed connections are not got around although
/// another source has some.
#[test]
fn ports_of_closed_connections_are_got_around() {
    let net = with_ports("20000 20009", "");
    net.run(Side::Evenkeel, "sysctl", &["-q", "-w", "net.ipv4.tcp_tw_reuse=0"]);
    let pool = format!("source = [\"{FIRST}\", \"{SECOND}\"]\nretries = 0");
    let proxy = net.evenkeel(&[1], Keys { global: "workers = 1", pool: &pool, ..Keys::default() });
    // The client ends first, and so does evenkeel at the backend: its port is kept for a minute.
    let visit = || {
        let mut client = net.on(Side::Client, || try_connect(proxy.address())).ok()?;
        let from = read_line(&mut client).ok();
        let _ended = client.shutdown(std::net::Shutdown::Write);
        let _heard = read_all(&mut client);
        from
    };
    let served = (0..30).map_while(|_| visit()).count();
    let spilled = proxy.metric("evenkeel_source_spills_total", &[("reason", "no_port")]);
    let failed = proxy.metric("evenkeel_backend_connect_failures_total", &[("reason", "no_port")]);
    show(
        "10 source ports at each of two addresses, sessions that clients end, tcp_tw_reuse off",
        "20 served one after the other, then no_port, nothing counted as in use",
        &format!("{served} served, {spilled} spilled, {failed} failed"),
    );
    assert!(served == 20 && spilled > 0.5 && (failed - 1.0).abs() < 0.5);
    proxy.wait_for_metric("evenkeel_source_ports_in_use", &[], 0.0);
}

/// How packets to addresses of others are taken for this host's own: both ways of
/// docs/configuration.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    ByPort,
    ByMark,
}

/// Leads what the backends send to anybody's address back into evenkeel's namespace, and there to
/// its sockets.
fn lead_back(net: &Net, way: Way) {
    if way == Way::ByMark {
        let nft = |words: &[&str]| net.run(Side::Evenkeel, "nft", words);
        nft(&["add", "table", "inet", "evenkeel"]);
        let hook = "{ type filter hook prerouting priority mangle; }";
        nft(&["add", "chain", "inet", "evenkeel", "pre", hook]);
        let rule =
            "add rule inet evenkeel pre meta l4proto tcp socket transparent 1 meta mark set 1";
        nft(&rule.split_whitespace().collect::<Vec<_>>());
    }
    let ip = |side, family, words: &str| {
        let words: Vec<&str> = [family].into_iter().chain(words.split_whitespace()).collect();
        net.run(side, "ip", &words);
    };
    for (family, from, via, all) in
        [("-4", "10.1.0.0/24", "10.2.0.254", "0.0.0.0/0"), ("-6", "fd01::/64", "fd02::254", "::/0")]
    {
        ip(Side::Backend, family, &format!("route add {from} via {via}"));
        let rule = match way {
            Way::ByPort => "rule add iif ek-down ipproto tcp sport 8001 lookup 100",
            Way::ByMark => "rule add fwmark 1 lookup 100",
        };
        ip(Side::Evenkeel, family, rule);
        ip(Side::Evenkeel, family, &format!("route add local {all} dev lo table 100"));
    }
}

/// The same namespaces with IPv6 beside IPv4: `fd01::1` to `::9`, `fd02::1` and evenkeel's `::254`.
fn both_families(way: Way) -> Net {
    let net = Net::new(Link::PLAIN);
    let add = |side, address: &str, device: &str| {
        net.run(side, "ip", &["address", "add", address, "dev", device, "nodad"]);
    };
    for last in 1..10 {
        add(Side::Client, &format!("fd01::{last}/64"), "ek-up");
    }
    add(Side::Evenkeel, "fd01::254/64", "ek-up");
    add(Side::Evenkeel, "fd02::254/64", "ek-down");
    add(Side::Backend, "fd02::1/64", "ek-down");
    lead_back(&net, way);
    net
}

/// If it fails, a backend is shown evenkeel's address instead of its clients', or bytes to such a
/// client get lost.
#[test]
fn backends_see_their_clients_addresses() {
    for way in [Way::ByPort, Way::ByMark] {
        seen_as_they_are(way);
    }
}

#[track_caller]
fn seen_as_they_are(way: Way) {
    let net = both_families(way);
    let v6: SocketAddr = "[fd02::1]:8001".parse().unwrap();
    telling(&net, net.backend(1));
    telling(&net, v6);
    let keys = Keys { global: "workers = 2", pool: "transparent = true", ..Keys::default() };
    let mut config = net.config(&[1], keys);
    config.push_str(&format!(
        "[listener.six]\nbind = [\"[fd01::254]:7000\"]\npool = \"six\"\n\
         [pool.six]\nbackends = [\"{v6}\"]\ntransparent = true\n"
    ));
    let proxy = net.evenkeel_under(&[], &config);
    let books = Books::open(&proxy);
    let sent: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let mut wrong = Vec::new();
    for last in 1..10 {
        let four = IpAddr::V4(Ipv4Addr::new(10, 1, 0, last));
        let six = IpAddr::V6(Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, u16::from(last)));
        for (client, front) in [four, six].into_iter().zip(proxy.addresses()) {
            let stream = net.on(Side::Client, || connect_from((client, 0), *front));
            let mut stream = stream.unwrap();
            let seen = read_line(&mut stream).unwrap_or_default();
            let mut writer = stream.try_clone().unwrap();
            let echoed = std::thread::scope(|scope| {
                scope.spawn(|| {
                    let _reset = writer.write_all(&sent);
                    let _reset = writer.shutdown(std::net::Shutdown::Write);
                });
                read_all(&mut stream)
            });
            if seen != client.to_string() || echoed.ok().as_ref() != Some(&sent) {
                wrong.push(format!("{client} seen as {seen:?}"));
            }
        }
    }
    show(
        &format!("transparent pools, 9 clients of each family, 300,000 bytes, led back {way:?}"),
        "each backend sees each client's own address; every byte",
        &format!("{} wrong: {wrong:?}", wrong.len()),
    );
    assert!(wrong.is_empty(), "{wrong:?}");
    books.close(&proxy);
}

/// If it fails, a missing capability is found out by nobody, or taken for a failure of the backend.
#[test]
fn the_capability_is_missing() {
    let net = both_families(Way::ByPort);
    telling(&net, net.backend(1));
    let pool = "transparent = true\nretries = 0\n[pool.back.outlier]\nconsecutive_failures = 1";
    let config = net.config(&[1], Keys { global: "workers = 1", pool, ..Keys::default() });
    let without = ["setpriv", "--inh-caps=-all", "--bounding-set=-net_admin,-net_raw"];
    let proxy = net.evenkeel_under(&without, &config);
    proxy.wait_for_line("may not connect from its clients' addresses");
    let served = (0..5).filter(|_| {
        let client = net.on(Side::Client, || try_connect(proxy.address()));
        client.is_ok_and(|mut client| client.read_exact(&mut [0]).is_ok())
    });
    let served = served.count();
    let failures = proxy.metric("evenkeel_backend_connect_failures_total", &[("reason", "denied")]);
    // Longer than whoever ejects takes to look.
    let ejected = within(Duration::from_millis(300), || {
        (proxy.metric("evenkeel_backend_ejections_total", &[]) > 0.5).then_some(())
    });
    show(
        "transparent pool, a process without CAP_NET_ADMIN and CAP_NET_RAW, 5 clients",
        "a warning at start, 5 attempts counted as denied, the backend not blamed",
        &format!("{served} served, {failures} denied, ejected: {}", ejected.is_some()),
    );
    assert!(served == 0 && (failures - 5.0).abs() < 0.5 && ejected.is_none());
    proxy.wait_for_sessions(0);
}
