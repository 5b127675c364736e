//! What the bounds of keys let through works: pools without a backend, one server under several
//! names, addresses in other notations.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use support::{Backend, Setup, connect, read_line, served_by, visit};

/// Sends a byte through an echoing session and waits for it to come back.
#[track_caller]
fn assert_alive(client: &mut TcpStream) {
    client.write_all(b"?").unwrap();
    let mut answer = [0];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"?");
}

// If this fails, a pool that an operator or a generator of files empties for a while takes the
// whole process down, cuts its sessions, or stays dead when backends come back.
#[test]
fn a_pool_may_be_without_backends_for_a_while() {
    let backend = Backend::named("one");
    let proxy = Setup::of(&[]).start();
    let refused = [("listener", "front"), ("reason", "no_backend")];
    assert_eq!(visit(proxy.address()), "");
    proxy.wait_for_metric("evenkeel_listener_refused_total", &refused, 1.0);
    assert!(proxy.status().listeners.contains_key("front"));

    proxy.reload_with(&Setup::of(&[&backend]).text());
    let mut client = connect(proxy.address());
    assert_eq!(read_line(&mut client).unwrap(), "one");

    proxy.reload_with(&Setup::of(&[]).text());
    assert_alive(&mut client);
    assert_eq!(visit(proxy.address()), "");
    proxy.wait_for_metric("evenkeel_listener_refused_total", &refused, 2.0);

    proxy.reload_with(&Setup::of(&[&backend]).text());
    assert_eq!(served_by(proxy.address()).unwrap(), "one");
    assert_alive(&mut client);
}

// If this fails, two backends at one address share what each has for itself.
#[test]
fn one_server_may_have_several_names() {
    let backend = Backend::named("one");
    let setup = Setup::of(&[&backend, &backend])
        .pool("balance = \"first\"")
        .backend(1, "max_sessions = 1")
        .backend(2, "max_sessions = 2");
    let proxy = setup.start();
    let _clients: Vec<_> = (0..3)
        .map(|_| {
            let mut client = connect(proxy.address());
            assert_eq!(read_line(&mut client).unwrap(), "one");
            client
        })
        .collect();
    for (name, sessions) in [("b1", 1), ("b2", 2)] {
        assert_eq!(proxy.backend("back", name).sessions, sessions, "{name}");
    }
    assert_eq!(visit(proxy.address()), "");
}

// If this fails, an address that other balancers take as it is written cannot be used.
#[test]
fn addresses_may_be_mapped_or_name_an_interface() {
    let backend = Backend::named("one");
    let binds = "bind = [\"[::ffff:127.0.0.1]:0\", \"[::1%lo]:0\"]";
    let proxy = Setup::of(&[&backend]).listener(binds).start();
    let [mapped, local] = proxy.addresses() else { panic!("{:?}", proxy.addresses()) };
    assert_eq!(mapped.ip().to_string(), "127.0.0.1");
    assert_eq!(served_by(*mapped).unwrap(), "one");
    assert_eq!(served_by(*local).unwrap(), "one");
}
