//! How a client is turned away: by a reset, an orderly close, an HTTP answer, or after a wait.
//!
//! The first two are done at once. The others hold the connection for seconds, outside of the
//! session table, in [`super::held`].

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::SystemTime;

use crate::policy::admit::http_answer::HttpAnswer;
use crate::policy::client::Client;
use crate::shared::{
    ConnectFailure, Detail, HeldOutcome, LimitAction, Listener, PathKind, Pick, Protocol,
    RefuseReason, SessionRecord,
};
use crate::sys::socket;

use super::connection::Connection;
use super::guest::{Guest, Stay};
use super::phase::Stage;
use super::worker::Worker;

/// Why a client is turned away, and what it is told if it is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal {
    pub(super) reason: RefuseReason,
    pub(super) answer: HttpAnswer,
}

impl From<RefuseReason> for Refusal {
    fn from(reason: RefuseReason) -> Self {
        Self { reason, answer: HttpAnswer::Unavailable }
    }
}

/// What a client that is turned away gets.
#[derive(Debug, Clone, Copy)]
enum Farewell {
    Reset,
    Close,
    Stay(Stay),
}

impl Refusal {
    fn farewell(self, listener: &Listener) -> Farewell {
        use RefuseReason as Why;
        let is_http = listener.protocol == Protocol::Http;
        match self.reason {
            Why::Limit | Why::Concurrent | Why::ListenerRate => {
                match listener.limit.as_ref().map(|limit| limit.action) {
                    Some(LimitAction::Reply) if is_http => Farewell::Stay(Stay::Ask(self.answer)),
                    Some(LimitAction::Reply | LimitAction::Close) => Farewell::Close,
                    Some(LimitAction::Tarpit) => Farewell::Stay(Stay::Tarpit),
                    Some(LimitAction::Reset) | None => Farewell::Reset,
                }
            }
            Why::MaxSessions | Why::NoBackend if is_http => Farewell::Stay(Stay::Ask(self.answer)),
            // Who may not connect at all is told nothing, and to hold a connection takes a
            // descriptor that there is not.
            _ => Farewell::Reset,
        }
    }
}

impl Worker {
    /// Turns away a client that was never admitted.
    pub(super) fn refuse(
        &mut self,
        listener: &Arc<Listener>,
        client: OwnedFd,
        peer: Client,
        refusal: Refusal,
    ) {
        let reason = refusal.reason;
        listener.state.counters(self.setup.number).refused_for(reason).add(1);
        let farewell = refusal.farewell(listener);
        if let Farewell::Stay(stay) = farewell {
            let record = self.refusal_record(listener, peer, reason);
            let guest = Guest::new((client, Arc::clone(listener)), stay, record, self.now);
            return self.hold(guest, &[]);
        }
        match farewell {
            Farewell::Close => self.close_orderly(&client),
            Farewell::Reset | Farewell::Stay(_) => socket::reset_on_close(client.as_fd()),
        }
        drop(client);
        if let Some(record) = self.refusal_record(listener, peer, reason) {
            self.setup.log.write(SystemTime::now(), record);
        }
    }

    /// What there is to log of a client that was never admitted; `None` while nothing is logged.
    fn refusal_record(
        &mut self,
        listener: &Arc<Listener>,
        client: Client,
        reason: RefuseReason,
    ) -> Option<SessionRecord> {
        if !self.setup.log.is_on() {
            return None;
        }
        self.table.opened += 1;
        Some(SessionRecord {
            session: self.table.opened * self.setup.workers + self.setup.number as u64,
            listener: Arc::clone(listener),
            pool: None,
            backend: None,
            pick: Pick::default(),
            skipped: Box::default(),
            client,
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
        })
    }

    /// FIN, and nothing unread: unread bytes would turn the close into a reset.
    fn close_orderly(&mut self, client: &OwnedFd) {
        // A client that is gone already needs no FIN and has nothing to read.
        let _gone = socket::shutdown_write(client.as_fd());
        let _nothing = socket::receive(client.as_fd(), &mut self.tools.scratch);
    }

    /// Turns away a client that has a place but could not be served.
    pub(super) fn refuse_opened(&mut self, mut connection: Connection, refusal: Refusal) {
        let listener = self.snapshot.current().listener(connection.place.listener).cloned();
        let farewell = listener.as_ref().map(|listener| {
            listener.state.counters(self.setup.number).refused_for(refusal.reason).add(1);
            refusal.farewell(listener)
        });
        let (term, words) = words_of(refusal.reason, &connection);
        match (farewell, listener) {
            (Some(Farewell::Stay(stay)), Some(listener)) => {
                let record = self.settle(&mut connection, term, words);
                let Connection { client, stream, aside, .. } = connection;
                let guest = Guest::new((client, listener), stay, record, self.now);
                // Bytes that were read for a header or a route are not in the session yet.
                let reading = aside.as_ref().and_then(|aside| aside.reading.as_ref());
                let said = reading.map_or(stream.preloaded(), |reading| reading.bytes());
                self.hold(guest, said);
            }
            (Some(Farewell::Close), _) => {
                self.close_orderly(&connection.client);
                self.finish(connection, term, words);
            }
            _ => {
                connection.reset_client();
                self.finish(connection, term, words);
            }
        }
    }

    /// Counts and logs what came of a refusal that was held.
    pub(super) fn part(&self, mut guest: Guest, outcome: HeldOutcome) {
        guest.listener.state.counters(self.setup.number).held_until(outcome).add(1);
        if let Some(mut record) = guest.record.take() {
            record.bytes_to_client = guest.sent;
            record.total_ms += super::ending::whole_ms(self.now.since(guest.since));
            if record.detail == Detail::None {
                record.detail = Detail::Held(outcome);
            }
            if guest.is_tarpitted() && outcome != HeldOutcome::NoRoom {
                record.term = if outcome == HeldOutcome::Left { "CT" } else { "PT" };
            }
            self.setup.log.write(SystemTime::now(), *record);
        }
    }
}

/// Term and reason in the session log.
fn words_of(reason: RefuseReason, connection: &Connection) -> (&'static str, &'static str) {
    match (reason, connection.failure) {
        (RefuseReason::NoBackend, _) if connection.phase.stage == Stage::Waiting => {
            ("sQ", "no place at a backend in time")
        }
        (RefuseReason::NoBackend, Some(ConnectFailure::Timeout)) => ("sC", reason.words()),
        _ => (reason.term(), reason.words()),
    }
}
