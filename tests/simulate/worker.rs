//! A worker without a kernel: the loop of `src/dataplane/worker.rs`, step by step, around the real
//! sessions, slots, tokens and timers.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::time::Duration;

use mio::Token;

use evenkeel::dataplane::clock::Tick;
use evenkeel::dataplane::session::handshake::{Handshake, may_retry};
use evenkeel::dataplane::session::stage::{Bounds, Due, Moving, Stage};
use evenkeel::dataplane::slots::{Addressed, SlotKey, Slots};
use evenkeel::dataplane::stream::pacing::{Pacing, Spent};
use evenkeel::dataplane::stream::relay::Turn;
use evenkeel::dataplane::stream::wire::Side;
use evenkeel::dataplane::stream::{End, News, Readiness, Standing, Stream};
use evenkeel::dataplane::timers::Timers;
use evenkeel::policy::pace::pacer::Rates;
use evenkeel::shared::SpliceMode;
use evenkeel::sys::socket::ConnectStatus;

use super::put_in;
use super::sockets::{Kernel, Pair, Pipe, SIDES, Socket, Wires};

const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);
/// Backends tried after the first.
pub(crate) const RETRIES: u32 = 2;

/// How the attempt under way will have gone, once the network says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    Pending,
    Established,
    Failed,
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: Stream<Pipe>,
    pub(crate) pair: Pair,
    pub(crate) stage: Stage,
    pub(crate) attempt: Attempt,
    /// Backends that failed it.
    pub(crate) failed: usize,
    pub(crate) queued: bool,
    pub(crate) opened: Tick,
    pub(crate) pacing: Pacing,
    /// Sides that wait for their bandwidth.
    pub(crate) waits: [bool; 2],
}

/// What a schedule fixes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) splice: SpliceMode,
    pub(crate) scratch: usize,
    pub(crate) idle: Duration,
    pub(crate) half_closed: Duration,
    pub(crate) bandwidth: Rates,
}

impl Settings {
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            reading: CONNECT_TIMEOUT,
            queue: Duration::ZERO,
            connect: CONNECT_TIMEOUT,
            idle: self.idle,
            half_closed: self.half_closed,
            last: None,
        }
    }
}

/// Why a connection left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The session said so.
    Over(End),
    /// Its timer did.
    Silent(End),
    /// Before there was a backend.
    GivenUp,
}

pub(crate) struct Worker<'a> {
    pub(crate) settings: Settings,
    pub(crate) kernel: Kernel,
    pub(crate) slots: Slots<Connection>,
    pub(crate) keys: Vec<SlotKey>,
    timers: Timers,
    ready: VecDeque<SlotKey>,
    pub(crate) now: Tick,
    scratch: &'a mut [u8],
    /// Events that come a turn or more too late.
    late: Vec<(Token, Readiness)>,
    /// Connections that have left since they were last looked at.
    pub(crate) gone: Vec<(Connection, Ended)>,
}

impl<'a> Worker<'a> {
    pub(crate) fn new(settings: Settings, kernel: Kernel, scratch: &'a mut [u8]) -> Self {
        let now = Tick::from_micros(1_000_000);
        Self {
            settings,
            kernel,
            slots: Slots::new(),
            keys: Vec::new(),
            timers: Timers::new(now),
            ready: VecDeque::new(),
            now,
            scratch,
            late: Vec::new(),
            gone: Vec::new(),
        }
    }

    /// A client has come, and may have spoken already.
    pub(crate) fn open(&mut self) {
        let random = &mut self.kernel.random;
        let mut pair = Pair { client: Socket::new(random), backend: Socket::dial(random) };
        let mut stream = Stream::new(self.settings.splice);
        let client = &mut pair.client;
        match random.u8(..4) {
            0 => {
                let early = random.u64(1..200);
                client.sent = early + if random.bool() { random.u64(..50) } else { 0 };
                client.received = early;
                stream.preload(client.stream.bytes(0, early));
                client.peer_finished = random.u8(..8) == 0;
            }
            1 if random.u8(..4) == 0 => {
                client.peer_finished = true;
                stream.client_ended();
            }
            _ => {}
        }
        // Registering tells the state at once.
        pair.client.raise();
        let connection = Connection {
            stream,
            pair,
            stage: Stage::connecting(self.now),
            attempt: Attempt::Pending,
            failed: 0,
            queued: false,
            opened: self.now,
            pacing: Pacing::new(self.now),
            waits: [false; 2],
        };
        if let Ok(key) = self.slots.insert(connection) {
            self.keys.push(key);
            self.arm(key);
        }
    }

