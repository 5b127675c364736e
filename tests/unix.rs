//! Unix sockets on either side: their files, their bytes and their ends.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::fs;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, send, sendmsg};
use rustix::process::Signal;
use support::stream::{self, exchange, is_reset};
use support::unix::{UnixBackend, connect_unix, line_of, try_connect_unix, visit_unix};
use support::{Backend, PATIENCE, Proxy, connect, eventually};
use tempfile::TempDir;

/// A directory of its own, with names for sockets in it.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn address(&self, name: &str) -> String {
        format!("unix:{}", self.path(name).display())
    }
}

fn config(binds: &[&str], backend: &str, also: &str) -> String {
    format!(
        "[global]\nworkers = 1\n[listener.front]\nbind = {binds:?}\npool = \"back\"\n\
         [pool.back]\nbackends = [{{ address = \"{backend}\", name = \"b1\" }}]\n{also}"
    )
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

// If this fails, bytes are lost, repeated or reordered between Unix sockets and TCP, on one of the
// ways they can take.
#[test]
fn every_byte_passes_between_all_kinds_of_sockets() {
    for splice in ["never", "auto", "always"] {
        let place = Place::new();
        let _echo = UnixBackend::echo(&place.path("b.sock"));
        let tcp = Backend::echo();
        for backend in [place.address("b.sock"), tcp.address().to_string()] {
            let front = place.address("front.sock");
            let text = config(&["127.0.0.1:0", &front], &backend, "");
            let text = text.replace("workers = 1", &format!("workers = 1\nsplice = \"{splice}\""));
            let proxy = Proxy::start(&text);
            for (key, length) in (1..).zip([0, 1, 70_000, 5_000_000]) {
                exchange(&mut connect_unix(&place.path("front.sock")), (key, length));
                exchange(&mut connect(proxy.address()), (key + 10, length));
            }
            let labels = [("reason", "done")];
            proxy.wait_for_metric("evenkeel_sessions_closed_total", &labels, 8.0);
            if splice == "always" {
                let labels = [("path", "splice"), ("direction", "to_backend")];
                assert!(proxy.metric("evenkeel_bytes_total", &labels) > 5e6, "nothing was spliced");
            }
        }
    }
}

// If this fails, a slow reader on a Unix socket loses bytes, or its session never ends.
#[test]
fn a_slow_reader_gets_everything_and_then_the_end() {
    let place = Place::new();
    let (tell, told) = mpsc::channel();
    let _backend = UnixBackend::serving(&place.path("b.sock"), move |mut stream| {
        stream::send(&mut stream, 7, 3_000_000)?;
        let _test_is_over = tell.send(());
        // Closed, not only half: there is nothing left to wait for.
        Ok(())
    });
    let front = place.address("front.sock");
    let proxy = Proxy::start(&config(&[&front], &place.address("b.sock"), ""));
    let mut client = connect_unix(&place.path("front.sock"));
    // The first bytes only, until the server has had all taken off its hands.
    let (first, _) = stream::receive_up_to(&mut client, 7, 1);
    assert_eq!(first, 1);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(rest.len(), 2_999_999);
    assert!(rest == stream::bytes(7, 3_000_000)[1..], "other bytes than were sent");
    drop(client);
    proxy.wait_for_sessions(0);
}

// If this fails, a client that says "that was all" loses the answer, or one whose server has
// finished cannot go on sending.
#[test]
fn either_side_may_finish_first() {
    let place = Place::new();
    let (tell, told) = mpsc::channel();
    let _backend = UnixBackend::serving(&place.path("b.sock"), move |mut stream| {
        stream.write_all(b"go ahead")?;
        stream.shutdown(Shutdown::Write)?;
        let _test_is_over = tell.send(stream::receive(&mut stream, 3).0);
        Ok(())
    });
    let front = place.address("front.sock");
    let proxy = Proxy::start(&config(&[&front], &place.address("b.sock"), ""));
    let mut client = connect_unix(&place.path("front.sock"));
    let mut said = Vec::new();
    client.read_to_end(&mut said).unwrap();
    assert_eq!(said, b"go ahead");
    stream::send(&mut client, 3, 400_000).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(told.recv_timeout(PATIENCE), Ok(400_000));
    proxy.wait_for_metric("evenkeel_sessions_closed_total", &[("reason", "done")], 1.0);
}

// If this fails, what a client passes along with descriptors is cut off behind them, or every such
// client costs the process a descriptor.
#[test]
fn bytes_behind_passed_descriptors_arrive() {
    let place = Place::new();
    let _echo = UnixBackend::echo(&place.path("b.sock"));
    let front = place.address("front.sock");
    let proxy = Proxy::start(&config(&[&front], &place.address("b.sock"), ""));
    exchange(&mut connect_unix(&place.path("front.sock")), (1, 10));
    proxy.wait_for_sessions(0);
    let before = proxy.descriptors();
    for early in [true, false] {
        let mut client = connect_unix(&place.path("front.sock"));
        if !early {
            client.write_all(b"hello ").unwrap();
            client.read_exact(&mut [0; 6]).unwrap();
        }
        for word in [b"one ", b"two "] {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let passed = [client.as_fd()];
            assert!(control.push(SendAncillaryMessage::ScmRights(&passed)));
            sendmsg(&client, &[IoSlice::new(word)], &mut control, SendFlags::empty()).unwrap();
        }
        client.write_all(b"three").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut got = String::new();
        client.read_to_string(&mut got).unwrap();
        assert_eq!(got, "one two three");
    }
    proxy.wait_for_sessions(0);
    eventually("no descriptor stays", PATIENCE, || (proxy.descriptors() <= before).then_some(()));
}

// If this fails, an urgent byte on a Unix socket is lost, or what comes behind it.
#[test]
fn urgent_bytes_stay_in_the_stream() {
    let place = Place::new();
    let _echo = UnixBackend::echo(&place.path("b.sock"));
    let front = place.address("front.sock");
    let _proxy = Proxy::start(&config(&[&front], &place.address("b.sock"), ""));
    let mut client = connect_unix(&place.path("front.sock"));
    client.write_all(b"before ").unwrap();
    match send(&client, b"!", SendFlags::OOB) {
        // A kernel before 5.15, or built without.
        Err(rustix::io::Errno::OPNOTSUPP) => client.write_all(b"!").unwrap(),
        sent => assert_eq!(sent, Ok(1)),
    }
    client.write_all(b" after").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut got = String::new();
    client.read_to_string(&mut got).unwrap();
    assert_eq!(got, "before ! after");
}

// If this fails, a broken answer looks complete to a client over TCP.
#[test]
fn a_reset_by_a_unix_socket_is_passed_on_to_tcp() {
    let place = Place::new();
    // Closed with something unread.
    let _backend = UnixBackend::serving(&place.path("b.sock"), |mut stream| {
        stream.read_exact(&mut [0])?;
        stream.write_all(b"half")
    });
    let proxy = Proxy::start(&config(&["127.0.0.1:0"], &place.address("b.sock"), ""));
    let mut client = connect(proxy.address());
    client.write_all(b"question").unwrap();
    let mut got = Vec::new();
    let end = client.read_to_end(&mut got).map(|_| ());
    assert_eq!(got, b"half");
    assert!(is_reset(&end), "{end:?}");
    proxy.wait_for_metric("evenkeel_sessions_closed_total", &[("reason", "backend_reset")], 1.0);
}

// If this fails, a session whose TCP side was reset stays, or is logged as a good one.
#[test]
fn a_reset_by_tcp_ends_the_unix_side() {
    let place = Place::new();
    let backend = Backend::resetting();
    let front = place.address("front.sock");
    let proxy = Proxy::start(&config(&[&front], &backend.address().to_string(), ""));
    let mut client = connect_unix(&place.path("front.sock"));
    client.write_all(b"x").unwrap();
    // A Unix socket has no reset: the end comes, as one or the other.
    let end = client.read(&mut [0; 8]);
    let is_end = matches!(&end, Ok(0))
        || end.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
    assert!(is_end, "{end:?}");
    let line = proxy.wait_for_session_lines(1).remove(0);
    assert_eq!((&line["term"], &line["client"]), (&"SD".into(), &"unix".into()), "{line}");
}

// If this fails, clients of other users cannot connect, or a file is left behind.
#[test]
fn the_file_is_for_everybody_and_goes_with_the_process() {
    let place = Place::new();
    let backend = Backend::named("one");
    let front = place.address("front.sock");
    let mut proxy = Proxy::start(&config(&[&front], &backend.address().to_string(), ""));
    let path = place.path("front.sock");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
    let said = proxy.status();
    assert_eq!(said.listeners["front"].addresses, [front]);
    let mut client = connect_unix(&path);
    assert_eq!(line_of(&mut client).unwrap(), "one");
    proxy.signal(Signal::TERM);
    eventually("no file", PATIENCE, || (!path.exists()).then_some(()));
    // Connected clients are still served.
    client.write_all(b"still here\n").unwrap();
    assert_eq!(line_of(&mut client).unwrap(), "still here");
    drop(client);
    assert!(proxy.wait_for_exit().success(), "{}", proxy.said());
}

// If this fails, a crash prevents the next start, or a start takes another process's clients.
#[test]
fn a_stale_file_is_replaced_and_one_in_use_is_not() {
    let place = Place::new();
    let (path, front) = (place.path("front.sock"), place.address("front.sock"));
    let backend = Backend::named("one");
    let text = config(&[&front], &backend.address().to_string(), "");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "stale");
    let proxy = Proxy::start(&text);
    assert_eq!(visit_unix(&path), "one");
    let before = inode(&path);
    let (status, said) = Proxy::refused(&text);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("another process answers there") && said.contains("ss -xlp"), "{said}");
    assert_eq!(inode(&path), before);
    assert_eq!(visit_unix(&path), "one");
    // Killed: the file stays, and is stale.
    drop(proxy);
    assert!(path.exists());
    assert_eq!(visit_unix_of_new(&text, &path), "one");
}

