//! From an admitted client to a connected backend.
//!
//! What the client says meanwhile stays in its socket, unless it was asked for. A failed attempt
//! goes on to another backend at once; nothing has been sent by then, so nothing can be repeated. A
//! backend that failed is tried again only where there is no other, and not within `retry_delay` of
//! that attempt. One whose accept queue is full has not failed: it is full.

use std::io;
use std::time::Duration;

use crate::dataplane::choose::picker::{Asking, PassedOver};
use crate::dataplane::clock::Tick;
use crate::dataplane::desk::Desk;
use crate::dataplane::kernel::{Dial, Kernel};
use crate::dataplane::make_room::make_room;
use crate::dataplane::session::Session;
use crate::dataplane::session::first_bytes::Greeting;
use crate::dataplane::session::stage::Stage;
use crate::dataplane::stream::Readiness;
use crate::dataplane::stream::wire::Side;
use crate::policy::balance::hash::attempt_key;
use crate::policy::client::Client;
use crate::policy::first_bytes::postgres;
use crate::policy::first_bytes::proxy_header::{self, Ends, ProxyVersion, Statement};
use crate::policy::health::backoff::jitter;
use crate::shared::{
    Address, Backend, BackendId, ConnectFailure, Obstacle, Pool, RefuseReason, Skip,
};
use crate::sys::socket::ConnectStatus;

use super::failure_evidence;
use super::next::Next;
use super::source::{self, Caller, NotBegun};

/// How far the waits of sessions before a repeated attempt differ from `retry_delay`, in per cent:
/// those that failed together do not come back together.
const REPEAT_SPREAD: u8 = 20;

/// How an attempt stands after an event.
#[derive(Debug)]
enum Handshake {
    /// As before.
    Waits,
    /// As before, and what the event said of the backend's socket is not to be believed.
    Unproven,
    /// It is done.
    Done,
    /// It failed.
    Failed(io::Error),
    /// The client is gone.
    Abandoned,
}

impl Handshake {
    /// Judges an event. Plainly writable is connected; anything else is proven by asking, since
    /// some kernels report HUP while the handshake still runs.
    fn judge(
        side: Side,
        readiness: Readiness,
        ask: impl FnOnce() -> Option<ConnectStatus>,
    ) -> Self {
        match side {
            Side::Client if readiness.error => return Self::Abandoned,
            Side::Client => return Self::Waits,
            Side::Backend => {}
        }
        if readiness.writable && !readiness.error && !readiness.read_closed {
            return Self::Done;
        }
        match ask() {
            Some(ConnectStatus::Established) => Self::Done,
            Some(ConnectStatus::Pending) => Self::Unproven,
            Some(ConnectStatus::Failed(error)) => Self::Failed(error),
            None => Self::Waits,
        }
    }
}

/// The first attempt of a client, which does not overtake those that wait.
pub(crate) fn first<K: Kernel>(session: &mut Session<K>, desk: &mut Desk<K>) -> Next {
    session.follow(desk.snapshot.current());
    let pool = desk.snapshot().pool(session.place.pool);
    if pool.is_some_and(|pool| pool.has_line()) {
        return Next::LineUp;
    }
    attempt(session, desk)
}

/// The attempt under way has failed: another backend, or the end.
#[cold]
pub(crate) fn retry<K: Kernel>(
    session: &mut Session<K>,
    desk: &mut Desk<K>,
    failure: ConnectFailure,
) -> Next {
    session.follow(desk.snapshot.current());
    match attempt_failed(session, desk, failure) {
        Some(next) => next,
        None => attempt(session, desk),
    }
}

/// A backend that failed may be tried again.
#[cold]
pub(crate) fn again<K: Kernel>(session: &mut Session<K>, desk: &mut Desk<K>) -> Next {
    session.follow(desk.snapshot.current());
    attempt(session, desk)
}

