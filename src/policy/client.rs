//! Who connects, as far as its address goes.
//!
//! A peer on a Unix socket has none: it matches no network, and all such peers are one client to
//! limits and hashes. A PROXY header may give it one.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A client. As large as an address alone: each session keeps one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Client {
    /// Its address, or the one that a proxy in front claims for it.
    At(SocketAddr),
    /// A peer on a Unix socket.
    Unix,
}

const _: () = assert!(size_of::<Client>() == size_of::<SocketAddr>(), "each session has one");

impl Client {
    /// Its IP address; `None` for a peer on a Unix socket.
    #[must_use]
    #[inline]
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::At(address) => Some(address.ip()),
            Self::Unix => None,
        }
    }

    /// Its port; 0 for a peer on a Unix socket.
    #[must_use]
    #[inline]
    pub fn port(self) -> u16 {
        match self {
            Self::At(address) => address.port(),
            Self::Unix => 0,
        }
    }
}

impl From<SocketAddr> for Client {
    fn from(address: SocketAddr) -> Self {
        Self::At(address)
    }
}

impl From<Option<SocketAddr>> for Client {
    /// What accept(2) told: no address is that of a Unix socket.
    fn from(address: Option<SocketAddr>) -> Self {
        address.map_or(Self::Unix, Self::At)
    }
}

impl fmt::Display for Client {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address) => write!(out, "{address}"),
            Self::Unix => out.write_str("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, the log and the limits take a peer on a Unix socket for somebody else.
    #[test]
    fn a_peer_on_a_unix_socket_has_no_address() {
        let peer = Client::from(None);
        assert_eq!((peer.ip(), peer.port(), peer.to_string()), (None, 0, "unix".into()));
        let client = Client::from("[2001:db8::1]:70".parse::<SocketAddr>().unwrap());
        assert_eq!(client.ip(), Some("2001:db8::1".parse().unwrap()));
        assert_eq!((client.port(), client.to_string()), (70, "[2001:db8::1]:70".into()));
    }
}
