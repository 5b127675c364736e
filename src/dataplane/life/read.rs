//! The bytes that are read of a client before there is a backend for it.
//!
//! From peers of `accept_proxy`, the PROXY header: only then is the client judged, by the address
//! that the header names. Where the pool or the hash depends on what the client says, as many of
//! its bytes as decide that. The places of a session are taken before, so what
//! waits here is bounded like everything else. Bytes that are not the header's are held and go to
//! the backend unaltered. Sessions of listeners that need none of this never come here.

use std::io::ErrorKind;

use crate::dataplane::choose::routing::{self, Way};
use crate::dataplane::desk::Desk;
use crate::dataplane::kernel::Kernel;
use crate::dataplane::session::Session;
use crate::dataplane::session::first_bytes::{Awaited, Reading};
use crate::dataplane::session::stage::Stage;
use crate::policy::client::Client;
use crate::policy::first_bytes::client_hello::Spoken;
use crate::policy::first_bytes::postgres::{self, AskedFor};
use crate::policy::first_bytes::proxy_header::{self, Header, V2_BYTES_MAX};
use crate::shared::{Listener, RefuseReason, Snapshot};

use super::arrive;
use super::end::whole_ms;
use super::next::Next;

/// Reads until there is enough, or nothing more for now. It ends: what is read is bounded.
#[cold]
pub(crate) fn go_on<K: Kernel>(session: &mut Session<K>, desk: &mut Desk<K>) -> Next {
    loop {
        let Stage::Reading(reading) = &session.stage else { return Next::Wait };
        let enough = match reading.awaited {
            Awaited::Words => match answer_postgres(session, desk) {
                Answer::NotNeeded => look_at_words(session, desk),
                Answer::Given => continue,
                Answer::Early => None,
                Answer::Failed => Some(Next::GONE),
            },
            Awaited::Header => match proxy_header::parse(&reading.bytes) {
                Ok(Some(header)) => match believe(session, desk, header) {
                    None => continue,
                    end => end,
                },
                Ok(None) if !reading.has_ended => None,
                Ok(None) => Some(Next::Refuse(RefuseReason::ProxyHeader)),
                Err(malformed) => {
                    session.particulars_mut().malformed = Some(malformed);
                    Some(Next::Refuse(RefuseReason::ProxyHeader))
                }
            },
        };
        if let Some(next) = enough.or_else(|| receive_more(session, desk)) {
            return next;
        }
    }
}

/// What was to be read has not come in time: goes on without, if that is what the listener wants.
#[cold]
pub(crate) fn timed_out<K: Kernel>(session: &mut Session<K>, desk: &mut Desk<K>) -> Next {
    let snapshot = desk.snapshot();
    let Some(listener) = snapshot.serving_listener(session.place.listener) else {
        return Next::GONE;
    };
    match &session.stage {
        Stage::Reading(reading) if reading.awaited == Awaited::Words => {
            match late_way(snapshot, listener, session.client, &reading.bytes) {
                Err(reason) => Next::Refuse(reason),
                Ok(way) => leave_off(session, desk, way),
            }
        }
        _ => Next::Refuse(RefuseReason::ProxyHeader),
    }
}

/// What became of a question that a client asks before its hello.
enum Answer {
    /// It asks for nothing, or the listener does not answer.
    NotNeeded,
    /// It is answered; look at what is behind.
    Given,
    /// More of it has to come.
    Early,
    /// The client does not take it.
    Failed,
}

/// Answers a PostgreSQL client that asks for TLS, where its hello decides: yes, and its backend
/// will be asked. One that asks for GSSAPI first, once, is told that there is none.
#[inline(never)]
fn answer_postgres<K: Kernel>(session: &mut Session<K>, desk: &mut Desk<K>) -> Answer {
    let snapshot = desk.snapshot.current();
    let Stage::Reading(reading) = &session.stage else { return Answer::NotNeeded };
    let Some(listener) = snapshot.listener(session.place.listener) else {
        return Answer::NotNeeded;
    };
    let answers = listener.routing.as_ref().is_some_and(|routing| routing.peek.is_postgres);
    let is_promised = session.particulars.as_ref().is_some_and(|its| its.is_promised_tls);
    let is_decided = || routing::find(snapshot, listener, session.client, &[], &mut None).is_some();
    if !answers || is_promised || is_decided() {
        return Answer::NotNeeded;
    }
    let answer = match postgres::asked(&reading.bytes) {
        AskedFor::Tls => postgres::WILLING,
        AskedFor::Gss if !reading.is_without_gss => postgres::UNWILLING,
        AskedFor::Incomplete if !reading.has_ended => return Answer::Early,
        AskedFor::Gss | AskedFor::Incomplete | AskedFor::Nothing => return Answer::NotNeeded,
    };
    // Nothing has been sent to this client yet: its socket has room for a byte.
    if !matches!(desk.kernel.send(&session.client_socket, &[answer]), Ok(1)) {
        return Answer::Failed;
    }
    if let Stage::Reading(reading) = &mut session.stage {
        reading.bytes.drain(..postgres::SSL_REQUEST.len());
        reading.is_without_gss = true;
    }
    session.particulars_mut().is_promised_tls = answer == postgres::WILLING;
    Answer::Given
}