fn visit_unix_of_new(text: &str, path: &Path) -> String {
    let _proxy = Proxy::start(text);
    visit_unix(path)
}

// If this fails, a typo deletes an operator's file, or the message does not say what to do.
#[test]
fn what_cannot_be_listened_on_is_named() {
    let place = Place::new();
    fs::write(place.path("notes.txt"), "mine").unwrap();
    let _datagrams = UnixDatagram::bind(place.path("log.sock")).unwrap();
    for (name, words) in [
        ("notes.txt", "a file is there, no socket"),
        ("log.sock", "another process answers there"),
        ("no/such/directory.sock", "No such file or directory"),
    ] {
        let (status, said) = Proxy::refused(&config(&[&place.address(name)], "127.0.0.1:1", ""));
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains(words) && said.contains("help:"), "{said}");
    }
    assert_eq!(fs::read_to_string(place.path("notes.txt")).unwrap(), "mine");
}

// If this fails, a stop takes away the socket of the process that has taken over.
#[test]
fn a_file_that_is_not_ours_any_more_stays() {
    let place = Place::new();
    let (path, front) = (place.path("front.sock"), place.address("front.sock"));
    let text = config(&[&front], "127.0.0.1:1", "");
    let mut proxy = Proxy::start(&text);
    fs::rename(&path, place.path("old.sock")).unwrap();
    let _theirs = UnixListener::bind(&path).unwrap();
    proxy.reload_with(&text);
    proxy.wait_for_line("has been removed or replaced");
    assert!(proxy.stop().success());
    assert!(path.exists());
}

