//! Faults of the network: loss, slow links, other orders, duplicates, the smallest of segments.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::actor::{Actor, Habit, POURED};
use crate::books::{Books, load, resident_kib};
use crate::crowd::{Stage, play_all, play_some};
use crate::faulty_backends::drink;
use crate::net::{Keys, Link, Net, Side};
use crate::show;
use crate::shuffler::Shuffler;
use crate::streams::{Mode, stream};
use crate::support::try_connect;

/// Loss of this many packets in a hundred, in all directions.
fn lossy(percent: u32, sessions: u64) {
    let net = Net::new(Link::PLAIN);
    let stage = Stage::open(&net, net.backend(1));
    let proxy = net.evenkeel(&[1], Keys { global: "splice = \"always\"", ..Keys::default() });
    let books = Books::open(&proxy);
    for side in [Side::Client, Side::Evenkeel, Side::Backend] {
        net.drop_arriving(side, &format!("meta l4proto tcp numgen random mod 100 < {percent}"));
    }
    let name = format!("{percent} % loss");
    let case = (name.as_str(), proxy.address());
    let outcome = play_some(&net, case, &stage, (77 << 32, sessions, ends_whatever_is_lost));
    show(
        &format!("{percent} % of packets lost on each hop"),
        "slower, none stalled or wrong",
        &format!("{} sessions, {} failures", outcome.sessions, outcome.failures.len()),
    );
    assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
    books.close(&proxy);
}

/// Not those with a reset: a lost reset is not sent again (docs/kernel-notes.md).
fn ends_whatever_is_lost(mode: Mode) -> bool {
    !mode.has_reset()
}

/// If it fails, a session waits for ever after a packet was lost.
#[test]
fn loss_of_one_in_a_hundred() {
    lossy(1, 400);
}

/// If it fails, a session waits for ever on a bad line.
#[test]
fn loss_of_one_in_twenty() {
    lossy(5, 100);
}

/// If it fails, a stream is wrong or hangs after whole windows were lost and sent again.
#[test]
fn loss_in_bursts() {
    let net = Net::new(Link::PLAIN);
    for (side, device) in [(Side::Client, "ek-up"), (Side::Backend, "ek-down")] {
        net.run(
            side,
            "tc",
            &[
                "qdisc", "add", "dev", device, "root", "tbf", "rate", "400mbit", "burst", "4kb",
                "limit", "30kb",
            ],
        );
    }
    let stage = Stage::open(&net, net.backend(1));
    let proxy = net.evenkeel(&[1], Keys::default());
    let case = ("short queue", proxy.address());
    let outcome = play_some(&net, case, &stage, (78 << 32, 400, ends_whatever_is_lost));
    show(
        "queues of 30 KiB that drop in bursts, so that whole windows come again",
        "no effect on what arrives",
        &format!("{} sessions, {} failures", outcome.sessions, outcome.failures.len()),
    );
    assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
}

/// A number of /proc/net/netstat in a side's namespace.
fn tcp_count(net: &Net, side: Side, name: &str) -> u64 {
    let table = net.on(side, || std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap());
    let mut lines = table.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, numbers) = (lines.next().unwrap(), lines.next().unwrap());
    let mut both = names.split_whitespace().zip(numbers.split_whitespace());
    both.find(|(found, _)| *found == name).unwrap().1.parse().unwrap()
}

/// If it fails, bytes are wrong, or an end is lost, when packets arrive late or twice.
#[test]
fn reordered_and_duplicated_packets() {
    for splice in ["never", "always"] {
        let mut net = Net::new(Link::PLAIN);
        let shuffler = Shuffler::between(&mut net, 79);
        let stage = Stage::open(&net, net.backend(1));
        let global = format!("splice = \"{splice}\"");
        let proxy = net.evenkeel(&[1], Keys { global: &global, ..Keys::default() });
        let books = Books::open(&proxy);
        let case = ("shuffled", proxy.address());
        let outcome = play_all(&net, case, &stage, (79 << 32, 1500));
        books.close(&proxy);
        let (shuffled, lost) = shuffler.end();
        let count =
            |name| tcp_count(&net, Side::Client, name) + tcp_count(&net, Side::Evenkeel, name);
        let (early, twice) = (count("TCPOFOQueue"), count("TCPDSACKRecv"));
        show(
            &format!("frames between client and evenkeel overtaken and doubled; splice {splice}"),
            "no effect on what arrives, resets and ends included",
            &format!(
                "{} sessions, {} failures; of {} frames {} overtaken, {} doubled, {lost} lost; \
                 TCP saw {early} early segments and was told of {twice} that came twice",
                outcome.sessions,
                outcome.failures.len(),
                shuffled.came,
                shuffled.overtaken,
                shuffled.doubled,
            ),
        );
        assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
        assert!(shuffled.overtaken > 100 && shuffled.doubled > 100, "{shuffled:?}");
        assert!(early > 0 && twice > 0 && lost == 0);
    }
}

/// A client whose segments have at most this many bytes, and a small receive buffer.
fn small_client(net: &Net, mss: u32) -> TcpStream {
    net.on(Side::Client, || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_tcp_mss(mss).unwrap();
        socket.set_recv_buffer_size(64 * 1024).unwrap();
        socket.connect(&net.front().into()).unwrap();
        socket.into()
    })
}