/// Chooses backends and starts to connect, until one attempt is under way.
pub(crate) fn attempt<K: Kernel>(session: &mut Session<K>, desk: &mut Desk<K>) -> Next {
    let mut full = Vec::new();
    loop {
        let Some(backend) = choose(session, desk, &full) else {
            return why_none(session, desk);
        };
        session.place.backend = Some(backend);
        session.stage = Stage::Connecting { since: desk.now, greeting: None };
        let mut begun = dial(session, desk);
        while matches!(begun, Err(NotBegun::Exhausted)) && make_room(desk) {
            begun = dial(session, desk);
        }
        match begun {
            Ok(socket) => {
                session.backend_socket = Some(socket);
                if let greeting @ Some(_) = prepare_greeting(session, desk) {
                    session.stage = Stage::Connecting { since: desk.now, greeting };
                }
                return Next::Watch;
            }
            Err(NotBegun::Exhausted) => return Next::Refuse(RefuseReason::Descriptors),
            Err(NotBegun::Failed(ConnectFailure::QueueFull)) if may_wait(session, desk) => {
                found_full(session, desk);
                full.push(backend);
            }
            Err(NotBegun::Failed(failure)) => {
                if let Some(next) = attempt_failed(session, desk, failure) {
                    return next;
                }
            }
        }
    }
}

/// Starts to connect the backend on which a place is claimed.
fn dial<K: Kernel>(session: &mut Session<K>, desk: &mut Desk<K>) -> Result<K::Socket, NotBegun> {
    let snapshot = desk.snapshot.current();
    let Some(backend) = session.backend(snapshot) else {
        return Err(NotBegun::Failed(ConnectFailure::Other));
    };
    let listener = snapshot.listener(session.place.listener);
    let user_timeout = listener.and_then(|listener| listener.terms.user_timeout);
    let dial = Dial { from: None, user_timeout };
    if let (to @ (Address::Ip(_) | Address::Unix(_)), None) = (&backend.address, &backend.source) {
        return desk.kernel.connect(to, dial).map_err(|why| NotBegun::of(&why));
    }
    let (worker, now_us) = (desk.books.number, desk.now.micros());
    let caller = Caller { kernel: &mut desk.kernel, worker, now_us };
    dial_specially(session, caller, backend, dial)
}

/// Starts to connect from an address of the configuration, or a backend without a port.
#[cold]
fn dial_specially<K: Kernel>(
    session: &mut Session<K>,
    caller: Caller<'_, K>,
    backend: &Backend,
    dial: Dial,
) -> Result<K::Socket, NotBegun> {
    let to = match &backend.address {
        Address::Host(host) => &Address::Ip(host.at(reached_port(session, &mut *caller.kernel)?)),
        address => address,
    };
    match &backend.source {
        None => caller.kernel.connect(to, dial).map_err(|why| NotBegun::of(&why)),
        Some(rule) => source::connect_from(session, caller, to, rule, dial),
    }
}

/// The port to which the client connected, as the kernel has it: that of the listener, or what the
/// client asked for where TPROXY leads it here. A PROXY header does not count: it could name any
/// port of a backend.
fn reached_port<K: Kernel>(session: &mut Session<K>, kernel: &mut K) -> Result<u16, NotBegun> {
    if let Some(port) = session.reached_port() {
        return Ok(port);
    }
    // A client of a Unix socket has none; a checked configuration does not send it here.
    let own = kernel.local_address(&session.client_socket).map_err(|_| NotBegun::NO_SOURCE)?;
    session.particulars_mut().reached_port = Some(own.port());
    Ok(own.port())
}

/// Something happened to a session whose backend is being connected.
pub(crate) fn event<K: Kernel>(
    session: &mut Session<K>,
    desk: &mut Desk<K>,
    side: Side,
    readiness: Readiness,
) -> Next {
    let (kernel, socket) = (&mut desk.kernel, session.backend_socket.as_ref());
    let ask = || socket.map(|socket| kernel.connect_status(socket));
    match Handshake::judge(side, readiness, ask) {
        Handshake::Waits => Next::Wait,
        Handshake::Unproven => {
            session.stream.backend_replaced();
            Next::Wait
        }
        Handshake::Done => established(session, desk),
        Handshake::Failed(error) => Next::Retry(ConnectFailure::of(&error)),
        Handshake::Abandoned => Next::GONE,
    }
}

