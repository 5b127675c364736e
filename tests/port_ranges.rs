//! Listeners on a range of ports, and backends that are connected at the port of the client.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};

use support::{Backend, PATIENCE, Proxy, Setup, connect, eventually, stream, try_connect};

/// A loopback address that only this process uses: what others bind takes no port of it.
fn host(number: u32) -> IpAddr {
    let bits = std::process::id() << 2 | number;
    IpAddr::V4(Ipv4Addr::from_bits(127 << 24 | bits & 0x00ff_ffff))
}

/// As many ports in a row, of which no host of this process has one; each call has others.
fn ports(count: u16) -> Range<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    let is_free = |port: u16| (0..3).all(|number| TcpListener::bind((host(number), port)).is_ok());
    loop {
        let first = NEXT.fetch_add(count, Ordering::SeqCst);
        if (first..first + count).all(is_free) {
            return first..first + count;
        }
    }
}

/// `bind` of these ports.
fn bind(ports: &Range<u16>) -> String {
    format!("bind = [\"{}:{}-{}\"]", host(0), ports.start, ports.end - 1)
}

fn assert_alive(client: &mut TcpStream) {
    client.write_all(b"ping").unwrap();
    let mut answer = [0; 4];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"ping");
}

fn is_refused(address: SocketAddr) -> bool {
    try_connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

// If this fails, a port of a range is served by no listener, or each is a listener of its own.
#[test]
fn a_listener_accepts_on_each_port_of_its_range() {
    let (backend, ports) = (Backend::echo(), ports(4));
    let setup = Setup::of(&[&backend]).global("workers = 2").listener(&bind(&ports));
    let proxy = setup.listener("max_sessions = 8").start();
    assert_eq!(proxy.addresses().len(), 4);
    for port in ports.clone() {
        stream::exchange(&mut connect(SocketAddr::new(host(0), port)), (1, 1_000));
    }
    let status = proxy.status();
    let shown = format!("{}:{}-{}", host(0), ports.start, ports.end - 1);
    assert_eq!(status.listeners["front"].addresses, [shown]);
    assert_eq!(status.listeners["front"].accepted, 4);
    assert_eq!(proxy.metrics().count("evenkeel_listener_accepted_total", &[]), 1);
}

// If this fails, a reload that changes a range cuts sessions of the ports that stay or go, or
// leaves ports open that have gone.
#[test]
fn a_reload_widens_and_narrows_a_range() {
    let (backend, all) = (Backend::echo(), ports(4));
    let setup = Setup::of(&[&backend]).global("workers = 2");
    let proxy = setup.clone().listener(&bind(&(all.start..all.start + 2))).start();
    let at = |index: u16| SocketAddr::new(host(0), all.start + index);
    let mut sessions = vec![connect(at(0)), connect(at(1))];
    assert!(is_refused(at(2)) && is_refused(at(3)));

    let wider = proxy.reload_with(&setup.clone().listener(&bind(&all)).text());
    assert!(wider.contains("listener front: bind"), "{wider}");
    sessions.extend(
        [at(2), at(3)].map(|address| {
            eventually("a new port accepts", PATIENCE, || try_connect(address).ok())
        }),
    );
    for session in &mut sessions {
        assert_alive(session);
    }

    proxy.reload_with(&setup.listener(&bind(&(all.start..all.start + 2))).text());
    for gone in [at(2), at(3)] {
        eventually("its port is closed", PATIENCE, || is_refused(gone).then_some(()));
    }
    sessions.extend([at(0), at(1)].map(connect));
    for session in &mut sessions {
        assert_alive(session);
    }
    assert_eq!(proxy.status().listeners.len(), 1);
}

// If this fails, an operator is not told which port of a range another program has, or in which
// line of the file the range stands.
#[test]
fn a_port_that_is_in_use_is_named() {
    let (backend, ports) = (Backend::echo(), ports(3));
    let taken = SocketAddr::new(host(0), ports.start + 1);
    let _other = TcpListener::bind(taken).unwrap();
    let setup = Setup::of(&[&backend]).listener(&bind(&ports));
    let (_, said) = Proxy::refused(&setup.text());
    assert!(said.contains(&format!("cannot listen on {taken}")), "{said}");
    assert!(said.contains("| bind = ["), "{said}");
    assert_eq!(said.matches("cannot listen on").count(), 1, "{said}");
}

/// A listener on these ports, before hosts without a port; further keys of the pool and of the
/// listener.
fn portless(ports: &Range<u16>, listener: &str, pool: &str) -> String {
    format!(
        "[global]\nworkers = 2\n[listener.front]\n{}\n{listener}\npool = \"back\"\n[pool.back]\n\
         balance = \"round-robin\"\nbackends = [\"{}\", \"{}\"]\n{pool}\n",
        bind(ports),
        host(1),
        host(2),
    )
}

/// Servers of a host at each of these ports, which say their address.
fn servers(number: u32, ports: &Range<u16>) -> Vec<Backend> {
    let addresses = ports.clone().map(|port| SocketAddr::new(host(number), port));
    addresses.map(|address| Backend::named_at(&address.to_string(), address)).collect()
}

/// The addresses that serve as many clients of a port.
fn served(port: u16, clients: usize) -> BTreeSet<String> {
    let visit = |_| support::served_by(SocketAddr::new(host(0), port)).unwrap();
    (0..clients).map(visit).collect()
}

/// The addresses of these hosts at a port.
fn at(hosts: &[u32], port: u16) -> BTreeSet<String> {
    hosts.iter().map(|number| SocketAddr::new(host(*number), port).to_string()).collect()
}

// If this fails, a client of one port is served by another, or verbs, metrics and log know a host
// by a name that the file does not have.
#[test]
fn each_client_reaches_the_port_to_which_it_connected() {
    let ports = ports(3);
    let _servers = [servers(1, &ports), servers(2, &ports)];
    let proxy = Proxy::start(&portless(&ports, "", ""));
    for port in ports.clone() {
        assert_eq!(served(port, 4), at(&[1, 2], port));
    }
    let one = host(1).to_string();
    assert_eq!(proxy.backend("back", &one).address, one);
    assert_eq!(proxy.metrics().count("evenkeel_backend_sessions_total", &[]), 2);
    for line in proxy.wait_for_session_lines(12) {
        let to: SocketAddr = line["to"].as_str().unwrap().parse().unwrap();
        assert_eq!(line["backend"], to.ip().to_string(), "{line}");
        assert!(ports.contains(&to.port()), "{line}");
    }
    let answer = proxy.ask("GET", "/v1/explain?listener=front&client=192.0.2.1", "");
    let said: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let there =
        format!("{}:{}-{}", said["pick"]["backend"].as_str().unwrap(), ports.start, ports.end - 1);
    assert_eq!(said["pick"]["address"], there, "{said}");

    proxy.tell(&format!("back/{one}"), "drain");
    for port in ports {
        assert_eq!(served(port, 3), at(&[2], port));
    }
}

// If this fails, every port of a host is probed, or a host that is down gets clients of some ports.
#[test]
fn one_probe_decides_for_all_ports_of_a_host() {
    let all = ports(4);
    let (ports, probed) = (all.start..all.end - 1, all.end - 1);
    let [alive, _dead] = [servers(1, &ports), servers(2, &ports)];
    let address = SocketAddr::new(host(1), probed);
    let well = Backend::named_at("well", address);
    let health = format!(
        "[pool.back.health]\nport = {probed}\ninterval = \"50ms\"\nfast_interval = \"50ms\"\n"
    );
    let proxy = Proxy::start(&portless(&ports, "", &health));
    let two = host(2).to_string();
    let down = || (proxy.backend("back", &two).state == "down").then_some(());
    eventually("the host without a server at the probed port is down", PATIENCE, down);
    assert_eq!(proxy.backend("back", &host(1).to_string()).state, "up");
    let before: Vec<usize> = alive.iter().map(Backend::accepted).collect();
    assert!(before.iter().all(|accepted| *accepted == 0), "probes came to {before:?}");
    for port in ports {
        assert_eq!(served(port, 3), at(&[1], port));
    }
    assert!(well.accepted() > 0);
}

// If this fails, a pool behind one port needs a port for its probes that is known already.
#[test]
fn probes_ask_the_only_port_of_the_listeners() {
    let ports = ports(1);
    let [_alive, dead] = [servers(1, &ports), servers(2, &ports)];
    drop(dead);
    let health = "[pool.back.health]\ninterval = \"50ms\"\nfast_interval = \"50ms\"\n";
    let proxy = Proxy::start(&portless(&ports, "", health));
    let two = host(2).to_string();
    let down = || (proxy.backend("back", &two).state == "down").then_some(());
    eventually("the host without a server is down", PATIENCE, down);
    assert_eq!(served(ports.start, 4), at(&[1], ports.start));
}

// If this fails, a proxy in front sends clients to ports at which this listener does not accept, or
// ports of a source are counted wrongly where backends have none of their own.
#[test]
fn a_header_names_no_port_to_connect() {
    let ports = ports(2);
    let _servers = [servers(1, &ports), servers(2, &ports)];
    let accept = "accept_proxy = { from = [\"127.0.0.0/8\"] }";
    let source = format!("source = [\"{}\"]", host(0));
    let proxy = Proxy::start(&portless(&ports, accept, &source));
    let mut clients = Vec::new();
    for port in ports.clone().chain(ports) {
        let mut client = connect(SocketAddr::new(host(0), port));
        client.write_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 9\r\n").unwrap();
        let name = support::read_line(&mut client).unwrap();
        assert!(at(&[1, 2], port).contains(&name), "{name}");
        clients.push(client);
    }
    let in_use = proxy.metrics().sum("evenkeel_source_ports_in_use", &[]);
    assert!(support::admin::is_same(in_use, 4.0), "{in_use}");
}

// If this fails, a reload cannot move a range of a pool whose backends have no port.
#[test]
fn new_ports_of_a_range_lead_to_the_same_ports() {
    let all = ports(4);
    let _servers = [servers(1, &all), servers(2, &all)];
    let (before, after) = (all.start..all.start + 2, all.start + 1..all.end);
    let proxy = Proxy::start(&portless(&before, "", ""));
    let mut kept = connect(SocketAddr::new(host(0), before.start));
    let name = support::read_line(&mut kept).unwrap();
    assert!(at(&[1, 2], before.start).contains(&name), "{name}");
    proxy.reload_with(&portless(&after, "", ""));
    for port in after {
        let address = SocketAddr::new(host(0), port);
        let name = eventually("the port accepts", PATIENCE, || support::served_by(address).ok());
        assert!(at(&[1, 2], port).contains(&name), "{name}");
    }
    assert_alive(&mut kept);
}