// If this fails, a reload loses clients of a Unix socket, or leaves one that is gone behind.
#[test]
fn a_reload_adds_keeps_and_removes_sockets() {
    let place = Place::new();
    let backend = Backend::named("one");
    let of = |names: &[&str], also: &str| {
        let binds: Vec<String> = names.iter().map(|name| place.address(name)).collect();
        let binds: Vec<&str> = binds.iter().map(String::as_str).collect();
        let text = config(&binds, &backend.address().to_string(), "");
        text.replace("workers = 1", "workers = 3").replace("pool =", &format!("{also}\npool ="))
    };
    let proxy = Proxy::start(&of(&["a.sock"], ""));
    let mut first = connect_unix(&place.path("a.sock"));
    assert_eq!(line_of(&mut first).unwrap(), "one");
    let before = inode(&place.path("a.sock"));
    proxy.reload_with(&of(&["a.sock", "b.sock"], "backlog = 100"));
    assert_eq!(inode(&place.path("a.sock")), before);
    for path in [place.path("a.sock"), place.path("b.sock")] {
        (0..20).for_each(|_| assert_eq!(visit_unix(&path), "one"));
    }
    proxy.reload_with(&of(&["b.sock"], ""));
    assert!(!place.path("a.sock").exists());
    first.write_all(b"still here\n").unwrap();
    assert_eq!(line_of(&mut first).unwrap(), "still here");
    // One that cannot be opened changes nothing, and what was opened beside it is gone.
    proxy.rewrite(&of(&["a.sock", "no/such.sock"], ""));
    assert_eq!(proxy.reload().status.code(), Some(1));
    assert!(!place.path("a.sock").exists() && place.path("b.sock").exists());
    proxy.reload_with(&of(&["a.sock", "b.sock"], ""));
    for path in [place.path("a.sock"), place.path("b.sock")] {
        (0..20).for_each(|_| assert_eq!(visit_unix(&path), "one"));
    }
}

