//! Faults of backends: closed, silent, full, stopped, killed, unplugged.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::actor::{Actor, Habit, POURED};
use crate::books::{Books, load, resident_kib};
use crate::crowd::listen;
use crate::net::{Keys, Link, Net, Side};
use crate::show;
use crate::streams::stream;
use crate::support::{Proxy, eventually, try_connect, within};

const PATIENCE: Duration = Duration::from_secs(20);

/// One word there and back; how long it took.
fn echoes(net: &Net, proxy: &Proxy) -> std::io::Result<Duration> {
    net.on(Side::Client, || {
        let started = Instant::now();
        let mut client = try_connect(proxy.address())?;
        client.write_all(b"ahoy")?;
        client.shutdown(Shutdown::Write)?;
        let mut said = Vec::new();
        client.read_to_end(&mut said)?;
        assert_eq!(said, b"ahoy");
        Ok(started.elapsed())
    })
}

fn failures(proxy: &Proxy, backend: &str, reason: &str) -> f64 {
    let labels = [("backend", backend), ("reason", reason)];
    proxy.metric("evenkeel_backend_connect_failures_total", &labels)
}

/// Sends until nothing more goes; how much that was.
pub(crate) fn fill_up(client: &mut TcpStream, most: usize) -> usize {
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut sent = 0;
    while sent < most {
        let at = sent % (4 << 20);
        match client.write(&stream(1)[at..(at + 65536).min(4 << 20)]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("after {sent} bytes: {error}"),
        }
    }
    sent
}

/// Checks poured bytes from `offset` on; how far they came and how they ended.
pub(crate) fn drink(client: &mut TcpStream, mut offset: usize) -> (usize, std::io::Result<()>) {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let at = offset % (4 << 20);
        let room = buffer.len().min((4 << 20) - at);
        match client.read(&mut buffer[..room]) {
            Ok(0) => return (offset, Ok(())),
            Ok(count) => {
                assert!(buffer[..count] == stream(1)[at..at + count], "wrong bytes at {offset}");
                offset += count;
            }
            Err(error) => return (offset, Err(error)),
        }
    }
}

/// If it fails, one backend that refuses turns clients away.
#[test]
fn a_closed_port() {
    let net = Net::new(Link::PLAIN);
    let _other = Actor::start(&net, net.backend(2), Habit::Echoes);
    let proxy =
        net.evenkeel(&[1, 2], Keys { pool: "balance = \"round-robin\"", ..Keys::default() });
    let served = (0..20).filter(|_| echoes(&net, &proxy).is_ok()).count();
    let refused = failures(&proxy, "b1", "refused");
    show(
        "port of one of two backends closed",
        "20 of 20 clients served by the other",
        &format!("{served} served, {refused} refused attempts counted"),
    );
    assert!(served == 20 && refused >= 9.0);
}

/// If it fails, a backend behind a silent firewall holds clients for minutes.
#[test]
fn dropped_handshakes() {
    let net = Net::new(Link::PLAIN);
    let _deaf = Actor::start(&net, net.backend(1), Habit::Echoes);
    let _other = Actor::start(&net, net.backend(2), Habit::Echoes);
    net.drop_arriving(Side::Backend, "ip daddr 10.2.0.1 tcp flags & (syn|ack) == syn");
    let pool = "balance = \"round-robin\"\nconnect_timeout = \"300ms\"\n\
                [pool.back.health]\ninterval = \"200ms\"\nfast_interval = \"100ms\"\n\
                timeout = \"150ms\"\nfall = 3";
    let proxy = net.evenkeel(&[1, 2], Keys { pool, ..Keys::default() });
    let mut worst = Duration::ZERO;
    for _ in 0..4 {
        worst = worst.max(echoes(&net, &proxy).unwrap());
    }
    let timeouts = failures(&proxy, "b1", "timeout");
    proxy.wait_for_metric("evenkeel_backend_up", &[("backend", "b1")], 0.0);
    let after = echoes(&net, &proxy).unwrap();
    show(
        "SYN to one of two backends dropped, connect_timeout 300 ms",
        "clients wait one timeout at most, then the backend is down and no client waits",
        &format!("worst {worst:?}, {timeouts} timeouts, {after:?} once it was down"),
    );
    assert!(worst < Duration::from_millis(1500) && after < Duration::from_millis(250));
}

