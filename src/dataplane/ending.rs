//! How connections end: refused, finished, timed out, drained; each counted and logged once.
//!
//! Every place that was claimed on arrival is given back here and nowhere else.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::shared::{
    Backend, CloseReason, ConnectFailure, Detail, Limit, LimitAction, Listener, PathKind, Pool,
    RefuseReason, SESSION_SECONDS, SessionRecord,
};
use crate::sys::socket::{self, KeepaliveOptions};

use super::clock::Tick;
use super::connect::Dead;
use super::connection::Connection;
use super::phase::{Due, Stage};
use super::queue;
use super::session::{End, Reset};
use super::slots::SlotKey;
use super::symptoms;
use super::wire::{KernelWire, Side};
use super::worker::Worker;

impl Worker {
    /// Turns away a client that was never admitted.
    pub(super) fn refuse(
        &mut self,
        listener: &Arc<Listener>,
        client: OwnedFd,
        peer: SocketAddr,
        reason: RefuseReason,
    ) {
        let counters = listener.state.counters(self.setup.number);
        counters.refused_for(reason).add(1);
        if is_closed_orderly(listener.limit.as_ref(), reason) {
            self.close_orderly(&client);
        } else {
            socket::reset_on_close(client.as_fd());
        }
        drop(client);
        if self.setup.log.is_on() {
            self.table.opened += 1;
            let number = self.table.opened * self.setup.workers + self.setup.number as u64;
            let record = SessionRecord {
                session: number,
                listener: Arc::clone(listener),
                pool: None,
                backend: None,
                client: peer,
                bytes_to_backend: 0,
                bytes_to_client: 0,
                queue_ms: None,
                connect_ms: None,
                total_ms: 0,
                path: PathKind::Copy,
                generation: self.snapshot.current().generation,
                term: reason.term(),
                reason: reason.words(),
                detail: Detail::None,
            };
            self.setup.log.write(SystemTime::now(), record);
        }
    }

    /// FIN, and nothing unread: unread bytes would turn the close into a reset.
    fn close_orderly(&mut self, client: &OwnedFd) {
        // A client that is gone already needs no FIN and has nothing to read.
        let _gone = socket::shutdown_write(client.as_fd());
        let _nothing = socket::receive(client.as_fd(), &mut self.tools.scratch);
    }

    /// Turns away a client that was admitted but could not be served.
    pub(super) fn refuse_opened(&mut self, connection: Connection, reason: RefuseReason) {
        let listener = self.snapshot.current().listener(connection.place.listener).cloned();
        let limit = listener.as_ref().and_then(|listener| listener.limit.as_ref());
        if is_closed_orderly(limit, reason) {
            self.close_orderly(&connection.client);
        } else {
            connection.reset_client();
        }
        if let Some(listener) = &listener {
            listener.state.counters(self.setup.number).refused_for(reason).add(1);
        }
        let (term, words) = match (reason, connection.failure) {
            (RefuseReason::NoBackend, _) if connection.phase.stage == Stage::Waiting => {
                ("sQ", "no place at a backend in time")
            }
            (RefuseReason::NoBackend, Some(ConnectFailure::Timeout)) => ("sC", reason.words()),
            _ => (reason.term(), reason.words()),
        };
        self.finish(connection, term, words);
    }

    /// Ends a session that is in the table.
    pub(super) fn end(&mut self, key: SlotKey, end: End) {
        self.table.timers.cancel(key.index);
        if let Some(connection) = self.table.slots.remove(key) {
            self.close(connection, end);
        }
    }

    /// Ends a session.
    pub(super) fn close(&mut self, mut connection: Connection, end: End) {
        if end.reason == CloseReason::BackendReset {
            symptoms::reset(self.snapshot.current(), &connection, self.now);
        }
        match end.reset {
            Reset::None => {}
            Reset::One(Side::Client) => connection.reset_client(),
            Reset::One(Side::Backend) => connection.reset_backend(),
            Reset::Both => {
                connection.reset_client();
                connection.reset_backend();
            }
        }
        if let Some(backend) = &connection.backend {
            connection.session.release(&mut KernelWire {
                client: &connection.client,
                backend,
                pipes: &mut self.tools.pipes,
            });
        }
        if let Some(listener) = self.snapshot.current().listener(connection.place.listener) {
            let counters = listener.state.counters(self.setup.number);
            counters.closed_for(end.reason).add(1);
            let elapsed = self.now.since(connection.times.opened);
            counters.session_seconds.record(elapsed, &SESSION_SECONDS);
            self.spread.learn(connection.place.listener, elapsed);
        }
        self.finish(connection, end.reason.term(), end.reason.words());
    }

