//! Listeners on a range of ports.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

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