// If this fails, connections of a Unix socket wait for a worker that does not look, or only one
// worker ever serves.
#[test]
fn all_workers_serve_one_socket() {
    let place = Place::new();
    let path = place.path("front.sock");
    let backend = UnixBackend::named(&place.path("b.sock"), "one");
    let text = config(&[&place.address("front.sock")], &place.address("b.sock"), "");
    let proxy = Proxy::start(&text.replace("workers = 1", "workers = 4"));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || {
                let mut open: Vec<UnixStream> = (0..50).map(|_| connect_unix(&path)).collect();
                open.iter_mut().for_each(|it| assert_eq!(line_of(it).unwrap(), "one"));
                open
            })
        })
        .collect();
    let open: Vec<_> = threads.into_iter().flat_map(|it| it.join().unwrap()).collect();
    assert_eq!((open.len(), backend.accepted()), (200, 200));
    let busy = proxy.status().workers.iter().filter(|worker| worker.sessions > 0).count();
    assert!(busy > 1, "one worker has all 200");
    drop(open);
    proxy.wait_for_sessions(0);
}

// If this fails, a stop drops clients that were connected and not yet accepted.
#[test]
fn a_stop_serves_who_has_connected() {
    let place = Place::new();
    let path = place.path("front.sock");
    let backend = Backend::named("one");
    let front = place.address("front.sock");
    let mut proxy = Proxy::start(&config(&[&front], &backend.address().to_string(), ""));
    assert_eq!(visit_unix(&path), "one");
    // No client can be accepted before the order to stop is there.
    proxy.signal(Signal::STOP);
    let mut waiting: Vec<_> = (0..20).map(|_| connect_unix(&path)).collect();
    proxy.signal(Signal::TERM);
    proxy.signal(Signal::CONT);
    for client in &mut waiting {
        assert_eq!(line_of(client).unwrap(), "one");
    }
    drop(waiting);
    assert!(proxy.wait_for_exit().success());
    assert!(try_connect_unix(&path).is_err_and(|error| error.kind() == ErrorKind::NotFound));
}

// If this fails, a refused client on a Unix socket never reads why.
#[test]
fn a_refusal_in_http_arrives() {
    let place = Place::new();
    let front = place.address("front.sock");
    // No process listens there.
    let text = config(&[&front], &place.address("none.sock"), "");
    let _proxy = Proxy::start(&text.replace("pool =", "protocol = \"http\"\npool ="));
    let mut client = connect_unix(&place.path("front.sock"));
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
}

// If this fails, options of TCP break a session with a Unix socket, or silence does not end it.
#[test]
fn idle_sessions_over_unix_sockets_end() {
    let place = Place::new();
    let _backend = UnixBackend::named(&place.path("b.sock"), "one");
    let text = config(&["127.0.0.1:0"], &place.address("b.sock"), "");
    let keys = "idle_timeout = \"100ms\"\nkeepalive = { idle = \"1s\" }\nuser_timeout = \"1s\"\n";
    let proxy = Proxy::start(&text.replace("pool =", &format!("{keys}pool =")));
    let mut client = connect(proxy.address());
    let mut said = [0; 4];
    client.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"one\n");
    // The backend has not said that this is all.
    let end = client.read(&mut said).unwrap_err();
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    proxy.wait_for_metric("evenkeel_sessions_closed_total", &[("reason", "idle_timeout")], 1.0);
}
