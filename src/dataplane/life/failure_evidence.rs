//! What sessions tell of the health of their backend, for outlier ejection.
//!
//! A backend that cannot be connected, or that resets or closes a new connection before its first
//! byte, has failed; its first byte is a success. A client that leaves says nothing, and neither
//! does silence: in some protocols it is the client's turn, in some the server never speaks. The
//! failure that completes a row ejects the backend at once, by the rule that the control plane uses
//! as well (`Pool::eject_if_outlier`).

use std::time::Duration;

use crate::policy::first_bytes::proxy_header::{ProxyVersion, TLVS_BYTES_SAFE, WRITTEN_BYTES_MAX};
use crate::shared::{Backend, ConnectFailure, Snapshot, Symptom};

use crate::dataplane::clock::Tick;
use crate::dataplane::kernel::Kernel;
use crate::dataplane::session::Session;
use crate::dataplane::stream::wire::Side;

/// An end later than this after the handshake may be a server's way to tell idle clients to go.
const EARLY: Duration = Duration::from_secs(3);

/// An attempt to connect has failed.
pub(super) fn not_connected(snapshot: &Snapshot, backend: &Backend, failure: ConnectFailure) {
    if !is_ours(backend, failure) {
        failed(snapshot, backend, Symptom::Connect(failure));
    }
}

/// Counts a failure, and ejects the backend if it is the deciding one.
#[cold]
fn failed(snapshot: &Snapshot, backend: &Backend, symptom: Symptom) {
    backend.state.failure_evidence.failed(symptom);
    if let Some(pool) = snapshot.pool(backend.pool) {
        // The control plane logs whether it was ejected or spared.
        let _spared = pool.eject_if_outlier(backend);
    }
}

/// Whether an attempt failed for want of something on this host: a port, an address, or the
/// capability to connect from an address of others.
pub(super) fn is_ours(backend: &Backend, failure: ConnectFailure) -> bool {
    match failure {
        ConnectFailure::NoPort | ConnectFailure::NoSource => true,
        ConnectFailure::Denied => backend.is_transparent(),
        _ => false,
    }
}

/// Something was delivered; `before` is what had been: to the backend and to the client.
pub(super) fn delivered<K: Kernel>(
    snapshot: &Snapshot,
    session: &Session<K>,
    before: [(u64, u64); 2],
) {
    let [_, to_client] = before;
    if to_client == (0, 0) && !has_said_nothing(session) {
        served(snapshot, session);
    }
}

/// One side has sent FIN, the other has not.
pub(super) fn half_closed<K: Kernel>(snapshot: &Snapshot, session: &Session<K>, now: Tick) {
    if session.stream.has_ended(Side::Backend) {
        ended(snapshot, session, Symptom::Closed, now);
    }
}

/// The backend has reset the session, or did not answer any more.
#[cold]
pub(super) fn broken<K: Kernel>(
    snapshot: &Snapshot,
    session: &Session<K>,
    symptom: Symptom,
    now: Tick,
) {
    // What follows a FIN was judged by it.
    if !session.stream.has_ended(Side::Backend) {
        ended(snapshot, session, symptom, now);
    }
}

fn served<K: Kernel>(snapshot: &Snapshot, session: &Session<K>) {
    if let Some(backend) = session.backend(snapshot) {
        backend.state.failure_evidence.served();
    }
}

fn ended<K: Kernel>(snapshot: &Snapshot, session: &Session<K>, symptom: Symptom, now: Tick) {
    let is_early = session.times.connected.is_some_and(|since| now.since(since) < EARLY);
    if is_early
        && has_said_nothing(session)
        && !has_long_header(snapshot, session)
        && let Some(backend) = session.backend(snapshot)
    {
        failed(snapshot, backend, symptom);
    }
}

/// Whether the backend may have refused a name that the client chose: some receivers take PROXY
/// headers of 107 bytes only, and its pool sends longer ones.
fn has_long_header<K: Kernel>(snapshot: &Snapshot, session: &Session<K>) -> bool {
    let tlvs = session.particulars.as_ref().map_or(0, |its| its.tlvs.len());
    tlvs > TLVS_BYTES_SAFE
        && snapshot.pool(session.place.pool).is_some_and(|pool| {
            // Version 1 has no room for a name.
            pool.terms.send_proxy == Some(ProxyVersion::V2)
                && pool.terms.send_proxy_max as usize > WRITTEN_BYTES_MAX
        })
}

/// Whether no byte of the backend has been delivered, or is held to be.
fn has_said_nothing<K: Kernel>(session: &Session<K>) -> bool {
    let [_, to_client] = session.stream.delivered();
    to_client == (0, 0) && session.stream.held(Side::Backend) == 0
}
