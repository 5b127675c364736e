//! Sessions in which nothing happens cost nothing, and a long run leaves nothing behind.
//!
//! `EVENKEEL_SOAK=SECONDS` makes the last test a soak; scripts/soak.sh does.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::actor::{Actor, Habit};
use crate::books::{Books, descriptors, load, resident_kib};
use crate::crowd::{Stage, play_all};
use crate::faulty_backends::fill_up;
use crate::net::{Keys, Link, Net, Side};
use crate::show;
use crate::support::{Proxy, reset_when_dropped, try_connect, within};

/// Sessions that rest at once.
const RESTING: usize = 1000;
/// How long they are watched.
const WATCHED: Duration = Duration::from_millis(1500);

fn sessions(net: &Net, proxy: &Proxy, count: usize) -> Vec<TcpStream> {
    net.on(Side::Client, || (0..count).map(|_| try_connect(proxy.address()).unwrap()).collect())
}

/// Watches sessions that were prepared to rest, then ends them all.
#[track_caller]
fn assert_rests(what: &str, proxy: &Proxy, books: &Books, clients: Vec<TcpStream>) {
    assert_quiet(what, proxy, clients);
    books.close(proxy);
}

/// Watches sessions that were prepared to rest, then resets them.
#[track_caller]
fn assert_quiet(what: &str, proxy: &Proxy, clients: Vec<TcpStream>) {
    let busy = load(proxy.pid(), WATCHED);
    show(
        &format!("{} sessions {what}, watched for {WATCHED:?}", clients.len()),
        "load < 2 % of a core; then everything given back",
        &format!("load {busy:.2} %"),
    );
    assert!(busy < 2.0, "{what}: {busy}");
    for client in &clients {
        reset_when_dropped(client);
    }
}

/// If it fails, sessions that have nothing to do take a core, or are not given back.
#[test]
fn idle_and_half_closed() {
    let net = Net::new(Link::PLAIN);
    let _backend = Actor::start(&net, net.backend(1), Habit::Listens);
    for splice in ["auto", "always"] {
        let global = format!("workers = 2\nsplice = \"{splice}\"");
        let proxy = net.evenkeel(&[1], Keys { global: &global, ..Keys::default() });
        let books = Books::open(&proxy);
        let clients = sessions(&net, &proxy, RESTING);
        proxy.wait_for_sessions(RESTING as u64);
        assert_rests(&format!("idle, splice {splice}"), &proxy, &books, clients);
    }
    // The stopped backend answers no FIN.
    let backend = Actor::start(&net, net.backend(2), Habit::Listens);
    let proxy = net.evenkeel(&[2], Keys { global: "workers = 2", ..Keys::default() });
    let books = Books::open(&proxy);
    let clients = sessions(&net, &proxy, RESTING);
    proxy.wait_for_sessions(RESTING as u64);
    backend.signal(Signal::STOP);
    for client in &clients {
        client.shutdown(Shutdown::Write).unwrap();
    }
    within(Duration::from_millis(300), || None::<()>);
    assert_rests("half-closed, their backend stopped", &proxy, &books, clients);
    backend.signal(Signal::CONT);
}

/// If it fails, sessions that are held up by a peer take a core, or are not given back.
#[test]
fn blocked() {
    let net = Net::new(Link::PLAIN);
    let backend = Actor::start(&net, net.backend(1), Habit::Echoes);
    let _pouring = Actor::start(&net, net.backend(2), Habit::Pours);
    for splice in ["never", "always"] {
        let global = format!("workers = 2\nsplice = \"{splice}\"");
        let proxy = net.evenkeel(&[1], Keys { global: &global, ..Keys::default() });
        let books = Books::open(&proxy);
        let mut clients = sessions(&net, &proxy, 60);
        proxy.wait_for_sessions(60);
        backend.signal(Signal::STOP);
        std::thread::scope(|scope| {
            for client in &mut clients {
                scope.spawn(|| fill_up(client, 1 << 30));
            }
        });
        assert_quiet(&format!("blocked by a backend, {splice}"), &proxy, clients);
        // A reset waits for what was read before it: faulty_ends.
        backend.signal(Signal::CONT);
        books.close(&proxy);
        drop(proxy);
        let proxy = net.evenkeel(&[2], Keys { global: &global, ..Keys::default() });
        let books = Books::open(&proxy);
        let mut clients = sessions(&net, &proxy, 60);
        for client in &mut clients {
            client.read_exact(&mut [0]).unwrap();
        }
        within(Duration::from_secs(1), || None::<()>);
        assert_rests(&format!("blocked by their clients, {splice}"), &proxy, &books, clients);
    }
}

/// If it fails, sessions whose backend does not answer take a core while they wait.
#[test]
fn connecting() {
    let net = Net::new(Link::PLAIN);
    let _backend = Actor::start(&net, net.backend(1), Habit::Echoes);
    net.drop_arriving(Side::Backend, "tcp flags & (syn|ack) == syn");
    let keys = Keys { global: "workers = 2", pool: "connect_timeout = \"2m\"", ..Keys::default() };
    let proxy = net.evenkeel(&[1], keys);
    let books = Books::open(&proxy);
    let mut clients = sessions(&net, &proxy, RESTING);
    for client in &mut clients {
        client.write_all(b"hello?").unwrap();
    }
    proxy.wait_for_sessions(RESTING as u64);
    assert_rests("waiting for a backend's handshake", &proxy, &books, clients);
}

/// If it fails, evenkeel loses bytes, or grows, when it runs for long.
#[test]
fn soak() {
    let given = std::env::var("EVENKEEL_SOAK").ok();
    let time = Duration::from_secs(given.map_or(2, |given| given.parse().unwrap()));
    let net = Net::new(Link::PLAIN);
    let stage = Stage::open(&net, net.backend(1));
    let global = "workers = 2\nlog = { sessions = 'none' }";
    let proxy = net.evenkeel(&[1], Keys { global, ..Keys::default() });
    let books = Books::open(&proxy);
    // What grows only once does so before the start is noted.
    let mut first = 1 << 40;
    let mut failures = play_all(&net, ("warm-up", proxy.address()), &stage, (first, 1000)).failures;
    let at_start = (descriptors(proxy.pid()), resident_kib(proxy.pid()));
    let (started, mut sessions) = (Instant::now(), 0);
    while started.elapsed() < time {
        first += 5000;
        let round = play_all(&net, ("soak", proxy.address()), &stage, (first, 5000));
        sessions += round.sessions;
        failures.extend(round.failures);
    }
    let elapsed = started.elapsed();
    books.close(&proxy);
    let at_end = (descriptors(proxy.pid()), resident_kib(proxy.pid()));
    let accepted = proxy.metric("evenkeel_listener_accepted_total", &[]);
    println!(
        "soak: {sessions} sessions in {elapsed:.0?}, {} failures, {accepted} accepted\n\
         soak: sockets {} at the start, {} at the end; other descriptors {} and {}\n\
         soak: resident {} KiB at the start, {} KiB at the end",
        failures.len(),
        at_start.0.0,
        at_end.0.0,
        at_start.0.1,
        at_end.0.1,
        at_start.1,
        at_end.1,
    );
    show(
        &format!("sessions of nine kinds for {time:?}"),
        "no failure, descriptors and memory as at the start",
        &format!("{sessions} sessions, {} failures", failures.len()),
    );
    assert!(failures.is_empty(), "{:#?}", failures.iter().take(10).collect::<Vec<_>>());
    assert!(at_end.1 <= at_start.1 + 4096, "memory grew");
}
