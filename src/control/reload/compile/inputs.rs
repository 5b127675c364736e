//! What a snapshot is made of beside the configuration.

use crate::control::host::gates::ListenerGate;
use crate::control::plane::inherited::InheritedTables;
use crate::control::plane::overrides::Overrides;
use crate::shared::{AddressRange, Generation, Snapshot};

/// What a snapshot is made of beside the configuration.
#[derive(Debug)]
pub(crate) struct Inputs<'a> {
    pub(crate) previous: &'a Snapshot,
    /// The oldest generation that a worker still uses.
    pub(crate) acknowledged: Generation,
    /// Real addresses of each listener of the configuration, in its order.
    pub(crate) addresses: &'a [Vec<AddressRange>],
    pub(crate) overrides: &'a Overrides,
    /// Of each listener of the configuration; those of the previous snapshot where there is none.
    pub(crate) gates: &'a [ListenerGate],
    /// For listeners and pools that `previous` does not have.
    pub(crate) inherited: &'a InheritedTables,
    pub(crate) workers: usize,
    /// The time, in microseconds of the workers' clock.
    pub(crate) now_us: u64,
    pub(crate) sessions_max: u64,
    /// Ports that one address of this host has to connect from.
    pub(crate) source_ports: u32,
    /// Random seeds for new limiter tables.
    pub(crate) seeds: [u64; 4],
}
