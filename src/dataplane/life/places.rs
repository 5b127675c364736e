//! Places: of the process, of a listener, at a backend. Claimed on the way in, given back once.

use crate::dataplane::desk::Desk;
use crate::dataplane::kernel::Kernel;
use crate::dataplane::session::Session;
use crate::dataplane::session::stage::Stage;
use crate::shared::{Backend, Listener, Pool, RefuseReason, Snapshot};

/// Takes a place for a session, of the process and of the listener.
///
/// # Errors
/// The reason to turn the client away, when there is none.
pub(crate) fn claim(snapshot: &Snapshot, listener: &Listener) -> Result<(), RefuseReason> {
    if !snapshot.sessions.claim(snapshot.sessions_max) {
        return Err(RefuseReason::MaxSessions);
    }
    if !listener.state.active.claim(listener.sessions_max) {
        snapshot.sessions.release();
        return Err(RefuseReason::MaxSessions);
    }
    Ok(())
}

/// Gives every place of a session back, and its place in a line.
pub(crate) fn release<K: Kernel>(session: &mut Session<K>, desk: &Desk<K>) {
    let snapshot = desk.snapshot();
    drop(session.place.counted.take());
    snapshot.sessions.release();
    if let Some(backend) = session.backend(snapshot) {
        release_backend(backend);
    }
    leave_line(snapshot, session);
    if let Some(listener) = snapshot.listener(session.place.listener) {
        listener.state.active.release();
    }
}

/// Gives a place at a backend back, and tells the clients that wait for one.
pub(crate) fn release_backend(backend: &Backend) {
    backend.state.release();
    if let Some(line) = &backend.line {
        line.place_is_free();
    }
}

fn leave_line<K: Kernel>(snapshot: &Snapshot, session: &Session<K>) {
    if !matches!(session.stage, Stage::Waiting { .. }) {
        return;
    }
    if let Some(pool) = snapshot.pool(session.place.pool)
        && pool.state.line.leave(session.place.number)
    {
        // It may have been called to a place that it leaves to the next.
        pool.state.line.place_is_free();
    }
}

/// Whether a pool that has no place now may have one when a session ends.
pub(crate) fn is_only_full(pool: &Pool) -> bool {
    let panicking = pool.state.is_panicking();
    pool.queue.is_some() && pool.backends().any(|backend| backend.is_usable(panicking))
}

/// Whether a newcomer has to line up behind others.
pub(crate) fn has_line(pool: &Pool) -> bool {
    pool.queue.is_some() && !pool.state.line.is_empty()
}
