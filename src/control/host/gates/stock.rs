//! What gates are made of: the maps that they share, and numbers that no other has.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::io::Errno;

use super::bans::KernelBans;
use super::kernel::ClockedMaps;
use super::lists::KernelLists;
use crate::sys::gate::{GateMaps, GateSizes};
use crate::sys::process;

/// Clients that all gates together refuse at once, about 100 bytes of the kernel each; others are
/// refused by workers.
const CLIENTS_MAX: u32 = 65_536;
/// Limits and lists whose refusals are counted, those of the latest reloads too.
const COUNTS_MAX: u32 = 32_768;
/// Clients refused by lists and bans that are remembered, for the log: about 100 bytes of the
/// kernel each.
const REFUSED_MAX: u32 = 16_384;
/// What gates are made of. The maps are made for the first.
#[derive(Debug)]
pub(super) struct GateStock {
    /// When the clock of workers began, by that of the kernel.
    pub(super) start: Duration,
    maps: Mutex<Option<Arc<ClockedMaps>>>,
    pub(super) bans: KernelBans,
    pub(super) lists: KernelLists,
    next_number: AtomicU32,
}

impl GateStock {
    /// Nothing yet. Workers count time from `started`.
    pub(super) fn new(started: Instant) -> Self {
        // Read first: an entry may end a moment too early, never too late.
        let now = process::kernel_time();
        Self {
            start: now.saturating_sub(started.elapsed()),
            maps: Mutex::default(),
            bans: KernelBans::default(),
            lists: KernelLists::default(),
            next_number: AtomicU32::new(1),
        }
    }

    /// The maps, if some gate has needed them.
    pub(super) fn known_maps(&self) -> Option<Arc<ClockedMaps>> {
        self.maps.lock().clone()
    }

    /// The maps; made if there are none yet.
    ///
    /// # Errors
    /// Why there are no gates in this process, in words.
    pub(super) fn maps(&self) -> Result<Arc<ClockedMaps>, String> {
        let mut known = self.maps.lock();
        if let Some(maps) = &*known {
            return Ok(Arc::clone(maps));
        }
        let sizes = GateSizes { entries: CLIENTS_MAX, counts: COUNTS_MAX, refused: REFUSED_MAX };
        let maps = GateMaps::new(sizes).map_err(|error| no_maps(&error))?;
        let start = self.start;
        Ok(Arc::clone(known.insert(Arc::new(ClockedMaps { maps, start }))))
    }

    /// A mark, or a slot of the counts, that no other has.
    pub(super) fn number(&self) -> u32 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }
}

/// Why there are no gates in this process.
fn no_maps(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::PERM) if process::may_load_programs() => {
            "bpf(2) is kept from this process, by a filter of system calls or by its control group"
                .to_owned()
        }
        Some(Errno::PERM) => NO_CAPABILITY.to_owned(),
        _ => format!("the kernel makes no map for a gate: {error}"),
    }
}

/// What a process lacks that may not load programs.
pub(crate) const NO_CAPABILITY: &str = "this process has no CAP_BPF";