fn established<K: Kernel>(session: &mut Session<K>, desk: &mut Desk<K>) -> Next {
    let Some(backend) = session.backend(desk.snapshot.current()) else { return Next::Wait };
    match session.address_of(backend) {
        Some(address) => {
            if let Some(socket) = &session.backend_socket
                && desk.kernel.is_self_connected(socket, address)
            {
                return Next::Retry(ConnectFailure::Loop);
            }
        }
        None => session.stream.expect_parts(Side::Backend),
    }
    session.stream.connected();
    match session.stage {
        Stage::Connecting { greeting: Some(_), .. } => Next::Greet,
        _ => Next::Move,
    }
}

/// Counts that the latest attempt has failed; what comes next, unless that is another attempt.
fn attempt_failed<K: Kernel>(
    session: &mut Session<K>,
    desk: &Desk<K>,
    failure: ConnectFailure,
) -> Option<Next> {
    let snapshot = desk.snapshot();
    let claimed = session.place.backend.take();
    let backend = claimed.and_then(|id| snapshot.backend(id))?;
    backend.state.counters(desk.books.number).failed_for(failure).add(1);
    failure_evidence::not_connected(snapshot, backend, failure);
    backend.release_place();
    let pool = snapshot.pool(session.place.pool);
    let speaks = failure.is_of_the_backend() && !failure_evidence::is_ours(backend, failure);
    if backend.measured && speaks {
        let timeout = pool.map_or(Duration::ZERO, |pool| pool.terms.connect_timeout);
        backend.state.observe_latency(micros(timeout), desk.now.micros());
    }
    session.backend_socket = None;
    session.stream.backend_replaced();
    let number = session.place.number;
    let begun = session.stage.since().unwrap_or(desk.now);
    let its = session.particulars_mut();
    its.source_port = None;
    its.tried.push(backend.id);
    its.failure = Some(failure);
    let attempt = u32::try_from(its.tried.len()).unwrap_or(u32::MAX);
    let delay = pool.map_or(Duration::ZERO, |pool| pool.terms.repeat_delay());
    let chance = attempt_key(number, attempt, 0);
    its.repeat_at = Some(begun.after(jitter(delay, REPEAT_SPREAD, chance)));
    let retries = pool.map_or(0, |pool| pool.terms.retries);
    let may = may_retry(its.tried.len(), retries);
    (!may).then_some(Next::Refuse(RefuseReason::NoBackend))
}

/// Whether the pool lets clients wait for a place.
fn may_wait<K: Kernel>(session: &Session<K>, desk: &Desk<K>) -> bool {
    let pool = desk.snapshot().pool(session.place.pool);
    pool.is_some_and(|pool| pool.terms.queue.is_some())
}

/// The backend on which a place was claimed takes no connection now. The place is given back and
/// no worker called: the client that is first in line would find it full, too.
#[cold]
fn found_full<K: Kernel>(session: &mut Session<K>, desk: &Desk<K>) {
    let claimed = session.place.backend.take();
    let Some(backend) = claimed.and_then(|id| desk.snapshot().backend(id)) else { return };
    let counters = backend.state.counters(desk.books.number);
    counters.failed_for(ConnectFailure::QueueFull).add(1);
    backend.state.release();
    session.note_skipped(vec![Skip { backend: backend.id, why: Obstacle::Full }]);
}

/// What comes next for a session for which no backend could be chosen.
#[cold]
fn why_none<K: Kernel>(session: &mut Session<K>, desk: &Desk<K>) -> Next {
    let pool = desk.snapshot().pool(session.place.pool);
    let Some(pool) = pool else { return Next::Refuse(RefuseReason::NoBackend) };
    if waits_for_another(pool, session.tried()) {
        return Next::LineUp;
    }
    let repeat_at = session.particulars.as_ref().and_then(|its| its.repeat_at);
    if let Some(until) = repeat_at.filter(|at| *at > desk.now)
        && pool.has_usable(|backend| session.tried().contains(&backend))
    {
        session.stage = Stage::Resting { until };
        return Next::Rest;
    }
    if pool.is_only_full() { Next::LineUp } else { Next::Refuse(RefuseReason::NoBackend) }
}

/// Whether clients of a pool may wait, and a backend that was not tried could serve once it has a
/// place.
fn waits_for_another(pool: &Pool, tried: &[BackendId]) -> bool {
    pool.terms.queue.is_some() && pool.has_usable(|backend| !tried.contains(&backend))
}

