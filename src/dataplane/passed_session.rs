//! A session described for another process, by names: ids are of one process.
//!
//! Moments are those of the workers' clock, which the other process counts on.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::policy::balance::BalanceAlgorithm;
use crate::policy::client::Client;
use crate::shared::{
    Backend, By, FirstWords, Generation, Listener, Obstacle, Pick, RefuseReason, Skip, Snapshot,
    SourcePort, note_skip,
};

use super::clock::Tick;
use super::kernel::Kernel;
use super::linux::Linux;
use super::ready_queue::Weight;
use super::session::counted::Observed;
use super::session::particulars::Particulars;
use super::session::stage::{Moving, Stage};
use super::session::{Admitted, Place, Session, Times};
use super::slots::SlotKey;
use super::stream::Stream;
use super::stream::pacing::{Pacing, PassedPacing};
use super::stream::passed::PassedStream;

/// A session that moves bytes, described. The bytes that it holds go beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedSession {
    /// Its number in the session log, which it keeps.
    pub number: u64,
    /// Name of its listener.
    pub listener: String,
    /// Name of its pool.
    pub pool: String,
    /// Name of its backend there.
    pub backend: String,
    /// Address of that, as the file has it.
    pub address: String,
    /// Its client; `None` of a Unix socket.
    pub client: Option<SocketAddr>,
    /// What decided for the backend, in a word.
    pub picked_by: Option<String>,
    /// Its client's slot, if a table was asked.
    pub slot: Option<u32>,
    /// The snapshot under which it was accepted, of the process that accepted it.
    pub generation: u64,
    /// When it was accepted, in microseconds.
    pub opened_us: u64,
    /// When its backend was connected, in microseconds.
    pub connected_us: Option<u64>,
    /// Milliseconds in the line for a place.
    pub waited_ms: Option<u32>,
    /// When a byte last moved, or will be free to, in microseconds.
    pub active_us: u64,
    /// Whether bytes for the backend were among the last that moved.
    pub is_asked: bool,
    /// Whether keepalive is set on the backend's socket.
    pub has_keepalive: bool,
    /// What its peers had acknowledged when a silence was last looked into.
    pub acknowledged: Option<NonZeroU32>,
    /// Over, except for the last bytes in the kernel.
    pub is_lingering: bool,
    /// Whether it moved much when it last moved anything.
    pub is_bulk: bool,
    /// How far its bytes have come.
    pub stream: PassedStream,
    /// What few sessions have.
    pub particulars: PassedParticulars,
}

/// What only few sessions have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PassedParticulars {
    /// The bandwidth that it has taken.
    pub pacing: Option<PassedPacing>,
    /// Which limit would have turned its client away: the reason's label, the limit's name.
    pub observed: Option<[String; 2]>,
    /// The backends that were passed over: pool, name, and why in a word.
    pub skipped: Vec<[String; 3]>,
    /// What its client said first, where that decided anything; the route by the file under which
    /// it was accepted.
    pub first_words: Option<FirstWords>,
    /// The port to which its client connected, where its backend has none.
    pub reached_port: Option<u16>,
    /// The TLVs of its client's PROXY header.
    pub tlvs: Vec<u8>,
    /// The address of its pool's `source` that it comes from.
    pub source: Option<IpAddr>,
}

/// A described session with what goes beside the description.
#[derive(Debug)]
pub struct ArrivedSession<K: Kernel = Linux> {
    /// The description.
    pub passed: PassedSession,
    /// The client's socket and the backend's.
    pub sockets: [K::Socket; 2],
    /// Bytes taken from the client, and from the backend, and not yet delivered.
    pub held: [Box<[u8]>; 2],
}

/// Where a session belongs, in this process.
#[derive(Debug, Clone)]
pub(super) struct Belonging {
    pub(super) listener: Arc<Listener>,
    pub(super) backend: Arc<Backend>,
}

impl PassedSession {
    /// A session that moves bytes, as long as it is known where it belongs.
    pub(super) fn of<K: Kernel>(session: &Session<K>, snapshot: &Snapshot) -> Option<Self> {
        let (moving, is_lingering) = match &session.stage {
            Stage::Moving(moving) => (moving, false),
            Stage::Lingering(moving) => (moving, true),
            _ => return None,
        };
        let (place, times) = (&session.place, &session.times);
        let listener = snapshot.listener(place.listener)?;
        let backend = session.backend(snapshot)?;
        let its = session.particulars.as_deref();
        Some(Self {
            number: place.number,
            listener: listener.name.clone(),
            pool: backend.pool_name.clone(),
            backend: backend.name.clone(),
            address: backend.address.to_string(),
            client: match session.client {
                Client::At(address) => Some(address),
                Client::Unix => None,
            },
            picked_by: place.pick.by.word().map(str::to_owned),
            slot: place.pick.slot(),
            generation: place.generation.0,
            opened_us: times.opened.micros(),
            connected_us: times.connected.map(|connected| connected.micros()),
            waited_ms: times.waited_ms,
            active_us: moving.active.micros(),
            is_asked: moving.is_asked,
            has_keepalive: moving.has_keepalive,
            acknowledged: moving.acknowledged,
            is_lingering,
            is_bulk: session.weight == Weight::Bulk,
            stream: session.stream.passed(),
            particulars: its.map(|its| PassedParticulars::of(its, snapshot)).unwrap_or_default(),
        })
    }
}