/// Goes on once what has been read decides where to; `None` when more has to come.
fn look_at_words<K: Kernel>(session: &mut Session<K>, desk: &Desk<K>) -> Option<Next> {
    let snapshot = desk.snapshot();
    let Stage::Reading(reading) = &session.stage else { return None };
    // It stays in the snapshot as long as it has sessions.
    let Some(listener) = snapshot.serving_listener(session.place.listener) else {
        return Some(Next::GONE);
    };
    let client = session.client;
    let most = listener.routing.as_ref().map_or(0, |routing| routing.peek.max_bytes as usize);
    let mut spoken = None;
    let way = match routing::find(snapshot, listener, client, &reading.bytes, &mut spoken) {
        Some(way) => way,
        None if reading.has_ended || reading.bytes.len() >= most => {
            match late_way(snapshot, listener, client, &reading.bytes) {
                Ok(way) => way,
                Err(reason) => return Some(Next::Refuse(reason)),
            }
        }
        None => return None,
    };
    if let Some(Spoken::Hello(hello)) = spoken {
        session.particulars_mut().first_words.get_or_insert_default().server_name =
            hello.server_name;
    }
    Some(leave_off(session, desk, way))
}

/// Takes what a header says for the truth, and judges the client by it. `None`: go on reading.
fn believe<K: Kernel>(
    session: &mut Session<K>,
    desk: &mut Desk<K>,
    header: Header,
) -> Option<Next> {
    if let Some(ends) = header.ends {
        session.client = ends.source.into();
        session.particulars_mut().destination = Some(ends.destination);
    }
    if !header.tlvs.is_empty() {
        session.particulars_mut().tlvs = header.tlvs;
    }
    if let Stage::Reading(reading) = &mut session.stage {
        reading.bytes.drain(..header.length.min(reading.bytes.len()));
    }
    desk.bans.follow();
    // It stays in the snapshot as long as it has sessions.
    let Some(listener) = desk.snapshot().listener(session.place.listener) else {
        return Some(Next::GONE);
    };
    match arrive::admit_client(desk, listener, session.client) {
        Err(refusal) => return Some(Next::RefuseOver(Box::new(refusal))),
        Ok(admitted) => {
            session.take_counts(admitted);
        }
    }
    if let Stage::Reading(reading) = &mut session.stage {
        let routing = listener.routing.as_ref();
        reading.awaited = Awaited::Words;
        reading.timeout = routing.map_or(reading.timeout, |routing| routing.peek.timeout);
        reading.since = desk.now;
    }
    None
}

/// Receives once. `None`: something has come; look at it.
fn receive_more<K: Kernel>(session: &mut Session<K>, desk: &mut Desk<K>) -> Option<Next> {
    let Stage::Reading(reading) = &mut session.stage else { return Some(Next::Wait) };
    let listener = desk.snapshot.current().serving_listener(session.place.listener);
    let most = bytes_max(reading, listener.map(|listener| &**listener));
    let room = most.saturating_sub(reading.bytes.len());
    let Some(buffer) = desk.scratch.get_mut(..room) else { return Some(Next::Rearm) };
    match desk.kernel.receive(&session.client_socket, buffer) {
        Ok(0) => reading.has_ended = true,
        Ok(received) => {
            reading.bytes.extend_from_slice(buffer.get(..received).unwrap_or_default());
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(Next::Rearm),
        Err(error) if error.kind() == ErrorKind::Interrupted => {}
        Err(_) => return Some(Next::GONE),
    }
    None
}

/// How many bytes may be held of a session that is being read.
fn bytes_max(reading: &Reading, listener: Option<&Listener>) -> usize {
    if reading.awaited == Awaited::Header {
        return V2_BYTES_MAX;
    }
    let routing = listener.and_then(|listener| listener.routing.as_ref());
    routing.map_or(V2_BYTES_MAX, |routing| routing.peek.max_bytes as usize)
}

/// Goes on to a backend with what has been read.
fn leave_off<K: Kernel>(session: &mut Session<K>, desk: &Desk<K>, way: Way) -> Next {
    let (snapshot, now) = (desk.snapshot(), desk.now);
    session.go(way);
    session.place.generation = snapshot.generation;
    if desk.books.log.is_on() {
        let elapsed = whole_ms(now.since(session.times.opened));
        let words = session.particulars_mut().first_words.get_or_insert_default();
        words.route = way.route;
        words.read_ms = elapsed;
    }
    let stage = std::mem::replace(&mut session.stage, Stage::connecting(now));
    if let Stage::Reading(reading) = stage {
        session.preload(&reading.bytes, snapshot, now);
        if reading.has_ended {
            session.stream.client_ended();
        }
    }
    Next::Connect
}

/// Where a client goes that has not said enough.
fn late_way(
    snapshot: &Snapshot,
    listener: &Listener,
    client: Client,
    bytes: &[u8],
) -> Result<Way, RefuseReason> {
    match &listener.routing {
        Some(routing) if !routing.peek.is_default_else => Err(RefuseReason::Peek),
        _ => Ok(routing::give_up(snapshot, listener, client, bytes)),
    }
}
