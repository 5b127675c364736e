//! Faults of system calls: each error the kernel may give, given at bad moments.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::actor::{Actor, Habit};
use crate::books::{Books, load, threads};
use crate::crowd::{Stage, play_all};
use crate::net::{Keys, Link, Net, Side};
use crate::show;
use crate::strace::Injection;
use crate::support::{Proxy, try_connect, within};

const PATIENCE: Duration = Duration::from_secs(20);

fn one_worker(splice: &str) -> String {
    format!("workers = 1\nsplice = \"{splice}\"")
}

/// Plays sessions while these faults happen, and none may fail.
#[track_caller]
fn harmless(number: u64, splice: &str, expressions: &[&str]) {
    let net = Net::new(Link::PLAIN);
    let stage = Stage::open(&net, net.backend(1));
    let global = one_worker(splice);
    let proxy = net.evenkeel(&[1], Keys { global: &global, ..Keys::default() });
    let books = Books::open(&proxy);
    let injection = Injection::start(&proxy, expressions);
    let case = format!("{expressions:?}, splice {splice}");
    let outcome = play_all(&net, (&case, proxy.address()), &stage, ((100 + number) << 32, 150));
    let changed = injection.stop();
    show(
        &case,
        "no byte lost, no stall",
        &format!(
            "{changed} calls failed, {} sessions, {} failures",
            outcome.sessions,
            outcome.failures.len()
        ),
    );
    assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
    assert!(changed > 0);
    books.close(&proxy);
}

/// If it fails, a signal at a bad moment loses bytes or a session.
#[test]
fn interrupted_calls() {
    let every = |call: &str| format!("{call}:error=EINTR:when=2+3");
    let calls = ["recvfrom", "sendto", "splice", "accept4", "epoll_wait"].map(every);
    let calls: Vec<&str> = calls.iter().map(String::as_str).collect();
    harmless(1, "auto", &calls);
    harmless(2, "always", &calls);
}

/// If it fails, splicing depends on pipes that a process may not get.
#[test]
fn no_pipes() {
    harmless(3, "always", &["pipe2:error=EMFILE:when=1+2"]);
    harmless(4, "always", &["fcntl:error=EPERM:when=1+2"]);
    harmless(5, "always", &["pipe2:error=ENFILE"]);
}

/// If it fails, a client that was gone before it was accepted stops others from being accepted.
#[test]
fn accepts_of_clients_that_are_gone() {
    let net = Net::new(Link::PLAIN);
    let _backend = Actor::start(&net, net.backend(1), Habit::Echoes);
    let proxy = net.evenkeel(&[1], Keys { global: "workers = 1", ..Keys::default() });
    let injection = Injection::start(
        &proxy,
        // Before the call: the connection stays in the queue for the next one.
        &["accept4:error=ECONNABORTED:when=1+2", "epoll_wait:error=EINTR:when=5+5"],
    );
    let served = (0..50).filter(|_| ahoy(&net, &proxy).is_ok()).count();
    let changed = injection.stop();
    show(
        "every second accept4 says ECONNABORTED",
        "the next is taken at once, 50 of 50 served",
        &format!("{changed} calls failed, {served} served"),
    );
    assert_eq!(served, 50);
}

fn ahoy(net: &Net, proxy: &Proxy) -> std::io::Result<Duration> {
    net.on(Side::Client, || {
        let started = Instant::now();
        converse(try_connect(proxy.address())?)?;
        Ok(started.elapsed())
    })
}

/// A word and its echo.
fn converse(mut client: TcpStream) -> std::io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.write_all(b"ahoy")?;
    client.read_exact(&mut [0; 4])
}

/// One session that echoes; used before, during and after a fault.
struct Steady(TcpStream);

impl Steady {
    fn open(net: &Net, proxy: &Proxy) -> Self {
        let client = net.on(Side::Client, || try_connect(proxy.address()).unwrap());
        let mut steady = Self(client);
        steady.lives().unwrap();
        steady
    }

