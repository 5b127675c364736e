//! From an admitted client to a connected backend.
//!
//! What the client says meanwhile stays in its socket, unless it was asked for. A failed attempt
//! goes on to another backend; nothing has been sent by then, so nothing can be repeated.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::policy::client::Client;
use crate::shared::{
    Address, Backend, CONNECT_SECONDS, CloseReason, ConnectFailure, Listener, Pick, RefuseReason,
    Snapshot,
};
use crate::sys::socket;
use crate::sys::unix;

use super::choose::{Asking, Chooser};
use super::clock::Tick;
use super::connection::{Admitted, Connection, Place, Times};
use super::phase::{Handshake, Phase, Stage, may_retry};
use super::picker::PassedOver;
use super::queue;
use super::refuse::Refusal;
use super::slots::SlotKey;
use super::source::{self, NotBegun};
use super::stream::wire::Side;
use super::stream::{End, Readiness, Reset, Stream};
use super::symptoms;
use super::worker::Worker;

/// Why a connection cannot go on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Dead {
    Refused(Refusal),
    /// Every backend that could serve is full, and the pool lets clients wait.
    Full,
    Gone,
}

impl Worker {
    /// Opens a session for an admitted client and starts to connect it.
    pub(super) fn open(
        &mut self,
        listener: &Arc<Listener>,
        client: OwnedFd,
        peer: Client,
        admitted: Admitted,
    ) {
        let mut connection = self.new_connection(listener, client, peer, admitted);
        if let Some(routing) = &listener.routing {
            return self.open_by_words(connection, routing);
        }
        let outcome = self.first_attempt(&mut connection);
        let waits = matches!(outcome, Err(Dead::Full));
        if let Err(dead) = outcome
            && !waits
        {
            return self.discard(connection, dead);
        }
        let key = match self.table.slots.insert(connection) {
            Ok(key) => key,
            Err(connection) => {
                return self.discard(connection, Dead::Refused(RefuseReason::MaxSessions.into()));
            }
        };
        if self.register(key, Side::Client).is_err() || self.register(key, Side::Backend).is_err() {
            return self.give_up(key, Dead::Refused(RefuseReason::Descriptors.into()));
        }
        if waits { self.wait_in_line(key) } else { self.rearm(key) }
    }

    pub(super) fn new_connection(
        &mut self,
        listener: &Listener,
        client: OwnedFd,
        peer: Client,
        admitted: Admitted,
    ) -> Connection {
        let snapshot = self.snapshot.current();
        self.table.opened += 1;
        let now = self.now;
        let mut stream = Stream::new(snapshot.splice);
        if peer == Client::Unix {
            stream.expect_parts(Side::Client);
        }
        Connection {
            stream,
            client,
            backend: None,
            phase: Phase::new(now),
            peer,
            place: Place {
                number: self.table.opened * self.setup.workers + self.setup.number as u64,
                listener: listener.id,
                pool: listener.pool,
                backend: None,
                pick: Pick::default(),
                generation: snapshot.generation,
                counted: admitted.counted,
                observed: admitted.observed,
            },
            times: Times { opened: now, connected: None, waited_ms: None },
            tried: Vec::new(),
            failure: None,
            aside: None,
            queued: false,
        }
    }

    /// The first attempt of a client, which does not overtake those that wait.
    pub(super) fn first_attempt(&mut self, connection: &mut Connection) -> Result<(), Dead> {
        let pool = self.snapshot.current().pool(connection.place.pool);
        if pool.is_some_and(|pool| queue::has_line(pool)) {
            return Err(Dead::Full);
        }
        self.attempt(connection)
    }

    /// Chooses backends and starts to connect, until one attempt is under way.
    pub(super) fn attempt(&mut self, connection: &mut Connection) -> Result<(), Dead> {
        loop {
            let snapshot = self.snapshot.current();
            let Some(backend) = choose(&mut self.chooser, (snapshot, self.now), connection) else {
                return Err(why_nobody(snapshot, connection));
            };
            connection.place.backend = Some(backend.id);
            connection.phase.attempts(self.now);
            self.prepare_greeting(connection);
            let listener = snapshot.listener(connection.place.listener);
            let user_timeout = listener.and_then(|listener| listener.user_timeout);
            let mut begun = self.begin_connect(connection, user_timeout);
            // Who was refused gives way to who was admitted.
            if matches!(begun, Err(NotBegun::Exhausted)) && self.held_give_way() {
                begun = self.begin_connect(connection, user_timeout);
            }
            match begun {
                Ok(socket) => {
                    connection.backend = Some(socket);
                    return Ok(());
                }
                Err(NotBegun::Exhausted) => {
                    return Err(Dead::Refused(RefuseReason::Descriptors.into()));
                }
                Err(NotBegun::Failed(failure)) => self.attempt_failed(connection, failure)?,
            }
        }
    }