impl PassedParticulars {
    fn of(its: &Particulars, snapshot: &Snapshot) -> Self {
        let skipped = its.skipped.iter().filter_map(|skip| {
            let backend = snapshot.backend(skip.backend)?;
            let why = skip.why.word().to_owned();
            Some([backend.pool_name.clone(), backend.name.clone(), why])
        });
        let observed = its
            .observed
            .as_ref()
            .map(|observed| [observed.reason.label().to_owned(), String::from(&*observed.limit)]);
        Self {
            pacing: its.pacing.as_ref().map(Pacing::passed),
            observed,
            skipped: skipped.collect(),
            first_words: its.first_words.as_deref().cloned(),
            reached_port: its.reached_port,
            tlvs: its.tlvs.to_vec(),
            source: its.source_port.as_ref().map(SourcePort::address),
        }
    }
}

impl<K: Kernel> ArrivedSession<K> {
    /// Its client.
    pub(super) fn client(&self) -> Client {
        self.passed.client.map_or(Client::Unix, Client::At)
    }

    /// The session that was described, which has no place yet but those of `admitted`; `None` where
    /// the description is not understood.
    pub(super) fn session(
        self,
        belonging: &Belonging,
        admitted: Admitted,
        snapshot: &Snapshot,
    ) -> Option<Session<K>> {
        let client = self.client();
        let Self { passed, sockets: [client_socket, backend_socket], held } = self;
        let Belonging { listener, backend } = belonging;
        let [from_client, from_backend] = &held;
        let stream = Stream::resumed(&passed.stream, [&**from_client, &**from_backend])?;
        Some(Session {
            stream,
            client_socket,
            backend_socket: Some(backend_socket),
            stage: passed.stage(),
            client,
            place: Place {
                number: passed.number,
                listener: listener.id,
                pool: backend.pool,
                backend: Some(backend.id),
                pick: passed.pick(),
                generation: Generation(passed.generation),
                counted: admitted.counted,
            },
            times: Times {
                opened: Tick::from_micros(passed.opened_us),
                connected: passed.connected_us.map(Tick::from_micros),
                waited_ms: passed.waited_ms,
            },
            particulars: passed.particulars.resumed(admitted.particulars, backend, snapshot),
            key: SlotKey::NONE,
            queued: false,
            weight: if passed.is_bulk { Weight::Bulk } else { Weight::Light },
            is_watched: false,
            stays: false,
        })
    }
}

impl PassedSession {
    fn stage(&self) -> Stage {
        let moving = Moving {
            active: Tick::from_micros(self.active_us),
            is_asked: self.is_asked,
            has_keepalive: self.has_keepalive,
            acknowledged: self.acknowledged,
        };
        if self.is_lingering { Stage::Lingering(moving) } else { Stage::Moving(moving) }
    }

    /// How its backend was chosen; a word of another version says nothing.
    fn pick(&self) -> Pick {
        match (self.picked_by.as_deref().and_then(By::of_word), self.slot) {
            (Some(By::Balance(BalanceAlgorithm::Maglev)), Some(slot)) => Pick::in_table(slot),
            (Some(by), _) => Pick::new(by),
            (None, _) => Pick::default(),
        }
    }
}

impl PassedParticulars {
    /// Those of a session on this backend, counted where `counted` says; `None` when it has none.
    /// Names that this process does not know are left out.
    fn resumed(
        self,
        counted: Option<Box<Particulars>>,
        backend: &Backend,
        snapshot: &Snapshot,
    ) -> Option<Box<Particulars>> {
        if self == Self::default() {
            return counted;
        }
        let mut its = counted.unwrap_or_default();
        its.pacing = self.pacing.as_ref().map(Pacing::resumed);
        its.observed = self.observed.and_then(|[label, limit]| {
            let reason = RefuseReason::ALL.into_iter().find(|known| known.label() == label)?;
            Some(Observed { reason, limit: limit.into() })
        });
        for [pool, name, why] in &self.skipped {
            let is_it = |known: &&Arc<Backend>| known.pool_name == *pool && known.name == *name;
            let found = snapshot.backends.iter().flatten().find(is_it);
            if let (Some(found), Some(why)) = (found, Obstacle::of_word(why)) {
                note_skip(&mut its.skipped, Skip { backend: found.id, why });
            }
        }
        its.first_words = self.first_words.map(Box::new);
        its.reached_port = self.reached_port;
        its.tlvs = self.tlvs.into();
        let mut sources = backend.sources().into_iter().flat_map(|sources| sources.list());
        let source = sources.find(|known| Some(known.address()) == self.source);
        // It has the port: whether it may have one is no question any more.
        its.source_port = source.and_then(|source| SourcePort::take(source, u32::MAX));
        Some(its)
    }
}
