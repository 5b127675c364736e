//! Connections that come from a given address: one of this host, or the client's own.
//!
//! See ip(7): IP_BIND_ADDRESS_NO_PORT leaves the choice of a port to connect(2), which knows the
//! other end, so that the same port serves towards many backends; IP_TRANSPARENT allows addresses
//! that this host does not have.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::socket;

/// An address to connect from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalEnd {
    /// One of this host.
    Here(IpAddr),
    /// Any address, whose packets are led to this host.
    Anywhere(IpAddr),
}

/// Why a connection could not be started.
#[derive(Debug)]
pub enum Unconnected {
    /// The address was not to be had.
    Unbound(io::Error),
    /// Anything else.
    Failed(io::Error),
}

/// Starts a non-blocking connection from an address of the same family, from any port.
///
/// # Errors
/// As socket(2), bind(2) and connect(2); `EINPROGRESS` is not an error here.
pub fn connect(
    from: LocalEnd,
    address: SocketAddr,
    user_timeout: Option<Duration>,
) -> Result<OwnedFd, Unconnected> {
    let socket = socket::unconnected(address, user_timeout).map_err(Unconnected::Failed)?;
    bind(socket.as_fd(), from, address.is_ipv6()).map_err(Unconnected::Unbound)?;
    socket::start(&socket, address).map_err(Unconnected::Failed)?;
    Ok(socket)
}

/// Binds a socket, of either family, that will connect.
///
/// # Errors
/// `AddrNotAvailable` when this host does not have the address; `PermissionDenied` without the
/// capability that an address of others needs; otherwise as setsockopt(2) and bind(2).
pub fn bind(socket: BorrowedFd<'_>, from: LocalEnd, is_v6: bool) -> io::Result<()> {
    // The one option of this kind that sockets of both families have at the level of IPv4.
    socket::set_option(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
    let address = match from {
        LocalEnd::Here(address) => address,
        LocalEnd::Anywhere(address) => {
            be_transparent(socket, is_v6)?;
            address
        }
    };
    let address = match address {
        IpAddr::V4(v4) if is_v6 => v4.to_ipv6_mapped().into(),
        as_it_is => as_it_is,
    };
    Ok(rustix::net::bind(socket, &SocketAddr::new(address, 0))?)
}

fn be_transparent(socket: BorrowedFd<'_>, is_v6: bool) -> io::Result<()> {
    let (level, name) = match is_v6 {
        false => (libc::IPPROTO_IP, libc::IP_TRANSPARENT),
        true => (libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT),
    };
    socket::set_option(socket, level, name, 1)
}

/// Whether this process may connect from addresses of others.
#[must_use]
pub fn may_be_anybody() -> bool {
    let socket = scratch(AddressFamily::INET);
    socket.is_ok_and(|socket| be_transparent(socket.as_fd(), false).is_ok())
}

/// Whether this host has an address, or lets every program bind any.
#[must_use]
pub fn is_here(address: IpAddr) -> bool {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    // Where there is no socket of this family there is no such address either.
    scratch(family)
        .is_ok_and(|socket| rustix::net::bind(&socket, &SocketAddr::new(address, 0)).is_ok())
}

fn scratch(family: AddressFamily) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::TcpListener;

    use super::*;

    fn connected(from: &str, to: &str) -> (SocketAddr, OwnedFd) {
        let listener = TcpListener::bind(to).unwrap();
        let address = listener.local_addr().unwrap();
        let from = LocalEnd::Here(from.parse().unwrap());
        let socket = connect(from, address, None).unwrap();
        let (_, peer) = listener.accept().unwrap();
        (peer, socket)
    }

    // If this fails, a backend sees connections from another address than the one configured, or
    // none at all.
    #[test]
    fn connections_come_from_the_address_that_was_named() {
        for (from, to) in [
            ("127.0.0.7", "127.0.0.1:0"),
            ("127.0.0.7", "[::ffff:127.0.0.1]:0"),
            ("::1", "[::1]:0"),
        ] {
            let (peer, _socket) = connected(from, to);
            assert_eq!(peer.ip().to_canonical(), from.parse::<IpAddr>().unwrap(), "to {to}");
        }
    }

    // If this fails, an address that is not there is taken for a want of ports, or for a failure
    // of the backend.
    #[test]
    fn an_address_of_somebody_else_cannot_be_bound() {
        // Kept for documentation (RFC 5737): no host has it.
        let elsewhere: IpAddr = "192.0.2.77".parse().unwrap();
        let to = SocketAddr::from(([127, 0, 0, 1], 9));
        let failed = connect(LocalEnd::Here(elsewhere), to, None);
        let Err(Unconnected::Unbound(error)) = failed else { panic!("{failed:?}") };
        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
        assert!(!is_here(elsewhere) && is_here("127.0.0.9".parse().unwrap()));
    }
}
