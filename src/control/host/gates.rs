//! Makes the gates of listeners: maps and programs of the kernel, for the lists, bans and limits
//! that can have one.
//!
//! The maps are made for the first listener that can have a gate. A listener whose lists and limits
//! stay keeps its gate with all entries; else it gets another, with marks that no entry has, so
//! that nothing of the old one is refused any more once the new one stands before the addresses.

mod bans;
mod kernel;
mod listener_gate;
mod lists;
mod maker;
mod stock;

use std::io;
use std::time::Instant;

use ipnet::IpNet;

use crate::config::{Config, ListenerConfig};
use crate::shared::{Address, Listener, Snapshot};
use crate::sys::gate::GateKey;
pub(crate) use listener_gate::{GateRefusal, ListenerGate, REMEDY, limit_key};
use maker::GateMaker;
use stock::GateStock;
pub(crate) use stock::NO_CAPABILITY;

/// Listeners with a gate, each with a program and a descriptor.
const GATES_MAX: usize = 1_024;

/// Makes gates.
#[derive(Debug)]
pub(crate) struct Gates(GateStock);

/// What is in force.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InForce<'a> {
    pub(crate) config: &'a Config,
    pub(crate) snapshot: &'a Snapshot,
}

/// What is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) config: &'a Config,
    /// Of each listener an IP address whose socket all workers share, if it has one.
    pub(crate) shared: &'a [Option<Address>],
}

impl Gates {
    /// None yet. Workers count time from `started`.
    pub(crate) fn new(started: Instant) -> Self {
        Self(GateStock::new(started))
    }

    /// Makes those of a configuration, in its order.
    ///
    /// # Errors
    /// With every limit and listener that requires the kernel to refuse where it cannot.
    pub(crate) fn of(
        &self,
        wanted: Wanted<'_>,
        now: InForce<'_>,
    ) -> Result<Vec<ListenerGate>, Vec<GateRefusal>> {
        let Wanted { config, shared } = wanted;
        let (mut made, mut gates, mut refusals) = (Vec::new(), 0, Vec::new());
        for (position, listener) in config.listeners.iter().enumerate() {
            let before = before(listener, config, now);
            let maker = GateMaker { stock: &self.0, listener, nat64: &config.global.nat64, before };
            let obstacle = match shared.get(position).and_then(Option::as_ref) {
                Some(address) => {
                    Some(format!("all workers share the socket of {address}, which systemd passed"))
                }
                None if gates >= GATES_MAX => {
                    Some(format!("{GATES_MAX} listeners before it have a gate, no more may"))
                }
                None => None,
            };
            let one = maker.made(obstacle);
            gates += usize::from(one.gate.is_some());
            refusals.extend(maker.refusals(&one));
            made.push(one);
        }
        if refusals.is_empty() { Ok(made) } else { Err(refusals) }
    }

    /// Brings these bans into force, each until a time of the workers' clock, in place of those
    /// before: in all gates, those of later configurations too.
    pub(crate) fn replace_bans(&self, bans: impl IntoIterator<Item = (IpNet, u64)>) {
        self.0.bans.replace(bans, self.0.start);
    }

    /// Calls `each` with every client that the kernel has refused since its entry was made: the
    /// mark, the client and how often.
    ///
    /// # Errors
    /// As bpf(2).
    pub(crate) fn for_each_refused(&self, mut each: impl FnMut(GateKey, u64)) -> io::Result<()> {
        self.0.known_maps().map_or(Ok(()), |maps| maps.maps.for_each_refused(&mut each))
    }

    /// Calls `each` with every client that has been entered, whether or not its entry is in force.
    ///
    /// # Errors
    /// As bpf(2).
    pub(crate) fn for_each_entry(&self, mut each: impl FnMut(GateKey)) -> io::Result<()> {
        self.0.known_maps().map_or(Ok(()), |maps| maps.maps.for_each_entry(&mut each))
    }
}

/// The listener before, if its gate may serve the new configuration, too.
fn before<'a>(new: &ListenerConfig, config: &Config, now: InForce<'a>) -> Option<&'a Listener> {
    let configured = now.config.listeners.iter().find(|old| old.name == new.name)?;
    let is_same = configured.limits == new.limits
        && (&configured.allow, &configured.deny) == (&new.allow, &new.deny)
        && now.config.global.nat64 == config.global.nat64;
    let mut listeners = now.snapshot.open_listeners().filter(|_| is_same);
    listeners.find(|old| old.name == new.name).map(|listener| &**listener)
}

#[cfg(test)]
mod tests;
