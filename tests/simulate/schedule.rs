//! What the peers, the network and the clock do between two turns, from a seed.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::num::NonZeroU64;
use std::time::Duration;

use evenkeel::dataplane::clock::Tick;
use evenkeel::dataplane::session::stage::Stage;
use evenkeel::dataplane::stream::Readiness;
use evenkeel::shared::SpliceMode;

use super::checks;
use super::sockets::{Kernel, SIDES};
use super::worker::{Attempt, Connection, Ended, Settings, Worker};

/// More steps than any schedule needs.
const STEPS_MAX: usize = 30_000;
/// Sessions open at once.
const OPEN_MAX: usize = 2;

/// What is kept from one schedule to the next: the worker's buffer.
pub(crate) struct Bench {
    /// Tell of every step: for a single schedule.
    pub(crate) traces: bool,
    /// How sessions ended, to show that the schedules get everywhere.
    pub(crate) ends: BTreeMap<String, u64>,
    scratch: Vec<u8>,
}

impl Default for Bench {
    fn default() -> Self {
        Self { traces: false, ends: BTreeMap::new(), scratch: vec![0; 65_536] }
    }
}

struct Plan {
    /// Sessions still to come.
    coming: usize,
    /// Steps until peers behave.
    wild: usize,
    /// In the end nobody says anything, instead of finishing.
    silent: bool,
    /// Large amounts are common.
    large: bool,
    calm_since: Option<Tick>,
}

impl Bench {
    /// Runs one schedule; returns what was wrong with it.
    pub(crate) fn run(&mut self, seed: u64) -> Vec<String> {
        let mut kernel = Kernel::new(seed);
        kernel.traces = self.traces;
        let random = &mut kernel.random;
        let modes = [SpliceMode::Auto, SpliceMode::Never, SpliceMode::Always];
        let settings = Settings {
            splice: modes[random.usize(..3)],
            scratch: [64, 4096, 65_536][random.usize(..3)],
            idle: Duration::from_millis([150, 700, 40_000][random.usize(..3)]),
            half_closed: Duration::from_millis([100, 300, 20_000][random.usize(..3)]),
            bandwidth: [(); 2]
                .map(|()| NonZeroU64::new([0, 0, 0, 0, 100_000, 2_000_000][random.usize(..6)])),
        };
        let mut plan = Plan {
            coming: [1, 1, 2, 3][random.usize(..4)],
            wild: 0,
            silent: random.u8(..12) == 0,
            large: random.u8(..4) == 0,
            calm_since: None,
        };
        let scratch = &mut self.scratch[..settings.scratch];
        let mut worker = Worker::new(settings, kernel, scratch);
        for _ in 0..STEPS_MAX {
            let goes_on = plan.step(&mut worker);
            for (connection, ended) in worker.gone.drain(..) {
                *self.ends.entry(kind(&connection, ended)).or_default() += 1;
            }
            if !goes_on {
                return finish(worker);
            }
            if !worker.kernel.problems.is_empty() {
                return worker.kernel.problems;
            }
        }
        let never = worker.keys.first().and_then(|key| worker.slots.get(*key));
        vec![format!("never ended: {never:?}")]
    }
}

/// How a session ended, and what was special about it.
fn kind(connection: &Connection, ended: Ended) -> String {
    let end = match ended {
        Ended::Over(end) => format!("{:?}", end.reason),
        Ended::Silent(end) => format!("{:?}", end.reason),
        Ended::GivenUp => "GivenUp".into(),
    };
    let lingers = matches!(connection.stage, Stage::Lingering(_));
    let lingered = if lingers { " after lingering" } else { "" };
    let [(_, up), (_, down)] = connection.stream.delivered();
    let spliced = if up + down > 0 { ", spliced" } else { "" };
    let waiting = if connection.waits.contains(&true) { ", short of bandwidth" } else { "" };
    format!("{end}{lingered}{spliced}{waiting}")
}

fn finish(worker: Worker<'_>) -> Vec<String> {
    let mut problems = worker.kernel.problems;
    if worker.kernel.lent != 0 || !worker.slots.keys().is_empty() {
        problems.push(format!("{} pipes never came back", worker.kernel.lent));
    }
    problems
}

impl Plan {
    /// One step; false once every session has come and gone.
    fn step(&mut self, worker: &mut Worker<'_>) -> bool {
        let open = worker.keys.len();
        let random = &mut worker.kernel.random;
        if self.coming > 0 && open < OPEN_MAX && (open == 0 || random.u8(..16) == 0) {
            self.coming -= 1;
            self.wild = self.wild.max(random.usize(5..120));
            worker.open();
        } else if open == 0 {
            return false;
        }
        if self.wild > 0 {
            self.wild -= 1;
            self.calm_since = None;
            disturb(worker, self.large);
        } else {
            self.calm_since.get_or_insert(worker.now);
            self.calm(worker);
        }
        worker.turn();
        checks::check(worker);
        self.check_calm_ends(worker);
        true
    }

