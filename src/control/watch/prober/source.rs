//! The connection of a probe, from the addresses that the sessions of its pool come from: a
//! firewall which admits only them does not take the backend down. Never from a client's address: a
//! probe has no client.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use tokio::net::TcpStream;

use crate::control::watch::prober::failure::is_reset;
use crate::sys::socket;
use crate::sys::source::{self, LocalEnd, Unconnected};

/// A connection that was established.
pub(super) struct Connected {
    pub(super) stream: TcpStream,
    /// The backend has reset it since. Bytes that it sent before can still be read.
    pub(super) reset: Option<io::Error>,
}

/// Connects from the first source of the backend's family that this host has, or from any address
/// if the pool names none.
pub(super) async fn connect(address: SocketAddr, sources: &[IpAddr]) -> io::Result<Connected> {
    if sources.is_empty() {
        return established(socket::connect(address, None)?).await;
    }
    let is_v4 = address.ip().to_canonical().is_ipv4();
    let mut outcome = Err(ErrorKind::AddrNotAvailable.into());
    for own in sources.iter().filter(|own| own.is_ipv4() == is_v4) {
        outcome = match source::connect(LocalEnd::Here(*own), address, None) {
            Ok(socket) => established(socket).await,
            Err(Unconnected::Unbound(error) | Unconnected::Failed(error)) => Err(error),
        };
        let is_unavailable = |error: &io::Error| error.kind() == ErrorKind::AddrNotAvailable;
        if !outcome.as_ref().is_err_and(is_unavailable) {
            break;
        }
    }
    outcome
}

/// Waits for the end of the handshake. A refusal of the handshake is another error than a reset
/// behind it (tcp_reset() of Linux).
async fn established(socket: OwnedFd) -> io::Result<Connected> {
    let stream = TcpStream::from_std(socket.into())?;
    stream.writable().await?;
    match stream.take_error()? {
        Some(error) if !is_reset(&error) => Err(error),
        reset => Ok(Connected { stream, reset }),
    }
}
