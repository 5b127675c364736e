//! Every kind of TCP listener opens, serves and takes other options by a reload.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use rustix::net::{SendFlags, send};
use socket2::{Domain, Protocol, Socket, Type};
use support::{Backend, PATIENCE, Proxy, eventually};

/// Every combination of the options, as a listener's keys.
fn kinds(mptcp: bool) -> Vec<String> {
    let options = |bits: u8| {
        let switch = |bit: u8| bits & bit != 0;
        let timeout = if switch(1) { "user_timeout = \"5s\"\n" } else { "" };
        format!(
            "{timeout}fast_open = {}\ndefer_accept = {}\nmptcp = {mptcp}\n",
            switch(2),
            switch(4),
        )
    };
    (0..8).map(options).collect()
}

/// One listener for each kind, on an address of its own.
fn config(kinds: &[String], backend: &Backend) -> String {
    let mut text = String::new();
    for (number, keys) in kinds.iter().enumerate() {
        text.push_str(&format!(
            "[listener.l{number}]\nbind = [\"127.0.0.{}:0\"]\npool = \"p\"\n{keys}",
            number + 1
        ));
    }
    format!("{text}[pool.p]\nbackends = [\"{}\"]\n", backend.address())
}

/// Whether this host lets programs speak Multipath TCP.
fn host_has_multipath() -> bool {
    let switch = std::fs::read_to_string("/proc/sys/net/mptcp/enabled");
    switch.is_ok_and(|text| text.trim() == "1")
}

/// Sends bytes, an urgent one among them where the protocol has it, and waits for all of them.
#[track_caller]
fn assert_echoed(address: SocketAddr, protocol: Protocol) {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(protocol)).unwrap();
    eventually("the listener accepts", PATIENCE, || socket.connect(&address.into()).ok());
    let mut client = TcpStream::from(socket);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"before").unwrap();
    let middle = if protocol == Protocol::TCP { SendFlags::OOB } else { SendFlags::empty() };
    send(&client, b"!", middle).unwrap();
    client.write_all(b"after").unwrap();
    let mut answer = [0; 12];
    client.read_exact(&mut answer).unwrap_or_else(|error| panic!("{address}: {error}"));
    assert_eq!(&answer, b"before!after", "{address}");
}

/// Starts with listeners of these kinds, then gives each of them every other kind by reloads.
#[track_caller]
fn serve_every_kind(mptcp: bool, clients: &[Protocol]) {
    let backend = Backend::echo();
    let mut kinds = kinds(mptcp);
    let proxy = Proxy::start(&config(&kinds, &backend));
    for turn in 0..kinds.len() {
        for address in proxy.addresses() {
            for protocol in clients {
                assert_echoed(*address, *protocol);
            }
        }
        kinds.rotate_left(1);
        let said = proxy.reload_with(&config(&kinds, &backend));
        assert!(said.contains("l0"), "turn {turn}: {said}");
    }
}

// If this fails, an option of a listener cannot be used together with another, or at all.
#[test]
fn every_kind_of_tcp_listener_serves() {
    serve_every_kind(false, &[Protocol::TCP]);
}

// If this fails, `mptcp = true` does not start, loses urgent bytes, or cannot be reloaded.
#[test]
fn every_kind_of_multipath_listener_serves() {
    if host_has_multipath() {
        return serve_every_kind(true, &[Protocol::TCP, Protocol::MPTCP]);
    }
    // Then the switch has to be named as what is in the way.
    let (status, said) = Proxy::refused(&config(&kinds(true), &Backend::echo()));
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("net.mptcp.enabled"), "{said}");
}

// If this fails, a Multipath TCP listener cannot be added while evenkeel runs.
#[test]
fn a_reload_adds_a_multipath_listener() {
    let backend = Backend::echo();
    let proxy = Proxy::start(&config(&kinds(false)[..1], &backend));
    let with_multipath = [kinds(false)[0].clone(), kinds(true)[7].clone()];
    proxy.rewrite(&config(&with_multipath, &backend));
    let output = proxy.reload();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if host_has_multipath() {
        assert!(output.status.success(), "{text}");
        let added = proxy.status().listeners["l1"].addresses[0].parse().unwrap();
        assert_echoed(added, Protocol::MPTCP);
    } else {
        assert!(!output.status.success() && text.contains("net.mptcp.enabled"), "{text}");
    }
}

// If this fails, a node whose address comes later (VRRP) cannot start before, or stays down after.
#[test]
fn an_address_that_is_not_here_can_be_listened_on() {
    let backend = Backend::echo();
    // Kept for documentation (RFC 5737, RFC 3849): no host has them.
    let config = |freebind: bool| {
        format!(
            "[listener.here]\nbind = [\"127.0.0.1:0\"]\npool = \"p\"\n[listener.away]\n\
             bind = [\"192.0.2.77:0\", \"[2001:db8::77]:0\"]\npool = \"p\"\nfreebind = {freebind}\n\
             [pool.p]\nbackends = [\"{}\"]\n",
            backend.address()
        )
    };
    let proxy = Proxy::start(&config(true));
    assert_echoed(proxy.address(), Protocol::TCP);
    assert_eq!(proxy.status().listeners["away"].addresses.len(), 2);
    let (status, said) = Proxy::refused(&config(false));
    assert_eq!(status.code(), Some(1), "{said}");
    for words in ["evenkeel.toml:", "`freebind = true`", "ipv4.ip_nonlocal_bind"] {
        assert!(said.contains(words), "no {words} in {said}");
    }
}