    fn calm(&self, worker: &mut Worker<'_>) {
        if self.silent {
            let longest = worker.settings.idle.max(worker.settings.half_closed);
            worker.now = worker.now.after((longest / 8).min(Duration::from_secs(3)));
            return;
        }
        // Who waits for bandwidth does so for longer than all else takes.
        let paced = worker.settings.bandwidth.iter().any(Option::is_some);
        worker.now = worker.now.after(Duration::from_millis(if paced { 4 } else { 1 }));
        for index in 0..worker.keys.len() {
            let key = worker.keys[index];
            if let Some(connection) = worker.connection(key) {
                heal(connection);
            }
        }
    }

    /// Liveness: a timer may not be what ends a session in whose way nothing was.
    fn check_calm_ends(&self, worker: &mut Worker<'_>) {
        let problems = &mut worker.kernel.problems;
        for (connection, ended) in worker.gone.iter() {
            let (Stage::Moving(moving) | Stage::Lingering(moving)) = &connection.stage else {
                continue;
            };
            let was_calm = self.calm_since.is_some_and(|since| since < moving.active);
            if matches!(ended, Ended::Silent(_)) && was_calm && !self.silent {
                let what = format!("ended by silence, with nothing in its way: {connection:?}");
                problems.push(what);
            }
        }
    }
}

/// Peers read and finish, handshakes succeed.
fn heal(connection: &mut Connection) {
    if connection.attempt == Attempt::Pending {
        connection.attempt = Attempt::Established;
        connection.pair.backend.answer();
    }
    for side in SIDES {
        let is_there = is_there(connection, side);
        let socket = connection.pair.socket(side);
        if is_there {
            socket.stalled = false;
            socket.capacity = 300_000;
            socket.peer_reads(u64::MAX);
            socket.finish();
        }
    }
}

/// A backend acts only once it is connected.
fn is_there(connection: &Connection, side: evenkeel::dataplane::stream::wire::Side) -> bool {
    side == SIDES[0] || connection.attempt == Attempt::Established
}

fn disturb(worker: &mut Worker<'_>, large: bool) {
    let random = &mut worker.kernel.random;
    let pause = [0, 0, 0, 100, 1_000, 1_000, 5_000, 60_000][random.usize(..8)];
    worker.now = worker.now.after(Duration::from_micros(pause));
    let index = random.usize(..worker.keys.len());
    let side = SIDES[random.usize(..2)];
    let most = if large { 70_000 } else { [1, 10, 100, 3_000, 9_000][random.usize(..5)] };
    let amount = random.u64(1..=most);
    let (action, kind) = (random.u8(..100), random.u8(..8));
    let (key, traces) = (worker.keys[index], worker.kernel.traces);
    let Some(connection) = worker.connection(key) else { return };
    if connection.stage.is_opening() && action >= 50 {
        return connect(connection, action);
    }
    if !is_there(connection, side) {
        return;
    }
    let socket = connection.pair.socket(side);
    if traces {
        println!("{side:?} {action} {amount}");
    }
    match action {
        0..38 => socket.arrive(amount, false),
        38..41 => socket.arrive(amount, true),
        41..78 if !socket.stalled => socket.peer_reads(amount),
        78..82 => socket.finish(),
        82..85 => socket.fail(match kind {
            0 => ErrorKind::TimedOut,
            1 => ErrorKind::HostUnreachable,
            _ => ErrorKind::ConnectionReset,
        }),
        85..88 => socket.stalled = !socket.stalled,
        // A spurious event tells only what is so.
        88..91 => socket.raise(),
        _ => {}
    }
}

/// The handshake with the backend gets further.
fn connect(connection: &mut Connection, action: u8) {
    let backend = &mut connection.pair.backend;
    match (connection.attempt, action) {
        (Attempt::Pending, 50..80) => {
            connection.attempt = Attempt::Established;
            backend.answer();
        }
        (Attempt::Pending, 80..88) => {
            connection.attempt = Attempt::Failed;
            backend.fail(ErrorKind::ConnectionRefused);
        }
        // Some kernels report HUP while the handshake still runs.
        (Attempt::Pending, 88..92) => {
            let hung_up = Readiness { readable: true, read_closed: true, ..Readiness::default() };
            backend.edge = Some(Readiness { writable: true, ..hung_up });
        }
        _ => {}
    }
}
