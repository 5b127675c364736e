//! Clients of very many IPv6 prefixes, all of which the limiter has to remember at once.
//!
//! `EVENKEEL_SOURCES=N` says how many /64 there are, 16,384 otherwise; scripts/soak.sh runs it with
//! 1,048,576. Each client makes one connection, and its bucket is not full again before the end.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use crate::actor::{Actor, Habit};
use crate::books::{Books, resident_kib};
use crate::net::{Link, Net, Side};
use crate::show;
use crate::streams::mix;
use crate::support::{Proxy, connect_from, reset_when_dropped};

/// Connections of a quiet client at once; one more every ten minutes.
const BURST: u32 = 1000;
const PER_SECOND: f64 = 6.0 / 3600.0;
/// How often the flooding prefix tries for each visit of the well-behaved one.
const FLOODS: u64 = 3;
/// Prefixes of the clients that come before anything is measured.
const WARM_UP: Range<u32> = 0xf000_0000..0xf000_01f4;
/// Threads of clients.
const AT_ONCE: usize = 8;

/// The address number `host` in the /64 number `prefix`.
fn address(prefix: u32, host: u64) -> Ipv6Addr {
    let bits = 0xfd00_u128 << 112 | u128::from(prefix) << 64 | u128::from(host);
    Ipv6Addr::from_bits(bits)
}

/// One word there and back; counted when it is.
fn visit(served: &AtomicU64, from: Ipv6Addr, to: SocketAddr) {
    let speak = || -> std::io::Result<()> {
        let mut client = connect_from((from.into(), 0), to)?;
        reset_when_dropped(&client);
        client.write_all(b"x")?;
        client.read_exact(&mut [0])
    };
    served.fetch_add(u64::from(speak().is_ok()), Ordering::Relaxed);
}

/// The clients that were served, and their addresses.
#[derive(Debug, Default)]
struct Served {
    crowd: AtomicU64,
    /// The well-behaved client, and how often it came.
    good: AtomicU64,
    visits: AtomicU64,
    flooder: AtomicU64,
}

impl Served {
    /// A client of each of these prefixes, once, and now and then [`Self::others`].
    fn play(net: &Net, to: SocketAddr, prefixes: Range<u32>) -> Self {
        let (served, next) = (Self::default(), AtomicU32::new(prefixes.start));
        let step = (prefixes.end - prefixes.start).div_ceil(BURST);
        let clients = || {
            while let prefix = next.fetch_add(1, Ordering::Relaxed)
                && prefix < prefixes.end
            {
                let host = mix(u64::from(prefix));
                visit(&served.crowd, address(prefix, host), to);
                if prefix.is_multiple_of(step) {
                    served.others(prefixes.end + 1, host, to);
                }
            }
        };
        net.on(Side::Client, || {
            std::thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(clients))));
        });
        served
    }

    /// The well-behaved client and, more often than it may, the flooding prefix, each time from
    /// another address of its own.
    fn others(&self, good: u32, host: u64, to: SocketAddr) {
        self.visits.fetch_add(1, Ordering::Relaxed);
        visit(&self.good, address(good, 1), to);
        for number in 0..FLOODS {
            visit(&self.flooder, address(good + 1, host.wrapping_add(number)), to);
        }
    }
}

/// evenkeel on IPv6 with a limiter of this many places.
fn start(net: &Net, table_size: u32) -> Proxy {
    let config = format!(
        "[global]\nworkers = 2\nlog = {{ sessions = 'none' }}\n[listener.front]\n\
         bind = [\"[::1]:7000\"]\npool = \"back\"\n[listener.front.limit]\nrate = \"6/h\"\n\
         burst = {BURST}\ntable_size = {table_size}\n[pool.back]\nbackends = [\"{}\"]\n",
        net.backend(1)
    );
    net.evenkeel_under(&[], &config)
}

#[track_caller]
fn remembered(net: &Net, count: u32, table_size: u32, evictions_allowed: Range<f64>) {
    let proxy = start(net, table_size);
    let books = Books::open(&proxy);
    let _warm = Served::play(net, proxy.address(), WARM_UP);
    let (before, start) = (resident_kib(proxy.pid()), Instant::now());
    let limited = || proxy.metric("evenkeel_limit_decisions_total", &[("decision", "refused")]);
    let refused_before = limited();
    let served = Served::play(net, proxy.address(), 0..count);
    let seconds = start.elapsed().as_secs_f64();
    let after = resident_kib(proxy.pid());
    let Served { crowd, good, visits, flooder } = served;
    let (crowd, good) = (crowd.into_inner(), good.into_inner());
    let (visits, flooder) = (visits.into_inner(), flooder.into_inner());
    let evictions = proxy.metric("evenkeel_limit_evictions_total", &[]);
    let refused = limited() - refused_before;
    show(
        &format!("one connection from each of {count} /64, limiter of {table_size} places"),
        "others >= 99.9 % served, a flooding prefix held to its limit, memory constant",
        &format!(
            "{crowd} of {count} served in {seconds:.1} s, well-behaved {good} of {visits}, flooder \
             {flooder} of {} ({BURST} allowed), {refused} refused, {evictions} forgotten, memory \
             {before} to {after} KiB",
            visits * FLOODS
        ),
    );
    println!(
        "sources: {count} in {table_size} places, {evictions} forgotten, {before} to {after} KiB"
    );
    assert!(crowd * 1000 >= u64::from(count) * 999 && good * 1000 >= visits * 999);
    let allowed = f64::from(BURST) + PER_SECOND * seconds + 1.0;
    assert!(flooder as f64 <= allowed && refused > 100.0, "{flooder} of {allowed}");
    assert!(evictions_allowed.contains(&evictions), "{evictions} of {evictions_allowed:?}");
    assert!(after <= before + 2048, "{before} {after}");
    books.close(&proxy);
}

/// If it fails, clients of a million networks cost memory or keep others out, or hide one that
/// floods.
#[test]
fn very_many_prefixes() {
    let given = std::env::var("EVENKEEL_SOURCES").ok();
    let count: u32 = given.map_or(1 << 14, |given| given.parse().unwrap());
    let net = Net::new(Link::Loopback);
    net.run(Side::Client, "ip", &["-6", "route", "add", "local", "fd00::/16", "dev", "lo"]);
    net.run(Side::Client, "sysctl", &["-q", "-w", "net.ipv6.ip_nonlocal_bind=1"]);
    let _backend = Actor::start(&net, net.backend(1), Habit::Echoes);
    // With room for four times as many hardly any client is forgotten early.
    let few = f64::from(count) / 1000.0;
    remembered(&net, count, 4 * count, 0.0..few);
    // With room for an eighth most are, the quietest first, and so never the one that floods.
    remembered(&net, count, (count / 8).max(8), f64::from(count) / 2.0..f64::from(count));
}
