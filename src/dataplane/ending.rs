//! How sessions end: finished, timed out, drained; each counted and logged once. How clients are
//! turned away is in [`super::refuse`].
//!
//! Every place that was claimed on arrival is given back here and nowhere else.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::shared::{
    Backend, CloseReason, ConnectFailure, Detail, Listener, Obstacle, Pool, RefuseReason,
    SESSION_SECONDS, SessionRecord, Snapshot,
};
use crate::sys::socket::{self, KeepaliveOptions};

use super::clock::Tick;
use super::connect::Dead;
use super::connection::Connection;
use super::phase::{Due, Stage};
use super::queue;
use super::slots::SlotKey;
use super::stream::wire::{KernelWire, Side};
use super::stream::{End, Reset};
use super::symptoms;
use super::worker::Worker;

impl Worker {
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
            connection.stream.release(&mut KernelWire {
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
    pub(super) fn finish(
        &self,
        mut connection: Connection,
        term: &'static str,
        reason: &'static str,
    ) {
        if let Some(record) = self.settle(&mut connection, term, reason) {
            self.setup.log.write(SystemTime::now(), record);
        }
    }

    /// Gives back every place; what there is to log, unless nothing is logged.
    pub(super) fn settle(
        &self,
        connection: &mut Connection,
        term: &'static str,
        reason: &'static str,
    ) -> Option<SessionRecord> {
        let snapshot = self.snapshot.current();
        drop(connection.place.counted.take());
        let place = &connection.place;
        snapshot.sessions.release();
        let backend = place.backend.and_then(|id| snapshot.backend(id));
        if let Some(backend) = backend {
            backend.state.release();
            queue::place_is_free(backend);
        }
        queue::leave(snapshot, connection);
        let listener = snapshot.listener(place.listener)?;
        listener.state.active.release();
        if !self.setup.log.is_on() {
            return None;
        }
        let last_tried = connection.tried.last().and_then(|id| snapshot.backend(*id));
        Some(self.record(connection, listener, backend.or(last_tried), (term, reason)))
    }

    fn record(
        &self,
        connection: &Connection,
        listener: &Arc<Listener>,
        backend: Option<&Arc<Backend>>,
        (term, reason): (&'static str, &'static str),
    ) -> SessionRecord {
        let [to_backend, to_client] = connection.stream.delivered();
        let mut times = connection.times;
        if connection.phase.stage == Stage::Waiting {
            times.waited(self.now.since(connection.phase.attempted));
        }
        let queue_ms = times.waited_ms.map(u64::from);
        let until = |at: Tick| {
            whole_ms(at.since(times.opened)).saturating_sub(queue_ms.unwrap_or_default())
        };
        SessionRecord {
            session: connection.place.number,
            listener: Arc::clone(listener),
            pool: self.pool_asked(connection),
            backend: backend.cloned(),
            pick: connection.place.pick,
            skipped: self.skipped(connection),
            client: connection.peer,
            bytes_to_backend: to_backend.0 + to_backend.1,
            bytes_to_client: to_client.0 + to_client.1,
            queue_ms,
            connect_ms: times.connected.map(until),
            total_ms: whole_ms(self.now.since(times.opened)),
            path: connection.stream.path(),
            generation: connection.place.generation,
            term,
            reason,
            detail: detail_of(connection),
        }
    }

    /// Who was passed over, as far as they are still known.
    fn skipped(&self, connection: &Connection) -> Box<[(Arc<Backend>, Obstacle)]> {
        let Some(aside) = &connection.aside else { return Box::default() };
        let snapshot = self.snapshot.current();
        let named = aside.skipped.iter().map(|skip| Some((snapshot.backend(skip.backend)?, skip)));
        named.flatten().map(|(backend, skip)| (Arc::clone(backend), skip.why)).collect()
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
        let waited = self.table.slots.get_mut(key).is_some_and(|one| one.resume(self.now));
        if waited {
            self.advance(key);
        }
        let snapshot = self.snapshot.current();
        let Some(connection) = self.table.slots.get_mut(key) else { return };
        match connection.due(snapshot, self.now) {
            Due::Later => {}
            Due::Unsaid => return self.reading_timed_out(key),
            Due::Retry => return self.retry(key, ConnectFailure::Timeout),
            Due::Ask => return self.look_at_line(key),
            Due::GiveUp => return self.give_up(key, Dead::Refused(RefuseReason::NoBackend.into())),
            Due::Look => return self.advance(key),
            Due::End(end) => return self.end(key, end),
            Due::Keepalive => set_keepalive(snapshot, connection),
        }
        self.rearm(key);
    }

    /// Resets every session, and ends every refusal that is held.
    pub(super) fn reset_all(&mut self) {
        for key in self.table.slots.keys() {
            self.end(key, End { reason: CloseReason::Drain, reset: Reset::Both });
        }
        self.end_held();
    }
}

fn detail_of(connection: &Connection) -> Detail {
    let malformed = connection.aside.as_ref().and_then(|aside| aside.malformed);
    let attempts = connection.tried.len();
    match (connection.place.observed, malformed, connection.failure) {
        (Some(observed), _, _) => Detail::Observed(observed),
        (None, Some(malformed), _) => Detail::Header(malformed),
        (None, None, Some(failure)) if connection.times.connected.is_none() => {
            Detail::Attempts(attempts, failure)
        }
        _ => Detail::None,
    }
}

fn set_keepalive(snapshot: &Snapshot, connection: &Connection) {
    let Some(socket) = &connection.backend else { return };
    let Some(listener) = snapshot.listener(connection.place.listener) else { return };
    let backend = connection.place.backend.and_then(|id| snapshot.backend(id));
    if backend.is_some_and(|backend| backend.address.is_unix()) {
        return;
    }
    let options = KeepaliveOptions {
        idle: listener.keepalive.idle,
        interval: listener.keepalive.interval,
        count: listener.keepalive.count,
    };
    // A socket that has just been reset refuses it, and its session ends by itself.
    let _reset = socket::set_keepalive(socket.as_fd(), &options);
}

pub(super) fn whole_ms(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