/// Whether a backend that failed may be tried again now. While another is only full, the last
/// attempt is kept for that one.
fn may_repeat<K: Kernel>(session: &Session<K>, pool: &Pool, now: Tick) -> bool {
    let Some(its) = &session.particulars else { return false };
    let is_due = its.repeat_at.is_none_or(|at| at <= now);
    let is_spare = its.tried.len() < pool.terms.retries as usize;
    is_due && (is_spare || !waits_for_another(pool, &its.tried))
}

/// A backend for a session, with a place claimed there.
fn choose<K: Kernel>(
    session: &mut Session<K>,
    desk: &mut Desk<K>,
    full: &[BackendId],
) -> Option<BackendId> {
    let snapshot = desk.snapshot.current();
    let pool = snapshot.pool(session.place.pool)?;
    let passed_over = PassedOver::default();
    let asking = Asking {
        client: snapshot.nat64.see(session.client).client,
        key: session.hashed_key(),
        now_us: desk.now.micros(),
        tried: session.tried(),
        may_repeat: may_repeat(session, pool, desk.now),
        full,
        generation: snapshot.generation,
        passed_over: &passed_over,
    };
    let picked = desk.chooser.choose(pool, &asking);
    let skipped = passed_over.into_list();
    if !skipped.is_empty() {
        session.note_skipped(skipped);
    }
    let (backend, pick) = picked?;
    session.place.pick = pick;
    Some(backend.id)
}

/// What the backend of the attempt that begins gets first: a header, if the pool's backends want
/// one, and the request for TLS of a client to which it was promised. A reload before it is sent
/// changes nothing any more.
fn prepare_greeting<K: Kernel>(session: &Session<K>, desk: &mut Desk<K>) -> Option<Box<Greeting>> {
    let is_promised_tls = session.particulars.as_ref().is_some_and(|its| its.is_promised_tls);
    let pool = desk.snapshot().pool(session.place.pool);
    let header = match pool.and_then(|pool| pool.terms.send_proxy) {
        None => None,
        Some(version) => prepare_header(session, desk, version),
    };
    if !is_promised_tls {
        return header.map(|header| Box::new(Greeting::new(header, None)));
    }
    let mut bytes = header.unwrap_or_default();
    bytes.extend_from_slice(&postgres::SSL_REQUEST);
    Some(Box::new(Greeting::new(bytes, Some(postgres::WILLING))))
}

/// The PROXY header of a session; `None` once its pool is gone.
#[inline(never)]
fn prepare_header<K: Kernel>(
    session: &Session<K>,
    desk: &mut Desk<K>,
    version: ProxyVersion,
) -> Option<Vec<u8>> {
    let terms = desk.snapshot().pool(session.place.pool)?.terms;
    let number = session.place.number.to_string();
    let mut ends = ends(session, desk);
    if ends.is_none() && version == ProxyVersion::V1 {
        // UNKNOWN is refused by Postfix, Apache httpd and Varnish; its meaning is these addresses.
        ends = own_ends(session, desk);
    }
    let statement = Statement {
        ends,
        unique_id: number.as_bytes(),
        tlvs: session.particulars.as_ref().map_or(&[][..], |its| &*its.tlvs),
        pass: terms.pass_tlvs,
        bytes_max: terms.send_proxy_max as usize,
    };
    Some(proxy_header::encode(version, &statement))
}

/// What the client said of its connection itself, else both addresses of its socket; a Unix socket
/// has none.
fn ends<K: Kernel>(session: &Session<K>, desk: &mut Desk<K>) -> Option<Ends> {
    let Client::At(source) = session.client else { return None };
    let claimed = session.particulars.as_ref().and_then(|its| its.destination);
    let destination = claimed.or_else(|| desk.kernel.local_address(&session.client_socket).ok())?;
    Some(Ends { source, destination })
}

/// Both addresses of the connection to the backend; a Unix socket has none.
fn own_ends<K: Kernel>(session: &Session<K>, desk: &mut Desk<K>) -> Option<Ends> {
    let source = desk.kernel.local_address(session.backend_socket.as_ref()?).ok()?;
    let destination = session.address_of(session.backend(desk.snapshot())?)?;
    Some(Ends { source, destination })
}

fn micros(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

/// Whether another backend is to be tried once `failed` have failed.
pub(crate) fn may_retry(failed: usize, retries: u32) -> bool {
    failed <= retries as usize
}
