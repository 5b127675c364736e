//! Sessions that wait: in line for a place, because every backend of their pool is full, or until a
//! backend that failed may be tried again.
//!
//! The line is the pool's and holds the clients of all workers. Only its first is offered a place;
//! its worker is called when one becomes free, and looks by itself now and then, for what calls
//! no worker: a backend that comes up, a reload. A session whose attempt fails comes back to its
//! place in the line, and its deadline stays. Until then the client's bytes stay in the kernel,
//! unless it has ended: only they tell then whether it waits for an answer.

use std::io::ErrorKind;
use std::sync::Arc;

use crate::dataplane::bell::Bell;
use crate::dataplane::clock::Tick;
use crate::dataplane::desk::Desk;
use crate::dataplane::kernel::Kernel;
use crate::dataplane::session::Session;
use crate::dataplane::session::stage::Stage;
use crate::dataplane::slots::Addressed;
use crate::dataplane::stream::Readiness;
use crate::dataplane::stream::port::Port;
use crate::dataplane::stream::wire::Side;
use crate::shared::{Callable, Pool, RefuseReason, Snapshot, Waiting};

use super::next::Next;

/// Joins the line of the session's pool.
#[cold]
pub(crate) fn join<K: Kernel>(session: &mut Session<K>, desk: &mut Desk<K>) -> Next {
    if has_left(session, desk) {
        return Next::GONE;
    }
    let Some(pool) = desk.snapshot().pool(session.place.pool) else {
        return Next::Refuse(RefuseReason::NoBackend);
    };
    let worker: Arc<dyn Callable> = Arc::<Bell>::clone(&desk.bell);
    let token = Addressed::Session(session.key, Side::Client).token().0 as u64;
    let before = session.particulars.as_ref().and_then(|its| its.lined_up);
    let max = pool.terms.queue.map_or(0, |queue| queue.max);
    let first = before.unwrap_or(desk.now);
    let (since_us, number) = (first.micros(), session.place.number);
    let waiting = Waiting { since_us, number, token, worker };
    if !pool.state.line.join(waiting, before.is_none().then_some(max)) {
        return Next::Refuse(RefuseReason::NoBackend);
    }
    session.particulars_mut().lined_up = Some(first);
    session.stage = Stage::Waiting { first, since: desk.now };
    Next::TryLine
}

/// Leaves the line of a pool: a place was found, or none will be, or another pool is its own now.
#[cold]
pub(crate) fn leave<K: Kernel>(
    session: &mut Session<K>,
    desk: &Desk<K>,
    pool: Option<&Arc<Pool>>,
    since: Tick,
) {
    if let Some(pool) = pool {
        pool.state.line.leave(session.place.number, desk.now.micros());
    }
    if matches!(session.stage, Stage::Waiting { .. }) {
        session.stage = Stage::connecting(desk.now);
    }
    session.times.waited(desk.now.since(since));
}

/// Goes where a newer snapshot says, out of the line of the pool that it had by the old one.
#[cold]
pub(crate) fn follow<K: Kernel>(session: &mut Session<K>, desk: &Desk<K>, old: &Snapshot) -> Next {
    let before = session.place.pool;
    session.follow(desk.snapshot());
    let Stage::Waiting { since, .. } = session.stage else { return Next::Wait };
    if session.place.pool == before {
        return Next::Wait;
    }
    let pool = old.pool(before);
    leave(session, desk, pool, since);
    if let Some(pool) = pool {
        // It may have been called to a place that it leaves to the next.
        pool.state.line.place_is_free();
    }
    match desk.snapshot().pool(session.place.pool) {
        Some(pool) if pool.terms.queue.is_some() => Next::LineUp,
        _ => Next::Connect,
    }
}

/// Waits until a backend that failed may be tried again.
#[cold]
#[inline(never)]
pub(crate) fn rest<K: Kernel>(session: &mut Session<K>, desk: &mut Desk<K>) -> Next {
    if has_left(session, desk) { Next::GONE } else { Next::Rearm }
}

/// Something happened to a client that waits.
#[cold]
pub(crate) fn event<K: Kernel>(
    session: &mut Session<K>,
    desk: &mut Desk<K>,
    readiness: Readiness,
) -> Next {
    if readiness.error || has_left(session, desk) { Next::GONE } else { Next::Wait }
}

/// Whether the client has finished without a word, so far as events have told: it is gone. After a
/// word, which is kept, it may be waiting for the answer.
fn has_left<K: Kernel>(session: &mut Session<K>, desk: &mut Desk<K>) -> bool {
    if session.stream.held(Side::Client) > 0 {
        return false;
    }
    if session.stream.has_ended(Side::Client) {
        return true;
    }
    let port = session.stream.port(Side::Client);
    if port.contains(Port::FAILED) {
        return true;
    }
    if !port.contains(Port::OVER) {
        return false;
    }
    loop {
        match desk.kernel.receive(&session.client_socket, &mut desk.scratch) {
            Ok(received @ 1..) => {
                let bytes = desk.scratch.get(..received).unwrap_or_default();
                session.preload(bytes, desk.snapshot.current(), desk.now);
                return false;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => return true,
        }
    }
}

/// A look at the line, which is due now and then.
#[cold]
pub(crate) fn look<K: Kernel>(session: &Session<K>, desk: &Desk<K>) -> Next {
    match desk.snapshot().pool(session.place.pool) {
        Some(pool) if pool.terms.queue.is_some() => Next::TryLine,
        // A reload has taken the queue, or the pool, away.
        _ => Next::Refuse(RefuseReason::NoBackend),
    }
}
