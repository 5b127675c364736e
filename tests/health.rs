//! Active probes as clients meet them: the real binary in front of servers in this process.
//!
//! The tests look at the backend that answers a client, and at the lines on stderr. Backends listen
//! on loopback addresses of their own, so that a port stays theirs while no server listens on it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socket2::SockRef;
use tempfile::TempDir;

/// The time by which a machine under load may exceed a promised bound.
const SLACK: Duration = Duration::from_secs(3);
const DEADLINE: Duration = Duration::from_secs(10);

/// Waits until `condition` holds; fails the test with `what` after `deadline`.
fn eventually(what: &str, deadline: Duration, condition: impl Fn() -> bool) {
    let end = Instant::now() + deadline;
    while !condition() {
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// What a backend does with one connection.
type Answer = dyn Fn(&mut TcpStream, &Shared) -> io::Result<()> + Send + Sync;

/// What a test and its backend's thread share.
#[derive(Default)]
struct Shared {
    name: String,
    is_killed: AtomicBool,
    probes: AtomicUsize,
    /// Statuses of the next probes, in turn.
    statuses: Mutex<Vec<u16>>,
}

/// One server; `kill` makes its port refuse.
struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    answer: Arc<Answer>,
    running: Option<(TcpListener, JoinHandle<()>)>,
}

impl Backend {
    fn start(
        name: &str,
        answer: impl Fn(&mut TcpStream, &Shared) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let own = Ipv4Addr::new(127, 64 | high >> 2, low, NEXT.fetch_add(1, Ordering::Relaxed));
        let shared = Arc::new(Shared { name: name.into(), ..Shared::default() });
        let address = SocketAddr::from((own, 0));
        let mut backend = Self { address, shared, answer: Arc::new(answer), running: None };
        backend.revive();
        backend
    }

    /// Sends its name to every client.
    fn named(name: &str) -> Self {
        Self::start(name, |stream, shared| {
            stream.write_all(shared.name.as_bytes())?;
            // The end of the other side first, so that nothing is reset.
            stream.shutdown(Shutdown::Write)?;
            stream.read_to_end(&mut Vec::new()).map(drop)
        })
    }

    /// Answers requests for /health by its statuses in turn, all others with its name.
    fn http(name: &str, statuses: &[u16]) -> Self {
        let backend = Self::start(name, |stream, shared| {
            let mut head = String::new();
            let mut reader = BufReader::new(stream.try_clone()?);
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
            if head.contains(" /health ") {
                let turn = shared.probes.fetch_add(1, Ordering::Relaxed);
                let statuses = shared.statuses.lock();
                write!(stream, "HTTP/1.1 {} Status\r\n\r\n", statuses[turn % statuses.len()])
            } else {
                write!(stream, "HTTP/1.1 200 OK\r\n\r\n{}", shared.name)
            }
        });
        *backend.shared.statuses.lock() = statuses.to_vec();
        backend
    }

    fn revive(&mut self) {
        let listener = TcpListener::bind(self.address).unwrap();
        self.address = listener.local_addr().unwrap();
        self.shared.is_killed.store(false, Ordering::SeqCst);
        let (shared, answer) = (Arc::clone(&self.shared), Arc::clone(&self.answer));
        let accepting = listener.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            while let Ok((mut stream, _)) = accepting.accept() {
                if shared.is_killed.load(Ordering::SeqCst) {
                    return;
                }
                stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
                // Clients and probes may leave early; the tests look at what they got.
                let _answered = answer(&mut stream, &shared);
            }
        });
        self.running = Some((listener, thread));
    }

    fn kill(&mut self) {
        let Some((listener, thread)) = self.running.take() else { return };
        self.shared.is_killed.store(true, Ordering::SeqCst);
        // Wakes accept(2) with an error; connects are refused from here on.
        SockRef::from(&listener).shutdown(Shutdown::Both).unwrap();
        thread.join().unwrap();
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A running evenkeel.
struct Evenkeel {
    child: Child,
    address: SocketAddr,
    lines: Receiver<String>,
    seen: RefCell<Vec<String>>,
    directory: TempDir,
}

impl Evenkeel {
    /// Runs with one listener in front of these backends; `pool` is the rest of their pool.
    fn start(backends: &[&Backend], pool: &str) -> Self {
        let directory = TempDir::new().unwrap();
        write_config(&directory, backends, pool);
        let mut child = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
            .arg("run")
            .arg("-c")
            .arg(directory.path().join("evenkeel.toml"))
            .env("NO_COLOR", "1")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut evenkeel = Self { child, address, lines, seen: RefCell::default(), directory };
        let line = evenkeel.line(" serves ", DEADLINE);
        let words = line.split(" serves ").nth(1).unwrap();
        evenkeel.address = words.split(' ').next().unwrap().parse().unwrap();
        evenkeel
    }

    fn reload(&self, backends: &[&Backend], pool: &str) {
        write_config(&self.directory, backends, pool);
        let id = i32::try_from(self.child.id()).unwrap();
        let id = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::HUP).unwrap();
        self.line("reloaded, generation", DEADLINE);
    }

    /// Waits for the next line that has `text`.
    fn line(&self, text: &str, deadline: Duration) -> String {
        let end = Instant::now() + deadline;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                let seen = self.seen.borrow().join("\n");
                panic!("no line with {text:?} within {deadline:?}; there were:\n{seen}");
            };
            self.seen.borrow_mut().push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Whether any line up to now has `text`.
    fn has_said(&self, text: &str) -> bool {
        self.seen.borrow_mut().extend(self.lines.try_iter());
        self.seen.borrow().iter().any(|line| line.contains(text))
    }

    /// What one client gets.
    fn ask(&self) -> io::Result<String> {
        let mut client = TcpStream::connect(self.address)?;
        client.set_read_timeout(Some(DEADLINE))?;
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        client.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        client.read_to_string(&mut answer)?;
        Ok(answer.rsplit("\r\n").next().unwrap_or_default().to_owned())
    }

    /// The servers that answer the next clients, in any order.
    fn answers(&self, clients: usize) -> Vec<String> {
        let mut names: Vec<String> = (0..clients).map(|_| self.ask().unwrap()).collect();
        names.sort();
        names.dedup();
        names
    }
}

