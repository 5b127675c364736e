//! How a session ends: finished, timed out, drained; its places are given back, and the log gets
//! its line. How clients are turned away is in [`super::refuse`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::dataplane::clock::Tick;
use crate::dataplane::desk::Desk;
use crate::dataplane::kernel::Kernel;
use crate::dataplane::session::Session;
use crate::dataplane::session::counted::Observed;
use crate::dataplane::session::stage::Stage;
use crate::dataplane::stream::wire::Side;
use crate::dataplane::stream::{End, Reset};
use crate::dataplane::wires::Wires;
use crate::policy::client::Client;
use crate::policy::log_choice::LogChoice;
use crate::shared::{
    ArrivedClient, Backend, CloseReason, Detail, EndCode, Listener, Obstacle, SESSION_SECONDS,
    SessionRecord, Snapshot, Symptom,
};

use super::failure_evidence;

/// Ends a session that is in the table no more. Its sockets are closed last.
pub(crate) fn end<K: Kernel>(mut session: Session<K>, desk: &mut Desk<K>, end: End) {
    let snapshot = desk.snapshot.current();
    let symptom = match end.reason {
        CloseReason::BackendReset => Some(Symptom::Reset),
        CloseReason::BackendTimeout => Some(Symptom::Unanswered),
        _ => None,
    };
    if let Some(symptom) = symptom {
        failure_evidence::broken(snapshot, &session, symptom, desk.now);
    }
    if matches!(end.reset, Reset::Both | Reset::One(Side::Client)) {
        desk.kernel.reset_on_close(&session.client_socket);
    }
    if let Some(backend) = &session.backend_socket {
        if matches!(end.reset, Reset::Both | Reset::One(Side::Backend)) {
            desk.kernel.reset_on_close(backend);
        }
        let client = &session.client_socket;
        session.stream.release(&mut Wires { client, backend, kernel: &mut desk.kernel });
    }
    if let Some(listener) = snapshot.listener(session.place.listener) {
        let counters = listener.state.counters(desk.books.number);
        counters.closed_for(end.reason).add(1);
        let elapsed = desk.now.since(session.times.opened);
        counters.session_seconds.record(elapsed, &SESSION_SECONDS);
        desk.handover.learn(session.place.listener, elapsed);
    }
    let record = record_of(&session, desk, end.reason.code());
    release(&mut session, desk);
    write_record(desk, record);
}

/// Gives every place of a session back, and its place in a line.
pub(crate) fn release<K: Kernel>(session: &mut Session<K>, desk: &Desk<K>) {
    let snapshot = desk.snapshot();
    drop(session.place.counted.take());
    if let Some(its) = &mut session.particulars {
        its.counted.clear();
    }
    snapshot.sessions.release();
    if let Some(backend) = session.backend(snapshot) {
        backend.release_place();
    }
    leave_line(snapshot, session, desk.now);
    if let Some(listener) = snapshot.listener(session.place.listener) {
        listener.state.active.release();
    }
}

fn leave_line<K: Kernel>(snapshot: &Snapshot, session: &Session<K>, now: Tick) {
    if !matches!(session.stage, Stage::Waiting { .. }) {
        return;
    }
    if let Some(pool) = snapshot.pool(session.place.pool)
        && pool.state.line.leave(session.place.number, now.micros())
    {
        // It may have been called to a place that it leaves to the next.
        pool.state.line.place_is_free();
    }
}

