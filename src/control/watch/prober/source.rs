//! The source address of a probe: that of its pool's sessions, so that a firewall which admits only
//! them does not take the backend down. Never a client's address: a probe has no client.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use tokio::net::{TcpSocket, TcpStream};

use crate::sys::source::{self, LocalEnd};

/// Connects from the first source of the backend's family that this host has, or from any address
/// if the pool names none.
pub(super) async fn connect(address: SocketAddr, sources: &[IpAddr]) -> io::Result<TcpStream> {
    if sources.is_empty() {
        return TcpStream::connect(address).await;
    }
    let is_v4 = address.ip().to_canonical().is_ipv4();
    let mut outcome = Err(ErrorKind::AddrNotAvailable.into());
    for own in sources.iter().filter(|own| own.is_ipv4() == is_v4) {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        outcome = match source::bind(socket.as_fd(), LocalEnd::Here(*own), address.is_ipv6()) {
            Ok(()) => socket.connect(address).await,
            Err(error) => Err(error),
        };
        let is_unavailable = |error: &io::Error| error.kind() == ErrorKind::AddrNotAvailable;
        if !outcome.as_ref().is_err_and(is_unavailable) {
            break;
        }
    }
    outcome
}