impl Drop for Evenkeel {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn write_config(directory: &TempDir, backends: &[&Backend], pool: &str) {
    let list: Vec<String> = backends
        .iter()
        .map(|b| format!("{{ address = \"{}\", name = \"{}\" }}", b.address, b.shared.name))
        .collect();
    let socket = directory.path().join("admin.sock");
    let text = format!(
        "[global]\nworkers = 2\nlog = {{ format = \"text\" }}\n\
         [admin]\nsocket = \"{}\"\n\
         [listener.in]\nbind = [\"127.0.0.1:0\"]\npool = \"web\"\n\
         [pool.web]\nbalance = \"round-robin\"\nretries = 0\nbackends = [{}]\n{pool}",
        socket.display(),
        list.join(", "),
    );
    std::fs::write(directory.path().join("evenkeel.toml"), text).unwrap();
}

const HEALTH: &str = "[pool.web.health]
interval = \"100ms\"
timeout = \"100ms\"
fall = 2
down_backoff = \"200ms\"
";
/// Interval x fall + timeout, and the jitter of the interval.
const BOUND: Duration = Duration::from_millis(2 * 110 + 100);

// If this fails, clients are sent to a dead server, or never again to one that is back.
#[test]
fn a_killed_backend_is_avoided_within_its_bound_and_comes_back() {
    let (a, mut b) = (Backend::named("a"), Backend::named("b"));
    let evenkeel = Evenkeel::start(&[&a, &b], HEALTH);
    assert_eq!(evenkeel.answers(8), ["a", "b"]);
    b.kill();
    evenkeel.line(
        "backend web/b down: connect refused (2 of 2 probes failed), 1 of 2 left",
        BOUND + SLACK,
    );
    assert_eq!(evenkeel.answers(20), ["a"]);
    b.revive();
    evenkeel.line("backend web/b up: 2 of 2 probes passed, 2 of 2 up", DEADLINE);
    assert_eq!(evenkeel.answers(8), ["a", "b"]);
}

// If this fails, a server that hangs keeps its clients because the kernel accepts for it.
#[test]
fn a_hung_backend_is_avoided_by_http_probes() {
    let a = Backend::http("a", &[200]);
    let b = Backend::start("b", |stream, _| stream.read_to_end(&mut Vec::new()).map(drop));
    let health = format!("{HEALTH}probe = \"http\"\n");
    let evenkeel = Evenkeel::start(&[&a, &b], &health);
    let words =
        "backend web/b down: no HTTP answer within 100ms (2 of 2 probes failed), 1 of 2 left";
    evenkeel.line(words, BOUND + SLACK);
    assert_eq!(evenkeel.answers(20), ["a"]);
}

// If this fails, clients wait in vain, or an operator has to restart evenkeel after an outage.
#[test]
fn all_down_refuses_at_once_and_recovers_by_itself() {
    let (mut a, mut b) = (Backend::named("a"), Backend::named("b"));
    let evenkeel = Evenkeel::start(&[&a, &b], HEALTH);
    a.kill();
    b.kill();
    evenkeel.line("0 of 2 left", BOUND + SLACK);
    for _ in 0..4 {
        let started = Instant::now();
        let refused = evenkeel.ask().expect_err("no backend can answer");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionReset, "{refused}");
        assert!(started.elapsed() < SLACK);
    }
    a.revive();
    eventually("a serves", DEADLINE, || evenkeel.ask().is_ok_and(|name| name == "a"));
    evenkeel.line("backend web/a up: 2 of 2 probes passed, 1 of 2 up", DEADLINE);
    assert_eq!(evenkeel.answers(8), ["a"]);
}

