//! `bandwidth` of a listener: no session goes faster at any moment, none is cut short or stranded
//! by it, and bytes are still spliced.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use support::{Backend, PATIENCE, Proxy, Setup, connect, eventually, read_all, stream};

const KEY: u64 = 7;

/// A backend that sends this many bytes, then FIN, and reads to the end.
fn sending(count: usize) -> Backend {
    Backend::serving(move |mut stream, _| {
        stream.write_all(&stream::bytes(KEY, count))?;
        stream.shutdown(Shutdown::Write)?;
        std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
    })
}

fn proxy(backend: &Backend, bandwidth: &str, splice: &str) -> Proxy {
    Setup::of(&[backend])
        .global(&format!("splice = \"{splice}\""))
        .listener(&format!("bandwidth = {{ {bandwidth} }}"))
        .start()
}

/// Reads to the end; at no moment may more have come than the time since `since` and three batches
/// of 20 ms allow.
#[track_caller]
fn read_at_most(client: &mut TcpStream, rate: usize, since: Instant) -> Vec<u8> {
    let (mut all, mut part) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        let count = client.read(&mut part).unwrap();
        if count == 0 {
            return all;
        }
        all.extend_from_slice(&part[..count]);
        let most = rate as f64 * (since.elapsed().as_secs_f64() + 3.0 / 50.0) + 1.0;
        assert!(all.len() as f64 <= most, "{} bytes after {:?}", all.len(), since.elapsed());
    }
}

fn waits(proxy: &Proxy, direction: &str) -> f64 {
    let labels = [("listener", "front"), ("direction", direction)];
    proxy.metric("evenkeel_bandwidth_waits_total", &labels)
}

fn moved(proxy: &Proxy, direction: &str, path: &str) -> f64 {
    let labels = [("listener", "front"), ("direction", direction), ("path", path)];
    proxy.metric("evenkeel_bytes_total", &labels)
}

// If this fails, a session goes faster than its bandwidth, at its start above all, or loses bytes.
#[test]
fn replies_come_no_faster_than_allowed() {
    let (rate, count) = (512 * 1024, 512 * 1024);
    let backend = sending(count);
    for splice in ["auto", "never", "always"] {
        let proxy = proxy(&backend, "down = \"512KiB/s\"", splice);
        let since = Instant::now();
        let mut client = connect(proxy.address());
        let got = read_at_most(&mut client, rate, since);
        assert!(got == stream::bytes(KEY, count), "{splice}: wrong bytes");
        assert!(waits(&proxy, "to_client") > 0.0);
        assert!(support::admin::is_same(waits(&proxy, "to_backend"), 0.0));
    }
}

// If this fails, an upload goes faster than its bandwidth, by what came before the backend was
// connected too.
#[test]
fn uploads_go_no_faster_than_allowed() {
    let (rate, count) = (256 * 1024, 256 * 1024);
    let backend = Backend::echo();
    let proxy = proxy(&backend, "up = \"256KiB/s\"", "auto");
    let word = stream::bytes(KEY, count);
    let since = Instant::now();
    let mut client = connect(proxy.address());
    let _sent = stream::send_aside(&client, KEY, 256 * 1024);
    let mut part = vec![0; count];
    client.read_exact(&mut part[..1]).unwrap();
    let mut got = vec![part[0]];
    while got.len() < count {
        let read = client.read(&mut part).unwrap();
        got.extend_from_slice(&part[..read]);
        let most = rate as f64 * (since.elapsed().as_secs_f64() + 3.0 / 50.0) + 1.0;
        assert!(got.len() as f64 <= most, "{} bytes after {:?}", got.len(), since.elapsed());
    }
    assert!(got == word, "wrong bytes");
    assert!(waits(&proxy, "to_backend") > 0.0);
    assert!(support::admin::is_same(waits(&proxy, "to_client"), 0.0));
}

// If this fails, a bandwidth costs a copy of every byte.
#[test]
fn bytes_are_still_spliced() {
    let count = 2 * 1024 * 1024;
    let backend = sending(count);
    for splice in ["auto", "always"] {
        let proxy = proxy(&backend, "down = \"2MiB/s\"", splice);
        let got = read_all(&mut connect(proxy.address())).unwrap();
        assert!(got == stream::bytes(KEY, count), "{splice}: wrong bytes");
        proxy.wait_for_sessions(0);
        let spliced = moved(&proxy, "to_client", "splice");
        assert!(spliced > 0.9 * count as f64, "{splice}: {spliced} of {count} spliced");
    }
}

// If this fails, a session that waits for its bandwidth is taken for a silent one.
#[test]
fn waiting_for_bandwidth_is_no_silence() {
    let count = 2048;
    let backend = sending(count);
    let proxy = Setup::of(&[&backend])
        .listener("bandwidth = { down = \"1KiB/s\" }\nidle_timeout = \"100ms\"")
        .start();
    let mut client = connect(proxy.address());
    let mut got = vec![0; count];
    client.read_exact(&mut got).unwrap();
    assert!(got == stream::bytes(KEY, count), "wrong bytes");
}

// If this fails, a client that fills the line can be slowed down, or freed, only by ending its
// session.
#[test]
fn a_reload_changes_the_bandwidth_of_open_sessions() {
    let count = 1024 * 1024;
    let backend = sending(count);
    let setup = Setup::of(&[&backend]);
    let slow = setup.clone().listener("bandwidth = { up = \"1MiB/s\", down = \"1KiB/s\" }");
    let proxy = slow.start();
    let mut client = connect(proxy.address());
    let mut first = [0];
    client.read_exact(&mut first).unwrap();
    eventually("it waits", PATIENCE, || (waits(&proxy, "to_client") > 0.0).then_some(()));
    // It would take a quarter of an hour.
    proxy.reload_with(&setup.text());
    let rest = read_all(&mut client).unwrap();
    assert_eq!(rest.len(), count - 1);
    let mut client = connect(proxy.address());
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client).unwrap().len(), count);
}
