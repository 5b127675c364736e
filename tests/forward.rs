//! Bytes between clients and backends: all of them, in order, to the right peer, whatever the size,
//! the path they take and the pace of either side.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::mpsc;

use rustix::net::{SendFlags, send};
use socket2::SockRef;
use support::stream;
use support::{Backend, PATIENCE, Setup, connect, eventually, read_all, read_line, served_by};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Around every size at which the program, the kernel or a buffer changes its ways.
fn sizes() -> Vec<u64> {
    let edges = [4 * KIB, 8 * KIB, 16 * KIB, 32 * KIB, 64 * KIB, 128 * KIB, 256 * KIB, MIB];
    let around = edges.into_iter().flat_map(|edge| [edge - 1, edge, edge + 1]);
    [0, 1, 2, 3, 1460].into_iter().chain(around).chain([3 * MIB + 7, 4 * MIB]).collect()
}

fn every_size_goes_both_ways(splice: &str) {
    let backend = Backend::echo();
    let setup = Setup::of(&[&backend]).global(&format!("workers = 2\nsplice = \"{splice}\""));
    let proxy = setup.start();
    for size in sizes() {
        stream::exchange(&mut connect(proxy.address()), (size ^ 0xabcd, size));
    }
    let total: u64 = sizes().iter().sum();
    assert_eq!(backend.received() as u64, total);
    assert_eq!(backend.accepted(), sizes().len());
}

// If this fails, bytes of some size are lost or changed when the path is chosen by size.
#[test]
fn every_size_goes_both_ways_with_splice_by_size() {
    every_size_goes_both_ways("auto");
}

// If this fails, bytes of some size are lost or changed when they are copied.
#[test]
fn every_size_goes_both_ways_with_copying() {
    every_size_goes_both_ways("never");
}

// If this fails, bytes of some size are lost or changed when they go through a pipe.
#[test]
fn every_size_goes_both_ways_with_splicing() {
    every_size_goes_both_ways("always");
}

// If this fails, the setting does not decide which path bytes take, or the metric lies about it.
#[test]
fn the_path_is_the_one_configured() {
    for (splice, path, other) in [("never", "copy", "splice"), ("always", "splice", "copy")] {
        let backend = Backend::echo();
        let setup = Setup::of(&[&backend]).global(&format!("splice = \"{splice}\""));
        let proxy = setup.start();
        // The client waits for the banner of bytes before it sends the rest: what is received
        // with the connection itself is always copied.
        let mut client = connect(proxy.address());
        proxy.wait_for_sessions(1);
        eventually("the backend is connected", PATIENCE, || {
            (backend.accepted() == 1).then_some(())
        });
        stream::exchange(&mut client, (7, MIB));
        proxy.wait_for_sessions(0);
        let metrics = proxy.metrics();
        for direction in ["to_backend", "to_client"] {
            let moved = |path| {
                let labels = [("direction", direction), ("path", path)];
                metrics.sum("evenkeel_bytes_total", &labels)
            };
            assert!(support::admin::is_same(moved(path), 1_048_576.0), "{splice} {direction}");
            assert!(support::admin::is_same(moved(other), 0.0), "{splice} {direction}");
        }
    }
}

/// Waits until a number stops growing: the writer is blocked.
fn wait_until_still(mut number: impl FnMut() -> u64) {
    let (mut last, mut looks) = (0, 0);
    eventually("it stops growing", PATIENCE, || {
        let now = number();
        looks = if now == last && now > 0 { looks + 1 } else { 0 };
        last = now;
        (looks == 10).then_some(())
    });
}

/// A small one stalls the other side soon; below the size of a segment it would only crawl.
fn small_receive_buffer(stream: &TcpStream) {
    SockRef::from(stream).set_recv_buffer_size(256 * 1024).unwrap();
}

fn client_reads_slowly(splice: &str) {
    let backend = Backend::serving(|mut stream, _| {
        stream::send(&mut stream, 5, 16 * MIB)?;
        stream.shutdown(Shutdown::Write)
    });
    let proxy = Setup::of(&[&backend]).global(&format!("splice = \"{splice}\"")).start();
    let mut client = connect(proxy.address());
    small_receive_buffer(&client);
    wait_until_still(|| proxy.status().listeners["front"].bytes_to_client);
    let (received, end) = stream::receive(&mut client, 5);
    end.unwrap();
    assert_eq!(received, 16 * MIB);
}

// If this fails, a client that stops reading for a while loses bytes or stalls for ever.
#[test]
fn a_client_that_reads_late_gets_everything() {
    client_reads_slowly("auto");
    client_reads_slowly("never");
}

// If this fails, a backend that stops reading for a while loses bytes or stalls for ever.
#[test]
fn a_backend_that_reads_late_gets_everything() {
    for splice in ["auto", "never"] {
        let (go, wait) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let wait = parking_lot::Mutex::new(wait);
        let backend = Backend::serving(move |mut stream, _| {
            small_receive_buffer(&stream);
            wait.lock().recv().unwrap();
            tell.send(stream::receive(&mut stream, 6)).unwrap();
            Ok(())
        });
        let proxy = Setup::of(&[&backend]).global(&format!("splice = \"{splice}\"")).start();
        let mut client = connect(proxy.address());
        let sent = stream::send_aside(&client, 6, 16 * MIB);
        wait_until_still(|| proxy.status().listeners["front"].bytes_to_backend);
        go.send(()).unwrap();
        let (received, end) = told.recv_timeout(PATIENCE).unwrap();
        end.unwrap();
        assert_eq!(received, 16 * MIB);
        sent.join().unwrap().unwrap();
        assert!(read_all(&mut client).unwrap().is_empty());
    }
}

