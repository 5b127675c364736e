//! The fields of a session's line.

use std::borrow::Cow;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use crate::shared::{Address, Backend, Detail, Obstacle, SessionRecord};

use crate::control::log::text::{stamp, write_field, write_value};
use crate::control::words::shown_network;

/// The pool's name; a pool may be gone while its sessions go on, and its backends still know it.
fn pool_of(record: &SessionRecord) -> Option<&str> {
    let of_backend = record.backend.as_ref().map(|backend| backend.pool_name.as_str());
    record.pool.as_ref().map(|pool| pool.name.as_str()).or(of_backend)
}

/// The reason, and what else there is to say.
fn reason_of(record: &SessionRecord) -> Cow<'static, str> {
    match record.detail {
        Detail::None => Cow::Borrowed(record.reason),
        Detail::Observed(observed) => {
            Cow::Owned(format!("{} ({}, observed only)", record.reason, observed.words()))
        }
        Detail::Held(outcome) => Cow::Owned(format!("{} ({})", record.reason, outcome.words())),
        Detail::Header(malformed) => Cow::Owned(format!("{} ({malformed})", record.reason)),
        Detail::Attempts(attempts, failure) => {
            let times = if attempts == 1 { "attempt" } else { "attempts" };
            Cow::Owned(format!("{}: {} ({attempts} {times})", record.reason, failure.words()))
        }
        Detail::InKernel(times, _) => {
            let word = if times == 1 { "time" } else { "times" };
            Cow::Owned(format!("{} ({times} {word}, by the kernel)", record.reason))
        }
    }
}

/// The client; the kernel tells no port, and of addresses that are one client their network.
fn client_of(record: &SessionRecord) -> String {
    match (record.detail, record.client.ip()) {
        (Detail::InKernel(_, bits), Some(ip)) => shown_network(ip, bits),
        _ => record.client.to_string(),
    }
}

/// The backends that were passed over, and why: `b2(down),b3(full)`.
fn skipped_of(record: &SessionRecord) -> Option<String> {
    let one =
        |(backend, why): &(Arc<Backend>, Obstacle)| format!("{}({})", backend.name, why.word());
    let all: Vec<String> = record.skipped.iter().map(one).collect();
    (!all.is_empty()).then(|| all.join(","))
}

/// Where the backend was connected.
fn to_of(record: &SessionRecord) -> Option<String> {
    let path = || match &record.backend.as_ref()?.address {
        Address::Unix(_) => record.backend.as_ref().map(|backend| backend.address.to_string()),
        Address::Ip(_) | Address::Host(_) => None,
    };
    record.to.map(|address| address.to_string()).or_else(path)
}

/// The address of the listener to which the client came, as far as that is known: the one that it
/// has, or the one that covers the address which the client reached.
fn bind_of(record: &SessionRecord) -> Option<String> {
    let addresses = &record.listener.addresses;
    // As in the kernel, an address goes before the wildcard.
    let reached = |local: SocketAddr| {
        let exact = addresses.iter().find(|range| range.contains(&Address::Ip(local)));
        exact.or_else(|| addresses.iter().find(|range| range.covers(local)))
    };
    let found = match (addresses.as_slice(), record.client_local) {
        ([one], _) => Some(one),
        (_, Some(local)) => reached(local),
        (_, None) => None,
    };
    found.map(ToString::to_string)
}

/// The fields of a session's line, in their order.
#[derive(Debug, Serialize)]
pub(super) struct SessionLine<'a> {
    pub(super) time: String,
    event: &'static str,
    session: u64,
    pub(super) listener: &'a str,
    pub(super) pool: Option<&'a str>,
    pub(super) backend: Option<&'a str>,
    pub(super) client: String,
    pub(super) bytes_to_backend: u64,
    pub(super) bytes_to_client: u64,
    queue_ms: Option<u64>,
    connect_ms: Option<u64>,
    pub(super) total_ms: u64,
    path: &'static str,
    generation: u64,
    pub(super) term: &'static str,
    pub(super) reason: Cow<'static, str>,
    pick: Option<&'static str>,
    slot: Option<u32>,
    skipped: Option<String>,
    limit: Option<&'a str>,
    to: Option<String>,
    bind: Option<String>,
    client_local: Option<SocketAddr>,
    backend_local: Option<SocketAddr>,
    route: Option<usize>,
    server_name: Option<&'a str>,
    read_ms: Option<u64>,
}