    pub(crate) fn connection(&mut self, key: SlotKey) -> Option<&mut Connection> {
        // By the full key whatever is put in: the test's own view stays right.
        if self.slots.key_at(key.index) == Some(key) { self.slots.get_mut(key) } else { None }
    }

    /// One turn of the loop.
    pub(crate) fn turn(&mut self) {
        for (token, readiness) in self.events() {
            self.note(token, readiness);
        }
        for _ in 0..self.ready.len() {
            let Some(key) = self.ready.pop_front() else { break };
            let Some(connection) = self.slots.get_mut(key) else { continue };
            connection.queued = false;
            if !connection.stage.is_opening() {
                self.advance(key);
            }
        }
        let mut due = Vec::new();
        self.timers.expire(self.now, &mut due);
        for slot in due {
            if let Some(key) = self.slots.key_at(slot) {
                self.timer_fired(key);
            }
        }
    }

    /// What epoll gives: in any order, not all at once, and now and then one that has been held
    /// up in the batch while its session ended.
    fn events(&mut self) -> Vec<(Token, Readiness)> {
        let mut events = std::mem::take(&mut self.late);
        for index in 0..self.keys.len() {
            let key = self.keys[index];
            for side in SIDES {
                let (delivered, fresh, repeated) = {
                    let random = &mut self.kernel.random;
                    (random.u8(..4) != 0, random.bool(), random.u8(..8) == 0)
                };
                if !delivered || self.connection(key).is_none() {
                    continue;
                }
                let connection = self.slots.get_mut(key);
                let event = connection.and_then(|c| c.pair.socket(side).take_event(fresh));
                let Some(event) = event else { continue };
                let token = Addressed::Session(key, side).token();
                events.push((token, event));
                if repeated && self.is_about_to_end(key, side) {
                    self.late.push((token, event));
                }
            }
        }
        if self.kernel.random.bool() {
            events.reverse();
        }
        events
    }

    /// An event can be too late only for a session that has ended: as long as it lives, its sockets
    /// give what is so. Whether it will have ended by then is not known; both are tried, but not
    /// for what a muted side was told: a turn takes up all events before it unmutes anything.
    fn is_about_to_end(&mut self, key: SlotKey, side: Side) -> bool {
        let Some(connection) = self.connection(key) else { return false };
        if connection.stage.is_opening() {
            return false;
        }
        let pair = &mut connection.pair;
        if pair.socket(side).muted {
            return false;
        }
        pair.client.peer_finished && pair.backend.peer_finished || pair.client.reset
    }

    fn note(&mut self, token: Token, readiness: Readiness) {
        let Addressed::Session(key, side) = Addressed::of(token) else { return };
        let Some(connection) = self.slots.get_mut(key) else { return };
        self.kernel.trace(|| format!(" {key:?} {side:?} {readiness:?}"));
        let news = connection.stream.note(side, readiness);
        if news == News::OnlyMore && !connection.stage.is_opening() {
            connection.pair.socket(side).muted |= connection.stream.mute(side);
            return;
        }
        if !connection.queued {
            connection.queued = true;
            self.ready.push_back(key);
        }
        if connection.stage.is_opening() {
            self.connecting_event(key, side, readiness);
        }
    }

    fn connecting_event(&mut self, key: SlotKey, side: Side, readiness: Readiness) {
        let Some(connection) = self.slots.get_mut(key) else { return };
        // Asking takes SO_ERROR, which clears it.
        let (error, attempt) = (&mut connection.pair.backend.error, connection.attempt);
        let ask = || match (error.take(), attempt) {
            (Some(error), _) => Some(ConnectStatus::Failed(error.into())),
            (None, Attempt::Failed) => Some(ConnectStatus::Failed(ErrorKind::TimedOut.into())),
            (None, Attempt::Pending) => Some(ConnectStatus::Pending),
            (None, Attempt::Established) => Some(ConnectStatus::Established),
        };
        match Handshake::judge(side, readiness, ask) {
            Handshake::Waits => {}
            Handshake::Unproven => connection.stream.backend_replaced(),
            Handshake::Failed(_) => self.retry(key),
            Handshake::Abandoned => self.remove(key, Ended::GivenUp),
            Handshake::Done => {
                connection.stage = Stage::moving(self.now);
                connection.stream.connected();
                self.arm(key);
            }
        }
    }

    fn retry(&mut self, key: SlotKey) {
        let Some(connection) = self.slots.get_mut(key) else { return };
        connection.stream.backend_replaced();
        connection.failed += 1;
        connection.pair.backend = Socket::dial(&mut self.kernel.random);
        connection.attempt = Attempt::Pending;
        connection.stage = Stage::connecting(self.now);
        let gives_up = !may_retry(connection.failed, RETRIES);
        if gives_up {
            self.remove(key, Ended::GivenUp);
        } else {
            self.arm(key);
        }
    }

