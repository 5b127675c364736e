//! Many sessions at once: clients and a backend that play scripts, and the judgement of each pair.

use std::collections::{BTreeMap, HashMap};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socket2::{Domain, Socket, Type};

use crate::net::{Net, Side};
use crate::peer::{Ending, Seen, play};
use crate::streams::{HEADER, Mode, Script};
use crate::support::within;

/// Clients at once.
const CLIENTS: u64 = 96;

/// What came of the sessions so far.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Sessions of which only one peer has reported.
    half: Mutex<HashMap<u64, (Who, Script, Seen)>>,
    /// Sessions that are judged, by mode; failures in words.
    judged: Mutex<(BTreeMap<Mode, u64>, Vec<String>)>,
    bytes: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Client,
    Backend,
}

impl Ledger {
    fn report(&self, who: Who, script: Script, seen: Seen) {
        let count = |bytes: usize| self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        count(seen.received);
        let other = {
            let mut half = self.half.lock();
            match half.remove(&script.seed) {
                Some((whose, _, other)) if whose != who => other,
                _ => {
                    half.insert(script.seed, (who, script, seen));
                    return;
                }
            }
        };
        let (client, backend) = if who == Who::Client { (seen, other) } else { (other, seen) };
        let verdict = judge(&script, client).and_then(|()| judge_backend(&script, backend));
        self.judge(&script, verdict);
    }

    fn judge(&self, script: &Script, verdict: Result<(), String>) {
        let mut judged = self.judged.lock();
        *judged.0.entry(script.mode).or_default() += 1;
        if let Err(what) = verdict {
            judged.1.push(format!("{script:?}: {what}"));
        }
    }

    fn fail(&self, what: String) {
        self.judged.lock().1.push(what);
    }

    /// Judges sessions that the backend never heard of.
    fn settle(&self) {
        let left: Vec<_> = self.half.lock().drain().collect();
        for (_, (who, script, seen)) in left {
            let may_miss = matches!(script.mode, Mode::ClientReset | Mode::ClientGone);
            let verdict = match who {
                Who::Client if may_miss => judge(&script, seen),
                who => Err(format!("only the {who:?} reported: {seen:?}")),
            };
            self.judge(&script, verdict);
        }
    }
}

fn judge(script: &Script, seen: Seen) -> Result<(), String> {
    judge_part("client", &script.client(), seen)
}

fn judge_backend(script: &Script, seen: Seen) -> Result<(), String> {
    judge_part("backend", &script.backend(), seen)
}

/// What a peer must have seen.
fn judge_part(who: &str, part: &crate::streams::Part, seen: Seen) -> Result<(), String> {
    let is_right = match seen.ending {
        Ending::Own => part.cut == Some(seen.sent),
        // Part of the stream at most, and no end that looks like all of it.
        Ending::Reset => part.expects_reset,
        Ending::Fin => {
            !part.expects_reset
                && seen.received == part.expects_length
                && (part.cut.is_some() || seen.sent == part.length)
        }
        Ending::Silence | Ending::Wrong(_) | Ending::Error(_) => false,
    };
    if is_right { Ok(()) } else { Err(format!("the {who} saw {seen:?}, its part was {part:?}")) }
}

/// A backend that plays whatever script a client's header names; ends when dropped.
#[derive(Debug)]
pub(crate) struct Stage {
    ledger: Arc<Ledger>,
    stopping: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
    open: Arc<AtomicU64>,
}

