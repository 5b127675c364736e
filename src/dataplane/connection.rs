//! What a worker keeps of one accepted connection, beside the state machine of its bytes.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::policy::admit::limiter::{LimitKey, Limiter};
use crate::policy::balance::hash::attempt_key;
use crate::policy::client::Client;
use crate::policy::first_bytes::proxy_header::Malformed;
use crate::policy::health::backoff::jitter;
use crate::policy::pace::pacer::Rates;
use crate::shared::{
    BackendId, ConnectFailure, Generation, ListenerId, Pick, PoolId, RefuseReason, Skip, Snapshot,
    SourcePort, note_skip,
};
use crate::sys::splice::Pipe;

use super::clock::Tick;
use super::greeting::Greeting;
use super::opening::Reading;
use super::phase::{Bounds, Due, Phase};
use super::stream::Stream;
use super::stream::pacing::{Allowances, Pacing, Spent};

/// How far a session's longest life differs from the configured one, in per cent: those that began
/// together do not end, and come back, together.
const LIFETIME_SPREAD: u8 = 10;

/// One accepted connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: Stream<Pipe>,
    pub(crate) client: OwnedFd,
    pub(crate) backend: Option<OwnedFd>,
    pub(crate) phase: Phase,
    pub(crate) peer: Client,
    pub(crate) place: Place,
    pub(crate) times: Times,
    /// Backends that failed this session; empty for nearly all, and then owns nothing.
    pub(crate) tried: Vec<BackendId>,
    /// How the latest of those failed.
    pub(crate) failure: Option<ConnectFailure>,
    /// What few connections have; others pay no memory for it.
    pub(crate) aside: Option<Box<Aside>>,
    /// In the ready queue.
    pub(crate) queued: bool,
}

/// What is known of a connection beside its sockets: who it says it is, and for whom.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    /// The header that the backend of the attempt under way has to get first.
    pub(crate) greeting: Option<Greeting>,
    /// What is read before there is a backend.
    pub(crate) reading: Option<Reading>,
    /// What is hashed instead of the client's address.
    pub(crate) key: Option<u64>,
    /// Where the client connected to, by its PROXY header.
    pub(crate) destination: Option<SocketAddr>,
    /// The host name in that header.
    pub(crate) authority: Option<Box<[u8]>>,
    /// Why there was no header.
    pub(crate) malformed: Option<Malformed>,
    /// What it has taken of its bandwidth.
    pub(crate) pacing: Option<Pacing>,
    /// Backends that were passed over for it.
    pub(crate) skipped: Vec<Skip>,
    /// The port it comes from, where the pool names its sources. It is given back when the
    /// connection is dropped, after the backend's socket: fields go in their order.
    pub(crate) port: Option<SourcePort>,
}

/// Where a connection belongs.
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
    pub(crate) generation: Generation,
    /// Where the session is counted against its client's concurrent sessions.
    pub(crate) counted: Option<Counted>,
    /// Why a limit that only observes would have turned the client away.
    pub(crate) observed: Option<RefuseReason>,
}

/// One session counted for its client; holds on to the table, which a reload may replace.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) key: LimitKey,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.limiter.leave(self.key);
    }
}

/// What came of judging a client that was let in.
#[derive(Debug, Default)]
pub(crate) struct Admitted {
    pub(crate) counted: Option<Counted>,
    pub(crate) observed: Option<RefuseReason>,
}

/// When things happened to a connection.
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

impl Connection {
    /// When its timer has to be looked at.
    pub(crate) fn next_check(&self, snapshot: &Snapshot, now: Tick) -> Tick {
        let check = self.phase.next_check(&self.stream, self.bounds(snapshot), now);
        self.resumes_at().map_or(check, |resumes| resumes.min(check))
    }

    /// When it may go on, if it waits for its bandwidth.
    fn resumes_at(&self) -> Option<Tick> {
        self.aside.as_ref()?.pacing.as_ref()?.resumes_at()
    }

    /// Whether it has waited for its bandwidth for long enough; then it waits no more.
    pub(crate) fn resume(&mut self, now: Tick) -> bool {
        let pacing = self.aside.as_mut().and_then(|aside| aside.pacing.as_mut());
        pacing.is_some_and(|pacing| pacing.resume(now))
    }

