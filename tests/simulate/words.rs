//! What is said before the bytes of a session: PROXY headers both ways, and requests to refuse.

use std::net::SocketAddr;

use evenkeel::policy::first_bytes::proxy_header::{self, Ends, ProxyVersion, Statement};

use super::kernel::HERE;
use super::network::Network;
use super::socket::SocketId;

/// The first words of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// Nothing of its own.
    None,
    /// A PROXY header.
    Header,
    /// Something that is no PROXY header, where one is due.
    Malformed,
    /// A request for a page.
    Request,
}

/// A PROXY header by which the client is another.
pub(crate) fn header(random: &mut fastrand::Rng, claimed: SocketAddr) -> Vec<u8> {
    let version = if random.bool() { ProxyVersion::V1 } else { ProxyVersion::V2 };
    let ends = Some(Ends { source: claimed, destination: HERE.into() });
    proxy_header::encode(version, &Statement::new(ends, b""))
}

/// One with a wrong byte that no parser may take.
pub(crate) fn malformed_header(random: &mut fastrand::Rng, claimed: SocketAddr) -> Vec<u8> {
    let mut bytes = header(random, claimed);
    let at = random.usize(..5);
    bytes[at] ^= 0x55;
    bytes
}

/// A request that asks for an answer.
pub(crate) fn request() -> Vec<u8> {
    b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n".to_vec()
}

/// Looks at what a backend was sent first: once complete, it must be the header that its client is
/// due, and nothing else.
pub(crate) fn look_at_greeting(network: &mut Network, backend: SocketId) {
    let target = &network.sockets[backend];
    let sent = target.greeting.len();
    let header = match proxy_header::parse(&target.greeting) {
        Ok(None) => return,
        Ok(Some(header)) if header.length == sent => header,
        other => return network.problem(format!("a wrong header for {backend}: {other:?}")),
    };
    let client = target.across.map(|client| &network.sockets[client]);
    let source = client.and_then(|client| client.claimed.or(client.address));
    let due = match source {
        Some(source) => Some(Ends { source, destination: HERE.into() }),
        // Version 1 names the connection's own addresses of a client that has none.
        None if target.greeting.starts_with(b"PROXY ") => {
            target.address.map(|destination| Ends { source: HERE.into(), destination })
        }
        None => None,
    };
    if header.ends != due {
        network.problem(format!("a header for {backend} says {:?}, not {due:?}", header.ends));
    }
    network.sockets[backend].wants_greeting = false;
}