/// If it fails, a server that has stopped to accept looks healthy, and its clients hang.
#[test]
fn a_full_accept_queue() {
    let net = Net::new(Link::PLAIN);
    let address = net.backend(1);
    let full = net.on(Side::Backend, || {
        let listener = listen(address, 0);
        let client = TcpStream::connect(address).unwrap();
        (listener, client)
    });
    let _other = Actor::start(&net, net.backend(2), Habit::Echoes);
    let pool = "balance = \"round-robin\"\nconnect_timeout = \"300ms\"\n\
                [pool.back.health]\ninterval = \"200ms\"\nfast_interval = \"100ms\"\n\
                timeout = \"150ms\"\nfall = 2";
    let proxy = net.evenkeel(&[1, 2], Keys { pool, ..Keys::default() });
    let served = (0..4).filter(|_| echoes(&net, &proxy).is_ok()).count();
    let timeouts = failures(&proxy, "b1", "timeout");
    proxy.wait_for_metric("evenkeel_backend_up", &[("backend", "b1")], 0.0);
    show(
        "accept queue of one of two backends full",
        "connect timeout, another backend, marked down",
        &format!("{served} of 4 served, {timeouts} timeouts, down"),
    );
    assert_eq!(served, 4);
    drop(full);
}

/// If it fails, a backend that does not read costs memory without bound, or a core, or for ever.
#[test]
fn a_backend_that_never_reads() {
    let net = Net::new(Link::PLAIN);
    let backend = Actor::start(&net, net.backend(1), Habit::Echoes);
    let listener = "idle_timeout = \"4s\"";
    let proxy = net.evenkeel(&[1], Keys { listener, ..Keys::default() });
    let books = Books::open(&proxy);
    echoes(&net, &proxy).unwrap();
    backend.signal(Signal::STOP);
    let before = resident_kib(proxy.pid());
    let mut clients: Vec<TcpStream> =
        net.on(Side::Client, || (0..20).map(|_| try_connect(proxy.address()).unwrap()).collect());
    let sent: Vec<usize> = net.on(Side::Client, || {
        std::thread::scope(|scope| {
            let all: Vec<_> =
                clients.iter_mut().map(|client| scope.spawn(|| fill_up(client, 1 << 30))).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        })
    });
    let grown = resident_kib(proxy.pid()).saturating_sub(before);
    let busy = load(proxy.pid(), Duration::from_secs(1));
    let ended = clients.iter_mut().filter_map(|client| {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.read(&mut [0]).err().map(|error| error.kind())
    });
    let reset = ended.filter(|kind| *kind == ErrorKind::ConnectionReset).count();
    let most = sent.iter().max().unwrap() >> 10;
    show(
        "backend stopped (SIGSTOP), 20 clients send all they can, idle_timeout 4 s",
        "back-pressure, bounded memory, reset by the idle timer (bytes were lost)",
        &format!("{most} KiB taken at most, memory +{grown} KiB, load {busy:.1} %, {reset} reset"),
    );
    assert!(grown < 20 * 300 && busy < 2.0 && reset == 20);
    backend.signal(Signal::CONT);
    books.close(&proxy);
}

