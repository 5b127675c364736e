//! What a running evenkeel costs, and whether it gives everything back.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::{Proxy, within};

/// Idle pipes that a worker keeps (dataplane/pipes.rs), two descriptors each.
const PIPES_KEPT: usize = 2 * 64;
/// A scenario is over when everything is given back within this time.
const SETTLING: Duration = Duration::from_secs(60);

/// The state before a scenario.
#[derive(Debug)]
pub(crate) struct Books {
    sockets: usize,
    others: usize,
    workers: usize,
}

impl Books {
    /// Notes how things stand.
    pub(crate) fn open(proxy: &Proxy) -> Self {
        let (sockets, others) = descriptors(proxy.pid());
        Self { sockets, others, workers: threads(proxy.pid(), "worker-").len() }
    }

    /// Waits until every session, socket and pipe is given back, and asserts that every accepted
    /// connection is accounted for.
    #[track_caller]
    pub(crate) fn close(&self, proxy: &Proxy) {
        let mut last = String::new();
        let settled = within(SETTLING, || {
            let metrics = proxy.metrics();
            let active = metrics.sum("evenkeel_sessions_active", &[])
                + metrics.sum("evenkeel_backend_sessions_active", &[])
                + metrics.sum("evenkeel_pipes_in_use", &[]);
            let (sockets, others) = descriptors(proxy.pid());
            let accepted = metrics.sum("evenkeel_listener_accepted_total", &[]);
            let ended = metrics.sum("evenkeel_sessions_closed_total", &[])
                + metrics.sum("evenkeel_listener_refused_total", &[]);
            last = format!(
                "{active} sessions and pipes, {sockets} sockets after {}, {others} other \
                 descriptors after {}, {accepted} accepted, {ended} ended",
                self.sockets, self.others
            );
            let is_back = active < 0.5
                // The question itself has a socket.
                && sockets <= self.sockets + 1
                && others <= self.others + PIPES_KEPT * self.workers
                && (accepted - ended).abs() < 0.5;
            is_back.then_some(())
        });
        assert!(settled.is_some(), "not given back: {last}");
        assert!(
            proxy.metric("evenkeel_sessions_closed_total", &[("reason", "internal")]) < 0.5,
            "internal errors"
        );
    }
}

/// Sockets and other descriptors of a process.
pub(crate) fn descriptors(pid: u32) -> (usize, usize) {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let (mut sockets, mut others) = (0, 0);
    for entry in entries.flatten() {
        match std::fs::read_link(entry.path()) {
            Ok(target) if target.to_string_lossy().starts_with("socket:") => sockets += 1,
            Ok(_) => others += 1,
            Err(_) => {}
        }
    }
    (sockets, others)
}

/// Thread ids of a process whose names begin so.
pub(crate) fn threads(pid: u32, name: &str) -> Vec<u32> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let named = entries.flatten().filter(|entry| {
        let comm = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        comm.starts_with(name)
    });
    named.map(|entry| entry.file_name().to_string_lossy().parse().unwrap()).collect()
}

/// Nanoseconds of CPU time that all threads of a process have had.
pub(crate) fn cpu_ns(pid: u32) -> u64 {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_thread = |path: &Path| {
        let text = std::fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        text.split_whitespace().next().map_or(0, |time| time.parse::<u64>().unwrap())
    };
    entries.flatten().map(|entry| of_thread(&entry.path())).sum()
}

/// The share of one core that a process takes over `time`, in percent.
pub(crate) fn load(pid: u32, time: Duration) -> f64 {
    let (start, before) = (Instant::now(), cpu_ns(pid));
    within(time, || None::<()>);
    let used = Duration::from_nanos(cpu_ns(pid) - before);
    100.0 * used.as_secs_f64() / start.elapsed().as_secs_f64()
}

/// Resident memory of a process, in KiB.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