    /// Keeps what the client has said before there is a backend, which counts as taken.
    pub(crate) fn preload(&mut self, (snapshot, now): (&Snapshot, Tick), bytes: &[u8]) {
        self.stream.preload(bytes);
        if snapshot.has_bandwidth {
            let spent = Spent::on_client(bytes.len());
            let _nothing_was_left_behind = self.pace(snapshot, &spent, now);
        }
    }

    /// What a turn that begins now may take, where any listener has a bandwidth.
    #[cold]
    pub(crate) fn allowances(&self, snapshot: &Snapshot, now: Tick) -> Allowances {
        let Some(rates) = self.bandwidth(snapshot) else { return Allowances::UNLIMITED };
        let pacing = self.aside.as_ref().and_then(|aside| aside.pacing.as_ref());
        pacing.unwrap_or(&Pacing::new(now)).allowances(rates, now)
    }

    /// Counts what a turn has taken. Which directions wait; their timer has to be armed.
    #[cold]
    pub(crate) fn pace(&mut self, snapshot: &Snapshot, spent: &Spent, now: Tick) -> [bool; 2] {
        let Some(rates) = self.bandwidth(snapshot) else {
            // A reload has taken it away.
            if let Some(aside) = &mut self.aside {
                aside.pacing = None;
            }
            return [false; 2];
        };
        let aside = self.aside.get_or_insert_default();
        let pacing = aside.pacing.get_or_insert_with(|| Pacing::new(now));
        let waits = pacing.settle(rates, spent, now);
        // It is we who hold it up, and that is no silence.
        self.phase.active = pacing.resumes_at().unwrap_or(self.phase.active);
        waits
    }

    /// Keeps who was passed over, for the session's line in the log.
    #[cold]
    pub(crate) fn note_skipped(&mut self, skipped: Vec<Skip>) {
        let aside = self.aside.get_or_insert_default();
        for skip in skipped {
            note_skip(&mut aside.skipped, skip);
        }
    }

    fn bandwidth(&self, snapshot: &Snapshot) -> Option<Rates> {
        let listener = snapshot.listener(self.place.listener)?;
        listener.bandwidth.iter().any(Option::is_some).then_some(listener.bandwidth)
    }

    /// What its timer, which has fired, asks for.
    pub(crate) fn due(&mut self, snapshot: &Snapshot, now: Tick) -> Due {
        let bounds = self.bounds(snapshot);
        self.phase.due(&self.stream, bounds, now)
    }

    /// The bounds of its stage; where a reload has taken their owner away there is no time left.
    fn bounds(&self, snapshot: &Snapshot) -> Bounds {
        if self.phase.stage.is_opening() {
            return self.opening_bounds(snapshot);
        }
        let Some(listener) = snapshot.listener(self.place.listener) else { return Bounds::NONE };
        Bounds {
            idle: listener.idle_timeout,
            half_closed: listener.half_closed_timeout,
            last: listener.max_lifetime.map(|most| self.last(most)),
            ..Bounds::NONE
        }
    }

    fn opening_bounds(&self, snapshot: &Snapshot) -> Bounds {
        let reading = self.aside.as_ref().and_then(|aside| aside.reading.as_ref());
        let reading = reading.map_or(Duration::ZERO, |reading| reading.timeout);
        let Some(pool) = snapshot.pool(self.place.pool) else {
            return Bounds { reading, ..Bounds::NONE };
        };
        let queue = pool.queue.map_or(Duration::ZERO, |queue| queue.timeout);
        Bounds { reading, queue, connect: pool.connect_timeout, ..Bounds::NONE }
    }

    /// When a session that may last for `most` ends: the same whenever it is asked.
    fn last(&self, most: Duration) -> Tick {
        let chance = attempt_key(self.place.number, 1, 0);
        self.times.opened.after(jitter(most, LIFETIME_SPREAD, chance))
    }

    /// Makes the coming close of the backend's socket send a reset.
    pub(crate) fn reset_backend(&self) {
        if let Some(backend) = &self.backend {
            crate::sys::socket::reset_on_close(backend.as_fd());
        }
    }

    /// Makes the coming close of the client's socket send a reset.
    pub(crate) fn reset_client(&self) {
        crate::sys::socket::reset_on_close(self.client.as_fd());
    }
}