impl Stage {
    /// Listens on this address of the backend's side.
    pub(crate) fn open(net: &Net, address: SocketAddr) -> Self {
        let listener = net.on(Side::Backend, || listen(address, 4096));
        let mut stage = Self {
            ledger: Arc::default(),
            stopping: Arc::default(),
            acceptor: None,
            open: Arc::default(),
        };
        let stopping = Arc::clone(&stage.stopping);
        let (ledger, open) = (Arc::clone(&stage.ledger), Arc::clone(&stage.open));
        let acceptor = net.spawn(Side::Backend, move || {
            listener.set_nonblocking(true).unwrap();
            while !stopping.load(Ordering::SeqCst) {
                let Ok((stream, _)) = listener.accept() else {
                    wait_readable(&listener);
                    continue;
                };
                open.fetch_add(1, Ordering::SeqCst);
                let (ledger, open) = (Arc::clone(&ledger), Arc::clone(&open));
                std::thread::spawn(move || {
                    serve(stream, &ledger);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        stage.acceptor = Some(acceptor);
        stage
    }

    /// Whether all sessions end.
    fn is_left_within(&self, deadline: Duration) -> bool {
        within(deadline, || (self.open.load(Ordering::SeqCst) == 0).then_some(())).is_some()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Some(acceptor) = self.acceptor.take() {
            let _ended = acceptor.join();
        }
    }
}

/// A listening socket with a queue of this length.
pub(crate) fn listen(address: SocketAddr, backlog: i32) -> TcpListener {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(backlog).unwrap();
    socket.into()
}

fn wait_readable(listener: &TcpListener) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    // Looked at again in any case.
    let _ready = poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&timeout));
}

fn serve(mut stream: TcpStream, ledger: &Ledger) {
    stream.set_nonblocking(false).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(25))).unwrap();
    let mut header = [0; HEADER];
    match stream.read_exact(&mut header) {
        Ok(()) => {}
        // The client was gone before it could name itself: no clean end may tell of that.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
        Err(error) => return ledger.fail(format!("no header: {error}")),
    }
    match Script::read(&header) {
        Some(script) => {
            let seen = play(&stream, &script.backend());
            // Before either side learns of it, the connection is closed.
            drop(stream);
            ledger.report(Who::Backend, script, seen);
        }
        None => ledger.fail(format!("a wrong header: {header:?}")),
    }
}

fn visit(address: SocketAddr, script: &Script, ledger: &Ledger) {
    let mut stream = match TcpStream::connect_timeout(&address, Duration::from_secs(20)) {
        Ok(stream) => stream,
        Err(error) => return ledger.judge(script, Err(format!("connect: {error}"))),
    };
    stream.set_nodelay(true).unwrap();
    // A peer that is gone at once names itself, or not even that.
    let is_mute = script.mode == Mode::ClientGone && script.seed.is_multiple_of(2);
    if !is_mute && let Err(error) = stream.write_all(&script.header()) {
        return ledger.judge(script, Err(format!("header: {error}")));
    }
    let seen = play(&stream, &script.client());
    drop(stream);
    ledger.report(Who::Client, *script, seen);
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) sessions: u64,
    pub(crate) failures: Vec<String>,
}

/// Plays `count` sessions through `address` to the stage, and prints a JSON line.
pub(crate) fn play_all(
    net: &Net,
    case: (&str, SocketAddr),
    stage: &Stage,
    (first, count): (u64, u64),
) -> Outcome {
    play_some(net, case, stage, (first, count, |_| true))
}

/// Plays those of `count` sessions whose mode is wanted.
pub(crate) fn play_some(
    net: &Net,
    (case, address): (&str, SocketAddr),
    stage: &Stage,
    (first, count, wanted): (u64, u64, fn(Mode) -> bool),
) -> Outcome {
    let ledger = &stage.ledger;
    let started = Instant::now();
    let next = Arc::new(AtomicU64::new(first));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (next, ledger) = (Arc::clone(&next), Arc::clone(ledger));
            net.spawn(Side::Client, move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let script = Script::of(seed);
                    if wanted(script.mode) {
                        visit(address, &script, &ledger);
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    if !stage.is_left_within(Duration::from_secs(60)) {
        ledger.fail("the backend has sessions that do not end".to_owned());
    }
    ledger.settle();
    let judged = std::mem::take(&mut *ledger.judged.lock());
    let sessions: u64 = judged.0.values().sum();
    let modes: BTreeMap<String, u64> =
        judged.0.iter().map(|(mode, count)| (format!("{mode:?}"), *count)).collect();
    println!(
        "{}",
        serde_json::json!({
            "case": case, "sessions": sessions, "failures": judged.1.len(), "modes": modes,
            "bytes": ledger.bytes.swap(0, Ordering::Relaxed),
            "seconds": started.elapsed().as_secs_f64(),
        })
    );
    Outcome { sessions, failures: judged.1 }
}
