//! The promises that hold after every turn, held against what the scripted network knows.

use std::time::Duration;

use evenkeel::dataplane::clock::Tick;
use evenkeel::dataplane::session::Session;
use evenkeel::dataplane::session::stage::{Bounds, Stage};
use evenkeel::dataplane::slots::SlotKey;
use evenkeel::dataplane::stream::wire::Side;
use evenkeel::shared::CloseReason;

use super::kernel::Scripted;
use super::network::Network;
use super::setting::{CONNECT_TIMEOUT, READING_TIMEOUT, RETRIES, Setting};
use super::socket::{Attempt, Socket};
use super::visit::Visit;

pub(crate) const SIDES: [Side; 2] = [Side::Client, Side::Backend];

/// Two ticks of the wheel: one that rounds up, one in which the turn comes.
pub(crate) const LATE_MAX: Duration = Duration::from_micros(2 << 14);
/// The longest time that passes between two turns while peers act.
const STEP_MAX: Duration = Duration::from_millis(60);
/// How often a client that waits in line looks by itself.
pub(crate) const LINE_LOOK: Duration = Duration::from_millis(500);

/// One session after a turn, with its sockets.
pub(crate) struct Look<'a> {
    pub(crate) session: &'a Session<Scripted>,
    network: &'a Network,
    setting: &'a Setting,
    visit: &'a Visit,
    problems: Vec<String>,
}

impl<'a> Look<'a> {
    /// Checks one session; returns what is wrong with it.
    pub(crate) fn check(
        session: &'a Session<Scripted>,
        network: &'a Network,
        setting: &'a Setting,
        visit: &'a Visit,
    ) -> Vec<String> {
        let mut look = Self { session, network, setting, visit, problems: Vec::new() };
        look.balance();
        look.progress();
        look.bandwidth();
        look.silence();
        look.cut();
        look.opening();
        look.repeats();
        look.presence();
        look.problems
    }