/// If it fails, bytes are lost when a backend pauses.
#[test]
fn a_backend_that_stops_and_goes_on() {
    let net = Net::new(Link::PLAIN);
    let backend = Actor::start(&net, net.backend(1), Habit::Counts);
    for splice in ["never", "always"] {
        let global = format!("splice = \"{splice}\"");
        let proxy = net.evenkeel(&[1], Keys { global: &global, ..Keys::default() });
        let mut client = net.on(Side::Client, || try_connect(proxy.address()).unwrap());
        client.write_all(b"x").unwrap();
        proxy.wait_for_metric("evenkeel_bytes_total", &[("direction", "to_backend")], 1.0);
        backend.signal(Signal::STOP);
        let sent = fill_up(&mut client, 1 << 30);
        backend.signal(Signal::CONT);
        client.set_write_timeout(Some(PATIENCE)).unwrap();
        client.write_all(&stream(1)[..1 << 20]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut said = String::new();
        client.read_to_string(&mut said).unwrap();
        let wanted = 1 + sent + (1 << 20);
        show(
            &format!("backend stopped until nothing moved, then continued; splice {splice}"),
            &format!("{wanted} bytes arrive"),
            &format!("{} bytes arrived", said.trim()),
        );
        assert_eq!(said.trim(), wanted.to_string());
    }
}

/// If it fails, clients of a crashed server wait, or take what they got for everything.
#[test]
fn a_backend_killed_in_mid_stream() {
    let net = Net::new(Link::PLAIN);
    let mut backend = Actor::start(&net, net.backend(1), Habit::Pours);
    let proxy = net.evenkeel(&[1], Keys::default());
    let books = Books::open(&proxy);
    let mut clients: Vec<TcpStream> =
        net.on(Side::Client, || (0..8).map(|_| try_connect(proxy.address()).unwrap()).collect());
    proxy.wait_for_sessions(8);
    for client in &mut clients {
        client.read_exact(&mut vec![0; 1 << 20]).unwrap();
    }
    // The kernel ends connections of a killed process with FIN, or with RST if bytes are unread.
    for client in &mut clients[..4] {
        client.write_all(b"unread").unwrap();
    }
    eventually("the backend has it", PATIENCE, || {
        let labels = [("direction", "to_backend")];
        (proxy.metric("evenkeel_bytes_total", &labels) > 23.5).then_some(())
    });
    backend.kill();
    let killed = Instant::now();
    let ends: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> =
            clients.iter_mut().map(|client| scope.spawn(|| drink(client, 1 << 20))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let elapsed = killed.elapsed();
    let resets = ends.iter().filter(|(_, end)| end.is_err()).count();
    let short = ends.iter().filter(|(count, _)| *count < POURED).count();
    show(
        "backend killed (SIGKILL) while it sends to 8 clients, 4 with bytes it has not read",
        "all end at once with right bytes, as the killed host's kernel ends them: 4 RST, 4 FIN",
        &format!("{resets} resets, {} ends within {elapsed:?}", 8 - resets),
    );
    assert!(resets == 4 && short == 8 && elapsed < Duration::from_secs(3), "{ends:?}");
    drop(clients);
    books.close(&proxy);
}

/// If it fails, a host that is gone keeps sessions, and their clients, for hours.
#[test]
fn a_backends_host_vanishes() {
    let net = Net::new(Link::PLAIN);
    let _backend = Actor::start(&net, net.backend(1), Habit::Pours);
    let listener = "user_timeout = \"2s\"\nidle_timeout = \"1h\"";
    let proxy = net.evenkeel(&[1], Keys { listener, ..Keys::default() });
    let books = Books::open(&proxy);
    let mut client = net.on(Side::Client, || try_connect(proxy.address()).unwrap());
    client.read_exact(&mut vec![0; 1 << 20]).unwrap();
    net.run(Side::Evenkeel, "ip", &["link", "set", "ek-down", "down"]);
    let gone = Instant::now();
    // Something to be acknowledged.
    client.write_all(b"are you there?").unwrap();
    let (_, end) = drink(&mut client, 1 << 20);
    let elapsed = gone.elapsed();
    show(
        "link to the backend down, user_timeout 2 s, client sends",
        "the session ends in the bound, with a reset",
        &format!("{end:?} after {elapsed:?}"),
    );
    assert!(end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
    assert!(elapsed < Duration::from_secs(6));
    assert_blamed(&proxy, "backend_timeout", ("sD", "backend did not answer"));
    drop(client);
    books.close(&proxy);
}

/// One session has ended, for this reason, in the metric and in the log.
#[track_caller]
fn assert_blamed(proxy: &Proxy, label: &str, (term, words): (&str, &str)) {
    proxy.wait_for_metric("evenkeel_sessions_closed_total", &[("reason", label)], 1.0);
    let lines = proxy.wait_for_session_lines(1);
    assert_eq!((&lines[0]["term"], &lines[0]["reason"]), (&term.into(), &words.into()));
}

/// If it fails, a backend that is gone without a word is said to have reset its sessions.
#[test]
fn a_backend_that_acknowledges_nothing_did_not_answer() {
    let net = Net::new(Link::PLAIN);
    let _backend = Actor::start(&net, net.backend(1), Habit::Listens);
    let listener = "user_timeout = \"1s\"\nidle_timeout = \"1h\"";
    let proxy = net.evenkeel(&[1], Keys { listener, ..Keys::default() });
    let books = Books::open(&proxy);
    let mut client = net.on(Side::Client, || try_connect(proxy.address()).unwrap());
    proxy.wait_for_sessions(1);
    net.drop_arriving(Side::Backend, "tcp dport 8001");
    client.write_all(b"are you there?").unwrap();
    let (_, end) = drink(&mut client, 1);
    show(
        "everything to the backend dropped, user_timeout 1 s, client sends",
        "reset; \"backend did not answer\"",
        &format!("{end:?}"),
    );
    assert!(end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
    assert_blamed(&proxy, "backend_timeout", ("sD", "backend did not answer"));
    drop(client);
    books.close(&proxy);
}

/// If it fails, a client that is gone keeps its session for `idle_timeout` while its backend sends:
/// the kernel sends no keepalive as long as bytes are unacknowledged.
#[test]
fn a_client_vanishes_in_a_download() {
    let net = Net::new(Link::PLAIN);
    let _backend = Actor::start(&net, net.backend(1), Habit::Pours);
    let listener = "idle_timeout = \"1h\"\n\
                    keepalive = { idle = \"1s\", interval = \"1s\", count = 2 }";
    let proxy = net.evenkeel(&[1], Keys { listener, ..Keys::default() });
    let mut client = net.on(Side::Client, || try_connect(proxy.address()).unwrap());
    client.read_exact(&mut vec![0; 1 << 20]).unwrap();
    net.drop_arriving(Side::Client, "tcp sport 7000");
    let gone = Instant::now();
    let ended = within(PATIENCE, || (proxy.sessions() == 0).then(|| gone.elapsed()));
    show(
        "everything to a client dropped in a download, keepalive 1 s, twice 1 s",
        "noticed after about 3 s",
        &format!("{ended:?}"),
    );
    assert!(ended.is_some_and(|elapsed| elapsed < Duration::from_secs(10)));
    assert_blamed(&proxy, "client_timeout", ("cD", "client did not answer"));
}

/// If it fails, a silent host that is gone is never noticed.
#[test]
fn keepalive_finds_a_host_that_is_gone() {
    let net = Net::new(Link::PLAIN);
    let _backend = Actor::start(&net, net.backend(1), Habit::Listens);
    let listener = "idle_timeout = \"1h\"\n\
                    keepalive = { idle = \"1s\", interval = \"1s\", count = 2 }";
    let proxy = net.evenkeel(&[1], Keys { listener, ..Keys::default() });
    let client = net.on(Side::Client, || try_connect(proxy.address()).unwrap());
    proxy.wait_for_sessions(1);
    net.drop_arriving(Side::Client, "tcp sport 7000");
    let gone = Instant::now();
    let ended = within(PATIENCE, || (proxy.sessions() == 0).then(|| gone.elapsed()));
    show(
        "everything to an idle client dropped, keepalive 1 s, twice 1 s",
        "noticed after about 3 s",
        &format!("{ended:?}"),
    );
    assert!(ended.is_some_and(|elapsed| elapsed < Duration::from_secs(8)));
    assert_blamed(&proxy, "client_timeout", ("cD", "client did not answer"));
    drop(client);
    eventually("the backend's side is closed too", PATIENCE, || {
        (proxy.metric("evenkeel_backend_sessions_active", &[]) < 0.5).then_some(())
    });
}
