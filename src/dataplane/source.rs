//! Connections to backends that do not come from wherever the kernel would have them come from:
//! from the addresses of the pool in turn, or from the client's own.
//!
//! A port is taken when a connect begins and is the connection's until its end. What goes wrong
//! here is this host's lack, not the backend's.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::policy::client::Client;
use crate::shared::{Address, Backend, ConnectFailure, SourcePort, SourceRule, Sources, Spill};
use crate::sys::source::{self, LocalEnd, Unconnected};

use super::accept::is_exhaustion;
use super::connection::Connection;

/// Why a connect could not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotBegun {
    /// No descriptor or no memory.
    Exhausted,
    Failed(ConnectFailure),
}

impl NotBegun {
    #[cold]
    pub(super) fn of(error: &io::Error) -> Self {
        if is_exhaustion(error) { Self::Exhausted } else { Self::Failed(ConnectFailure::of(error)) }
    }
}

/// Starts to connect a backend whose connections come from somewhere in particular.
#[cold]
#[inline(never)]
pub(super) fn connect(
    connection: &mut Connection,
    (backend, source): (&Backend, &SourceRule),
    (worker, now_us): (usize, u64),
    user_timeout: Option<Duration>,
) -> Result<OwnedFd, NotBegun> {
    // A checked configuration has no other.
    let Address::Ip(address) = backend.address else {
        return Err(NotBegun::Failed(ConnectFailure::NoSource));
    };
    match source {
        SourceRule::Client => connect_as(connection.peer, address, user_timeout),
        SourceRule::Sources(sources) => {
            let (socket, port) = connect_in_turn(sources, (worker, now_us), address, user_timeout)?;
            connection.aside.get_or_insert_default().port = Some(port);
            Ok(socket)
        }
    }
}

/// From the source whose turn it is, or from the next that has a port.
fn connect_in_turn(
    sources: &Sources,
    (worker, now_us): (usize, u64),
    address: SocketAddr,
    user_timeout: Option<Duration>,
) -> Result<(OwnedFd, SourcePort), NotBegun> {
    let mut elsewhere = 0;
    let outcome = sources.connect(worker, now_us, |source, port| {
        let why = match source::connect(LocalEnd::Here(source.address()), address, user_timeout) {
            Ok(socket) => return Some(Ok((socket, port))),
            Err(Unconnected::Unbound(error)) if is_unavailable(&error) => Spill::NoAddress,
            Err(Unconnected::Failed(error)) if is_unavailable(&error) => Spill::NoPort,
            Err(Unconnected::Unbound(error) | Unconnected::Failed(error)) => {
                return Some(Err(NotBegun::of(&error)));
            }
        };
        elsewhere += usize::from(why == Spill::NoAddress);
        source.spilled(why);
        source.rest(now_us);
        None
    });
    let is_nowhere = elsewhere == sources.list().len();
    let nothing = if is_nowhere { ConnectFailure::NoSource } else { ConnectFailure::NoPort };
    outcome.unwrap_or(Err(NotBegun::Failed(nothing)))
}

fn is_unavailable(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse)
}

/// From the client's address, which must be of the backend's family: a backend that is promised the
/// client's address is never shown another. Its port is not kept: the client may use the same port
/// towards two listeners, and once more within a minute.
fn connect_as(
    client: Client,
    address: SocketAddr,
    user_timeout: Option<Duration>,
) -> Result<OwnedFd, NotBegun> {
    let own = client.ip().map(|ip| ip.to_canonical());
    let is_v4 = address.ip().to_canonical().is_ipv4();
    let Some(own) = own.filter(|own| own.is_ipv4() == is_v4) else {
        return Err(NotBegun::Failed(ConnectFailure::NoSource));
    };
    source::connect(LocalEnd::Anywhere(own), address, user_timeout).map_err(|why| match why {
        // Nobody's address, such as one that a header made up.
        Unconnected::Unbound(error)
            if is_unavailable(&error) || error.kind() == ErrorKind::InvalidInput =>
        {
            NotBegun::Failed(ConnectFailure::NoSource)
        }
        Unconnected::Unbound(error) | Unconnected::Failed(error) => NotBegun::of(&error),
    })
}
