//! How a session ends: finished, timed out, drained; counted once, and one line in the log. How
//! clients are turned away is in [`super::refuse`].

use crate::dataplane::desk::Desk;
use crate::dataplane::kernel::Kernel;
use crate::dataplane::session::Session;
use crate::dataplane::stream::wire::Side;
use crate::dataplane::stream::{End, Reset};
use crate::dataplane::wires::Wires;
use crate::shared::{CloseReason, SESSION_SECONDS};

use super::{failure_evidence, places, record};

/// Ends a session that is in the table no more. Its sockets are closed last.
pub(crate) fn end<K: Kernel>(mut session: Session<K>, desk: &mut Desk<K>, end: End) {
    let snapshot = desk.snapshot.current();
    if end.reason == CloseReason::BackendReset {
        failure_evidence::reset(snapshot, &session, desk.now);
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
    let record = record::of_session(&session, desk, end.reason.code());
    places::release(&mut session, desk);
    record::write(desk, record);
}
