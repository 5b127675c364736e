//! Peers at the other end of a Unix socket: clients without an address, and servers that connect
//! or do not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};

use evenkeel::policy::first_bytes::proxy_header::parse;
use parking_lot::Mutex;
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};
use support::unix::{UnixBackend, connect_unix, line_of, visit_unix};
use support::verbs::{code, evenkeel, text};
use support::{Backend, PATIENCE, Proxy, connect, eventually, read_line, visit};
use tempfile::TempDir;

/// A directory with the socket of the listener, `front.sock`, and those of servers.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn front(&self) -> PathBuf {
        self.path("front.sock")
    }

    fn address(&self, name: &str) -> String {
        format!("unix:{}", self.path(name).display())
    }

    /// Listens on a port and on `front.sock`, in front of these servers.
    fn config(&self, listener: &str, pool: &str, backends: &[String]) -> String {
        let front = self.address("front.sock");
        let names = (1..).zip(backends);
        let backends: Vec<String> = names
            .map(|(number, address)| format!("{{ address = \"{address}\", name = \"b{number}\" }}"))
            .collect();
        format!(
            "[global]\nworkers = 1\n[pool.back]\nbackends = [{}]\n{pool}\n[listener.front]\n\
             bind = [\"127.0.0.1:0\", \"{front}\"]\npool = \"back\"\n{listener}\n",
            backends.join(", ")
        )
    }
}

fn one(backend: &Backend) -> [String; 1] {
    [backend.address().to_string()]
}

/// Waits for this many lines of the session log and returns one field of each.
#[track_caller]
fn logged(proxy: &Proxy, count: usize, field: &str) -> Vec<Value> {
    let lines = proxy.wait_for_session_lines(count);
    lines.into_iter().map(|line| line[field].clone()).collect()
}

// If this fails, a peer without an address passes a list of addresses, or is kept out by one that
// is about others.
#[test]
fn lists_of_networks_are_not_about_unix_sockets() {
    let place = Place::new();
    let backend = Backend::named("one");
    let every_address = "[\"0.0.0.0/0\", \"::/0\"]";
    let proxy =
        Proxy::start(&place.config(&format!("allow = {every_address}"), "", &one(&backend)));
    assert_eq!((visit(proxy.address()), visit_unix(&place.front())), ("one".into(), "".into()));
    let labels = [("reason", "access")];
    proxy.wait_for_metric("evenkeel_listener_refused_total", &labels, 1.0);
    assert_eq!(logged(&proxy, 2, "client").iter().filter(|it| **it == "unix").count(), 1);
    let deny = format!("deny = {every_address}\nkernel_refusal = \"off\"");
    proxy.reload_with(&place.config(&deny, "", &one(&backend)));
    assert_eq!((visit(proxy.address()), visit_unix(&place.front())), ("".into(), "one".into()));
}

// If this fails, peers on Unix sockets escape a limit, or use up that of another client.
#[test]
fn peers_on_unix_sockets_are_one_client() {
    let place = Place::new();
    let backend = Backend::named("one");
    let limit = "[listener.front.limit]\nmax_concurrent = 2\naction = \"close\"\n\
                 exempt = [\"0.0.0.0/0\", \"::/0\"]";
    let proxy = Proxy::start(&place.config(limit, "", &one(&backend)));
    let mut open = [connect_unix(&place.front()), connect_unix(&place.front())];
    open.iter_mut().for_each(|it| assert_eq!(line_of(it).unwrap(), "one"));
    assert_eq!(visit_unix(&place.front()), "");
    let mut exempt: Vec<_> = (0..3).map(|_| connect(proxy.address())).collect();
    exempt.iter_mut().for_each(|it| assert_eq!(read_line(it).unwrap(), "one"));
    drop(open);
    eventually("there is room again", PATIENCE, || {
        (visit_unix(&place.front()) == "one").then_some(())
    });
}

// If this fails, an operator who tries a limit out is not told which clients would be refused.
#[test]
fn peers_on_unix_sockets_are_named_as_offenders() {
    let place = Place::new();
    let backend = Backend::named("one");
    let limit = "[listener.front.limit]\nrate = \"1/h\"\nmode = \"observe\"";
    let proxy = Proxy::start(&place.config(limit, "", &one(&backend)));
    (0..3).for_each(|_| assert_eq!(visit_unix(&place.front()), "one"));
    let offenders = eventually("it is named", PATIENCE, || {
        let found = proxy.status().listeners["front"].offenders.clone();
        (found.first()?.would_refuse == 2).then_some(found)
    });
    assert_eq!((offenders.len(), offenders[0].client.as_str()), (1, "unix"));
}

