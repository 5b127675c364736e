//! How a client is turned away: by a reset, an orderly close, an answer, or after a wait.
//!
//! The first two are done at once. The others hold the client for seconds, outside of the
//! session table, in [`crate::dataplane::held`].

use std::sync::Arc;

use crate::dataplane::desk::Desk;
use crate::dataplane::held::client::{HeldClient, Stay};
use crate::dataplane::held::room;
use crate::dataplane::kernel::Kernel;
use crate::dataplane::session::Session;
use crate::dataplane::session::stage::Stage;
use crate::policy::admit::http_answer::HttpAnswer;
use crate::policy::client::Client;
use crate::shared::{
    ConnectFailure, EndCode, Limit, LimitAction, Listener, Protocol, RefuseReason, SessionRecord,
};

use super::end;
use super::next::Refusal;

/// What a client that is turned away gets.
#[derive(Debug, Clone, Copy)]
enum Farewell {
    Reset,
    Close,
    Stay(Stay),
}

fn farewell(refusal: Refusal, listener: &Listener) -> Farewell {
    use RefuseReason as Why;
    let is_http = listener.terms.protocol == Protocol::Http;
    let says = listener.refusal.bytes.is_some();
    match refusal.reason {
        Why::Limit | Why::Concurrent | Why::ListenerRate => {
            match limit_of(refusal, listener).map(|limit| limit.action) {
                Some(LimitAction::Reply) if is_http => Farewell::Stay(Stay::Ask(refusal.answer)),
                Some(LimitAction::Reply) if says => Farewell::Stay(Stay::Say),
                Some(LimitAction::Reply | LimitAction::Close) => Farewell::Close,
                Some(LimitAction::Tarpit) => Farewell::Stay(Stay::Tarpit),
                Some(LimitAction::Reset) | None => Farewell::Reset,
            }
        }
        Why::MaxSessions | Why::NoBackend if is_http => Farewell::Stay(Stay::Ask(refusal.answer)),
        Why::MaxSessions | Why::NoBackend if says => Farewell::Stay(Stay::Say),
        // A client that may not connect at all is told nothing, and to hold a connection takes a
        // descriptor that there is not.
        _ => Farewell::Reset,
    }
}

/// The limit that refuses, if one does.
fn limit_of(refusal: Refusal, listener: &Listener) -> Option<&Limit> {
    let is_limit = matches!(refusal.answer, HttpAnswer::TooMany { .. });
    listener.limits.get(refusal.limit).filter(|_| is_limit)
}

/// Turns away a client that was never admitted.
#[cold]
pub(crate) fn newcomer<K: Kernel>(
    desk: &mut Desk<K>,
    listener: &Arc<Listener>,
    socket: K::Socket,
    client: Client,
    refusal: Refusal,
) {
    let reason = refusal.reason;
    listener.state.counters(desk.books.number).refused_for(reason).add(1);
    match farewell(refusal, listener) {
        Farewell::Stay(stay) => {
            let record = end::record_of_newcomer(desk, listener, client, reason.code());
            let record = naming(record, refusal, listener);
            let held = HeldClient::new(socket, Arc::clone(listener), stay, desk.now);
            return room::hold(desk, held.with_record(record), &[]);
        }
        Farewell::Close => close_orderly(desk, &socket),
        Farewell::Reset => desk.kernel.reset_on_close(&socket),
    }
    drop(socket);
    let record = end::record_of_newcomer(desk, listener, client, reason.code());
    end::write_record(desk, naming(record, refusal, listener));
}

/// Turns away a client that has a place but could not be served. Its session is in the table no
/// more.
#[cold]
pub(crate) fn session<K: Kernel>(mut session: Session<K>, desk: &mut Desk<K>, refusal: Refusal) {
    let code = code_of(refusal.reason, &session);
    let record = end::record_of(&session, desk, code);
    let listener = desk.snapshot().listener(session.place.listener).cloned();
    end::release(&mut session, desk);
    let Some(listener) = listener else {
        desk.kernel.reset_on_close(&session.client_socket);
        return end::write_record(desk, record);
    };
    listener.state.counters(desk.books.number).refused_for(refusal.reason).add(1);
    let record = naming(record, refusal, &listener);
    match farewell(refusal, &listener) {
        Farewell::Stay(stay) => {
            let Session { client_socket, stream, stage, .. } = session;
            let held = HeldClient::new(client_socket, listener, stay, desk.now);
            // Bytes that were read for a header or a route are not in the stream yet.
            let said = match &stage {
                Stage::Reading(reading) => &reading.bytes[..],
                _ => stream.preloaded(),
            };
            return room::hold(desk, held.with_record(record), said);
        }
        Farewell::Close => close_orderly(desk, &session.client_socket),
        Farewell::Reset => desk.kernel.reset_on_close(&session.client_socket),
    }
    end::write_record(desk, record);
}

/// With the name of the limit that refuses, if one does.
fn naming(
    record: Option<SessionRecord>,
    refusal: Refusal,
    listener: &Listener,
) -> Option<SessionRecord> {
    let mut record = record?;
    if let Some(limit) = limit_of(refusal, listener) {
        record.limit = Some(Arc::clone(&limit.name));
    }
    Some(record)
}

/// FIN, and nothing unread: unread bytes would turn the close into a reset.
fn close_orderly<K: Kernel>(desk: &mut Desk<K>, socket: &K::Socket) {
    // A client that is gone already needs no FIN and has nothing to read.
    let _gone = desk.kernel.shutdown_write(socket);
    let _nothing = desk.kernel.receive(socket, &mut desk.scratch);
}

/// Code and words in the session log.
fn code_of<K: Kernel>(reason: RefuseReason, session: &Session<K>) -> EndCode {
    match (reason, session.failure()) {
        (RefuseReason::NoBackend, _) if matches!(session.stage, Stage::Waiting { .. }) => {
            EndCode::NO_PLACE
        }
        (RefuseReason::NoBackend, Some(ConnectFailure::Timeout)) => EndCode::CONNECT_TIMEOUT,
        _ => reason.code(),
    }
}
