//! Starting to connect from an address of the pool, taken in turn, or from the client's own.
//!
//! A port is taken when a connect begins and is the session's until its end. What goes wrong
//! here is this host's lack, not the backend's.

use std::io::{self, ErrorKind};
use std::net::IpAddr;

use crate::dataplane::kernel::{Dial, Kernel, is_exhaustion};
use crate::dataplane::session::Session;
use crate::policy::client::Client;
use crate::shared::{Address, ConnectFailure, SourceRule, Sources, Spill};
use crate::sys::source::{LocalEnd, Unconnected};

/// Why a connect could not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotBegun {
    /// No descriptor or no memory.
    Exhausted,
    Failed(ConnectFailure),
}

impl NotBegun {
    pub(super) const NO_SOURCE: Self = Self::Failed(ConnectFailure::NoSource);

    /// Of an error by which a connect did not begin.
    #[cold]
    pub(super) fn of(why: &Unconnected) -> Self {
        let (Unconnected::Unbound(error) | Unconnected::Failed(error)) = why;
        if is_exhaustion(error) { Self::Exhausted } else { Self::Failed(ConnectFailure::of(error)) }
    }
}

/// The worker that connects, and when.
pub(super) struct Caller<'a, K> {
    pub(super) kernel: &'a mut K,
    pub(super) worker: usize,
    pub(super) now_us: u64,
}

/// Starts to connect a backend for which the pool says where connections come from.
#[cold]
#[inline(never)]
pub(super) fn connect_from<K: Kernel>(
    session: &mut Session<K>,
    caller: Caller<'_, K>,
    to: &Address,
    rule: &SourceRule,
    dial: Dial,
) -> Result<K::Socket, NotBegun> {
    // A checked configuration has no other.
    if to.is_unix() {
        return Err(NotBegun::NO_SOURCE);
    }
    match rule {
        SourceRule::Client => connect_as(session.client, caller.kernel, to, dial),
        SourceRule::Sources(sources) => connect_in_turn(session, caller, sources, to, dial),
    }
}

/// From the source whose turn it is, or from the next that has a port.
fn connect_in_turn<K: Kernel>(
    session: &mut Session<K>,
    caller: Caller<'_, K>,
    sources: &Sources,
    address: &Address,
    dial: Dial,
) -> Result<K::Socket, NotBegun> {
    let Caller { kernel, worker, now_us } = caller;
    let mut elsewhere = 0;
    let outcome = sources.connect(worker, now_us, |source, port| {
        let from = Some(LocalEnd::Here(source.address()));
        let why = match kernel.connect(address, Dial { from, ..dial }) {
            Ok(socket) => return Some(Ok((socket, port))),
            Err(Unconnected::Unbound(error)) if is_unavailable(&error) => Spill::NoAddress,
            Err(Unconnected::Failed(error)) if is_unavailable(&error) => Spill::NoPort,
            Err(why) => return Some(Err(NotBegun::of(&why))),
        };
        elsewhere += usize::from(why == Spill::NoAddress);
        source.spilled(why);
        source.rest(now_us);
        None
    });
    let is_nowhere = elsewhere == sources.list().len();
    let nothing = if is_nowhere { ConnectFailure::NoSource } else { ConnectFailure::NoPort };
    let (socket, port) = outcome.unwrap_or(Err(NotBegun::Failed(nothing)))?;
    session.particulars_mut().source_port = Some(port);
    Ok(socket)
}

/// From the client's address, which must be of the backend's family: a backend that is promised the
/// client's address is never shown another. Its port is not kept: the client may use the same port
/// towards two listeners, and once more within a minute.
fn connect_as<K: Kernel>(
    client: Client,
    kernel: &mut K,
    address: &Address,
    dial: Dial,
) -> Result<K::Socket, NotBegun> {
    let Some(own) = own_address(client, address) else { return Err(NotBegun::NO_SOURCE) };
    let from = Some(LocalEnd::Anywhere(own));
    kernel.connect(address, Dial { from, ..dial }).map_err(|why| match &why {
        // An address of no host, such as one that a header made up.
        Unconnected::Unbound(error)
            if is_unavailable(error) || error.kind() == ErrorKind::InvalidInput =>
        {
            NotBegun::NO_SOURCE
        }
        why => NotBegun::of(why),
    })
}

/// The address from which a transparent pool connects a backend for a client; `None` where the
/// client has none of the backend's family.
pub(crate) fn own_address(client: Client, backend: &Address) -> Option<IpAddr> {
    let to = backend.host_ip()?;
    let own = client.ip()?.to_canonical();
    (own.is_ipv4() == to.to_canonical().is_ipv4()).then_some(own)
}

fn is_unavailable(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse)
}