// If this fails, one node sends peers on Unix sockets here and another there, or a pool that takes
// turns does not.
#[test]
fn a_hash_of_no_address_is_always_the_same() {
    let place = Place::new();
    let servers = ["one", "two", "three"].map(Backend::named);
    let backends = servers.each_ref().map(|backend| backend.address().to_string());
    for (key, port) in [("client-ip", "balance = \"maglev\""), ("client-ip-port", "")] {
        let pool = format!("hash_key = \"{key}\"\n{port}");
        let proxy = Proxy::start(&place.config("", &pool, &backends));
        let names: BTreeSet<String> = (0..12).map(|_| visit_unix(&place.front())).collect();
        assert_eq!(names.len(), 1, "{key}: {names:?}");
        proxy.reload_with(&place.config("", "balance = \"round-robin\"", &backends));
        let names: BTreeSet<String> = (0..3).map(|_| visit_unix(&place.front())).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        proxy.reload_with(&place.config("", "balance = \"round-robin\"\nsticky = {}", &backends));
        let names: BTreeSet<String> = (0..6).map(|_| visit_unix(&place.front())).collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }
}

// If this fails, a peer on a Unix socket is sent where only some networks belong.
#[test]
fn routes_of_networks_are_not_for_unix_sockets() {
    let place = Place::new();
    let (near, far) = (Backend::named("near"), Backend::named("far"));
    let also = format!(
        "[[listener.front.route]]\nclient = [\"0.0.0.0/0\", \"::/0\"]\npool = \"near\"\n\
         [pool.near]\nbackends = [\"{}\"]",
        near.address()
    );
    let proxy = Proxy::start(&place.config(&also, "", &one(&far)));
    assert_eq!(visit(proxy.address()), "near");
    assert_eq!(visit_unix(&place.front()), "far");
}

/// Sends a PROXY header over the Unix socket; what comes back, if it is served.
fn claiming(place: &Place, header: &str) -> String {
    let mut client = connect_unix(&place.front());
    // A peer that is turned away at once may be gone.
    let _turned_away = client.write_all(header.as_bytes());
    line_of(&mut client).unwrap_or_default()
}

// If this fails, a local proxy cannot name its client, or any local process can.
#[test]
fn a_header_names_the_client_of_a_unix_socket() {
    let place = Place::new();
    let backend = Backend::named("one");
    let claim = "PROXY TCP4 192.0.2.7 192.0.2.1 1234 80\r\n";
    let rule = "accept_proxy = { from = [\"unix:\"] }\ndeny = [\"198.51.100.0/24\"]";
    let proxy = Proxy::start(&place.config(rule, "", &one(&backend)));
    assert_eq!(claiming(&place, claim), "one");
    assert_eq!(claiming(&place, "PROXY UNKNOWN\r\n"), "one");
    assert_eq!(claiming(&place, &claim.replace("192.0.2.7", "198.51.100.7")), "");
    assert_eq!(claiming(&place, "no header\r\n"), "");
    let clients = logged(&proxy, 4, "client");
    for client in ["192.0.2.7:1234", "unix", "198.51.100.7:1234"] {
        assert!(clients.contains(&client.into()), "no {client} in {clients:?}");
    }
    assert_eq!(visit(proxy.address()), "", "over TCP no peer is trusted");

    let rule = "accept_proxy = { from = [\"127.0.0.0/8\"] }";
    proxy.reload_with(&place.config(rule, "", &one(&backend)));
    assert_eq!(claiming(&place, claim), "");
    let labels = [("reason", "proxy_header")];
    proxy.wait_for_metric("evenkeel_listener_refused_total", &labels, 3.0);
    let rule = "accept_proxy = { from = [\"127.0.0.0/8\"], others = \"direct\" }";
    proxy.reload_with(&place.config(rule, "", &one(&backend)));
    assert_eq!(visit_unix(&place.front()), "one");
}

/// A server on a Unix socket that tells the header each connection begins with.
fn expecting(place: &Place) -> (UnixBackend, Receiver<Vec<u8>>) {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let backend = UnixBackend::serving(&place.path("b.sock"), move |mut stream| {
        let (mut header, mut byte) = (Vec::new(), [0]);
        while matches!(parse(&header), Ok(None)) {
            stream.read_exact(&mut byte)?;
            header.extend(byte);
        }
        let _test_is_over = tell.lock().send(header);
        stream.write_all(b"one\n")
    });
    (backend, told)
}

// If this fails, a server behind a Unix socket is told a wrong client, or refuses the header.
#[test]
fn servers_are_told_that_a_client_has_no_address() {
    for version in ["v1", "v2"] {
        let place = Place::new();
        let (_backend, told) = expecting(&place);
        let pool = format!("send_proxy = \"{version}\"");
        let proxy = Proxy::start(&place.config("", &pool, &[place.address("b.sock")]));
        assert_eq!(visit_unix(&place.front()), "one");
        let header = told.recv_timeout(PATIENCE).unwrap();
        assert_eq!(parse(&header).unwrap().unwrap().ends, None);
        match version {
            "v1" => assert_eq!(header, b"PROXY UNKNOWN\r\n"),
            // Version 2, LOCAL; then the session's number.
            _ => assert_eq!((&header[12..14], header[16]), (&[0x20, 0x00][..], 0x05)),
        }
        let mut client = connect(proxy.address());
        let own = client.local_addr().unwrap();
        assert_eq!(read_line(&mut client).unwrap(), "one");
        let header = told.recv_timeout(PATIENCE).unwrap();
        assert_eq!(parse(&header).unwrap().unwrap().ends.unwrap().source, own);
    }
}

