//! Sessions that wait for a place, because every backend of their pool is full.
//!
//! The line is the pool's and holds the clients of all workers. Only its first is offered a place;
//! its worker is called when one becomes free, and looks by itself now and then, for what calls
//! no worker: a backend that comes up, a reload. Until then the client's bytes stay in the kernel,
//! unless it has ended: only they tell then whether it waits for an answer.

use std::sync::Arc;

use crate::dataplane::bell::Bell;
use crate::dataplane::clock::Tick;
use crate::dataplane::desk::Desk;
use crate::dataplane::kernel::Kernel;
use crate::dataplane::session::Session;
use crate::dataplane::session::stage::Stage;
use crate::dataplane::slots::Addressed;
use crate::dataplane::stream::Readiness;
use crate::dataplane::stream::wire::Side;
use crate::shared::{Callable, RefuseReason, Waiting};

use super::next::Next;

/// Joins the line of the session's pool.
#[cold]
pub(crate) fn join<K: Kernel>(session: &mut Session<K>, desk: &Desk<K>) -> Next {
    let Some(pool) = desk.snapshot().pool(session.place.pool) else {
        return Next::refuse(RefuseReason::NoBackend);
    };
    let worker: Arc<dyn Callable> = Arc::<Bell>::clone(&desk.bell);
    let token = Addressed::Session(session.key, Side::Client).token().0 as u64;
    let waiting = Waiting { number: session.place.number, token, worker };
    if !pool.state.line.join(waiting, pool.terms.queue.map_or(0, |queue| queue.max)) {
        return Next::refuse(RefuseReason::NoBackend);
    }
    session.stage = Stage::Waiting { since: desk.now };
    Next::TryLine
}

/// Stays in the line, after a look in vain.
#[cold]
pub(crate) fn stay<K: Kernel>(session: &mut Session<K>, since: Tick) {
    session.stage = Stage::Waiting { since };
}

/// Leaves the line: a place was found, or none will be.
#[cold]
pub(crate) fn leave<K: Kernel>(session: &mut Session<K>, desk: &Desk<K>, since: Tick) {
    if let Some(pool) = desk.snapshot().pool(session.place.pool) {
        pool.state.line.leave(session.place.number);
    }
    if matches!(session.stage, Stage::Waiting { .. }) {
        session.stage = Stage::connecting(desk.now);
    }
    session.times.waited(desk.now.since(since));
}

/// Something happened to a client that waits.
#[cold]
pub(crate) fn event<K: Kernel>(
    session: &mut Session<K>,
    desk: &mut Desk<K>,
    readiness: Readiness,
) -> Next {
    if readiness.error {
        return Next::GONE;
    }
    if !readiness.read_closed || session.stream.held(Side::Client) > 0 {
        return Next::Wait;
    }
    // A client that has said nothing and finished is gone; after a word it may be waiting for the
    // answer.
    match desk.kernel.receive(&session.client_socket, &mut desk.scratch) {
        Ok(received @ 1..) => {
            let bytes = desk.scratch.get(..received).unwrap_or_default();
            session.preload(bytes, desk.snapshot.current(), desk.now);
            Next::Wait
        }
        _ => Next::GONE,
    }
}

/// A look at the line, which is due now and then.
#[cold]
pub(crate) fn look<K: Kernel>(session: &Session<K>, desk: &Desk<K>) -> Next {
    match desk.snapshot().pool(session.place.pool) {
        Some(pool) if pool.terms.queue.is_some() => Next::TryLine,
        // A reload has taken the queue, or the pool, away.
        _ => Next::refuse(RefuseReason::NoBackend),
    }
}
