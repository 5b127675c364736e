//! One client of a schedule, from its arrival in the accept queue to its line in the session log.

use std::net::SocketAddr;

use evenkeel::dataplane::clock::Tick;
use evenkeel::dataplane::session::Session;
use evenkeel::dataplane::session::stage::{CutOff, Stage};
use evenkeel::policy::client::Client;
use evenkeel::shared::SessionRecord;

use super::kernel::Scripted;
use super::network::Network;
use super::socket::SocketId;
use super::words::Opening;

#[derive(Debug)]
pub(crate) struct Visit {
    pub(crate) socket: SocketId,
    pub(crate) opening: Opening,
    /// When it was first seen with the worker.
    pub(crate) accepted: Option<Tick>,
    /// The number of its session.
    pub(crate) number: Option<u64>,
    /// When it was first seen to move bytes.
    pub(crate) served: Option<Tick>,
    /// When its bytes last moved; `None` before they may.
    pub(crate) active: Option<Tick>,
    pub(crate) has_lingered: bool,
    /// It has waited until a backend that failed might be tried again.
    pub(crate) has_rested: bool,
    /// A reload gave it another pool while it waited.
    pub(crate) was_moved: bool,
    /// An operator has named its session to be killed.
    pub(crate) was_named: bool,
    /// Backends that had failed it by the latest turn, and when the last of these attempts began.
    failed: usize,
    pub(crate) failed_since: Option<Tick>,
    /// When the attempt began that was under way after the latest turn.
    attempt_since: Option<Tick>,
    /// The worker in whose accept queue it waited.
    pub(crate) knocked_at: usize,
    /// Another worker serves it.
    pub(crate) was_handed_over: bool,
    /// Whether a silence was looked into, and when its end was decided and falls due, if it was.
    pub(crate) was_looked_into: bool,
    pub(crate) cut: Option<CutOff>,
    /// When a peer for which the kernel held bytes then had last read.
    pub(crate) left_when_cut: Option<Tick>,
    /// What has moved, and what peers have read, and since when it stands like that.
    stood: (u64, u64, bool),
    pub(crate) still_since: Tick,
    /// Turns in a row in which it could move and did not.
    pub(crate) turns_waited: usize,
    /// Bytes that were spliced.
    pub(crate) spliced: u64,
    /// Connections to backends that were begun for it and lasted until the turn was over.
    pub(crate) attempts: usize,
    backend: Option<SocketId>,
    pub(crate) record: Option<SessionRecord>,
}

impl Visit {
    pub(crate) fn new(socket: SocketId, opening: Opening, knocked_at: usize) -> Self {
        Self {
            socket,
            opening,
            knocked_at,
            was_handed_over: false,
            accepted: None,
            served: None,
            number: None,
            active: None,
            has_lingered: false,
            was_looked_into: false,
            cut: None,
            left_when_cut: None,
            stood: (0, 0, false),
            still_since: Tick::default(),
            has_rested: false,
            was_moved: false,
            was_named: false,
            failed: 0,
            failed_since: None,
            attempt_since: None,
            turns_waited: 0,
            spliced: 0,
            attempts: 0,
            backend: None,
            record: None,
        }
    }

    /// Takes in how its session stands after a turn of this worker.
    pub(crate) fn see(&mut self, session: &Session<Scripted>, worker: usize, network: &Network) {
        let now = network.now;
        self.accepted.get_or_insert(now);
        self.was_handed_over = worker != self.knocked_at;
        self.number = Some(session.number());
        let backend = session.backend_socket().map(|socket| socket.id);
        self.attempts += usize::from(backend.is_some() && backend != self.backend);
        self.backend = backend;
        if let Stage::Moving(moving) | Stage::Lingering(moving) = session.stage() {
            self.active = Some(moving.active);
            self.served.get_or_insert(now);
            self.was_looked_into |= moving.acknowledged.is_some();
        }
        if let Stage::Cut(cut) = session.stage()
            && self.cut.replace(**cut).is_none()
        {
            let sockets = [Some(self.socket), backend].into_iter().flatten();
            self.left_when_cut = sockets
                .map(|id| &network.sockets[id])
                .filter(|socket| socket.buffered > 0 && !socket.reset)
                .map(|socket| socket.read_at)
                .max();
        }
        let failed = session.tried().len();
        if failed > self.failed {
            let is_that_one = failed == self.failed + 1;
            self.failed_since = self.attempt_since.filter(|_| is_that_one).or(Some(now));
        }
        self.failed = failed;
        self.attempt_since = match session.stage() {
            Stage::Connecting { since, .. } | Stage::Greeting { since, .. } => Some(*since),
            _ => None,
        };
        self.has_rested |= matches!(session.stage(), Stage::Resting { .. });
        self.has_lingered |= matches!(session.stage(), Stage::Lingering(_));
        let [(copied_up, up), (copied_down, down)] = session.stream().delivered();
        self.spliced = up + down;
        let sockets = [Some(self.socket), backend].into_iter().flatten();
        let read = sockets.map(|id| network.sockets[id].delivered).sum();
        let is_half_closed = session.stream().is_half_closed();
        let stands = (copied_up + up + copied_down + down, read, is_half_closed);
        if std::mem::replace(&mut self.stood, stands) != stands {
            self.still_since = now;
        }
    }

    /// Whether a record, of a client at this address, is of this one. Each client has a port of its
    /// own, which a header does not change.
    fn is_at(&self, client: SocketAddr, network: &Network) -> bool {
        let socket = &network.sockets[self.socket];
        socket.address.or(socket.claimed).is_some_and(|own| own.port() == client.port())
    }

    /// Whether nothing more comes of it.
    pub(crate) fn is_over(&self, network: &Network) -> bool {
        let socket = &network.sockets[self.socket];
        socket.closed && (self.record.is_some() || !socket.accepted)
    }
}

/// Which client a record is of. Those on Unix sockets have no address: they have their lines in the
/// order in which they are closed.
pub(crate) fn find(visits: &[Visit], record: &SessionRecord, network: &Network) -> Option<usize> {
    if let Client::At(client) = record.client {
        return visits.iter().position(|visit| visit.is_at(client, network));
    }
    let closed_as = |index: &usize| {
        let visit = &visits[*index];
        let socket = &network.sockets[visit.socket];
        let is_due = socket.accepted && socket.closed && visit.record.is_none();
        is_due.then_some(socket.closed_as)
    };
    let due = (0..visits.len()).filter(|index| closed_as(index).is_some());
    due.min_by_key(|index| closed_as(index))
}
