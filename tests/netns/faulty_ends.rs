//! Ends of streams at bad moments: resets, crossing half-closes, peers that vanish in between.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::actor::{Actor, Habit};
use crate::books::Books;
use crate::crowd::listen;
use crate::faulty_backends::fill_up;
use crate::net::{Keys, Link, Net, Side};
use crate::show;
use crate::streams::stream;
use crate::support::{Proxy, eventually, reset_when_dropped, try_connect, within};

const PATIENCE: Duration = Duration::from_secs(20);
const MIB: usize = 1 << 20;

/// A client, and the backend's end of its session.
struct Both {
    client: TcpStream,
    backend: TcpStream,
}

impl Both {
    fn open(net: &Net, proxy: &Proxy, listener: &TcpListener) -> Self {
        let client = net.on(Side::Client, || try_connect(proxy.address()).unwrap());
        let backend = listener.accept().unwrap().0;
        for stream in [&client, &backend] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
        }
        Self { client, backend }
    }
}

/// Reads to the end: how much came, all of it right, and how it ended.
fn take(from: &mut TcpStream, wanted: &[u8]) -> (usize, Option<ErrorKind>) {
    let mut got = Vec::new();
    let end = from.read_to_end(&mut got).err().map(|error| error.kind());
    assert!(wanted.starts_with(&got), "wrong bytes");
    (got.len(), end)
}

/// Whether the peer's kernel has all that was sent on a socket.
fn is_flushed(net: &Net, side: Side, socket: &TcpStream) -> bool {
    let local = socket.local_addr().unwrap();
    let out = net.command(side, "ss").args(["-tnH", "src", &local.to_string()]).output();
    let table = String::from_utf8(out.unwrap().stdout).unwrap();
    table.split_whitespace().nth(2).is_none_or(|queued| queued == "0")
}

/// Waits until the peer's kernel has all that was sent on a socket.
fn flushed(net: &Net, side: Side, socket: &TcpStream) {
    eventually("all is acknowledged", PATIENCE, || is_flushed(net, side, socket).then_some(()));
}

fn all(act: impl Fn(&Net, &Proxy, &TcpListener, &str)) {
    for splice in ["never", "always"] {
        let net = Net::new(Link::PLAIN);
        let listener = net.on(Side::Backend, || listen(net.backend(1), 64));
        let global = format!("splice = \"{splice}\"");
        let proxy = net.evenkeel(
            &[1],
            Keys { global: &global, listener: "half_closed_timeout = \"2s\"", ..Keys::default() },
        );
        let books = Books::open(&proxy);
        act(&net, &proxy, &listener, splice);
        books.close(&proxy);
    }
}

/// If it fails, a reply is cut because the server hangs up on what the client still sends.
#[test]
fn a_reset_right_after_the_end() {
    all(|net, proxy, listener, splice| {
        let Both { mut client, mut backend } = Both::open(net, proxy, listener);
        client.write_all(&stream(2)[..64 * 1024]).unwrap();
        backend.read_exact(&mut [0; 1]).unwrap();
        let reply = &stream(1)[..MIB];
        let sender = std::thread::spawn(move || {
            backend.write_all(&stream(1)[..MIB]).unwrap();
            backend.shutdown(Shutdown::Write).unwrap();
            backend
        });
        let mut first = vec![0; MIB / 2];
        client.read_exact(&mut first).unwrap();
        let backend = sender.join().unwrap();
        // As much as possible shall still be on the way. What all buffers hold depends on how the
        // kernel has tuned them so far.
        let flushed = || is_flushed(net, Side::Backend, &backend).then_some(());
        while within(Duration::from_millis(500), flushed).is_none() {
            let read = first.len();
            assert!(read < MIB, "all is read, and not all acknowledged");
            first.resize(read + MIB / 16, 0);
            client.read_exact(&mut first[read..]).unwrap();
        }
        assert!(first == reply[..first.len()]);
        // With unread bytes: a reset.
        drop(backend);
        let (count, end) = take(&mut client, &reply[first.len()..]);
        let count = first.len() + count;
        show(
            &format!("backend: 1 MiB, FIN, then close with unread bytes (RST); splice {splice}"),
            "client: all and a clean end",
            &format!("{count} bytes, {end:?}"),
        );
        assert!(count == MIB && end.is_none());
    });
}

/// If it fails, what a server said before it broke off is lost, or looks complete.
#[test]
fn a_reset_at_a_byte() {
    all(|net, proxy, listener, splice| {
        for length in [0, 1, 1000, 65_537, MIB] {
            let Both { mut client, mut backend } = Both::open(net, proxy, listener);
            let reader = std::thread::spawn(move || take(&mut client, &stream(1)[..MIB]));
            backend.write_all(&stream(1)[..length]).unwrap();
            flushed(net, Side::Backend, &backend);
            reset_when_dropped(&backend);
            drop(backend);
            let (count, end) = reader.join().unwrap();
            show(
                &format!("backend resets after {length} bytes; splice {splice}"),
                "client: no more than those, then ECONNRESET",
                &format!("{count} bytes, {end:?}"),
            );
            assert!(count <= length && end == Some(ErrorKind::ConnectionReset));
        }
    });
}