impl<'a> SessionLine<'a> {
    pub(super) fn new(closed: SystemTime, record: &'a SessionRecord) -> Self {
        let words = record.first_words.as_deref();
        Self {
            time: stamp(closed),
            event: "session",
            session: record.session,
            listener: &record.listener.name,
            pool: pool_of(record),
            backend: record.backend.as_ref().map(|backend| backend.name.as_str()),
            client: client_of(record),
            bytes_to_backend: record.bytes_to_backend,
            bytes_to_client: record.bytes_to_client,
            queue_ms: record.queue_ms,
            connect_ms: record.connect_ms,
            total_ms: record.total_ms,
            path: record.path.label(),
            generation: record.generation.0,
            term: record.term,
            reason: reason_of(record),
            pick: record.pick.by.word(),
            slot: record.pick.slot(),
            skipped: skipped_of(record),
            limit: record.limit.as_deref(),
            to: to_of(record),
            bind: bind_of(record),
            client_local: record.client_local,
            backend_local: record.backend_local,
            route: words.and_then(|words| words.route).map(|index| index + 1),
            server_name: words.and_then(|words| words.server_name.as_deref()),
            read_ms: words.map(|words| words.read_ms),
        }
    }

    pub(super) fn write_text(&self, out: &mut Vec<u8>) -> std::io::Result<()> {
        let Self { time, event, session, client, .. } = self;
        write!(out, "time={time} event={event} session={session} listener=")?;
        write_value(self.listener, out);
        write_field("pool", self.pool, out)?;
        write_field("backend", self.backend, out)?;
        let Self { bytes_to_backend, bytes_to_client, total_ms, .. } = self;
        write!(out, " client={client} bytes_to_backend={bytes_to_backend}")?;
        write!(out, " bytes_to_client={bytes_to_client}")?;
        write_field("queue_ms", self.queue_ms, out)?;
        write_field("connect_ms", self.connect_ms, out)?;
        let Self { path, generation, term, reason, .. } = self;
        write!(out, " total_ms={total_ms} path={path} generation={generation} term={term}")?;
        write_field("reason", Some(reason), out)?;
        write_field("pick", self.pick, out)?;
        write_field("slot", self.slot, out)?;
        write_field("skipped", self.skipped.as_deref(), out)?;
        write_field("limit", self.limit, out)?;
        write_field("to", self.to.as_deref(), out)?;
        write_field("bind", self.bind.as_deref(), out)?;
        write_field("client_local", self.client_local, out)?;
        write_field("backend_local", self.backend_local, out)?;
        write_field("route", self.route, out)?;
        write_field("server_name", self.server_name, out)?;
        write_field("read_ms", self.read_ms, out)
    }
}

#[cfg(test)]
impl SessionLine<'static> {
    /// A line of a refused client.
    pub(super) fn sample() -> Self {
        Self {
            time: "2023-11-14T22:13:20.070Z".to_owned(),
            event: "session",
            session: 7,
            listener: "db",
            pool: None,
            backend: None,
            client: "192.0.2.1:1234".to_owned(),
            bytes_to_backend: 1,
            bytes_to_client: 2,
            queue_ms: None,
            connect_ms: None,
            total_ms: 3,
            path: "copy",
            generation: 4,
            term: "PR",
            reason: Cow::Borrowed("client over its rate"),
            pick: None,
            slot: None,
            skipped: None,
            limit: None,
            to: None,
            bind: None,
            client_local: None,
            backend_local: None,
            route: Some(2),
            server_name: Some("a b"),
            read_ms: Some(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, programs that read the session log by field break.
    #[test]
    fn session_fields_have_their_names_and_order() {
        let mut out = Vec::new();
        SessionLine::sample().write_text(&mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "time=2023-11-14T22:13:20.070Z event=session session=7 listener=db pool=- backend=- \
             client=192.0.2.1:1234 bytes_to_backend=1 bytes_to_client=2 queue_ms=- connect_ms=- \
             total_ms=3 path=copy generation=4 term=PR reason=\"client over its rate\" pick=- \
             slot=- skipped=- limit=- to=- bind=- client_local=- backend_local=- route=2 \
             server_name=\"a b\" read_ms=1"
        );
        let json = serde_json::to_string(&SessionLine::sample()).unwrap();
        assert_eq!(
            json,
            "{\"time\":\"2023-11-14T22:13:20.070Z\",\"event\":\"session\",\"session\":7,\
             \"listener\":\"db\",\"pool\":null,\"backend\":null,\"client\":\"192.0.2.1:1234\",\
             \"bytes_to_backend\":1,\"bytes_to_client\":2,\"queue_ms\":null,\"connect_ms\":null,\
             \"total_ms\":3,\"path\":\"copy\",\"generation\":4,\"term\":\"PR\",\
             \"reason\":\"client over its rate\",\"pick\":null,\"slot\":null,\
             \"skipped\":null,\"limit\":null,\"to\":null,\"bind\":null,\
             \"client_local\":null,\"backend_local\":null,\"route\":2,\
             \"server_name\":\"a b\",\"read_ms\":1}"
        );
    }
}
