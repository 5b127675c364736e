//! Very many clients at once, of the kinds that cost a server most.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::actor::{Actor, Habit};
use crate::books::{Books, load, resident_kib};
use crate::net::{Keys, Link, Net, Side};
use crate::peer::pause;
use crate::show;
use crate::support::{Proxy, connect_from, reset_when_dropped, try_connect, within};
use crate::syn_flood;

/// Addresses of well-behaved clients.
const AT_ONCE: u8 = 4;
/// Clients of each of the four kinds.
const EACH: usize = 2000;

/// One word there and back from an address; whether it was right.
fn ahoy(from: u8, address: SocketAddr) -> bool {
    let source = IpAddr::V4(Ipv4Addr::new(10, 1, 0, from));
    // Well below the limit of one address.
    pause(2);
    let visit = || -> std::io::Result<bool> {
        let mut client = connect_from((source, 0), address)?;
        client.write_all(b"ahoy")?;
        client.shutdown(Shutdown::Write)?;
        let mut said = Vec::new();
        client.read_to_end(&mut said)?;
        Ok(said == b"ahoy")
    };
    visit().unwrap_or(false)
}

/// Well-behaved clients from four addresses, one after the other each; served and all.
fn well_behaved(net: &Net, address: SocketAddr, count: usize) -> (usize, usize) {
    let served: usize = net.on(Side::Client, || {
        std::thread::scope(|scope| {
            let each = count / usize::from(AT_ONCE);
            let clients: Vec<_> = (0..AT_ONCE)
                .map(|from| {
                    scope.spawn(move || (0..each).filter(|_| ahoy(2 + from, address)).count())
                })
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).sum()
        })
    });
    (served, count)
}

fn open(net: &Net, proxy: &Proxy, count: usize) -> Vec<TcpStream> {
    net.on(Side::Client, || (0..count).map(|_| try_connect(proxy.address()).unwrap()).collect())
}

/// If it fails, a few thousand clients that do nothing take a core, memory or other clients' place.
#[test]
fn idle_half_open_silent_and_slow() {
    let net = Net::new(Link::PLAIN);
    let _backend = Actor::start(&net, net.backend(1), Habit::Echoes);
    let global = "workers = 2\nlog = { sessions = 'none' }";
    let proxy = net.evenkeel(&[1], Keys { global, ..Keys::default() });
    let books = Books::open(&proxy);
    let before = resident_kib(proxy.pid());
    let started = Instant::now();
    let silent = open(&net, &proxy, EACH);
    let mut idle = open(&net, &proxy, EACH);
    for client in &mut idle {
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
    // Half open: the client is gone, and nothing will ever tell.
    let half_open = open(&net, &proxy, EACH);
    let ports: Vec<String> =
        half_open.iter().map(|stream| stream.local_addr().unwrap().port().to_string()).collect();
    let rule = format!("tcp dport {{ {} }}", ports.join(", "));
    net.drop_arriving(Side::Client, &rule);
    net.drop_leaving(Side::Client, &format!("tcp sport {{ {} }}", ports.join(", ")));
    let mut slow = open(&net, &proxy, EACH);
    proxy.wait_for_sessions(4 * EACH as u64);
    let opened = started.elapsed();
    let full = resident_kib(proxy.pid());
    let resting = load(proxy.pid(), Duration::from_secs(2));
    // A byte a second from each slow client, while others are served.
    let stop = AtomicBool::new(false);
    let (served, count) = std::thread::scope(|scope| {
        let drip = scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                for client in &mut slow {
                    client.write_all(b"s").unwrap();
                }
                within(Duration::from_secs(1), || stop.load(Ordering::SeqCst).then_some(()));
            }
        });
        let served = well_behaved(&net, proxy.address(), 2000);
        stop.store(true, Ordering::SeqCst);
        drip.join().unwrap();
        served
    });
    let after = resident_kib(proxy.pid());
    show(
        &format!("{EACH} silent, {EACH} idle, {EACH} vanished and {EACH} slow clients at once"),
        "well-behaved clients >= 99.9 % served, load < 2 % at rest, memory constant",
        &format!(
            "{served} of {count} served, load {resting:.2} % at rest; opened in {opened:?}; memory \
             {before} KiB before, {full} with all, {after} KiB after"
        ),
    );
    assert!(served * 1000 >= count * 999 && resting < 2.0);
    assert!(after <= full + 2048, "{full} {after}");
    net.heal(Side::Client);
    for client in silent.iter().chain(&idle).chain(&half_open).chain(&slow) {
        reset_when_dropped(client);
    }
    drop((silent, idle, half_open, slow));
    books.close(&proxy);
}