    /// Gives back every place and writes the session's line.
    fn finish(&self, mut connection: Connection, term: &'static str, reason: &'static str) {
        let snapshot = self.snapshot.current();
        drop(connection.place.counted.take());
        let place = &connection.place;
        snapshot.sessions.release();
        let backend = place.backend.and_then(|id| snapshot.backend(id));
        if let Some(backend) = backend {
            backend.state.release();
            queue::place_is_free(backend);
        }
        queue::leave(snapshot, &connection);
        let Some(listener) = snapshot.listener(place.listener) else { return };
        listener.state.active.release();
        if self.setup.log.is_on() {
            let last_tried = connection.tried.last().and_then(|id| snapshot.backend(*id));
            let record = self.record(&connection, listener, backend.or(last_tried), (term, reason));
            self.setup.log.write(SystemTime::now(), record);
        }
    }

    fn record(
        &self,
        connection: &Connection,
        listener: &Arc<Listener>,
        backend: Option<&Arc<Backend>>,
        (term, reason): (&'static str, &'static str),
    ) -> SessionRecord {
        let [to_backend, to_client] = connection.session.delivered();
        let mut times = connection.times;
        if connection.phase.stage == Stage::Waiting {
            times.waited(self.now.since(connection.phase.attempted));
        }
        let queue_ms = times.waited_ms.map(u64::from);
        let until = |at: Tick| {
            whole_ms(at.since(times.opened)).saturating_sub(queue_ms.unwrap_or_default())
        };
        let place = &connection.place;
        SessionRecord {
            session: connection.place.number,
            listener: Arc::clone(listener),
            pool: self.pool_asked(connection),
            backend: backend.cloned(),
            client: connection.peer,
            bytes_to_backend: to_backend.0 + to_backend.1,
            bytes_to_client: to_client.0 + to_client.1,
            queue_ms,
            connect_ms: times.connected.map(until),
            total_ms: whole_ms(self.now.since(times.opened)),
            path: connection.session.path(),
            generation: connection.place.generation,
            term,
            reason,
            detail: match (place.observed, connection.failure, times.connected) {
                (Some(observed), _, _) => Detail::Observed(observed),
                (None, Some(failure), None) => Detail::Attempts(connection.tried.len(), failure),
                _ => Detail::None,
            },
        }
    }

    /// The pool that was asked for a backend.
    fn pool_asked(&self, connection: &Connection) -> Option<Arc<Pool>> {
        if connection.phase.stage == Stage::Reading {
            return None;
        }
        self.snapshot.current().pool(connection.place.pool).cloned()
    }

    /// A timer has come due: the connect took too long, or the session was silent too long.
    pub(super) fn timer_fired(&mut self, key: SlotKey) {
        let snapshot = self.snapshot.current();
        let Some(connection) = self.table.slots.get_mut(key) else { return };
        match connection.due(snapshot, self.now) {
            Due::Later => {}
            Due::Unsaid => return self.reading_timed_out(key),
            Due::Retry => return self.retry(key, ConnectFailure::Timeout),
            Due::Ask => return self.look_at_line(key),
            Due::GiveUp => return self.give_up(key, Dead::Refused(RefuseReason::NoBackend)),
            Due::Look => return self.advance(key),
            Due::End(end) => return self.end(key, end),
            Due::Keepalive => {
                if let Some(listener) = snapshot.listener(connection.place.listener) {
                    set_keepalive(connection, listener);
                }
            }
        }
        self.rearm(key);
    }

    /// Resets every session.
    pub(super) fn reset_all(&mut self) {
        for key in self.table.slots.keys() {
            self.end(key, End { reason: CloseReason::Drain, reset: Reset::Both });
        }
    }
}

fn is_closed_orderly(limit: Option<&Limit>, reason: RefuseReason) -> bool {
    use RefuseReason as Why;
    matches!(reason, Why::Limit | Why::Concurrent | Why::ListenerRate)
        && limit.is_some_and(|limit| limit.action == LimitAction::Close)
}

fn set_keepalive(connection: &Connection, listener: &Listener) {
    let Some(backend) = &connection.backend else { return };
    let options = KeepaliveOptions {
        idle: listener.keepalive.idle,
        interval: listener.keepalive.interval,
        count: listener.keepalive.count,
    };
    // A socket that has just been reset refuses it, and its session ends by itself.
    let _reset = socket::set_keepalive(backend.as_fd(), &options);
}

fn whole_ms(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
