//! From an admitted client to a connected backend.
//!
//! Once, right after accept, the client's first bytes are received. If there are some, the last
//! ACK of the backend's handshake rides on them; if there are none the server may be the one that
//! speaks first, and nothing may be delayed. A failed attempt goes on to another backend; nothing
//! has been sent by then, so nothing can be repeated.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::shared::{
    Backend, CONNECT_SECONDS, CloseReason, ConnectFailure, Listener, RefuseReason, Snapshot,
};
use crate::sys::socket::{self, ConnectOptions};

use super::accept::is_exhaustion;
use super::choose::{Asking, Chooser};
use super::connection::{Admitted, Connection, Place, Times};
use super::phase::{Handshake, Phase, may_retry};
use super::session::{End, Readiness, Reset, Session};
use super::slots::SlotKey;
use super::symptoms;
use super::wire::Side;
use super::worker::Worker;

/// Why a connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dead {
    Refused(RefuseReason),
    Gone,
}

impl Worker {
    /// Opens a session for an admitted client and starts to connect it.
    pub(super) fn open(
        &mut self,
        listener: &Arc<Listener>,
        client: OwnedFd,
        peer: SocketAddr,
        admitted: Admitted,
    ) {
        let mut connection = self.new_connection(listener, client, peer, admitted);
        let spoke_first = match self.receive_early(&mut connection) {
            Ok(spoke_first) => spoke_first,
            Err(dead) => return self.discard(connection, dead),
        };
        if let Err(dead) = self.attempt(&mut connection, spoke_first) {
            return self.discard(connection, dead);
        }
        let key = match self.table.slots.insert(connection) {
            Ok(key) => key,
            Err(connection) => {
                return self.discard(connection, Dead::Refused(RefuseReason::MaxSessions));
            }
        };
        if self.register(key, Side::Client).is_err() || self.register(key, Side::Backend).is_err() {
            return self.give_up(key, Dead::Refused(RefuseReason::Descriptors));
        }
        self.rearm(key);
    }

    fn new_connection(
        &mut self,
        listener: &Listener,
        client: OwnedFd,
        peer: SocketAddr,
        admitted: Admitted,
    ) -> Connection {
        let snapshot = self.snapshot.current();
        self.table.opened += 1;
        let now = self.now;
        Connection {
            session: Session::new(snapshot.splice),
            client,
            backend: None,
            phase: Phase::new(now),
            peer,
            place: Place {
                number: self.table.opened * self.setup.workers + self.setup.number as u64,
                listener: listener.id,
                pool: listener.pool,
                backend: None,
                generation: snapshot.generation,
                counted: admitted.counted,
                observed: admitted.observed,
            },
            times: Times { opened: now, connected: None },
            tried: Vec::new(),
            failure: None,
            queued: false,
        }
    }

