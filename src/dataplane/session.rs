//! One proxied connection, from the moment its client is let in until its line in the log.
//!
//! A session is data: its sockets, its [`Stream`], its [`Stage`], its places. What happens to it
//! stands in `life`.

pub(crate) mod counted;
pub mod first_bytes;
pub(crate) mod particulars;
pub mod stage;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::admit::limiter::OpenSessions;
use crate::policy::balance::hash::attempt_key;
use crate::policy::client::Client;
use crate::policy::health::backoff::jitter;
use crate::policy::pace::pacer::Rates;
use crate::shared::{
    Address, Backend, BackendId, ConnectFailure, Generation, ListenerId, Pick, PoolId, Skip,
    Snapshot, note_skip,
};

use super::choose::routing::{self, Way};
use super::clock::Tick;
use super::kernel::Kernel;
use super::ready_queue::Weight;
use super::slots::SlotKey;
use super::stream::Stream;
use super::stream::pacing::{Allowances, Pacing, Spent};

use self::counted::Counted;
use self::particulars::Particulars;
use self::stage::{Bounds, Due, OldAge, Stage};

/// How far a session's longest life differs from the configured one, in per cent: those that began
/// together do not end, and come back, together.
const LIFETIME_SPREAD: u8 = 10;
/// For how much longer one that is not at rest may last: this part of its longest life, and no more
/// than this time.
const LIFETIME_GRACE_PART: u32 = 4;
const LIFETIME_GRACE_MAX: Duration = Duration::from_secs(30);

/// One session.
#[derive(Debug)]
pub struct Session<K: Kernel> {
    pub(crate) stream: Stream<K::Pipe>,
    pub(crate) client_socket: K::Socket,
    pub(crate) backend_socket: Option<K::Socket>,
    pub(crate) stage: Stage,
    pub(crate) client: Client,
    pub(crate) place: Place,
    pub(crate) times: Times,
    /// Behind the sockets: fields are dropped in their order, and a source's port is given back
    /// after the socket that has it.
    pub(crate) particulars: Option<Box<Particulars>>,
    /// Where it lies in the table.
    pub(crate) key: SlotKey,
    /// In the ready queue.
    pub(crate) queued: bool,
    /// How much it moved when it last moved anything.
    pub(crate) weight: Weight,
    /// The client's socket is registered.
    pub(crate) is_watched: bool,
    /// It ends in this process: the one that takes over knows no place for it.
    pub(crate) stays: bool,
}

/// Where a session belongs, and the places that it has.
#[derive(Debug)]
pub(crate) struct Place {
    /// Unique within the process.
    pub(crate) number: u64,
    pub(crate) listener: ListenerId,
    pub(crate) pool: PoolId,
    /// The backend on which a place is claimed.
    pub(crate) backend: Option<BackendId>,
    /// How that one was chosen.
    pub(crate) pick: Pick,
    /// The snapshot by which the pool was found.
    pub(crate) generation: Generation,
    /// Where the session is counted against its client's concurrent sessions.
    pub(crate) counted: Option<Counted>,
}

/// The claims of a client that was let in.
#[derive(Debug, Default)]
pub(crate) struct Admitted {
    /// Where its session is counted.
    pub(crate) counted: Option<Counted>,
    /// Where it is counted as well, and which limit only observed it.
    pub(crate) particulars: Option<Box<Particulars>>,
}

impl Admitted {
    /// Counts it in one more place.
    pub(crate) fn count(&mut self, more: Option<Counted>) {
        match more {
            Some(more) if self.counted.is_some() => {
                self.particulars.get_or_insert_default().counted.push(more);
            }
            Some(first) => self.counted = Some(first),
            None => {}
        }
    }

    /// Whether it is counted in this table.
    pub(crate) fn is_counted_in(&self, table: &Arc<OpenSessions>) -> bool {
        let more = self.particulars.iter().flat_map(|its| &its.counted);
        self.counted.iter().chain(more).any(|it| it.is_in(table))
    }
}

/// When things happened to a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) opened: Tick,
    /// When the backend was connected.
    pub(crate) connected: Option<Tick>,
    /// Milliseconds in the line for a place; `None` when it never stood there.
    pub(crate) waited_ms: Option<u32>,
}

impl Times {
    /// Adds time in the line.
    pub(crate) fn waited(&mut self, time: Duration) {
        let ms = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        self.waited_ms = Some(self.waited_ms.unwrap_or(0).saturating_add(ms));
    }
}

impl<K: Kernel> Session<K> {
    /// The machine that moves its bytes.
    pub fn stream(&self) -> &Stream<K::Pipe> {
        &self.stream
    }