    fn lives(&mut self) -> std::io::Result<()> {
        self.0.write_all(b"alive?")?;
        let mut said = [0; 6];
        self.0.read_exact(&mut said)
    }
}

/// Accepting fails for a while: sessions go on, nothing spins, and it resumes within a second.
#[track_caller]
fn exhausted(error: &str) {
    let net = Net::new(Link::PLAIN);
    let _backend = Actor::start(&net, net.backend(1), Habit::Echoes);
    let proxy = net.evenkeel(&[1], Keys { global: "workers = 1", ..Keys::default() });
    let books = Books::open(&proxy);
    let mut steady = Steady::open(&net, &proxy);
    let injection = Injection::start(&proxy, &[&format!("accept4:error={error}")]);
    let mut waiting = net.on(Side::Client, || try_connect(proxy.address()).unwrap());
    waiting.write_all(b"ahoy").unwrap();
    within(PATIENCE, || (injection.count() > 4).then_some(()));
    let busy = load(proxy.pid(), Duration::from_secs(1));
    let lives = steady.lives().is_ok();
    let failed = injection.stop();
    let healed = Instant::now();
    let served = waiting.read_exact(&mut [0; 4]);
    let elapsed = healed.elapsed();
    show(
        &format!("accept4 says {error}"),
        "sessions go on, load < 5 %, accepting resumes within 1 s",
        &format!(
            "{failed} calls failed, load {busy:.1} %, session alive: {lives}, \
             waiting client {served:?} after {elapsed:?}"
        ),
    );
    assert!(lives && busy < 5.0 && served.is_ok() && elapsed < Duration::from_secs(1));
    drop((steady, waiting));
    books.close(&proxy);
}

/// If it fails, a process out of descriptors or memory takes a core or never accepts again.
#[test]
fn accepts_without_descriptors_or_memory() {
    for error in ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"] {
        exhausted(error);
    }
}

/// Connecting fails with this error: counted under the reason, the client is told, nothing leaks.
#[track_caller]
fn unconnectable(expression: &str, wanted: (&str, &[(&str, &str)])) {
    let net = Net::new(Link::PLAIN);
    let _backend = Actor::start(&net, net.backend(1), Habit::Echoes);
    let proxy = net.evenkeel(&[1], Keys { global: "workers = 1", ..Keys::default() });
    let books = Books::open(&proxy);
    let mut steady = Steady::open(&net, &proxy);
    let injection = Injection::start(&proxy, &[expression]);
    let ends: Vec<_> = (0..10).map(|_| ahoy(&net, &proxy).map_err(|error| error.kind())).collect();
    let lives = steady.lives().is_ok();
    let failed = injection.stop();
    let reset = ends.iter().filter(|end| **end == Err(ErrorKind::ConnectionReset)).count();
    let counted = proxy.metric(wanted.0, wanted.1);
    let after = ahoy(&net, &proxy).is_ok();
    show(
        expression,
        "10 of 10 clients reset and counted, sessions go on, the next client is served",
        &format!(
            "{failed} calls failed, {reset} reset, {counted} counted, session alive: {lives}, \
             next served: {after}"
        ),
    );
    assert!(lives && reset == 10 && counted >= 10.0 && after);
    drop(steady);
    books.close(&proxy);
}

/// If it fails, a host without source ports, route or descriptors spins, leaks or blames backends.
#[test]
fn connects_that_cannot_be_made() {
    let failures = "evenkeel_backend_connect_failures_total";
    let refused = "evenkeel_listener_refused_total";
    unconnectable("connect:error=EADDRNOTAVAIL", (failures, &[("reason", "no_port")]));
    unconnectable("connect:error=ENETUNREACH", (failures, &[("reason", "unreachable")]));
    unconnectable("connect:error=EACCES", (failures, &[("reason", "denied")]));
    unconnectable("socket:error=EMFILE", (refused, &[("reason", "descriptors")]));
    unconnectable("socket:error=ENOBUFS", (refused, &[("reason", "descriptors")]));
    unconnectable("epoll_ctl:error=ENOSPC", (refused, &[("reason", "descriptors")]));
    unconnectable("epoll_ctl:error=ENOMEM", (refused, &[("reason", "descriptors")]));
}

