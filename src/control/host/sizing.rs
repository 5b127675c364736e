//! How many sessions and pipes this process may have, from what the host allows.
//!
//! A session is two descriptors and, at worst, two spill buffers and full socket buffers; a pipe
//! is two descriptors and counts against the user's pipe memory. The result is printed at start:
//! a limit that surprises an operator is a bug.

use crate::config::{AddressRange, Config, ListenerConfig, access_obstacle};
use crate::dataplane::PipeShare;
use crate::sys::process;
use crate::sys::splice::Capacity;

/// Descriptors kept for everything that is no session: logs, admin connections, probes, epoll.
const RESERVED_DESCRIPTORS: u64 = 128;
/// One descriptor in this many goes to pipes.
const PIPE_SHARE: u64 = 64;
/// One descriptor in this many goes to probes that run at once, within bounds.
const PROBE_SHARE: u64 = 256;
const PROBES_MIN: usize = 64;
const PROBES_MAX: usize = 4096;
/// Memory that one session may need when neither side reads.
const SESSION_BYTES_WORST: u64 = 192 * 1024;
/// Wide pipes get half of the pipe memory, narrow ones the rest.
const WIDE_BYTES: u64 = Capacity::Wide.bytes() as u64;
const NARROW_BYTES: u64 = Capacity::Narrow.bytes() as u64;

/// What the process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Descriptors it may open.
    pub(crate) descriptors: u64,
    /// Memory its control group grants, in bytes.
    pub(crate) memory_bytes: Option<u64>,
    /// Threads of the data plane.
    pub(crate) workers: usize,
    /// Pipe memory its user may have, in bytes; `None` is no bound.
    pub(crate) pipe_bytes: Option<u64>,
}

impl Sizes {
    /// Asks the host.
    pub(crate) fn of_this_process(workers: usize) -> Self {
        let pages = process::sysctl_number("fs/pipe-user-pages-soft").unwrap_or(16_384);
        Self {
            descriptors: process::raise_descriptor_limit().unwrap_or(1024),
            memory_bytes: process::memory_limit_bytes(),
            workers,
            pipe_bytes: (pages > 0).then_some(pages * 4096),
        }
    }

    /// Probes that may run at once, each with one descriptor.
    pub(crate) fn probes(&self) -> usize {
        let share = usize::try_from(self.descriptors / PROBE_SHARE).unwrap_or(PROBES_MAX);
        share.clamp(PROBES_MIN, PROBES_MAX)
    }

    /// Pipes all workers together may have out.
    pub(crate) fn pipes(&self) -> u64 {
        let share = self.pipe_share();
        ((share.wide + share.narrow) * self.workers) as u64
    }

    /// Pipes that each worker may have out, at least one.
    pub(crate) fn pipe_share(&self) -> PipeShare {
        let by_descriptors = self.descriptors / PIPE_SHARE / 2;
        let half = self.pipe_bytes.map_or(u64::MAX, |bytes| bytes / 2);
        let wide = (half / WIDE_BYTES).min(by_descriptors);
        let narrow = (half / NARROW_BYTES).min(by_descriptors - wide);
        let each = |pipes: u64| usize::try_from(pipes).unwrap_or(usize::MAX) / self.workers.max(1);
        match (each(wide), each(narrow)) {
            (0, 0) => PipeShare { wide: 0, narrow: 1 },
            (wide, narrow) => PipeShare { wide, narrow },
        }
    }

    /// Sessions the descriptors allow, beside `listening` sockets.
    fn sessions_by_descriptors(&self, listening: u64) -> u64 {
        let taken = RESERVED_DESCRIPTORS + listening + 2 * self.pipes();
        (self.descriptors.saturating_sub(taken) / 2).max(1)
    }

    /// Sessions the process may hold: as configured, or as many as fit.
    pub(crate) fn sessions(&self, config: &Config) -> u64 {
        let most = self.sessions_that_fit(config);
        config.global.max_sessions.map_or(most, |wanted| wanted.min(self.by_descriptors(config)))
    }

    fn sessions_that_fit(&self, config: &Config) -> u64 {
        let by_memory =
            self.memory_bytes.map_or(u64::MAX, |bytes| bytes / 4 * 3 / SESSION_BYTES_WORST);
        self.by_descriptors(config).min(by_memory.max(1))
    }

    /// Sessions for which there are descriptors under this configuration.
    pub(crate) fn by_descriptors(&self, config: &Config) -> u64 {
        self.sessions_by_descriptors(self.listening(config) + gates(config))
    }

    /// Sockets that listen under this configuration: for each address, one of every worker.
    pub(crate) fn listening(&self, config: &Config) -> u64 {
        let ranges = config.listeners.iter().flat_map(|listener| &listener.bind);
        let addresses: usize = ranges.map(AddressRange::count).sum();
        (addresses * self.workers) as u64
    }
}

/// Threads of the data plane: as configured, or one for each CPU the process may use.
pub(crate) fn workers(config: &Config) -> usize {
    let usable = || process::usable_cpus().map_or(1, |cpus| cpus.len());
    config.global.workers.unwrap_or_else(|| automatic_workers(usable(), process::cpu_quota()))
}

/// More workers than a quota has time for are all stopped at once when it is spent.
fn automatic_workers(usable: usize, quota: Option<usize>) -> usize {
    usable.min(quota.unwrap_or(usize::MAX)).max(1)
}

/// Descriptors of the programs by which the kernel refuses clients of listeners, and of the maps of
/// their lists.
fn gates(config: &Config) -> u64 {
    let have_one = config.listeners.iter().filter(|listener| access_obstacle(listener).is_none());
    let lists = |listener: &ListenerConfig| {
        if listener.allow.is_empty() && listener.deny.is_empty() { 0 } else { 2 }
    };
    have_one.map(|listener| 1 + lists(listener)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, sessions are admitted for which there are no descriptors.
    #[test]
    fn sessions_and_pipes_fit_into_the_descriptors() {
        for descriptors in [64, 1024, 20_000, 1 << 20] {
            let sizes =
                Sizes { descriptors, memory_bytes: None, workers: 2, pipe_bytes: Some(64 << 20) };
            let used = 2 * sizes.sessions_by_descriptors(4) + 2 * sizes.pipes();
            assert!(used <= descriptors, "{descriptors}: {used}");
        }
    }

    // If this fails, a quota makes every worker wait for the end of its period.
    #[test]
    fn a_quota_bounds_the_workers() {
        assert_eq!(automatic_workers(8, None), 8);
        assert_eq!(automatic_workers(8, Some(2)), 2);
        assert_eq!(automatic_workers(2, Some(8)), 2);
        assert_eq!(automatic_workers(0, None), 1);
    }
}
