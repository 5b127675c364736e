//! What peers and the network do between two turns: at random while a schedule is wild, and in the
//! end whatever lets sessions end by themselves.

use std::io::ErrorKind;

use evenkeel::dataplane::stream::Readiness;

use super::network::Network;
use super::socket::{Attempt, SocketId};

/// Peers read and finish, handshakes succeed.
pub(crate) fn heal(network: &mut Network, client: SocketId) {
    let backend = network.sockets[client].across;
    let now = network.now;
    for id in [Some(client), backend].into_iter().flatten() {
        let socket = &mut network.sockets[id];
        if socket.closed {
            continue;
        }
        if socket.attempt == Attempt::Pending {
            socket.answer_handshake();
        }
        socket.stalled = false;
        socket.capacity = 300_000;
        socket.peer_reads(u64::MAX, now);
        let unsaid = socket.speech.opening().saturating_sub(socket.sent);
        socket.arrive(unsaid, false);
        socket.finish();
    }
}

/// Something happens to one of a session's sockets.
pub(crate) fn disturb(network: &mut Network, client: SocketId, large: bool) {
    let random = &mut network.random;
    let is_client = random.bool();
    let most = if large { 70_000 } else { [1, 10, 100, 3_000, 9_000][random.usize(..5)] };
    let amount = random.u64(1..=most);
    let (action, kind) = (random.u8(..100), random.u8(..8));
    let backend = network.sockets[client].across.filter(|it| !network.sockets[*it].closed);
    if let Some(backend) = backend
        && network.sockets[backend].attempt != Attempt::Established
        && action >= 50
    {
        return dial(network, backend, action);
    }
    let id = if is_client { Some(client) } else { backend };
    let Some(id) = id.filter(|id| !network.sockets[*id].closed) else { return };
    network.trace(|| format!("{id}: {action} {amount}"));
    let now = network.now;
    let socket = &mut network.sockets[id];
    // A backend acts only once it is connected.
    if socket.attempt != Attempt::Established {
        return;
    }
    match action {
        0..38 => socket.arrive(amount, false),
        // A byte of a header is never urgent, and a Unix socket has none.
        38..41 => {
            let may = socket.address.is_some() && socket.received >= socket.speech.header;
            socket.arrive(amount, may);
        }
        41..78 if !socket.stalled => socket.peer_reads(amount, now),
        78..82 => socket.finish(),
        82..85 => socket.fail(match kind {
            0 => ErrorKind::TimedOut,
            1 => ErrorKind::HostUnreachable,
            _ => ErrorKind::ConnectionReset,
        }),
        85..88 => socket.stalled = !socket.stalled,
        // A spurious event tells only what is so.
        88..91 => socket.raise(),
        _ => {}
    }
}

/// The handshake with a backend gets further.
fn dial(network: &mut Network, backend: SocketId, action: u8) {
    network.trace(|| format!("handshake of {backend}: {action}"));
    let socket = &mut network.sockets[backend];
    match (socket.attempt, action) {
        (Attempt::Pending, 50..80) => socket.answer_handshake(),
        (Attempt::Pending, 80..88) => socket.refuse_handshake(ErrorKind::ConnectionRefused),
        // Some kernels report HUP while the handshake still runs.
        (Attempt::Pending, 88..92) => {
            let hung_up = Readiness { readable: true, read_closed: true, ..Readiness::default() };
            socket.edge = Some(Readiness { writable: true, ..hung_up });
        }
        _ => {}
    }
}