/// If it fails, an EAGAIN where none is due gives wrong bytes, a false end or a loop.
///
/// No kernel says EAGAIN and then sends no edge; strace does. Such a session may stand still until
/// something else happens on its socket, and no longer than the idle timer.
#[test]
fn eagain_where_none_is_due() {
    let net = Net::new(Link::PLAIN);
    let _backend = Actor::start(&net, net.backend(1), Habit::Counts);
    let keys = Keys {
        global: &one_worker("always"),
        listener: "idle_timeout = \"2s\"\nhalf_closed_timeout = \"2s\"",
        ..Keys::default()
    };
    let proxy = net.evenkeel(&[1], keys);
    let books = Books::open(&proxy);
    let expressions =
        ["recvfrom", "sendto", "splice"].map(|call| format!("{call}:error=EAGAIN:when=3+5"));
    let expressions: Vec<&str> = expressions.iter().map(String::as_str).collect();
    let injection = Injection::start(&proxy, &expressions);
    let length = 300_000;
    let ends: Vec<_> = std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..40)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = net.on(Side::Client, || try_connect(proxy.address()).unwrap());
                    client.set_read_timeout(Some(PATIENCE)).unwrap();
                    // One that was given up is told when it reads.
                    let _given_up = client
                        .write_all(&crate::streams::stream(1)[..length])
                        .and_then(|()| client.shutdown(Shutdown::Write));
                    let mut said = String::new();
                    client.read_to_string(&mut said).map(|_| said.trim().to_owned())
                })
            })
            .collect();
        sessions.into_iter().map(|session| session.join().unwrap()).collect()
    });
    let failed = injection.stop();
    let whole = ends.iter().flatten().filter(|said| **said == length.to_string()).count();
    let told = ends.iter().filter(|end| end.as_ref().is_ok_and(String::is_empty)).count();
    let reset = ends.iter().filter(|end| end.is_err()).count();
    let silent = ends.iter().flatten().filter(|said| !said.is_empty()).count() - whole;
    show(
        "every fifth recv, send and splice says EAGAIN although it could have moved bytes",
        "whole, or ended by the idle timer (2 s); never a wrong count; no loop",
        &format!(
            "{failed} calls failed: {whole} whole, {reset} reset, {told} ended, {silent} wrong"
        ),
    );
    assert!(silent == 0 && failed > 0, "{ends:?}");
    books.close(&proxy);
}

/// If it fails, a worker that stands still loses sessions or connections in its queue.
#[test]
fn a_stalled_worker() {
    let net = Net::new(Link::PLAIN);
    let _backend = Actor::start(&net, net.backend(1), Habit::Echoes);
    let proxy = net.evenkeel(&[1], Keys { global: "workers = 2", ..Keys::default() });
    let books = Books::open(&proxy);
    let mut steady: Vec<Steady> = (0..10).map(|_| Steady::open(&net, &proxy)).collect();
    let injection = Injection::start(&proxy, &["epoll_wait:delay_enter=5000000:when=1"]);
    // Woken, it stalls.
    net.on(Side::Client, || drop(try_connect(proxy.address())));
    let started = Instant::now();
    let times: Vec<Duration> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..40).map(|_| scope.spawn(|| ahoy(&net, &proxy))).collect();
        clients.into_iter().map(|client| client.join().unwrap().unwrap()).collect()
    });
    let alive = steady.iter_mut().filter_map(|session| session.lives().ok()).count();
    let waited = times.iter().filter(|time| **time > Duration::from_millis(500)).count();
    let _changed = injection.stop();
    let stalls = proxy.metrics().sum("evenkeel_worker_stalls_total", &[]);
    show(
        "one of two workers stands still for 5 s",
        "what the other worker has goes on; what waits is served when it goes on; nothing is lost; \
         it is noticed",
        &format!(
            "{} of 40 new clients waited and all were served within {:?}, {alive} of 10 sessions \
             alive; {stalls} stall noticed",
            waited,
            started.elapsed()
        ),
    );
    assert!(alive == 10 && waited < 40 && stalls > 0.5);
    drop(steady);
    books.close(&proxy);
}