/// If it fails, bulk transfers hang once a pipe has no slot left.
#[test]
fn the_smallest_segments() {
    let mut seen = Vec::new();
    for mss in [88, 536] {
        let net = Net::new(Link::Veth { mtu: 576, offloads: false });
        let _backend = Actor::start(&net, net.backend(1), Habit::Counts);
        let proxy = net.evenkeel(&[1], Keys { global: "splice = \"always\"", ..Keys::default() });
        let started = Instant::now();
        let counted: Vec<String> = std::thread::scope(|scope| {
            let sessions: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut client = small_client(&net, mss);
                        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                        client.write_all(&stream(1)[..2 << 20]).unwrap();
                        client.shutdown(Shutdown::Write).unwrap();
                        let mut said = String::new();
                        client.read_to_string(&mut said).unwrap();
                        said.trim().to_owned()
                    })
                })
                .collect();
            sessions.into_iter().map(|session| session.join().unwrap()).collect()
        });
        assert_eq!(counted, vec![(2 << 20).to_string(); 4]);
        let spliced = proxy.metric("evenkeel_bytes_total", &[("path", "splice")]);
        seen.push(format!("{mss}: 4 x 2 MiB in {:?}, {spliced} bytes spliced", started.elapsed()));
        assert!(spliced > 8e6);
    }
    show("MTU 576, TCP_MAXSEG 88 and 536, splice always", "no stall", &seen.join("; "));
}

/// If it fails, one client on a slow line costs memory or a core, or slows others down.
#[test]
fn a_slow_line() {
    let net = Net::new(Link::PLAIN);
    let _backend = Actor::start(&net, net.backend(1), Habit::Pours);
    let _echo = Actor::start(&net, net.backend(2), Habit::Echoes);
    let mut config = net.config(&[1], Keys::default());
    config.push_str(&format!(
        "[listener.other]\nbind = [\"10.1.0.254:7001\"]\npool = \"echo\"\n\
         [pool.echo]\nbackends = [\"{}\"]\n",
        net.backend(2)
    ));
    let proxy = net.evenkeel_under(&[], &config);
    net.run(
        Side::Evenkeel,
        "tc",
        &[
            "qdisc", "add", "dev", "ek-up", "root", "tbf", "rate", "20mbit", "burst", "16kb",
            "latency", "50ms",
        ],
    );
    let mut clients: Vec<TcpStream> =
        net.on(Side::Client, || (0..8).map(|_| try_connect(proxy.address()).unwrap()).collect());
    for client in &mut clients {
        client.read_exact(&mut vec![0; 200_000]).unwrap();
    }
    let memory = resident_kib(proxy.pid());
    let stop = Instant::now() + Duration::from_secs(3);
    let received: Vec<usize> = std::thread::scope(|scope| {
        let all: Vec<_> = clients
            .iter_mut()
            .map(|client| {
                scope.spawn(move || {
                    let (mut count, mut buffer) = (0, vec![0; 16 * 1024]);
                    while Instant::now() < stop {
                        count += client.read(&mut buffer).unwrap();
                    }
                    count
                })
            })
            .collect();
        let busy = scope.spawn(|| load(proxy.pid(), Duration::from_secs(2)));
        let received = all.into_iter().map(|one| one.join().unwrap()).collect();
        let busy = busy.join().unwrap();
        println!("load {busy:.1} %");
        assert!(busy < 15.0, "{busy}");
        received
    });
    let grown = resident_kib(proxy.pid()).saturating_sub(memory);
    let (least, most) = (received.iter().min().unwrap(), received.iter().max().unwrap());
    show(
        "8 downloads over a line of 20 Mbit/s (tc tbf)",
        "each gets its part; memory constant",
        &format!("{least} to {most} bytes in 3 s, memory +{grown} KiB"),
    );
    assert!(*least > 0 && grown < 2048);
}

/// If it fails, a line that is cut for a while costs a session.
#[test]
fn a_line_that_is_cut_for_a_second() {
    let net = Net::new(Link::PLAIN);
    let _backend = Actor::start(&net, net.backend(1), Habit::Pours);
    let proxy = net.evenkeel(&[1], Keys { global: "splice = \"always\"", ..Keys::default() });
    let books = Books::open(&proxy);
    let mut client = net.on(Side::Client, || try_connect(proxy.address()).unwrap());
    client.read_exact(&mut vec![0; 1 << 20]).unwrap();
    for side in [Side::Client, Side::Evenkeel] {
        net.drop_arriving(side, "meta l4proto tcp");
    }
    crate::support::within(Duration::from_secs(1), || None::<()>);
    for side in [Side::Client, Side::Evenkeel] {
        net.heal(side);
    }
    let (count, end) = drink(&mut client, 1 << 20);
    show(
        "all packets of a download dropped for one second",
        "all bytes arrive",
        &format!("{count} of {POURED} bytes, {end:?}"),
    );
    assert!(count == POURED && end.is_ok());
    drop(client);
    books.close(&proxy);
}