/// If it fails, a client that says "that is all" gets only part of a long answer.
#[test]
fn a_long_reply_after_the_clients_end() {
    all(|net, proxy, listener, splice| {
        let Both { mut client, mut backend } = Both::open(net, proxy, listener);
        client.write_all(b"go").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let sender = std::thread::spawn(move || {
            assert_eq!(take(&mut backend, b"go"), (2, None));
            // Longer than a reader takes for dead, shorter than the half-closed timer.
            within(Duration::from_millis(1200), || None::<()>);
            for _ in 0..12 {
                backend.write_all(&stream(1)[..4 * MIB]).unwrap();
            }
        });
        let (mut count, mut buffer) = (0, vec![0; MIB]);
        while count < 48 * MIB {
            client.read_exact(&mut buffer).unwrap();
            assert!(buffer == stream(1)[count % (4 * MIB)..][..MIB], "at {count}");
            count += MIB;
        }
        let end = client.read(&mut [0]).unwrap();
        sender.join().unwrap();
        show(
            &format!("client: FIN; 1.2 s later the backend sends 48 MiB; splice {splice}"),
            "all of it and a clean end",
            &format!("{count} bytes, then {end} bytes"),
        );
        assert_eq!(end, 0);
    });
}

/// If it fails, a server that ends first cuts off an upload.
#[test]
fn an_upload_after_the_backends_end() {
    all(|net, proxy, listener, splice| {
        let Both { mut client, mut backend } = Both::open(net, proxy, listener);
        backend.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        let reader = std::thread::spawn(move || take(&mut backend, &stream(1)[..4 * MIB]));
        client.write_all(&stream(1)[..4 * MIB]).unwrap();
        drop(client);
        let (count, end) = reader.join().unwrap();
        show(
            &format!("backend: FIN; then the client sends 4 MiB; splice {splice}"),
            "all of it and a clean end",
            &format!("{count} bytes, {end:?}"),
        );
        assert!(count == 4 * MIB && end.is_none());
    });
}

/// If it fails, sessions whose ends cross stay behind in CLOSE_WAIT.
#[test]
fn ends_that_cross() {
    all(|net, proxy, listener, splice| {
        let mut clean = 0;
        for _ in 0..50 {
            let Both { mut client, mut backend } = Both::open(net, proxy, listener);
            let other = std::thread::spawn(move || {
                backend.shutdown(Shutdown::Write).unwrap();
                take(&mut backend, b"")
            });
            client.shutdown(Shutdown::Write).unwrap();
            let ends = [take(&mut client, b""), other.join().unwrap()];
            clean += usize::from(ends == [(0, None), (0, None)]);
        }
        let left = eventually("no socket is left", PATIENCE, || {
            let mut ss = net.command(Side::Evenkeel, "ss");
            ss.args(["-tnH", "state", "close-wait"])
                .output()
                .unwrap()
                .stdout
                .is_empty()
                .then_some(0)
        });
        show(
            &format!("both send FIN at once, 50 times; splice {splice}"),
            "clean ends on both sides, no CLOSE_WAIT",
            &format!("{clean} clean, {left} in CLOSE_WAIT"),
        );
        assert_eq!(clean, 50);
    });
}

/// If it fails, half of a dead session stays for ever.
#[test]
fn a_half_close_and_then_silence() {
    all(|net, proxy, listener, splice| {
        let Both { client, mut backend } = Both::open(net, proxy, listener);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(backend.read(&mut [0]).unwrap(), 0);
        net.drop_arriving(Side::Evenkeel, "tcp dport 7000");
        let gone = Instant::now();
        let ended = within(PATIENCE, || (proxy.sessions() == 0).then(|| gone.elapsed()));
        let end = backend.read(&mut [0]).map_err(|error| error.kind());
        show(
            &format!("client: FIN and then nothing arrives; half_closed_timeout 2 s; {splice}"),
            "ended after 2 s, the backend too",
            &format!("{ended:?}, the backend saw {end:?}"),
        );
        assert!(ended.is_some_and(|elapsed| elapsed < Duration::from_secs(6)));
        net.heal(Side::Evenkeel);
    });
}