/// If it fails, clients are reset whose listener was added and taken out again while a worker stood
/// still: its socket had taken their connections.
#[test]
fn a_worker_that_stalls_while_a_listener_comes_and_goes() {
    let net = Net::new(Link::PLAIN);
    let _backend = Actor::start(&net, net.backend(1), Habit::Echoes);
    let keys = Keys { global: "workers = 2", ..Keys::default() };
    let proxy = net.evenkeel(&[1], keys);
    let books = Books::open(&proxy);
    let text = net.config(&[1], keys);
    let mut side = net.front();
    side.set_port(side.port() + 1);
    let both = format!("{text}[listener.side]\nbind = [\"{side}\"]\npool = \"back\"\n");
    let injection = Injection::start(&proxy, &["epoll_wait:delay_enter=5000000:when=1"]);
    // Woken, it stalls.
    net.on(Side::Client, || drop(try_connect(proxy.address())));
    proxy.reload_with(&both);
    let clients: Vec<TcpStream> =
        net.on(Side::Client, || (0..40).map(|_| try_connect(side).unwrap()).collect());
    proxy.reload_with(&text);
    let whole = clients.into_iter().map(converse).filter(Result::is_ok).count();
    let _changed = injection.stop();
    show(
        "one of two workers stands still for 5 s while a listener is added and removed",
        "clients that had connected to it are served",
        &format!("{whole} of 40 served"),
    );
    assert_eq!(whole, 40);
    books.close(&proxy);
}

/// If it fails, a worker that panics leaves a process behind that swallows its share of clients.
#[test]
fn a_worker_that_panics() {
    if !cfg!(debug_assertions) {
        // Nothing that the kernel can say makes an optimized build panic.
        return;
    }
    let net = Net::new(Link::PLAIN);
    let _backend = Actor::start(&net, net.backend(1), Habit::Echoes);
    let global = "workers = 2\nsplice = \"always\"";
    let config = net.config(&[1], Keys { global, ..Keys::default() });
    let mut proxy = net.evenkeel_under(&[], &config);
    let mut steady: Vec<Steady> = (0..10).map(|_| Steady::open(&net, &proxy)).collect();
    // A kernel that says it took more than there was: a subtraction overflows in a debug build.
    let injection = Injection::start(&proxy, &["splice:retval=1000000:when=2+2"]);
    let died = within(PATIENCE, || {
        for session in &mut steady {
            let _told = session.0.write_all(b"alive?");
        }
        (threads_left(&proxy) == 0).then_some(())
    });
    drop(injection);
    let status = proxy.wait_for_exit();
    let ends = steady.iter_mut().filter_map(|session| session.lives().err()).count();
    let said = proxy.said().contains("this is a bug; aborting");
    show(
        "a worker panics (strace: the kernel took more bytes than there were)",
        "the whole process ends at once and says why; a new one serves",
        &format!("{status}, said: {said}, {ends} of 10 sessions ended"),
    );
    use std::os::unix::process::ExitStatusExt as _;
    assert!(died.is_some() && said && ends == 10);
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()));
    let again = net.evenkeel_under(&[], &config);
    assert!(ahoy(&net, &again).is_ok());
}

fn threads_left(proxy: &Proxy) -> usize {
    let state = std::fs::read_to_string(format!("/proc/{}/stat", proxy.pid())).unwrap_or_default();
    if state.contains(") Z") { 0 } else { threads(proxy.pid(), "worker-").len() }
}