    /// Starts to connect the backend on which a place is claimed.
    fn begin_connect(
        &self,
        connection: &mut Connection,
        user_timeout: Option<Duration>,
    ) -> Result<OwnedFd, NotBegun> {
        let chosen = connection.place.backend;
        let Some(backend) = chosen.and_then(|id| self.snapshot.current().backend(id)) else {
            return Err(NotBegun::Failed(ConnectFailure::Other));
        };
        match &backend.source {
            None => connect(&backend.address, user_timeout).map_err(|error| NotBegun::of(&error)),
            Some(source) => {
                let clock = (self.setup.number, self.now.micros());
                source::connect(connection, (backend, source), clock, user_timeout)
            }
        }
    }

    /// Counts that the latest attempt has failed; an error when there must not be another.
    fn attempt_failed(
        &self,
        connection: &mut Connection,
        failure: ConnectFailure,
    ) -> Result<(), Dead> {
        let snapshot = self.snapshot.current();
        let claimed = connection.place.backend.take();
        let Some(backend) = claimed.and_then(|id| snapshot.backend(id)) else { return Ok(()) };
        backend.state.counters(self.setup.number).failed_for(failure).add(1);
        symptoms::not_connected(backend, failure);
        backend.state.release();
        queue::place_is_free(backend);
        let pool = snapshot.pool(connection.place.pool);
        let speaks = failure.is_of_the_backend() && !symptoms::is_ours(backend, failure);
        if backend.measured && speaks {
            let timeout = pool.map_or(Duration::ZERO, |pool| pool.connect_timeout);
            backend.state.observe_latency(micros(timeout), self.now.micros());
        }
        connection.backend = None;
        if let Some(aside) = &mut connection.aside {
            aside.port = None;
        }
        connection.stream.backend_replaced();
        connection.tried.push(backend.id);
        connection.failure = Some(failure);
        let retries = pool.map_or(0, |pool| pool.retries);
        if !may_retry(connection.tried.len(), retries) {
            return Err(Dead::Refused(RefuseReason::NoBackend.into()));
        }
        Ok(())
    }

    /// Something happened to a connection that moves no bytes yet.
    pub(super) fn opening_event(&mut self, key: SlotKey, side: Side, readiness: Readiness) {
        match self.table.slots.get(key).map(|connection| connection.phase.stage) {
            Some(Stage::Connecting) => self.connecting_event(key, side, readiness),
            Some(Stage::Reading) => self.read_on(key),
            Some(Stage::Waiting) => self.waiting_event(key, readiness),
            Some(Stage::Greeting) => self.greeting_event(key, side, readiness.error),
            _ => {}
        }
    }

    fn connecting_event(&mut self, key: SlotKey, side: Side, readiness: Readiness) {
        let Some(connection) = self.table.slots.get_mut(key) else { return };
        let socket = connection.backend.as_ref();
        let ask = || socket.map(|socket| socket::connect_status(socket.as_fd()));
        match Handshake::judge(side, readiness, ask) {
            Handshake::Waits => {}
            Handshake::Unproven => connection.stream.backend_replaced(),
            Handshake::Done => self.established(key),
            Handshake::Failed(error) => self.retry(key, ConnectFailure::of(&error)),
            Handshake::Abandoned => self.give_up(key, Dead::Gone),
        }
    }

    fn established(&mut self, key: SlotKey) {
        let snapshot = self.snapshot.current();
        let Some(connection) = self.table.slots.get_mut(key) else { return };
        let Some(backend) = connection.place.backend.and_then(|id| snapshot.backend(id)) else {
            return;
        };
        match backend.address {
            Address::Ip(address) => {
                let (low, high) = self.setup.ephemeral_ports;
                if (low..=high).contains(&address.port())
                    && let Some(socket) = &connection.backend
                    && socket::is_self_connected(socket.as_fd(), address)
                {
                    return self.retry(key, ConnectFailure::Loop);
                }
            }
            Address::Unix(_) => connection.stream.expect_parts(Side::Backend),
        }
        connection.stream.connected();
        let has_header = connection.aside.as_ref().is_some_and(|aside| aside.greeting.is_some());
        if !has_header || self.greet(key) {
            self.serve(key);
        }
    }