    /// How far it has come.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// The socket on which its client was accepted.
    pub fn client_socket(&self) -> &K::Socket {
        &self.client_socket
    }

    /// The socket that is connected, or being connected, to its backend.
    pub fn backend_socket(&self) -> Option<&K::Socket> {
        self.backend_socket.as_ref()
    }

    /// The client, as limits, hashes and the log know it.
    pub fn client(&self) -> Client {
        self.client
    }

    /// Its number in the session log, unique within the process.
    pub fn number(&self) -> u64 {
        self.place.number
    }

    /// The backend on which it has a place.
    pub fn backend_id(&self) -> Option<BackendId> {
        self.place.backend
    }

    /// Backends that failed it; empty once one serves.
    pub fn tried(&self) -> &[BackendId] {
        self.particulars.as_ref().map_or(&[], |its| &its.tried)
    }

    /// Whether it is in the ready queue: the next turn runs it.
    pub fn is_queued(&self) -> bool {
        self.queued
    }

    /// The bandwidth that it has taken, where it is bounded.
    pub fn pacing(&self) -> Option<&Pacing> {
        self.particulars.as_ref()?.pacing.as_ref()
    }

    /// Finds its pool again where the snapshot is newer than the one by which it was found: it goes
    /// where a client would that came now and said the same. For a session without a backend,
    /// before its pool is looked at: one that is handed over, waits in line, or tries again.
    #[inline]
    pub(crate) fn follow(&mut self, snapshot: &Snapshot) {
        if self.place.generation != snapshot.generation {
            self.find_pool_again(snapshot);
        }
    }

    #[cold]
    fn find_pool_again(&mut self, snapshot: &Snapshot) {
        self.place.generation = snapshot.generation;
        let Some(listener) = snapshot.serving_listener(self.place.listener) else { return };
        let (client, said) = (self.client, self.stream.preloaded());
        let way = routing::find(snapshot, listener, client, said, &mut None)
            .unwrap_or_else(|| routing::give_up(snapshot, listener, client, said));
        // Where the listener went with its pool, the session has no other.
        if snapshot.pool(way.pool).is_some() {
            self.go(way);
        }
    }

    /// Goes to a pool.
    pub(crate) fn go(&mut self, way: Way) {
        self.place.pool = way.pool;
        if self.hashed_key() != way.key {
            self.particulars_mut().hashed_key = way.key;
        }
    }

    /// The backend on which it has a place, as long as the snapshot has it.
    pub(crate) fn backend<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a Arc<Backend>> {
        snapshot.backend(self.place.backend?)
    }

    /// The port to which the client connected, once a backend without one was chosen.
    pub(crate) fn reached_port(&self) -> Option<u16> {
        self.particulars.as_ref()?.reached_port
    }

    /// Where a backend is for this session; `None` of a Unix socket.
    #[inline]
    pub(crate) fn address_of(&self, backend: &Backend) -> Option<SocketAddr> {
        match &backend.address {
            Address::Ip(address) => Some(*address),
            Address::Host(host) => Some(host.at(self.reached_port()?)),
            Address::Unix(_) => None,
        }
    }

    /// How the latest of its backends failed.
    pub(crate) fn failure(&self) -> Option<ConnectFailure> {
        self.particulars.as_ref()?.failure
    }

    /// The hash that stands for the client instead of its address.
    pub(crate) fn hashed_key(&self) -> Option<u64> {
        self.particulars.as_ref()?.hashed_key
    }

    /// Its particulars, made now if it had none.
    pub(crate) fn particulars_mut(&mut self) -> &mut Particulars {
        self.particulars.get_or_insert_default()
    }

    /// Whether it is counted in this table.
    pub(crate) fn is_counted_in(&self, table: &Arc<OpenSessions>) -> bool {
        let more = self.particulars.iter().flat_map(|its| &its.counted);
        self.place.counted.iter().chain(more).any(|it| it.is_in(table))
    }

    /// It is counted there from now on, and nowhere else.
    #[cold]
    pub(crate) fn take_counts(&mut self, admitted: Admitted) {
        self.place.counted = admitted.counted;
        if let Some(more) = admitted.particulars {
            let its = self.particulars_mut();
            its.counted = more.counted;
            its.observed = more.observed.or(its.observed.take());
        } else if let Some(its) = &mut self.particulars {
            its.counted.clear();
        }
    }

    /// When its timer has to be looked at.
    pub(crate) fn next_check(&self, snapshot: &Snapshot, now: Tick) -> Tick {
        let check = self.stage.next_check(&self.stream, self.bounds(snapshot), now);
        let resumes = self.pacing().and_then(Pacing::resumes_at);
        resumes.map_or(check, |resumes| resumes.min(check))
    }