    /// Receives what the client has sent already; true when there was something.
    fn receive_early(&mut self, connection: &mut Connection) -> Result<bool, Dead> {
        match socket::receive(connection.client.as_fd(), &mut self.tools.scratch) {
            Ok(0) => {
                connection.session.client_ended();
                Ok(false)
            }
            Ok(received) => {
                let drained = received < self.tools.scratch.len();
                let bytes = self.tools.scratch.get(..received).unwrap_or_default();
                connection.session.preload(bytes, drained);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(false),
            Err(_) => Err(Dead::Gone),
        }
    }

    /// Chooses backends and starts to connect, until one attempt is under way.
    fn attempt(&mut self, connection: &mut Connection, spoke_first: bool) -> Result<(), Dead> {
        loop {
            let snapshot = self.snapshot.current();
            let backend = choose(&mut self.chooser, snapshot, connection)
                .ok_or(Dead::Refused(RefuseReason::NoBackend))?;
            connection.place.backend = Some(backend.id);
            connection.phase.attempted = self.now;
            let listener = snapshot.listener(connection.place.listener);
            let user_timeout = listener.and_then(|listener| listener.user_timeout);
            let options = ConnectOptions { data_follows: spoke_first, user_timeout };
            match socket::connect(backend.address, options) {
                Ok(socket) => {
                    connection.backend = Some(socket);
                    return Ok(());
                }
                Err(error) if is_exhaustion(&error) => {
                    return Err(Dead::Refused(RefuseReason::Descriptors));
                }
                Err(error) => {
                    self.attempt_failed(connection, backend, ConnectFailure::of(&error))?;
                }
            }
        }
    }

    /// Counts a failed attempt; an error when there must not be another.
    fn attempt_failed(
        &self,
        connection: &mut Connection,
        backend: &Backend,
        failure: ConnectFailure,
    ) -> Result<(), Dead> {
        backend.state.counters(self.setup.number).failed_for(failure).add(1);
        symptoms::not_connected(backend, failure);
        backend.state.release();
        connection.place.backend = None;
        connection.backend = None;
        connection.session.backend_replaced();
        connection.tried.push(backend.id);
        connection.failure = Some(failure);
        let retries =
            self.snapshot.current().pool(connection.place.pool).map_or(0, |pool| pool.retries);
        if !may_retry(connection.tried.len(), retries) {
            return Err(Dead::Refused(RefuseReason::NoBackend));
        }
        Ok(())
    }

    /// Something happened to a connection that is still being connected.
    pub(super) fn connecting_event(&mut self, key: SlotKey, side: Side, readiness: Readiness) {
        let Some(connection) = self.table.slots.get_mut(key) else { return };
        let socket = connection.backend.as_ref();
        let ask = || socket.map(|socket| socket::connect_status(socket.as_fd()));
        match Handshake::judge(side, readiness, ask) {
            Handshake::Waits => {}
            Handshake::Unproven => connection.session.backend_replaced(),
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
        let (low, high) = self.setup.ephemeral_ports;
        if (low..=high).contains(&backend.address.port())
            && let Some(socket) = &connection.backend
            && socket::is_self_connected(socket.as_fd(), backend.address)
        {
            return self.retry(key, ConnectFailure::Loop);
        }
        let counters = backend.state.counters(self.setup.number);
        counters.sessions.add(1);
        let elapsed = self.now.since(connection.phase.attempted);
        counters.connect_seconds.record(elapsed, &CONNECT_SECONDS);
        connection.phase.connected(self.now);
        connection.tried = Vec::new();
        connection.times.connected = Some(self.now);
        connection.session.connected();
        self.rearm(key);
    }

    /// The attempt under way has failed: another backend, or the end.
    pub(super) fn retry(&mut self, key: SlotKey, failure: ConnectFailure) {
        let Some(mut connection) = self.table.slots.lift(key) else { return };
        let outcome = self.retry_lifted(&mut connection, failure);
        self.table.slots.put_back(key, connection);
        match outcome {
            Err(dead) => self.give_up(key, dead),
            Ok(()) if self.register(key, Side::Backend).is_err() => {
                self.give_up(key, Dead::Refused(RefuseReason::Descriptors));
            }
            Ok(()) => self.rearm(key),
        }
    }

    fn retry_lifted(
        &mut self,
        connection: &mut Connection,
        failure: ConnectFailure,
    ) -> Result<(), Dead> {
        let snapshot = self.snapshot.current();
        if let Some(backend) = connection.place.backend.and_then(|id| snapshot.backend(id)) {
            self.attempt_failed(connection, backend, failure)?;
        }
        let spoke_first = connection.session.held(Side::Client) > 0;
        self.attempt(connection, spoke_first)
    }

    /// Arms the timer of a connection for what it waits for now.
    pub(super) fn rearm(&mut self, key: SlotKey) {
        if let Some(connection) = self.table.slots.get(key) {
            let check = connection.next_check(self.snapshot.current(), self.now);
            self.table.timers.arm(key.index, check);
        }
    }

    fn give_up(&mut self, key: SlotKey, dead: Dead) {
        self.table.timers.cancel(key.index);
        if let Some(connection) = self.table.slots.remove(key) {
            self.discard(connection, dead);
        }
    }

    fn discard(&mut self, connection: Connection, dead: Dead) {
        match dead {
            Dead::Refused(reason) => self.refuse_opened(connection, reason),
            Dead::Gone => {
                let end = End { reason: CloseReason::ClientGone, reset: Reset::Both };
                self.close(connection, end);
            }
        }
    }
}

/// A backend for a connection, with a place claimed there.
fn choose<'a>(
    chooser: &mut Chooser,
    snapshot: &'a Snapshot,
    connection: &Connection,
) -> Option<&'a Backend> {
    let asking = Asking {
        client: connection.peer,
        tried: &connection.tried,
        generation: snapshot.generation,
    };
    chooser.choose(snapshot.pool(connection.place.pool)?, asking)
}
