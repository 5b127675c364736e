//! The line that the session log gets of a session, or of a client that became none.

use std::sync::Arc;
use std::time::Duration;

use crate::dataplane::desk::Desk;
use crate::dataplane::kernel::Kernel;
use crate::dataplane::session::Session;
use crate::dataplane::session::stage::Stage;
use crate::policy::client::Client;
use crate::shared::{
    Backend, Detail, EndCode, Generation, Listener, Obstacle, PathKind, Pick, SessionRecord,
    Snapshot,
};

/// The record of a session that ends now; `None` while nothing is logged. To be made before its
/// places are given back.
pub(crate) fn of_session<K: Kernel>(
    session: &Session<K>,
    desk: &Desk<K>,
    code: EndCode,
) -> Option<SessionRecord> {
    if !desk.books.log.is_on() {
        return None;
    }
    let snapshot = desk.snapshot();
    let listener = snapshot.listener(session.place.listener)?;
    let last_tried = || session.tried().last().and_then(|id| snapshot.backend(*id));
    let [to_backend, to_client] = session.stream.delivered();
    let mut times = session.times;
    if let Stage::Waiting { since } = session.stage {
        times.waited(desk.now.since(since));
    }
    let queue_ms = times.waited_ms.map(u64::from);
    let until_connected = times
        .connected
        .map(|at| whole_ms(at.since(times.opened)).saturating_sub(queue_ms.unwrap_or_default()));
    let was_read = matches!(session.stage, Stage::Reading(_));
    Some(SessionRecord {
        pool: snapshot.pool(session.place.pool).filter(|_| !was_read).cloned(),
        backend: session.backend(snapshot).or_else(last_tried).cloned(),
        pick: session.place.pick,
        skipped: skipped(session, snapshot),
        bytes_to_backend: to_backend.0 + to_backend.1,
        bytes_to_client: to_client.0 + to_client.1,
        queue_ms,
        connect_ms: until_connected,
        total_ms: whole_ms(desk.now.since(times.opened)),
        path: session.stream.path(),
        detail: detail_of(session),
        ..blank(
            Whose {
                number: session.place.number,
                listener,
                client: session.client,
                generation: session.place.generation,
            },
            code,
        )
    })
}

/// The record of a client that was never admitted; `None` while nothing is logged.
pub(crate) fn of_newcomer<K: Kernel>(
    desk: &mut Desk<K>,
    listener: &Arc<Listener>,
    client: Client,
    code: EndCode,
) -> Option<SessionRecord> {
    if !desk.books.log.is_on() {
        return None;
    }
    let generation = desk.snapshot().generation;
    let number = desk.books.next_number();
    Some(blank(Whose { number, listener, client, generation }, code))
}

/// Sends a record to the log, if there is one.
pub(crate) fn write<K: Kernel>(desk: &Desk<K>, record: Option<SessionRecord>) {
    if let Some(record) = record {
        desk.books.log.write(desk.kernel.time_of_day(), record);
    }
}

/// What every line says.
struct Whose<'a> {
    number: u64,
    listener: &'a Arc<Listener>,
    client: Client,
    generation: Generation,
}

/// A record of which nothing else is known yet.
fn blank(whose: Whose<'_>, code: EndCode) -> SessionRecord {
    SessionRecord {
        session: whose.number,
        listener: Arc::clone(whose.listener),
        pool: None,
        backend: None,
        pick: Pick::default(),
        skipped: Box::default(),
        client: whose.client,
        bytes_to_backend: 0,
        bytes_to_client: 0,
        queue_ms: None,
        connect_ms: None,
        total_ms: 0,
        path: PathKind::Copy,
        generation: whose.generation,
        term: code.term,
        reason: code.words,
        detail: Detail::None,
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

fn detail_of<K: Kernel>(session: &Session<K>) -> Detail {
    let malformed = session.particulars.as_ref().and_then(|its| its.malformed);
    match (session.place.observed, malformed, session.failure()) {
        (Some(observed), _, _) => Detail::Observed(observed),
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
