//! How a client is turned away: by a reset, an orderly close, an HTTP answer, or after a wait.
//!
//! The first two are done at once. The others hold the connection for seconds, outside of the
//! session table, in [`super::held`].

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::SystemTime;

use crate::policy::http_answer::HttpAnswer;
use crate::shared::{
    ConnectFailure, Detail, HeldOutcome, LimitAction, Listener, PathKind, Protocol, RefuseReason,
    SessionRecord,
};
use crate::sys::socket;

use super::connection::Connection;
use super::held::{Guest, Stay};
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
        peer: SocketAddr,
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
        client: SocketAddr,
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
            client,
            bytes_to_backend: 0,
            bytes_to_client: 0,
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

    /// Turns away a client that was admitted but could not be served.
    pub(super) fn refuse_opened(&mut self, mut connection: Connection, reason: RefuseReason) {
        let listener = self.snapshot.current().listener(connection.place.listener).cloned();
        let farewell = listener.as_ref().map(|listener| {
            listener.state.counters(self.setup.number).refused_for(reason).add(1);
            Refusal::from(reason).farewell(listener)
        });
        let term = match (reason, connection.failure) {
            (RefuseReason::NoBackend, Some(ConnectFailure::Timeout)) => "sC",
            _ => reason.term(),
        };
        let stays = match farewell {
            Some(Farewell::Stay(stay)) => listener.map(|listener| (listener, stay)),
            _ => None,
        };
        let Some((listener, stay)) = stays else {
            connection.reset_client();
            return self.finish(connection, term, reason.words());
        };
        let record = self.settle(&mut connection, term, reason.words());
        let Connection { client, session, .. } = connection;
        let guest = Guest::new((client, listener), stay, record, self.now);
        self.hold(guest, session.preloaded());
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