    /// The backend of a connection is connected and knows who comes: bytes may move.
    pub(super) fn serve(&mut self, key: SlotKey) {
        let snapshot = self.snapshot.current();
        let Some(connection) = self.table.slots.get_mut(key) else { return };
        let Some(backend) = connection.place.backend.and_then(|id| snapshot.backend(id)) else {
            return;
        };
        let counters = backend.state.counters(self.setup.number);
        counters.sessions.add(1);
        let elapsed = self.now.since(connection.phase.attempted);
        counters.connect_seconds.record(elapsed, &CONNECT_SECONDS);
        if backend.measured {
            backend.state.observe_latency(micros(elapsed), self.now.micros());
        }
        connection.phase.connected(self.now);
        connection.tried = Vec::new();
        connection.times.connected = Some(self.now);
        self.rearm(key);
    }

    /// The attempt under way has failed: another backend, or the end.
    pub(super) fn retry(&mut self, key: SlotKey, failure: ConnectFailure) {
        let Some(mut connection) = self.table.slots.lift(key) else { return };
        let outcome = self.retry_lifted(&mut connection, failure);
        self.table.slots.put_back(key, connection);
        self.take_outcome(key, outcome);
    }

    /// Acts on how an attempt of a session in the table has begun.
    pub(super) fn take_outcome(&mut self, key: SlotKey, outcome: Result<(), Dead>) {
        match outcome {
            Err(Dead::Full) => self.wait_in_line(key),
            Err(dead) => self.give_up(key, dead),
            Ok(()) if self.register(key, Side::Backend).is_err() => {
                self.give_up(key, Dead::Refused(RefuseReason::Descriptors.into()));
            }
            Ok(()) => self.rearm(key),
        }
    }

    fn retry_lifted(
        &mut self,
        connection: &mut Connection,
        failure: ConnectFailure,
    ) -> Result<(), Dead> {
        self.attempt_failed(connection, failure)?;
        self.attempt(connection)
    }

    /// Arms the timer of a connection for what it waits for now.
    pub(super) fn rearm(&mut self, key: SlotKey) {
        if let Some(connection) = self.table.slots.get(key) {
            let check = connection.next_check(self.snapshot.current(), self.now);
            self.table.timers.arm(key.index, check);
        }
    }

    /// The client of a connection is gone before it was served.
    pub(super) fn abandon(&mut self, key: SlotKey) {
        self.give_up(key, Dead::Gone);
    }

    pub(super) fn give_up(&mut self, key: SlotKey, dead: Dead) {
        self.table.timers.cancel(key.index);
        if let Some(connection) = self.table.slots.remove(key) {
            self.discard(connection, dead);
        }
    }

    pub(super) fn discard(&mut self, connection: Connection, dead: Dead) {
        match dead {
            Dead::Refused(refusal) => self.refuse_opened(connection, refusal),
            Dead::Full => self.refuse_opened(connection, RefuseReason::NoBackend.into()),
            Dead::Gone => {
                let end = End { reason: CloseReason::ClientGone, reset: Reset::Both };
                self.close(connection, end);
            }
        }
    }
}

/// Why no backend could be chosen.
#[cold]
fn why_nobody(snapshot: &Snapshot, connection: &Connection) -> Dead {
    let pool = snapshot.pool(connection.place.pool);
    if pool.is_some_and(|pool| queue::is_only_full(pool)) {
        Dead::Full
    } else {
        Dead::Refused(RefuseReason::NoBackend.into())
    }
}

/// Starts to connect; to a Unix socket it is done with that, and the next event says so.
fn connect(address: &Address, user_timeout: Option<Duration>) -> io::Result<OwnedFd> {
    match address {
        Address::Ip(address) => socket::connect(*address, user_timeout),
        Address::Unix(path) => unix::connect(path),
    }
}

fn micros(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

/// A backend for a connection, with a place claimed there.
fn choose<'a>(
    chooser: &mut Chooser,
    (snapshot, now): (&'a Snapshot, Tick),
    connection: &mut Connection,
) -> Option<&'a Backend> {
    let passed_over = PassedOver::default();
    let asking = Asking {
        client: connection.peer,
        key: connection.aside.as_ref().and_then(|aside| aside.key),
        now_us: now.micros(),
        tried: &connection.tried,
        generation: snapshot.generation,
        passed_over: &passed_over,
    };
    let picked = chooser.choose(snapshot.pool(connection.place.pool)?, asking);
    let skipped = passed_over.into_list();
    if !skipped.is_empty() {
        connection.note_skipped(skipped);
    }
    let (backend, pick) = picked?;
    connection.place.pick = pick;
    Some(backend)
}