/// The record of a session that ends now; `None` while nothing is logged. To be made before its
/// places are given back.
pub(crate) fn record_of<K: Kernel>(
    session: &Session<K>,
    desk: &mut Desk<K>,
    code: EndCode,
) -> Option<SessionRecord> {
    let [to_backend, to_client] =
        session.stream.delivered().map(|(copied, spliced)| copied + spliced);
    let end = code.logged_end(session.place.number, to_backend + to_client);
    let choice = desk.books.log.wants(end)?;
    let [client_local, backend_local] = own_addresses(session, desk, choice);
    let snapshot = desk.snapshot();
    let listener = snapshot.listener(session.place.listener)?;
    let last_tried = || session.tried().last().and_then(|id| snapshot.backend(*id));
    let mut times = session.times;
    if let Stage::Waiting { since, .. } = session.stage {
        times.waited(desk.now.since(since));
    }
    let queue_ms = times.waited_ms.map(u64::from);
    let until_connected = times
        .connected
        .map(|at| whole_ms(at.since(times.opened)).saturating_sub(queue_ms.unwrap_or_default()));
    let was_read = matches!(session.stage, Stage::Reading(_));
    let backend = session.backend(snapshot).or_else(last_tried);
    Some(SessionRecord {
        to: backend.and_then(|backend| session.address_of(backend)),
        client_local,
        backend_local,
        first_words: session.particulars.as_ref().and_then(|its| its.first_words.clone()),
        pool: snapshot.pool(session.place.pool).filter(|_| !was_read).cloned(),
        backend: backend.cloned(),
        pick: session.place.pick,
        skipped: skipped(session, snapshot),
        bytes_to_backend: to_backend,
        bytes_to_client: to_client,
        queue_ms,
        connect_ms: until_connected,
        total_ms: whole_ms(desk.now.since(times.opened)),
        path: session.stream.path(),
        detail: detail_of(session),
        limit: observed(session).map(|observed| Arc::clone(&observed.limit)),
        ..SessionRecord::new(
            session.place.number,
            ArrivedClient {
                listener,
                client: session.client,
                generation: session.place.generation,
            },
            code,
        )
    })
}

/// The record of a client that was never admitted; `None` while nothing is logged.
pub(crate) fn record_of_newcomer<K: Kernel>(
    desk: &mut Desk<K>,
    listener: &Arc<Listener>,
    client: Client,
    code: EndCode,
) -> Option<SessionRecord> {
    let generation = desk.snapshot().generation;
    let number = desk.books.next_number();
    desk.books.log.wants(code.logged_end(number, 0))?;
    Some(SessionRecord::new(number, ArrivedClient { listener, client, generation }, code))
}

/// The addresses of this host in both connections, if the log is to say them.
fn own_addresses<K: Kernel>(
    session: &Session<K>,
    desk: &mut Desk<K>,
    choice: LogChoice,
) -> [Option<SocketAddr>; 2] {
    if !choice.local_addresses {
        return [None; 2];
    }
    // A Unix socket has none.
    let mut own = |socket: &K::Socket| desk.kernel.local_address(socket).ok();
    [own(&session.client_socket), session.backend_socket.as_ref().and_then(own)]
}

/// Sends a record to the log, if there is one.
pub(crate) fn write_record<K: Kernel>(desk: &Desk<K>, record: Option<SessionRecord>) {
    if let Some(record) = record {
        desk.books.log.write(desk.kernel.time_of_day(), record);
    }
}

/// The backends that were passed over, as far as they are still known.
fn skipped<K: Kernel>(
    session: &Session<K>,
    snapshot: &Snapshot,
) -> Box<[(Arc<Backend>, Obstacle)]> {
    let Some(its) = &session.particulars else { return Box::default() };
    let named = its.skipped.iter().map(|skip| Some((snapshot.backend(skip.backend)?, skip)));
    named.flatten().map(|(backend, skip)| (Arc::clone(backend), skip.why)).collect()
}

/// The limit that would have turned its client away if it did not only observe.
fn observed<K: Kernel>(session: &Session<K>) -> Option<&Observed> {
    session.particulars.as_ref()?.observed.as_ref()
}

fn detail_of<K: Kernel>(session: &Session<K>) -> Detail {
    let malformed = session.particulars.as_ref().and_then(|its| its.malformed);
    match (observed(session), malformed, session.failure()) {
        (Some(observed), _, _) => Detail::Observed(observed.reason),
        (None, Some(malformed), _) => Detail::Header(malformed),
        (None, None, Some(failure)) if session.times.connected.is_none() => {
            Detail::Attempts(session.tried().len(), failure)
        }
        _ => Detail::None,
    }
}

/// Whole milliseconds.
pub(crate) fn whole_ms(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
