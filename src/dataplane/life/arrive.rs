//! A client has been accepted: may it come in?
//!
//! Bans and access lists are asked first, then what the listener limits, then whether there is a
//! place: the cheapest question first. Peers that have to send a PROXY header are let in as far as
//! that header; their client is judged once it is known ([`super::read`]).

use crate::dataplane::desk::Desk;
use crate::dataplane::kernel::Kernel;
use crate::dataplane::session::first_bytes::Reading;
use crate::dataplane::session::stage::Stage;
use crate::dataplane::session::{Admitted, Session};
use crate::policy::client::Client;
use crate::shared::{Listener, RefuseReason, Snapshot};

use super::admission;
use super::next::{Next, Refusal};

/// Judges a client on arrival, cheapest question first. On success every place is claimed. `None`:
/// a PROXY header has to name the client first.
///
/// # Errors
/// Why it is turned away.
pub(crate) fn judge<K: Kernel>(
    desk: &Desk<K>,
    listener: &Listener,
    client: Client,
) -> Result<Option<Admitted>, Refusal> {
    listener.state.counters(desk.books.number).accepted.add(1);
    let admitted = match &listener.accept_proxy {
        Some(rule) if rule.is_from(desk.snapshot().nat64.see(client)) => None,
        Some(rule) if !rule.is_direct_else => return Err(RefuseReason::ProxyHeader.into()),
        _ => Some(admit_client(desk, listener, client)?),
    };
    claim(desk.snapshot(), listener)?;
    Ok(admitted)
}

/// What comes first for a session whose client was let in, or has yet to be named by a header.
pub(crate) fn begin<K: Kernel>(
    session: &mut Session<K>,
    desk: &Desk<K>,
    listener: &Listener,
    is_admitted: bool,
) -> Next {
    if is_admitted && listener.routing.is_none() {
        return Next::Connect;
    }
    session.stage = Stage::Reading(Box::new(Reading::new(listener, is_admitted, desk.now)));
    Next::Read
}

/// Takes a place for a session, of the process and of the listener.
///
/// # Errors
/// The reason to turn the client away, when there is none.
fn claim(snapshot: &Snapshot, listener: &Listener) -> Result<(), RefuseReason> {
    if !snapshot.sessions.claim(snapshot.sessions_max) {
        return Err(RefuseReason::MaxSessions);
    }
    if !listener.state.active.claim(listener.sessions_max) {
        snapshot.sessions.release();
        return Err(RefuseReason::MaxSessions);
    }
    Ok(())
}

/// Asks what concerns the client. On success it is counted wherever it has to be.
pub(crate) fn admit_client<K: Kernel>(
    desk: &Desk<K>,
    listener: &Listener,
    client: Client,
) -> Result<Admitted, Refusal> {
    let bans = desk.bans.set();
    if bans.is_none() && listener.access.is_open() && listener.limits.is_empty() {
        return Ok(Admitted::default());
    }
    let seen = desk.snapshot().nat64.see(client);
    if let Some(bans) = bans
        && bans.covering_seen(seen, desk.now.micros()).is_some()
    {
        return Err(RefuseReason::Ban.into());
    }
    if !listener.access.admits_seen(seen) {
        return Err(RefuseReason::Access.into());
    }
    match &*listener.limits {
        [] => Ok(Admitted::default()),
        limits => admission::within_limits(desk, limits, seen.ip()),
    }
}