/// A socket that listens, has one in its queue, which is as many as there may be, and accepts none.
fn full(place: &Place, name: &str) -> (Socket, Vec<Socket>) {
    let address = SockAddr::unix(place.path(name)).unwrap();
    let listening = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    listening.bind(&address).unwrap();
    listening.listen(0).unwrap();
    let mut queued = Vec::new();
    loop {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        match socket.connect(&address) {
            Ok(()) => queued.push(socket),
            Err(_) => return (listening, queued),
        }
    }
}

// If this fails, a server whose socket is gone, dead or busy takes its clients with it, or the
// metrics and the log give a wrong reason.
#[test]
fn a_server_that_cannot_be_reached_is_passed_over() {
    let place = Place::new();
    let good = UnixBackend::named(&place.path("good.sock"), "one");
    drop(UnixListener::bind(place.path("dead.sock")).unwrap());
    let _full = full(&place, "full.sock");
    for (name, reason, words) in [
        ("none.sock", "no_socket", "no such socket"),
        ("dead.sock", "refused", "connect refused"),
        ("full.sock", "queue_full", "accept queue full"),
    ] {
        let pool = "balance = \"first\"";
        let backends = [place.address(name), place.address("good.sock")];
        let proxy = Proxy::start(&place.config("", pool, &backends));
        assert_eq!(visit_unix(&place.front()), "one");
        let labels = [("backend", "b1"), ("reason", reason)];
        assert!(proxy.metric("evenkeel_backend_connect_failures_total", &labels) > 0.5, "{reason}");
        proxy.reload_with(&place.config("", pool, &backends[..1]));
        assert_eq!(visit_unix(&place.front()), "");
        let reasons = logged(&proxy, 2, "reason");
        let has_words = |it: &Value| it.as_str().unwrap().contains(words);
        assert!(reasons.iter().any(has_words), "no \"{words}\" in {reasons:?}");
    }
    assert_eq!(good.accepted(), 3);
}

// If this fails, a dead server behind a Unix socket goes on getting clients, or one that comes back
// gets none.
#[test]
fn probes_ask_over_unix_sockets() {
    let place = Place::new();
    let health = "[pool.back.health]\ninterval = \"50ms\"\nfast_interval = \"20ms\"\nfall = 1\n\
                  rise = 1\ndown_backoff = \"50ms\"";
    let proxy = Proxy::start(&place.config("", health, &[place.address("b.sock")]));
    let line = proxy.wait_for_line("back/b1 down");
    assert!(line.contains("connect failed: no such socket"), "{line}");
    let backend = UnixBackend::named(&place.path("b.sock"), "one");
    proxy.wait_for_line("back/b1 up");
    assert_eq!(visit_unix(&place.front()), "one");
    drop(backend);
    eventually("it is down again", PATIENCE, || {
        let status = proxy.backend("back", "b1");
        (status.state == "down" && status.reason.contains("connect refused")).then_some(())
    });
}

// If this fails, an HTTP server behind a Unix socket refuses every probe.
#[test]
fn an_http_probe_over_a_unix_socket_has_a_host() {
    let place = Place::new();
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let _backend = UnixBackend::serving(&place.path("b.sock"), move |mut stream| {
        let request = request(&mut stream)?;
        let _test_is_over = tell.lock().send(request);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    });
    let health = "[pool.back.health]\nprobe = \"http\"\ninitial = \"down\"\nrise = 1\n\
                  interval = \"50ms\"";
    let proxy = Proxy::start(&place.config("", health, &[place.address("b.sock")]));
    let asked = told.recv_timeout(PATIENCE).unwrap().to_lowercase();
    assert!(asked.contains("\r\nhost: localhost\r\n"), "{asked}");
    proxy.wait_for_line("back/b1 up");
}

fn request(stream: &mut UnixStream) -> std::io::Result<String> {
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        request.push(char::from(byte[0]));
    }
    Ok(request)
}

// If this fails, an operator cannot drain a backend that is known by its path.
#[test]
fn verbs_take_a_path_as_the_name_of_a_backend() {
    let place = Place::new();
    let _backend = UnixBackend::named(&place.path("b.sock"), "one");
    let address = place.address("b.sock");
    let text_of = place.config("", "", std::slice::from_ref(&address));
    let plain = text_of.replace(", name = \"b1\"", "");
    let proxy = Proxy::start(&plain);
    assert_eq!(proxy.backend("back", &address).address, address);
    let socket = proxy.admin_socket().display().to_string();
    let output = evenkeel(&["drain", &format!("back/{address}"), "--socket", &socket]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert_eq!(proxy.backend("back", &address).state, "drain");
    assert_eq!(visit_unix(&place.front()), "");
    let shown = text(&evenkeel(&["status", "--socket", &socket]).stdout);
    assert!(shown.contains(&address) && shown.contains(&place.address("front.sock")), "{shown}");
    assert!(fs::exists(place.front()).unwrap());
}
