//! What a backend gets before any byte of its client: a PROXY header, PostgreSQL's request for TLS.
//!
//! Made anew for every attempt, sent once the handshake is done, and nothing else moves until the
//! kernel has taken all of it and the backend has answered where it has to; so a backend that fails
//! meanwhile is followed by another, as if its handshake had failed. No relay knows of it: it is in
//! no count of bytes.

use crate::dataplane::desk::Desk;
use crate::dataplane::kernel::Kernel;
use crate::dataplane::session::Session;
use crate::dataplane::session::first_bytes::Greeted;
use crate::dataplane::session::stage::Stage;
use crate::dataplane::stream::wire::Side;
use crate::shared::ConnectFailure;

use super::next::Next;

/// Sends what is left of it, and hears the answer.
#[cold]
pub(crate) fn go_on<K: Kernel>(session: &mut Session<K>, desk: &mut Desk<K>) -> Next {
    if let Stage::Connecting { since, greeting } = &mut session.stage
        && let Some(greeting) = greeting.take()
    {
        session.stage = Stage::Greeting { since: *since, greeting };
    }
    let Stage::Greeting { greeting, .. } = &mut session.stage else { return Next::Move };
    let Some(socket) = &session.backend_socket else { return Next::Move };
    let greeted = match greeting.go_on(|bytes| desk.kernel.send(socket, bytes)) {
        Greeted::Done => greeting.hear(|byte| desk.kernel.receive(socket, byte)),
        unfinished => unfinished,
    };
    match greeted {
        Greeted::Done => Next::Move,
        Greeted::Waits => Next::Wait,
        Greeted::Failed(error) => Next::Retry(ConnectFailure::of(&error)),
        Greeted::Refused => Next::Retry(ConnectFailure::NoTls),
    }
}

/// Something happened to a session whose backend has not been greeted yet.
#[cold]
pub(crate) fn event(side: Side, has_failed: bool) -> Next {
    match side {
        Side::Client if has_failed => Next::GONE,
        Side::Client => Next::Wait,
        Side::Backend => Next::Greet,
    }
}