    fn socket(&self, side: Side) -> Option<&'a Socket> {
        let handle = match side {
            Side::Client => Some(self.session.client_socket()),
            Side::Backend => self.session.backend_socket(),
        };
        handle.map(|handle| &self.network.sockets[handle.id])
    }

    /// When its client was accepted.
    fn opened(&self) -> Tick {
        self.visit.accepted.unwrap_or(self.network.now)
    }

    fn is_moving(&self) -> bool {
        matches!(self.session.stage(), Stage::Moving(_))
    }

    /// Bytes in are bytes out and bytes held, both ways.
    fn balance(&mut self) {
        if matches!(self.session.stage(), Stage::Reading(_)) {
            return;
        }
        let stream = self.session.stream();
        for (from, (copied, spliced)) in SIDES.into_iter().zip(stream.delivered()) {
            let held = stream.held(from) as u64;
            let got = self.socket(from).map_or(0, Socket::got);
            let target = self.socket(from.other());
            let (out, taken) = (copied + spliced, target.map_or(0, Socket::taken));
            // What was on its way to a peer that is gone is gone too.
            let is_lost = target.is_some_and(|target| target.reset);
            if out != taken || (out + held != got && !is_lost) {
                self.problems.push(format!(
                    "from {from:?}: {got} received, {out} counted, {taken} sent, {held} held"
                ));
            }
        }
    }

    /// With no event on its way, nothing that could move may be left.
    fn progress(&mut self) {
        let (Some(client), Some(backend)) = (self.socket(Side::Client), self.socket(Side::Backend))
        else {
            return;
        };
        let is_told = client.edge.is_some() || backend.edge.is_some();
        let stream = self.session.stream();
        if !self.is_moving() || self.session.is_queued() || is_told {
            return;
        }
        let is_paced = self.session.pacing().is_some_and(|it| it.resumes_at().is_some());
        for (from, source, target) in
            [(Side::Client, client, backend), (Side::Backend, backend, client)]
        {
            let held = stream.held(from) as u64;
            let (waiting, over) = (source.waiting(), source.peer_finished || source.reset);
            let has_room = target.room() > 0 && !target.no_space && !target.reset && !target.shut;
            if is_paced && held == 0 {
                continue;
            }
            if has_room && (waiting > 0 || held > 0 || over) {
                self.problems.push(format!(
                    "stalled: {waiting} wait from {from:?}, {held} held, over: {over}, {stream:?}\n\
                     {client:?}\n{backend:?}"
                ));
                return;
            }
        }
    }

    /// No session goes faster than its bandwidth, or waits for it for longer than until a timer
    /// comes.
    fn bandwidth(&mut self) {
        let age = self.network.now.since(self.opened()).as_secs_f64();
        let stream = self.session.stream();
        let sides = SIDES.into_iter().zip(self.setting.bandwidth).zip(stream.delivered());
        for ((from, rate), (copied, spliced)) in sides {
            let Some(rate) = rate else { continue };
            let rate = rate.get() as f64;
            // What a client says before it has a backend is taken at once: a few hundred bytes, or
            // a buffer full of one that has finished while it waited.
            let may_wait = self.setting.queue.is_some() || !self.setting.retry_delay.is_zero();
            let early = if may_wait { 65_536.0 } else { 400.0 };
            let most = rate * age + 3.0 * (rate / 50.0).max(512.0) + early;
            // What goes to a peer that is gone is thrown away as fast as it comes.
            let taken = copied + spliced + stream.held(from) as u64;
            if taken as f64 > most {
                self.problems.push(format!("too fast: {taken} from {from:?} in {age} s"));
            }
        }
        let resumes = self.session.pacing().and_then(|pacing| pacing.resumes_at());
        self.due("waits for bandwidth", resumes.filter(|_| self.is_moving()));
    }

    /// Silence ends a session within its bound.
    fn silence(&mut self) {
        let (Stage::Moving(moving) | Stage::Lingering(moving)) = self.session.stage() else {
            return;
        };
        let [idle, half_closed] = self.setting.longest();
        let bounds = Bounds { idle, half_closed, ..Bounds::NONE };
        let due = bounds.silence_deadline(self.session.stream(), moving.active);
        self.due("silent", Some(due));
        // A first look may find that a peer has read something, or not know; a second one knows.
        let still_since = self.visit.served.map(|served| served.max(self.visit.still_since));
        if self.session.pacing().is_none() {
            let twice =
                |since| bounds.silence_deadline(self.session.stream(), since).after(STEP_MAX);
            let due = still_since
                .map(|since| bounds.silence_deadline(self.session.stream(), twice(since)));
            self.due("still", due);
        }
        if let Some(lifetime) = self.setting.lifetime.filter(|_| self.is_moving()) {
            // A session that moves bytes only from then on ends at once.
            let due = self.opened().after(lifetime * 11 / 10 + lifetime / 4 + STEP_MAX * 2);
            self.due("lives", self.visit.served.map(|served| due.max(served)));
        }
        let attempt = self.socket(Side::Backend).map(|backend| backend.attempt);
        if attempt != Some(Attempt::Established) {
            let session = self.session;
            self.problems.push(format!("in use before its handshake is done: {session:?}"));
        }
    }

    /// Silence is what ends a session, not slowness: a peer for which the kernel holds bytes has
    /// read none for long. And what is cut waits for a bounded time.
    fn cut(&mut self) {
        let Stage::Cut(cut) = self.session.stage() else { return };
        self.due("cut", Some(cut.until));
        let [idle, half_closed] = self.setting.shortest();
        let silence = match cut.end.reason {
            CloseReason::Idle => idle,
            CloseReason::HalfClosed => half_closed.min(idle),
            _ => return,
        };
        if self.visit.left_when_cut.is_some_and(|read_at| read_at.after(silence) > cut.since) {
            self.problems.push(format!("a slow peer is taken for silent: {:?}", self.visit));
        }
    }

    /// Nothing before the bytes takes longer, or more tries, than allowed.
    fn opening(&mut self) {
        let due = match self.session.stage() {
            Stage::Reading(reading) => Some(reading.since.after(READING_TIMEOUT)),
            Stage::Waiting { first, since } => {
                let timeout = self.setting.queue.map(|queue| queue.timeout);
                timeout.map(|timeout| first.after(timeout).max(*since))
            }
            Stage::Resting { until } => Some(*until),
            Stage::Connecting { since, .. } | Stage::Greeting { since, .. } => {
                Some(since.after(CONNECT_TIMEOUT))
            }
            Stage::Moving(_) | Stage::Lingering(_) | Stage::Cut(_) => None,
        };
        let what = match self.session.stage() {
            Stage::Connecting { .. } => "a handshake waited for",
            _ => "waited for",
        };
        self.due(what, due);
        if self.session.tried().len() > RETRIES as usize {
            self.problems.push(format!("too many backends tried: {:?}", self.session.tried()));
        }
    }

    /// A backend that failed is not tried again at once.
    fn repeats(&mut self) {
        let Stage::Connecting { since, .. } = self.session.stage() else { return };
        let is_repeated =
            self.session.backend_id().is_some_and(|it| self.session.tried().contains(&it));
        // The wait is spread by a fifth.
        let least = self.setting.retry_delay * 4 / 5;
        let failed = self.visit.failed_since;
        if is_repeated && failed.is_some_and(|failed| failed.after(least) > *since) {
            self.problems.push(format!("tried again too early: {:?}", self.visit));
        }
    }

    /// A client that has finished without a word is not served, and does not wait.
    fn presence(&mut self) {
        let Some(client) = self.socket(Side::Client) else { return };
        let waits = matches!(self.session.stage(), Stage::Waiting { .. } | Stage::Resting { .. });
        let is_silent = client.waiting() == 0 && self.session.stream().held(Side::Client) == 0;
        if waits && is_silent && client.peer_finished && client.edge.is_none() {
            self.problems.push("waits although its client is gone".into());
        }
    }

    /// A moment that must not have passed.
    fn due(&mut self, what: &str, due: Option<Tick>) {
        if let Some(due) = due.map(|due| due.after(LATE_MAX))
            && due < self.network.now
        {
            let late = self.network.now.since(due);
            self.problems.push(format!("{what} {late:?} too long: {:?}", self.session.stream()));
        }
    }
}

/// A pipe is out only while a direction holds bytes, and no more than half of the pipes stay with
/// directions that wait.
pub(crate) fn check_pipes<'a>(
    network: &mut Network,
    sessions: impl Iterator<Item = (SlotKey, &'a Session<Scripted>)>,
) {
    let held = sessions.flat_map(|(_, session)| SIDES.map(|from| session.stream().held(from)));
    let holding = held.filter(|bytes| *bytes > 0).count();
    let lent = network.pipes.lent;
    if lent > holding {
        network.problem(format!("{lent} pipes are out, {holding} sides hold bytes"));
    }
    if network.pipes.is_over_half() {
        network.problem(format!("{lent} pipes stay with directions that wait"));
    }
}

/// Last bytes do not wait for their FIN beyond the turn, however much is left for the next one.
pub(crate) fn check_corks(network: &mut Network) {
    let waits = |socket: &Socket| socket.corked && !socket.reset && !socket.closed;
    if let Some(id) = network.sockets.iter().position(waits) {
        network.problem(format!("the last bytes to {id} wait for a FIN that does not come"));
    }
}
