//! A client has been accepted: may it come in?
//!
//! Peers that have to say who their client is are let in as far as their PROXY header; the client
//! is judged once it is known ([`super::read`]).

use crate::dataplane::desk::Desk;
use crate::dataplane::kernel::Kernel;
use crate::dataplane::session::{Admitted, Session};
use crate::policy::client::Client;
use crate::shared::{Listener, RefuseReason};

use super::next::{Next, Refusal};
use super::{admission, places, read};

/// Judges a client on arrival, cheapest question first. On success every place is claimed. `None`:
/// a PROXY header has to say first who the client is.
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
        Some(rule) if rule.is_from(client) => None,
        Some(rule) if !rule.is_direct_else => return Err(RefuseReason::ProxyHeader.into()),
        _ => Some(admission::admit_client(desk, listener, client.ip())?),
    };
    places::claim(desk.snapshot(), listener)?;
    Ok(admitted)
}

/// Where a session begins whose client was let in, or has yet to say who it is.
pub(crate) fn begin<K: Kernel>(
    session: &mut Session<K>,
    desk: &Desk<K>,
    listener: &Listener,
    is_admitted: bool,
) -> Next {
    if is_admitted && listener.routing.is_none() {
        return Next::Connect;
    }
    session.stage = read::begin(listener, is_admitted, desk.now);
    Next::Read
}