    /// The action that its timer, which has fired, asks for.
    pub(crate) fn due(&mut self, snapshot: &Snapshot, now: Tick) -> Due {
        let bounds = self.bounds(snapshot);
        self.stage.due(&self.stream, bounds, now)
    }

    /// Whether it has waited for its bandwidth for long enough; then it waits no more.
    pub(crate) fn resume(&mut self, now: Tick) -> bool {
        let pacing = self.particulars.as_mut().and_then(|its| its.pacing.as_mut());
        pacing.is_some_and(|pacing| pacing.resume(now))
    }

    /// Keeps what the client has said before there is a backend, which counts as taken.
    pub(crate) fn preload(&mut self, bytes: &[u8], snapshot: &Snapshot, now: Tick) {
        self.stream.preload(bytes);
        if snapshot.has_bandwidth {
            let spent = Spent::on_client(bytes.len());
            let _nothing_was_left_behind = self.pace(snapshot, &spent, now);
        }
    }

    /// The bytes that a turn that begins now may take, where any listener bounds them.
    #[cold]
    pub(crate) fn allowances(&self, snapshot: &Snapshot, now: Tick) -> Allowances {
        let Some(rates) = self.bandwidth(snapshot) else { return Allowances::UNLIMITED };
        self.pacing().unwrap_or(&Pacing::new(now)).allowances(rates, now)
    }

    /// Counts what a turn has taken. Which directions wait; their timer has to be armed.
    #[cold]
    pub(crate) fn pace(&mut self, snapshot: &Snapshot, spent: &Spent, now: Tick) -> [bool; 2] {
        let Some(rates) = self.bandwidth(snapshot) else {
            // A reload has taken it away.
            if let Some(its) = &mut self.particulars {
                its.pacing = None;
            }
            return [false; 2];
        };
        let pacing = self.particulars_mut().pacing.get_or_insert_with(|| Pacing::new(now));
        let waits = pacing.charge(rates, spent, now);
        let resumes = pacing.resumes_at();
        // The wait is of our making, and no silence.
        if let (Some(moving), Some(resumes)) = (self.stage.moving_mut(), resumes) {
            moving.active = resumes;
        }
        waits
    }

    /// Keeps which backends were passed over, for the session's line in the log.
    #[cold]
    pub(crate) fn note_skipped(&mut self, skipped: Vec<Skip>) {
        let its = self.particulars_mut();
        for skip in skipped {
            note_skip(&mut its.skipped, skip);
        }
    }

    fn bandwidth(&self, snapshot: &Snapshot) -> Option<Rates> {
        let listener = snapshot.listener(self.place.listener)?;
        let rates = listener.terms.bandwidth;
        rates.iter().any(Option::is_some).then_some(rates)
    }

    /// The bounds of its stage; where a reload has taken their owner away there is no time left.
    fn bounds(&self, snapshot: &Snapshot) -> Bounds {
        if self.stage.is_opening() {
            return self.opening_bounds(snapshot);
        }
        let Some(listener) = snapshot.listener(self.place.listener) else { return Bounds::NONE };
        Bounds {
            idle: listener.terms.idle_timeout,
            half_closed: listener.terms.half_closed_timeout,
            lifetime: listener.terms.max_lifetime.map(|most| self.lifetime(most)),
            ..Bounds::NONE
        }
    }

    fn opening_bounds(&self, snapshot: &Snapshot) -> Bounds {
        let reading = match &self.stage {
            Stage::Reading(reading) => reading.timeout,
            _ => Duration::ZERO,
        };
        let Some(pool) = snapshot.pool(self.place.pool) else {
            return Bounds { reading, ..Bounds::NONE };
        };
        let queue = pool.terms.queue.map_or(Duration::ZERO, |queue| queue.timeout);
        Bounds { reading, queue, connect: pool.terms.connect_timeout, ..Bounds::NONE }
    }

    /// When a session that may last for `most` ends: the same whenever it is asked.
    fn lifetime(&self, most: Duration) -> OldAge {
        let chance = attempt_key(self.place.number, 1, 0);
        let over = self.times.opened.after(jitter(most, LIFETIME_SPREAD, chance));
        OldAge { over, latest: over.after((most / LIFETIME_GRACE_PART).min(LIFETIME_GRACE_MAX)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::linux::Linux;

    // If this fails, every idle session costs more memory than before its stage carried data.
    #[test]
    fn a_session_is_small() {
        const { assert!(size_of::<Session<Linux>>() <= 320) };
    }
}
