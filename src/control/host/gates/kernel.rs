//! A gate in the kernel, and what it has counted.

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::lists::KernelList;
use crate::shared::{GateCount, GateKernel};
use crate::sys::gate::{GateCode, GateKey, GateMaps};

/// The maps, with the clock of the kernel.
#[derive(Debug)]
pub(super) struct ClockedMaps {
    pub(super) maps: GateMaps,
    /// When the clock of workers began, by that of the kernel.
    pub(super) start: Duration,
}

/// A gate in the kernel.
#[derive(Debug)]
pub(super) struct KernelGate {
    pub(super) maps: Arc<ClockedMaps>,
    pub(super) code: GateCode,
    #[allow(dead_code, reason = "kept, so that other listeners with the same lists share them")]
    pub(super) list: Option<Arc<KernelList>>,
    pub(super) counts: Vec<Arc<SlotCount>>,
}

impl GateKernel for KernelGate {
    fn put_before(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.code.put_before(socket)
    }

    fn enter(&self, mark: u32, client: IpAddr, until_us: u64) {
        let until = self.maps.start.saturating_add(Duration::from_micros(until_us));
        // Without an entry workers refuse.
        let _full = self.maps.maps.enter(gate_key(mark, client), until);
    }

    fn forget(&self, mark: u32, client: IpAddr) {
        // Fails for no key of the right size.
        let _gone = self.maps.maps.forget(gate_key(mark, client));
    }
}

impl Drop for KernelGate {
    /// No worker uses it any more, and another has taken its place.
    fn drop(&mut self) {
        self.counts.iter().for_each(|count| count.finish());
    }
}

/// The key of a client, as the limit with this mark sees it.
pub(super) fn gate_key(mark: u32, client: IpAddr) -> GateKey {
    let address = match client {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    GateKey { mark, address }
}

/// What a gate has refused for one limit or list.
#[derive(Debug)]
pub(super) struct SlotCount {
    maps: Arc<ClockedMaps>,
    slot: u32,
    /// The number, once the gate is gone.
    last: OnceLock<u64>,
}

impl SlotCount {
    /// Begins to count.
    pub(super) fn new(maps: &Arc<ClockedMaps>, slot: u32) -> io::Result<Arc<Self>> {
        maps.maps.count(slot)?;
        Ok(Arc::new(Self { maps: Arc::clone(maps), slot, last: OnceLock::new() }))
    }

    fn finish(&self) {
        // Fails for no key of the right size.
        let last = self.maps.maps.refused(self.slot).unwrap_or(0);
        let _once = self.last.set(last);
        let _gone = self.maps.maps.stop_counting(self.slot);
    }
}

impl GateCount for SlotCount {
    fn value(&self) -> u64 {
        let now = self.maps.maps.refused(self.slot).unwrap_or(0);
        // Afterwards: it may have ended meanwhile, which leaves nothing in the map.
        self.last.get().copied().unwrap_or(now)
    }

    fn is_final(&self) -> bool {
        self.last.get().is_some()
    }
}
