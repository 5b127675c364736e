//! Sockets that the administrator destroys (`ss -K`): the kernel resets the peer, and the owner
//! gets ECONNABORTED.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::actor::{Actor, Habit};
use crate::books::Books;
use crate::crowd::listen;
use crate::net::{Keys, Link, Net, Side};
use crate::show;
use crate::support::{PATIENCE, Proxy, try_connect, within};

/// Sessions of which a socket is destroyed.
const SESSIONS: usize = 20;

/// Destroys what this filter matches, of evenkeel's sockets; how many those were.
fn destroy(net: &Net, filter: &str) -> usize {
    let mut ss = net.command(Side::Evenkeel, "ss");
    let output = ss.args(["-KtnH", "state", "established", filter]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().count()
}

/// How a stream ends for its reader.
fn end(stream: &mut TcpStream) -> Result<usize, ErrorKind> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    std::io::copy(stream, &mut std::io::sink())
        .map(|count| usize::try_from(count).unwrap())
        .map_err(|error| error.kind())
}

fn closed(proxy: &Proxy, reason: &str) -> f64 {
    proxy.metric("evenkeel_sessions_closed_total", &[("reason", reason)])
}

/// Sessions without traffic: both peers must see a reset, at once, and the reason is counted.
#[track_caller]
fn idle(splice: &str, (what, filter, reason): (&str, &str, &str)) {
    let net = Net::new(Link::PLAIN);
    let listener = net.on(Side::Backend, || listen(net.backend(1), 64));
    let global = format!("splice = \"{splice}\"");
    let proxy = net.evenkeel(&[1], Keys { global: &global, ..Keys::default() });
    let books = Books::open(&proxy);
    let mut peers = Vec::new();
    for _ in 0..SESSIONS {
        let mut client = net.on(Side::Client, || try_connect(proxy.address()).unwrap());
        let mut backend = listener.accept().unwrap().0;
        // Something has gone each way.
        client.write_all(b"a").unwrap();
        backend.read_exact(&mut [0]).unwrap();
        backend.write_all(b"b").unwrap();
        client.read_exact(&mut [0]).unwrap();
        peers.extend([client, backend]);
    }
    proxy.wait_for_sessions(SESSIONS as u64);
    let destroyed = destroy(&net, filter);
    let start = Instant::now();
    let ends = peers.iter_mut().map(end);
    let reset = ends.filter(|end| *end == Err(ErrorKind::ConnectionReset)).count();
    let elapsed = start.elapsed();
    let counted = closed(&proxy, reason);
    show(
        &format!("{what} of {SESSIONS} idle sessions destroyed; splice {splice}"),
        "both peers reset at once, counted",
        &format!(
            "{destroyed} destroyed, {reset} peers reset within {elapsed:?}, {counted} {reason}"
        ),
    );
    assert_eq!((destroyed, reset), (SESSIONS, 2 * SESSIONS));
    assert!((counted - SESSIONS as f64).abs() < 0.5 && elapsed < Duration::from_secs(2));
    books.close(&proxy);
}

/// Downloads in full flow.
#[track_caller]
fn busy(splice: &str, (what, filter): (&str, &str)) {
    let net = Net::new(Link::PLAIN);
    let _backend = Actor::start(&net, net.backend(1), Habit::Pours);
    let global = format!("splice = \"{splice}\"");
    let proxy = net.evenkeel(&[1], Keys { global: &global, ..Keys::default() });
    let books = Books::open(&proxy);
    let mut clients: Vec<TcpStream> = net.on(Side::Client, || {
        (0..SESSIONS).map(|_| try_connect(proxy.address()).unwrap()).collect()
    });
    for client in &mut clients {
        client.read_exact(&mut vec![0; 100_000]).unwrap();
    }
    let destroyed = destroy(&net, filter);
    let start = Instant::now();
    let ends: Vec<_> = std::thread::scope(|scope| {
        let ends: Vec<_> = clients.iter_mut().map(|client| scope.spawn(|| end(client))).collect();
        ends.into_iter().map(|end| end.join().unwrap()).collect()
    });
    let reset = ends.iter().filter(|end| **end == Err(ErrorKind::ConnectionReset)).count();
    let left = within(PATIENCE, || (proxy.sessions() == 0).then_some(()));
    let elapsed = start.elapsed();
    show(
        &format!("{what} of {SESSIONS} downloads destroyed; splice {splice}"),
        "clients reset, none gets a clean end, sessions gone at once",
        &format!(
            "{destroyed} destroyed, {reset} clients reset, all gone within {elapsed:?}; {} \
             client_reset, {} backend_reset",
            closed(&proxy, "client_reset"),
            closed(&proxy, "backend_reset"),
        ),
    );
    assert_eq!((destroyed, reset), (SESSIONS, SESSIONS));
    assert!(left.is_some() && elapsed < Duration::from_secs(5));
    books.close(&proxy);
}

/// If it fails, a client that the administrator disconnects keeps a session, or its server is told
/// that the client has said all.
#[test]
fn the_clients_socket() {
    for splice in ["never", "always"] {
        idle(splice, ("evenkeel's sockets to the clients", "( sport = :7000 )", "client_reset"));
        busy(splice, ("evenkeel's sockets to the clients", "( sport = :7000 )"));
    }
}

/// If it fails, a server that the administrator cuts off keeps a session, or looks to the client
/// as if it had said all.
#[test]
fn the_backends_socket() {
    for splice in ["never", "always"] {
        idle(splice, ("evenkeel's sockets to the backend", "( dport = :8001 )", "backend_reset"));
        busy(splice, ("evenkeel's sockets to the backend", "( dport = :8001 )"));
    }
}
