//! Ends that evenkeel decides: no peer takes what it has for the whole, what was on its way to it
//! arrives first, and a slow peer is not a silent one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{Domain, Socket, Type};
use support::stream::{self, is_reset};
use support::{Backend, PATIENCE, Proxy, Setup, connect, eventually, within};

/// How a server saw an upload end: its bytes, and the error if it did not end cleanly.
type Upload = (u64, io::Result<()>);

/// Takes an upload of stream 1 to its end, as an FTP server does, and tells how it ended.
fn uploads() -> (Backend, Receiver<Upload>) {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let backend = Backend::serving(move |mut stream, _| {
        let seen = stream::receive(&mut stream, 1);
        let _test_is_over = tell.lock().send(seen);
        Ok(())
    });
    (backend, told)
}

fn closed(proxy: &Proxy, reason: &str) {
    proxy.wait_for_metric("evenkeel_sessions_closed_total", &[("reason", reason)], 1.0);
}

/// A client whose kernel takes little more than its program reads.
fn narrow(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Lets time pass.
fn pass(time: Duration) {
    let _never = within(time, || None::<()>);
}

// If this fails, a server calls an upload complete that evenkeel has cut for silence.
#[test]
fn a_cut_upload_is_not_complete() {
    let (backend, told) = uploads();
    let proxy = Setup::of(&[&backend]).listener("idle_timeout = \"200ms\"").start();
    let mut client = connect(proxy.address());
    client.write_all(&stream::bytes(1, 10_000)).unwrap();
    let (received, end) = told.recv_timeout(PATIENCE).unwrap();
    assert!(is_reset(&end), "{end:?}");
    assert_eq!(received, 10_000);
    let (_, end) = stream::receive(&mut client, 2);
    assert!(is_reset(&end), "the client takes its upload for complete: {end:?}");
    closed(&proxy, "idle_timeout");
}

// If this fails, a client calls a download complete that evenkeel has cut for silence: where the
// body ends with the connection nothing else would tell.
#[test]
fn a_cut_download_is_not_complete() {
    let held = Mutex::new(Vec::new());
    let backend = Backend::serving(move |mut stream, _| {
        stream.read_exact(&mut [0])?;
        held.lock().push(stream.try_clone()?);
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nthe first half")?;
        io::copy(&mut stream, &mut io::sink()).map(drop)
    });
    let proxy = Setup::of(&[&backend])
        .listener("idle_timeout = \"200ms\"\nhalf_closed_timeout = \"200ms\"")
        .start();
    for (reason, finishes) in [("idle_timeout", false), ("half_closed_timeout", true)] {
        let mut client = connect(proxy.address());
        client.write_all(b"?").unwrap();
        if finishes {
            client.shutdown(Shutdown::Write).unwrap();
        }
        let mut body = Vec::new();
        let end = client.read_to_end(&mut body).map(drop);
        assert!(is_reset(&end), "{reason}: {end:?}");
        assert!(body.ends_with(b"the first half"));
        closed(&proxy, reason);
    }
}

// If this fails, an operator of quiet pools gets resets instead of the FIN that was asked for.
#[test]
fn a_quiet_session_may_end_with_fin() {
    let (backend, told) = uploads();
    let listener = "idle_timeout = \"200ms\"\non_idle = \"close\"";
    let proxy = Setup::of(&[&backend]).listener(listener).start();
    let mut client = connect(proxy.address());
    client.write_all(&stream::bytes(1, 10_000)).unwrap();
    let (received, end) = told.recv_timeout(PATIENCE).unwrap();
    end.unwrap();
    assert_eq!(received, 10_000);
    let (_, end) = stream::receive(&mut client, 2);
    end.unwrap();
    closed(&proxy, "idle_timeout");
}

// If this fails, a peer that has everything and the other side's FIN is told that it was cut off.
#[test]
fn a_complete_stream_is_not_reset() {
    let (backend, told) = uploads();
    let proxy = Setup::of(&[&backend]).listener("half_closed_timeout = \"200ms\"").start();
    let mut client = connect(proxy.address());
    client.write_all(&stream::bytes(1, 10_000)).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let (received, end) = told.recv_timeout(PATIENCE).unwrap();
    end.unwrap();
    assert_eq!(received, 10_000);
}

// If this fails, a client that reads all the time, but slowly, is taken for a silent one: all it
// waits for is in the kernel's send buffer, and the session itself moves nothing.
#[test]
fn slow_is_not_silent() {
    const LENGTH: usize = 600_000;
    let backend = Backend::serving(|mut stream, _| {
        stream::send(&mut stream, 3, LENGTH as u64)?;
        stream.shutdown(Shutdown::Write)?;
        io::copy(&mut stream, &mut io::sink()).map(drop)
    });
    let timeouts = "idle_timeout = \"700ms\"\nhalf_closed_timeout = \"700ms\"";
    let proxy = Setup::of(&[&backend]).listener(timeouts).start();
    let mut client = narrow(proxy.address());
    let (mut received, mut piece) = (0, vec![0; 8 * 1024]);
    let whole = stream::bytes(3, LENGTH);
    loop {
        let count = client.read(&mut piece).unwrap();
        if count == 0 {
            break;
        }
        assert!(piece[..count] == whole[received..received + count]);
        received += count;
        pass(Duration::from_millis(20));
    }
    assert_eq!(received, LENGTH);
    client.shutdown(Shutdown::Write).unwrap();
    closed(&proxy, "done");
}

// If this fails, a client that reads nothing is held for ever, or is told of a clean end.
#[test]
fn a_client_that_never_reads_is_cut() {
    let backend = Backend::serving(|mut stream, _| {
        stream::send(&mut stream, 4, 300_000)?;
        io::copy(&mut stream, &mut io::sink()).map(drop)
    });
    let timeouts = "idle_timeout = \"200ms\"\nhalf_closed_timeout = \"200ms\"";
    let proxy = Setup::of(&[&backend]).listener(timeouts).start();
    let mut client = narrow(proxy.address());
    proxy.wait_for_sessions(1);
    closed(&proxy, "idle_timeout");
    let (received, end) = stream::receive(&mut client, 4);
    assert!(is_reset(&end) && received < 300_000, "{received} bytes, {end:?}");
}

// If this fails, the reset of an end throws away what the backend had sent and the kernel held.
#[test]
fn what_the_kernel_holds_is_delivered_before_a_reset() {
    const LENGTH: u64 = 300_000;
    let backend = Backend::serving(|mut stream, _| {
        stream::send(&mut stream, 5, LENGTH)?;
        io::copy(&mut stream, &mut io::sink()).map(drop)
    });
    let proxy = Setup::of(&[&backend]).listener("max_lifetime = \"300ms\"").start();
    let mut client = narrow(proxy.address());
    let direction = [("direction", "to_client")];
    eventually("all is in the kernel", PATIENCE, || {
        (proxy.metric("evenkeel_bytes_total", &direction) > 299_999.0).then_some(())
    });
    pass(Duration::from_secs(1));
    let (received, end) = stream::receive(&mut client, 5);
    assert!(is_reset(&end), "{end:?}");
    assert_eq!(received, LENGTH);
    closed(&proxy, "max_lifetime");
}
