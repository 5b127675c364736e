//! Multipath TCP (RFC 8684): what its sockets refuse, and what takes its place.
//!
//! The kernel refuses SO_OOBINLINE and TCP_USER_TIMEOUT on a Multipath TCP socket, listening or
//! connected. A client that speaks plain TCP gets a plain TCP socket from such a listener, which
//! has inherited neither and takes both. The stream of a Multipath TCP client has no urgent bytes
//! that could pass it by.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::net::{ipproto, sockopt};
use socket2::SockRef;

/// Whether a socket speaks Multipath TCP; false for one that has fallen back to TCP.
#[must_use]
pub fn is_multipath(socket: BorrowedFd<'_>) -> bool {
    sockopt::socket_protocol(socket) == Ok(Some(ipproto::MPTCP))
}

/// Sets on an accepted socket what its listening socket could not hand down.
pub(super) fn complete(socket: BorrowedFd<'_>, user_timeout: Option<Duration>) {
    // Refused by a client's Multipath TCP, where the first has no meaning and the second no means.
    let _refused = sockopt::set_socket_oobinline(socket, true);
    if user_timeout.is_some() {
        let _refused = SockRef::from(&socket).set_tcp_user_timeout(user_timeout);
    }
}
