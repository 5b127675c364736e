//! What sessions say of the health of their backend, for outlier ejection.
//!
//! A backend that cannot be connected, or that resets or closes a new connection before its first
//! byte, has failed; its first byte is a success. A client that leaves says nothing, and neither
//! does silence: in some protocols it is the client's turn, in some the server never speaks. Only
//! atomics of the backend are touched; who is ejected is for the control plane.

use std::time::Duration;

use crate::shared::{Backend, ConnectFailure, Snapshot, Symptom};

use super::clock::Tick;
use super::connection::Connection;
use super::stream::wire::Side;

/// An end later than this after the handshake may be a server's way to tell idle clients to go.
const EARLY: Duration = Duration::from_secs(3);

/// An attempt to connect has failed.
pub(super) fn not_connected(backend: &Backend, failure: ConnectFailure) {
    if !is_ours(backend, failure) {
        backend.state.streak.failed(Symptom::Connect(failure));
    }
}

/// Whether an attempt failed for what this host lacks: a port, an address, or the capability to
/// connect from somebody else's.
pub(super) fn is_ours(backend: &Backend, failure: ConnectFailure) -> bool {
    match failure {
        ConnectFailure::NoPort | ConnectFailure::NoSource => true,
        ConnectFailure::Denied => backend.is_transparent(),
        _ => false,
    }
}

/// Something was delivered; `before` is what had been: to the backend and to the client.
pub(super) fn delivered(snapshot: &Snapshot, connection: &Connection, before: [(u64, u64); 2]) {
    let [_, to_client] = before;
    if to_client == (0, 0) && !has_said_nothing(connection) {
        served(snapshot, connection);
    }
}

/// One side has sent FIN, the other has not.
pub(super) fn half_closed(snapshot: &Snapshot, connection: &Connection, now: Tick) {
    if connection.stream.has_ended(Side::Backend) {
        ended(snapshot, connection, (Symptom::Closed, now));
    }
}

/// The backend has reset the connection.
#[cold]
pub(super) fn reset(snapshot: &Snapshot, connection: &Connection, now: Tick) {
    // What follows a FIN was judged by it.
    if !connection.stream.has_ended(Side::Backend) {
        ended(snapshot, connection, (Symptom::Reset, now));
    }
}

fn served(snapshot: &Snapshot, connection: &Connection) {
    if let Some(backend) = connection.place.backend.and_then(|id| snapshot.backend(id)) {
        backend.state.streak.served();
    }
}

fn ended(snapshot: &Snapshot, connection: &Connection, (symptom, now): (Symptom, Tick)) {
    let is_early = connection.times.connected.is_some_and(|since| now.since(since) < EARLY);
    if is_early
        && has_said_nothing(connection)
        && let Some(backend) = connection.place.backend.and_then(|id| snapshot.backend(id))
    {
        backend.state.streak.failed(symptom);
    }
}

/// Whether no byte of the backend has been delivered, or is held to be.
fn has_said_nothing(connection: &Connection) -> bool {
    let [_, to_client] = connection.stream.delivered();
    to_client == (0, 0) && connection.stream.held(Side::Backend) == 0
}