    fn advance(&mut self, key: SlotKey) {
        let Some(connection) = self.slots.get_mut(key) else { return };
        let was_half_closed = connection.stream.is_half_closed();
        let before = (connection.stream.delivered(), self.kernel.moved);
        let (rates, now) = (self.settings.bandwidth, self.now);
        let granted = connection.pacing.allowances(rates, now);
        let mut wires = Wires { pair: &mut connection.pair, kernel: &mut self.kernel };
        let mut turn = Turn {
            wire: &mut wires,
            scratch: self.scratch,
            splice: self.settings.splice,
            is_last: false,
            allowances: granted,
        };
        let standing = connection.stream.advance(&mut turn);
        let left = turn.allowances;
        let spent = Spent { granted, left, more: connection.stream.has_more() };
        connection.waits = connection.pacing.charge(rates, &spent, now);
        let resumes = connection.pacing.resumes_at();
        if connection.stream.delivered() != before.0 {
            moving(connection).active = self.now;
        }
        if let Some(resumes) = resumes {
            moving(connection).active = resumes;
            self.arm(key);
        }
        let Some(connection) = self.slots.get_mut(key) else { return };
        let at_once = standing == Standing::Waiting || !put_in::late_half_closed();
        if connection.stream.is_half_closed() && !was_half_closed && at_once {
            let moving = moving(connection);
            moving.active = moving.active.max(self.now);
            self.arm(key);
        }
        let Some(connection) = self.slots.get_mut(key) else { return };
        let goes_on = !matches!(standing, Standing::Over(_));
        for side in SIDES {
            if goes_on && connection.stream.unmute(side) {
                connection.pair.socket(side).muted = false;
                // A changed registration is answered with what is so now.
                connection.pair.socket(side).raise();
            }
        }
        match standing {
            Standing::Waiting => {}
            Standing::Busy => {
                if self.kernel.moved == before.1 {
                    let what = format!("busy with nothing: {:?}", connection.stream);
                    self.kernel.problems.push(what);
                }
                if !connection.queued {
                    connection.queued = true;
                    self.ready.push_back(key);
                }
            }
            Standing::Lingering => {
                connection.stage = Stage::Lingering(*moving(connection));
                self.arm(key);
            }
            Standing::Over(end) => self.remove(key, Ended::Over(end)),
        }
    }

    fn timer_fired(&mut self, key: SlotKey) {
        let (now, bounds) = (self.now, self.settings.bounds());
        let Some(connection) = self.slots.get_mut(key) else { return };
        if connection.pacing.resume(now) {
            self.advance(key);
        }
        let Some(connection) = self.slots.get_mut(key) else { return };
        match connection.stage.due(&connection.stream, bounds, now) {
            // No schedule has it: see tests/accept_proxy.rs.
            Due::Unsaid => return self.remove(key, Ended::GivenUp),
            Due::Retry => return self.retry(key),
            Due::End(end) => return self.remove(key, Ended::Silent(end)),
            Due::Look => return self.advance(key),
            Due::Ask | Due::NoPlace => self.kernel.problems.push("nobody waits here".into()),
            Due::Later | Due::Keepalive => {}
        }
        if !put_in::forgotten_timer() {
            self.arm(key);
        }
    }

    fn arm(&mut self, key: SlotKey) {
        let Some(connection) = self.slots.get(key) else { return };
        let bounds = self.settings.bounds();
        let check = connection.stage.next_check(&connection.stream, bounds, self.now);
        let resumes = connection.pacing.resumes_at();
        self.timers.arm(key.index, resumes.map_or(check, |resumes| resumes.min(check)));
    }

    fn remove(&mut self, key: SlotKey, ended: Ended) {
        self.timers.cancel(key.index);
        if let Some(mut connection) = self.slots.remove(key) {
            self.keys.retain(|known| *known != key);
            let mut wires = Wires { pair: &mut connection.pair, kernel: &mut self.kernel };
            // What is held is gone with it; the checks want to know how much.
            let held = SIDES.map(|side| connection.stream.held(side));
            connection.stream.release(&mut wires);
            super::checks::check_end(&connection, held, ended, &mut self.kernel.problems);
            self.gone.push((connection, ended));
        }
    }
}

/// What a session keeps while its bytes move; nothing of it counts before.
fn moving(connection: &mut Connection) -> &mut Moving {
    connection.stage.moving_mut().expect("only a session that moves bytes is asked")
}
