//! Which pool a connection goes to, and what is hashed there, by what its client has said so far.
//!
//! Pure: bytes and a snapshot in, a decision out. It is asked again each time more has come.

use std::net::IpAddr;

use crate::policy::balance::hash::{name_key, value_key};
use crate::policy::client::Client;
use crate::policy::first_bytes::client_hello::{self, Spoken};
use crate::policy::first_bytes::request_head::{self, Found, HeadField};
use crate::policy::first_bytes::route::{Choice, Known, choose};
use crate::policy::first_bytes::{mqtt, rdp};
use crate::shared::{HashPlan, HashedWords, Listener, PoolId, Routing, Snapshot};

/// Where a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) pool: PoolId,
    /// The hash that stands for the client instead of its address.
    pub(crate) key: Option<u64>,
    /// The route that leads there, counted from 0; `None` of the listener's own pool.
    pub(crate) route: Option<usize>,
}

impl Way {
    fn of(listener: &Listener, choice: Choice<PoolId>) -> Self {
        let (pool, route) = match choice {
            Choice::Taken(pool, route) => (pool, Some(route)),
            Choice::Default | Choice::NeedsHello => (listener.pool, None),
        };
        Self { pool, key: None, route }
    }
}

/// The way of a client that has said `bytes`; `None` when more has to come. If it was looked at
/// whether they are a TLS hello, the answer is left in `spoken`.
pub(crate) fn find(
    snapshot: &Snapshot,
    listener: &Listener,
    client: Client,
    bytes: &[u8],
    spoken: &mut Option<Spoken>,
) -> Option<Way> {
    let client = snapshot.nat64.see(client).ip();
    let way = match routed(listener, client, bytes, spoken) {
        Choice::NeedsHello => return None,
        choice => Way::of(listener, choice),
    };
    let Some((plan, words)) = hashed(snapshot, way.pool) else { return Some(way) };
    let head = |wanted: HeadField<'_>| request_head::find(bytes, wanted);
    let key = match words {
        HashedWords::ServerName => match spoken.get_or_insert_with(|| client_hello::parse(bytes)) {
            Spoken::Incomplete => return None,
            Spoken::NotTls => None,
            Spoken::Hello(hello) => {
                hello.server_name.as_ref().map(|name| name_key(name, plan.seed))
            }
        },
        HashedWords::Header(name) => said(head(HeadField::Header(name)), plan)?,
        HashedWords::Cookie(name) => said(head(HeadField::Cookie(name)), plan)?,
        HashedWords::MqttClientId => said(mqtt::find(bytes), plan)?,
        HashedWords::RdpCookie => said(rdp::find(bytes), plan)?,
    };
    Some(Way { key, ..way })
}

/// The way of a client that says no more, or not in time: its pool, if that is known, else the
/// listener's.
pub(crate) fn give_up(
    snapshot: &Snapshot,
    listener: &Listener,
    client: Client,
    bytes: &[u8],
) -> Way {
    let client = snapshot.nat64.see(client).ip();
    Way::of(listener, routed(listener, client, bytes, &mut None))
}

/// The route; what the bytes are is found out only if that decides, and left in `spoken`.
fn routed(
    listener: &Listener,
    client: Option<IpAddr>,
    bytes: &[u8],
    spoken: &mut Option<Spoken>,
) -> Choice<PoolId> {
    let routes: &[_] = match &listener.routing {
        Some(Routing { routes, .. }) => routes,
        None => return Choice::Default,
    };
    match choose(routes, client, Known::Nothing) {
        Choice::NeedsHello => {}
        choice => return choice,
    }
    let known = match spoken.get_or_insert_with(|| client_hello::parse(bytes)) {
        Spoken::Incomplete => Known::Nothing,
        Spoken::NotTls => Known::NoHello,
        Spoken::Hello(hello) => Known::Hello(hello),
    };
    choose(routes, client, known)
}

/// The words of clients that a pool hashes.
fn hashed(snapshot: &Snapshot, pool: PoolId) -> Option<(&HashPlan, &HashedWords)> {
    let plan = &snapshot.pool(pool)?.hash;
    plan.said.as_ref().map(|words| (plan, words))
}

/// The key of a value; the outer `None` when it may still come.
fn said(found: Found<'_>, plan: &HashPlan) -> Option<Option<u64>> {
    match found {
        Found::Incomplete => None,
        Found::Absent => Some(None),
        Found::Value(value) => Some(Some(value_key(value, plan.seed))),
    }
}