// If this fails, protocols in which the server speaks first (SMTP, MySQL, SSH) hang.
#[test]
fn a_server_may_speak_first() {
    let backend = Backend::named("220 ready");
    let proxy = Setup::of(&[&backend]).start();
    assert_eq!(served_by(proxy.address()).unwrap(), "220 ready");
}

// If this fails, small messages wait for more bytes or for a timer.
#[test]
fn one_byte_at_a_time_goes_to_and_fro() {
    let backend = Backend::echo();
    for splice in ["auto", "always"] {
        let proxy = Setup::of(&[&backend]).global(&format!("splice = \"{splice}\"")).start();
        let mut client = connect(proxy.address());
        let wanted = stream::bytes(3, 500);
        for byte in wanted {
            client.write_all(&[byte]).unwrap();
            let mut answer = [0];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(answer, [byte]);
        }
    }
}

// If this fails, sessions that run at the same time get each other's bytes or starve.
#[test]
fn many_sessions_at_once_keep_their_bytes_apart() {
    let backends = [Backend::echo(), Backend::echo()];
    let proxy = Setup::of(&[&backends[0], &backends[1]])
        .global("workers = 2")
        .pool("balance = \"least-connections\"")
        .start();
    let address = proxy.address();
    let lengths = [0, 1, 17, KIB, 33 * KIB, 64 * KIB, 200 * KIB];
    let clients: Vec<_> = (0..200_u64)
        .zip(lengths.into_iter().cycle())
        .map(|(key, length)| {
            std::thread::spawn(move || stream::exchange(&mut connect(address), (key, length)))
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    proxy.wait_for_sessions(0);
    assert_eq!(backends[0].accepted() + backends[1].accepted(), 200);
}

fn send_urgent(stream: &TcpStream, byte: u8) {
    assert_eq!(send(stream.as_fd(), &[byte], SendFlags::OOB).unwrap(), 1);
}

// If this fails, an urgent byte in the middle of a stream (telnet, FTP abort) stalls or loses it.
#[test]
fn urgent_bytes_stay_in_the_stream() {
    let backend = Backend::echo();
    for splice in ["auto", "never", "always"] {
        let proxy = Setup::of(&[&backend]).global(&format!("splice = \"{splice}\"")).start();
        let mut client = connect(proxy.address());
        let mut wanted = Vec::new();
        for turn in 0..20_u64 {
            let piece = stream::bytes(turn, 3000);
            client.write_all(&piece).unwrap();
            send_urgent(&client, b'!');
            wanted.extend(piece);
            wanted.push(b'!');
            let mut answer = vec![0; 3001];
            client.read_exact(&mut answer).unwrap();
            assert!(answer == wanted[wanted.len() - 3001..], "turn {turn}, splice {splice}");
        }
        client.shutdown(Shutdown::Write).unwrap();
        assert!(read_all(&mut client).unwrap().is_empty());
    }
}

// If this fails, an urgent byte is lost when it comes with the connection.
#[test]
fn an_urgent_first_byte_is_not_lost() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend]).start();
    for turn in 0..50 {
        let mut client = connect(proxy.address());
        send_urgent(&client, b'!');
        client.write_all(b"after").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&mut client).unwrap(), b"!after", "turn {turn}");
    }
}

// If this fails, urgent bytes of the backend stall or lose what it sends.
#[test]
fn urgent_bytes_of_the_backend_stay_in_the_stream() {
    let backend = Backend::serving(|mut stream, _| {
        send_urgent(&stream, b'#');
        for turn in 0..20 {
            stream.write_all(&stream::bytes(turn, 3000))?;
            send_urgent(&stream, b'!');
        }
        stream.shutdown(Shutdown::Write)
    });
    let mut wanted = vec![b'#'];
    for turn in 0..20 {
        wanted.extend(stream::bytes(turn, 3000));
        wanted.push(b'!');
    }
    for splice in ["auto", "always"] {
        let proxy = Setup::of(&[&backend]).global(&format!("splice = \"{splice}\"")).start();
        for turn in 0..20 {
            let mut client = connect(proxy.address());
            assert!(read_all(&mut client).unwrap() == wanted, "turn {turn}, splice {splice}");
        }
    }
}

// If this fails, IPv6 clients cannot connect, or are logged with another address.
#[test]
fn an_ipv6_client_is_served() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend]).listener("bind = [\"[::1]:0\"]").start();
    assert!(proxy.address().is_ipv6());
    stream::exchange(&mut connect(proxy.address()), (1, 100_000));
    let line = &proxy.wait_for_session_lines(1)[0];
    assert!(line["client"].as_str().unwrap().starts_with("[::1]:"), "{line}");
}

// If this fails, only some addresses of a listener accept.
#[test]
fn a_listener_accepts_on_all_its_addresses() {
    let backend = Backend::named("one");
    let bind = "bind = [\"127.0.0.1:0\", \"127.0.0.2:0\", \"[::1]:0\"]";
    let proxy = Setup::of(&[&backend]).global("workers = 2").listener(bind).start();
    assert_eq!(proxy.addresses().len(), 3);
    for address in proxy.addresses() {
        let mut client = connect(*address);
        assert_eq!(read_line(&mut client).unwrap(), "one");
    }
    assert_eq!(proxy.status().listeners["front"].accepted, 3);
}