// If this fails, a flapping server drags clients back and forth.
#[test]
fn flapping_slower_than_fall_changes_nothing() {
    let (a, b) = (Backend::http("a", &[200]), Backend::http("b", &[500, 500, 200]));
    let health = format!("{HEALTH}probe = \"http\"\nfast_interval = \"20ms\"\n")
        .replace("fall = 2", "fall = 3");
    let evenkeel = Evenkeel::start(&[&a, &b], &health);
    eventually("b is probed", DEADLINE, || b.shared.probes.load(Ordering::Relaxed) > 15);
    assert!(!evenkeel.has_said("backend web/b"));
    assert_eq!(evenkeel.answers(8), ["a", "b"]);
}

// If this fails, probes answered with an error pass, or a reload does not reach them.
#[test]
fn a_status_is_judged_by_the_latest_configuration() {
    let (a, b) = (Backend::http("a", &[200]), Backend::http("b", &[500]));
    let health = format!("{HEALTH}probe = \"http\"\nstatus = [\"200-299\"]\n");
    let evenkeel = Evenkeel::start(&[&a, &b], &health);
    evenkeel.line(
        "backend web/b down: HTTP status 500, expected 200-299 (2 of 2 probes failed), 1 of 2 left",
        BOUND + SLACK,
    );
    evenkeel.reload(&[&a, &b], &health.replace("200-299", "200-500"));
    evenkeel.line("backend web/b up: 2 of 2 probes passed, 2 of 2 up", DEADLINE);
    assert_eq!(evenkeel.answers(8), ["a", "b"]);
}

