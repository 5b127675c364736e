//! Listening sockets handed over by systemd (sd_listen_fds(3)).
//!
//! Only descriptors that the protocol names are taken, once, before anything else is opened.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::net::{SocketType, sockopt};

use super::socket::local_address;
use super::unix::bound_path;

/// One socket that systemd opened for us.
#[derive(Debug)]
pub struct Inherited {
    /// The listening socket.
    pub socket: OwnedFd,
    /// The address it is bound to.
    pub address: InheritedAddress,
    /// `FileDescriptorName=` of the socket unit.
    pub name: String,
}

/// Where systemd listens for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InheritedAddress {
    /// TCP.
    Ip(SocketAddr),
    /// A Unix stream socket.
    Unix(PathBuf),
}

static TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes the inherited sockets; a second call returns none. Sockets that are neither TCP nor
/// Unix stream sockets are closed.
///
/// # Errors
/// When the environment of sd_listen_fds(3) is malformed.
pub fn take_inherited() -> io::Result<Vec<Inherited>> {
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let mut inherited = Vec::new();
    for (number, name) in sd_notify::listen_fds_with_names()? {
        // SAFETY: by sd_listen_fds(3) this descriptor was opened for this process before it
        // started; the swap above makes this its only owner.
        let socket = unsafe { OwnedFd::from_raw_fd(number) };
        let is_stream = sockopt::socket_type(&socket) == Ok(SocketType::STREAM);
        if let Some(address) = bound_address(&socket).filter(|_| is_stream) {
            inherited.push(Inherited { socket, address, name });
        }
    }
    Ok(inherited)
}

/// Where a socket is bound: to an IP address, or to the path of a Unix socket.
#[must_use]
pub fn bound_address(socket: &OwnedFd) -> Option<InheritedAddress> {
    let of_tcp = local_address(socket.as_fd()).ok().map(InheritedAddress::Ip);
    of_tcp.or_else(|| bound_path(socket.as_fd()).map(InheritedAddress::Unix))
}