/// If it fails, clients that give up while their backend is being connected leave sockets behind.
#[test]
fn clients_that_leave_during_the_connect() {
    let net = Net::new(Link::PLAIN);
    let _backend = Actor::start(&net, net.backend(1), Habit::Echoes);
    net.drop_arriving(Side::Backend, "tcp flags & (syn|ack) == syn");
    let proxy = net.evenkeel(&[1], Keys { pool: "connect_timeout = \"1m\"", ..Keys::default() });
    let books = Books::open(&proxy);
    let mut clients: Vec<TcpStream> =
        net.on(Side::Client, || (0..200).map(|_| try_connect(proxy.address()).unwrap()).collect());
    for client in &mut clients[..100] {
        client.write_all(b"hello?").unwrap();
    }
    proxy.wait_for_sessions(200);
    for client in &clients {
        reset_when_dropped(client);
    }
    let left = Instant::now();
    drop(clients);
    proxy.wait_for_sessions(0);
    let elapsed = left.elapsed();
    let gone = proxy.metric("evenkeel_sessions_closed_total", &[("reason", "client_gone")]);
    show(
        "SYN to the backend dropped; 200 clients reset meanwhile",
        "all connects abandoned at once, sockets freed",
        &format!("{gone} client_gone within {elapsed:?}"),
    );
    assert!(gone > 199.5 && elapsed < Duration::from_secs(2));
    net.heal(Side::Backend);
    books.close(&proxy);
}

/// If it fails, a client that does not read keeps a session, or a core, for ever.
#[test]
fn a_client_that_never_reads() {
    let net = Net::new(Link::PLAIN);
    let _backend = Actor::start(&net, net.backend(1), Habit::Pours);
    let proxy = net.evenkeel(&[1], Keys { listener: "idle_timeout = \"1s\"", ..Keys::default() });
    let books = Books::open(&proxy);
    let mut client = net.on(Side::Client, || try_connect(proxy.address()).unwrap());
    proxy.wait_for_sessions(1);
    proxy.wait_for_sessions(0);
    // What is in this end's kernel is still there; the end is no clean one.
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut got = Vec::new();
    let end = client.read_to_end(&mut got).map_err(|error| error.kind());
    show(
        "client never reads, idle_timeout 1 s",
        "ended, and not with a clean end",
        &format!("{} bytes, {end:?}", got.len()),
    );
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    books.close(&proxy);
}

/// If it fails, a client that breaks off an upload that the server does not read is kept for ever.
#[test]
fn a_reset_while_held_up() {
    for splice in ["never", "always"] {
        let net = Net::new(Link::PLAIN);
        let listener = net.on(Side::Backend, || listen(net.backend(1), 64));
        let keys = Keys {
            global: &format!("splice = \"{splice}\""),
            listener: "idle_timeout = \"1s\"",
            ..Keys::default()
        };
        let proxy = net.evenkeel(&[1], keys);
        let books = Books::open(&proxy);
        let Both { mut client, mut backend } = Both::open(&net, &proxy, &listener);
        let sent = fill_up(&mut client, 1 << 30);
        reset_when_dropped(&client);
        drop(client);
        let gone = Instant::now();
        let ended = within(PATIENCE, || (proxy.sessions() == 0).then(|| gone.elapsed()));
        let mut got = Vec::new();
        let end = backend.read_to_end(&mut got).map_err(|error| error.kind());
        show(
            &format!("backend does not read; client resets; idle_timeout 1 s; splice {splice}"),
            "bytes read before the reset wait for the backend, until the idle timer; then a reset",
            &format!("{ended:?} later; the backend got {} of {sent} bytes, {end:?}", got.len()),
        );
        assert!(ended.is_some_and(|elapsed| elapsed < Duration::from_secs(7)));
        assert_eq!(end, Err(ErrorKind::ConnectionReset));
        books.close(&proxy);
    }
}

/// If it fails, a client that dies while it and its server wait for each other keeps both for the
/// whole idle timeout: the server writes and does not read, and the client does not read either.
#[test]
fn a_reset_while_both_are_held_up() {
    for splice in ["never", "always"] {
        let net = Net::new(Link::PLAIN);
        let _backend = Actor::start(&net, net.backend(1), Habit::Echoes);
        let global = format!("splice = \"{splice}\"");
        let proxy = net.evenkeel(&[1], Keys { global: &global, ..Keys::default() });
        let books = Books::open(&proxy);
        for _ in 0..2 {
            let mut client = net.on(Side::Client, || try_connect(proxy.address()).unwrap());
            // Until the echo, which the client does not read, has filled every buffer on the way.
            fill_up(&mut client, 1 << 30);
            reset_when_dropped(&client);
        }
        let gone = Instant::now();
        let ended = within(PATIENCE, || (proxy.sessions() == 0).then(|| gone.elapsed()));
        show(
            &format!("2 clients send to an echo, read nothing, and reset; splice {splice}"),
            "ended at once, long before the idle timeout of 10 min",
            &format!("{ended:?}"),
        );
        assert!(ended.is_some(), "{} sessions are left", proxy.sessions());
        books.close(&proxy);
    }
}