// If this fails, a reload brings a dead backend back, or leaves out one that has no probes.
#[test]
fn a_reload_keeps_verdicts_while_there_are_probes() {
    let (a, mut b) = (Backend::named("a"), Backend::named("b"));
    let c = Backend::named("c");
    b.kill();
    let evenkeel = Evenkeel::start(&[&a, &b], HEALTH);
    evenkeel.line("backend web/b down", BOUND + SLACK);
    evenkeel.reload(&[&c, &b, &a], HEALTH);
    assert_eq!(evenkeel.answers(20), ["a", "c"]);
    b.revive();
    evenkeel.line("backend web/b up", DEADLINE);
    b.kill();
    evenkeel.line("backend web/b down", BOUND + SLACK);
    evenkeel.reload(&[&b, &a], "");
    assert!(evenkeel.has_said("backend web/b up: its pool has no probes any more, 2 of 2 up"));
}

// If this fails, a server that is not HTTP is judged by whether its kernel accepts.
#[test]
fn a_backend_that_says_the_wrong_thing_is_avoided() {
    let speaking = |answer: &'static str| {
        move |stream: &mut TcpStream, shared: &Shared| {
            let mut line = String::new();
            BufReader::new(stream.try_clone()?).read_line(&mut line)?;
            let answer = if line == "PING\r\n" { answer } else { &shared.name };
            // In pieces: a part of the expectation is no failure.
            let (first, second) = answer.split_at(1);
            stream.write_all(first.as_bytes())?;
            stream.write_all(second.as_bytes())?;
            stream.shutdown(Shutdown::Write)?;
            stream.read_to_end(&mut Vec::new()).map(drop)
        }
    };
    let good = Backend::start("good", speaking("+PONG\r\n"));
    let bad = Backend::start("bad", speaking("-LOADING Redis is loading\r\n"));
    let health = format!("{HEALTH}probe = \"send-expect\"\n");
    let evenkeel = Evenkeel::start(&[&good, &bad], &health);
    evenkeel.line(
        "backend web/bad down: closed after '-LOADING Redis is loading\\\\r\\\\n', expected \
         '+PONG' (2 of 2 probes failed), 1 of 2 left",
        BOUND + SLACK,
    );
    assert_eq!(evenkeel.answers(20), ["good"]);
}

// If this fails, a service is judged by its own port though another one knows better.
#[test]
fn another_port_decides() {
    let (a, mut well) = (Backend::named("a"), Backend::named("well"));
    let health = format!("{HEALTH}port = {}\n", well.address.port());
    let own = |backend: &Backend| backend.address.ip();
    assert_ne!(own(&a), own(&well), "no server listens on that port of a's address");
    let evenkeel = Evenkeel::start(&[&a, &well], &health);
    let words = format!(
        "backend web/a down: connect refused, asked on port {} (2 of 2 probes failed), 1 of 2 left",
        well.address.port()
    );
    evenkeel.line(&words, BOUND + SLACK);
    assert_eq!(evenkeel.answers(8), ["well"]);
    well.kill();
    evenkeel.line("backend web/well down: connect refused, asked on port", BOUND + SLACK);
}

// If this fails, a server that is down is probed before the time that it named.
#[test]
fn a_down_backend_that_says_when_to_ask_again_is_left_alone() {
    let busy = Backend::start("busy", |stream, shared| {
        let mut head = String::new();
        let mut reader = BufReader::new(stream.try_clone()?);
        while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
        shared.probes.fetch_add(1, Ordering::SeqCst);
        write!(stream, "HTTP/1.1 503 Busy\r\nRetry-After: 240\r\n\r\n")
    });
    let clock = Backend::http("clock", &[200]);
    let health = format!("{HEALTH}probe = \"http\"\n");
    let evenkeel = Evenkeel::start(&[&busy, &clock], &health);
    evenkeel.line("backend web/busy down: HTTP status 503, expected 200", BOUND + SLACK);
    let probes = |backend: &Backend| backend.shared.probes.load(Ordering::SeqCst);
    let start = probes(&clock);
    eventually("time passes", DEADLINE, || probes(&clock) > start + 15);
    assert_eq!(probes(&busy), 2, "asked again within {} intervals", probes(&clock) - start);
}
