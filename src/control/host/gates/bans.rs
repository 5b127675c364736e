//! The bans in the kernel: one table that all gates ask.
//!
//! It follows the bans from the first gate on. A change stores what is new before it takes out what
//! is gone, so that in between each client is refused or let in as before the change or after it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use parking_lot::Mutex;

use crate::policy::admit::flat_networks::{FlatNetwork, MAPPED, UNLISTED, flat};
use crate::sys::gate::NetworkTable;

/// Room for networks of each kind: the most bans, before and after a change.
const NETWORKS_MAX: u32 = 2 * 65_536;

/// The bans in the kernel.
#[derive(Debug, Default)]
pub(crate) struct KernelBans(Mutex<BansInKernel>);

#[derive(Debug, Default)]
struct BansInKernel {
    /// With the end of each, in nanoseconds of the kernel's clock.
    known: BanEnds,
    /// Made for the first gate.
    table: Option<Arc<NetworkTable>>,
}

type BanEnds = BTreeMap<FlatNetwork, u64>;

impl KernelBans {
    /// Brings these bans into force, each until a time of the workers' clock, in microseconds, in
    /// place of those before. `start`: when that clock began, by the kernel's.
    pub(super) fn replace(&self, bans: impl IntoIterator<Item = (IpNet, u64)>, start: Duration) {
        let until = |us: u64| {
            let until = start.saturating_add(Duration::from_micros(us));
            u64::try_from(until.as_nanos()).unwrap_or(u64::MAX)
        };
        let flat = flat(bans.into_iter().map(|(network, until_us)| (network, until(until_us))));
        let wanted = flat.into_iter().filter(|(_, until)| *until != UNLISTED).collect();
        let mut bans = self.0.lock();
        bans.known = match &bans.table {
            Some(table) => follow(table, &bans.known, wanted),
            None => wanted,
        };
    }

    /// The table, with all bans in it.
    ///
    /// # Errors
    /// As bpf(2).
    pub(super) fn table(&self) -> io::Result<Arc<NetworkTable>> {
        let mut bans = self.0.lock();
        if let Some(table) = &bans.table {
            return Ok(Arc::clone(table));
        }
        let table = Arc::new(NetworkTable::new(NETWORKS_MAX, NETWORKS_MAX)?);
        // Whatever is banned of IPv6 ends where IPv4 is mapped into it.
        table.store(MAPPED.address, MAPPED.length, UNLISTED)?;
        let wanted = std::mem::take(&mut bans.known);
        bans.known = follow(&table, &BanEnds::new(), wanted);
        Ok(Arc::clone(bans.table.insert(table)))
    }
}

/// Makes a table that has `before` have `wanted`; returns what it has then.
fn follow(table: &NetworkTable, before: &BanEnds, mut wanted: BanEnds) -> BanEnds {
    let mut failed = None;
    wanted.retain(|network, until| {
        let FlatNetwork { address, length } = *network;
        if before.get(network) == Some(until) {
            return true;
        }
        table
            .store(address, length, *until)
            .inspect_err(|_| {
                // What stood there may last longer than the ban: a wider one answers then. Fails
                // where nothing stood.
                let _gone = table.remove(address, length);
            })
            .map_err(|error| failed = Some(error))
            .is_ok()
    });
    for FlatNetwork { address, length } in before.keys().filter(|it| !wanted.contains_key(it)) {
        // Fails only where it is not there.
        let _gone = table.remove(*address, *length);
    }
    if let Some(error) = failed {
        tracing::warn!("the kernel does not take all bans, workers refuse the others: {error}");
    }
    wanted
}