/// If it fails, one address that connects as fast as it can takes the places of all other clients.
#[test]
fn one_address_floods() {
    let net = Net::new(Link::PLAIN);
    let _backend = Actor::start(&net, net.backend(1), Habit::Echoes);
    let global = "workers = 2\nlog = { sessions = 'none' }";
    let listener = "[listener.front.limit]\nrate = \"1000/s\"\nmax_concurrent = 100";
    let proxy = net.evenkeel(&[1], Keys { global, listener, ..Keys::default() });
    let books = Books::open(&proxy);
    assert_eq!(well_behaved(&net, proxy.address(), 200).0, 200);
    let before = resident_kib(proxy.pid());
    let (stop, tried) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let address = proxy.address();
    let flooders: Vec<_> = (0..2)
        .map(|_| {
            let (stop, tried) = (Arc::clone(&stop), Arc::clone(&tried));
            net.spawn(Side::Client, move || {
                while !stop.load(Ordering::SeqCst) {
                    let source = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1));
                    if let Ok(client) = connect_from((source, 0), address) {
                        reset_when_dropped(&client);
                    }
                    tried.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let started = Instant::now();
    let (served, count) = well_behaved(&net, address, 2000);
    let seconds = started.elapsed().as_secs_f64();
    stop.store(true, Ordering::SeqCst);
    for flooder in flooders {
        flooder.join().unwrap();
    }
    let after = resident_kib(proxy.pid());
    let limited = proxy.metric("evenkeel_listener_refused_total", &[("reason", "limit")]);
    let tried = tried.load(Ordering::SeqCst);
    show(
        "one address connects as fast as it can, limit 1000/s",
        "others >= 99.9 % served, memory constant",
        &format!(
            "{tried} connections in {seconds:.1} s, {limited} refused; {served} of {count} others \
             served; memory {before} to {after} KiB"
        ),
    );
    assert!(served * 1000 >= count * 999 && limited > 100.0);
    assert!(after <= before + 2048);
    books.close(&proxy);
}

/// If it fails, handshakes that are never finished keep others out.
#[test]
fn handshakes_are_never_finished() {
    let net = Net::new(Link::PLAIN);
    let _backend = Actor::start(&net, net.backend(1), Habit::Echoes);
    let global = "workers = 2\nlog = { sessions = 'none' }";
    let proxy = net.evenkeel(&[1], Keys { global, ..Keys::default() });
    // Sources that no host answers for.
    net.run(Side::Evenkeel, "ip", &["route", "add", "10.9.0.0/16", "dev", "ek-up"]);
    net.run(Side::Evenkeel, "sysctl", &["-q", "-w", "net.ipv4.conf.all.rp_filter=0"]);
    let before = resident_kib(proxy.pid());
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = Arc::clone(&stop);
    let SocketAddr::V4(front) = proxy.address() else { panic!("an IPv4 address") };
    let flooder = net.spawn(Side::Client, move || syn_flood::flood(front, &stopping));
    let (served, count) = well_behaved(&net, proxy.address(), 6000);
    stop.store(true, Ordering::SeqCst);
    let sent = flooder.join().unwrap();
    let after = resident_kib(proxy.pid());
    show(
        "SYN flood from 65,536 addresses that never answer (tcp_syncookies 1)",
        "others >= 95 % served, memory constant",
        &format!("{sent} SYN sent, {served} of {count} served, memory {before} to {after} KiB"),
    );
    assert!(served * 100 >= count * 95 && sent > 10_000);
    assert!(after <= before + 2048);
}
