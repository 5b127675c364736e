//! What came of an upgrade, for programs and for people.

use serde::{Deserialize, Serialize};

use crate::control::words::count;

/// What came of an upgrade that succeeded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UpgradeReport {
    /// Version of the program that serves now.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// The process that has handed over.
    pub predecessor: u32,
    /// Listening sockets that changed hands, and are the same by SO_COOKIE.
    pub adopted: u64,
    /// Listening sockets that were to change hands.
    pub offered: u64,
    /// Sockets that the new process has opened beside them.
    pub opened: u64,
    /// Connections that waited in the queues of those that changed hands.
    pub queued: u64,
    /// Connections that the kernel dropped meanwhile, of all programs in the network namespace.
    pub listen_drops: Option<u64>,
    /// Sessions that went on in the new process.
    pub sessions_moved: u64,
    /// Sessions that stay with the old process until their bytes move, they end, or its drain does.
    pub sessions_left: u64,
    /// Sessions that no process has any more.
    pub sessions_lost: u64,
    /// The longest time in which a session paused while it moved, in microseconds.
    pub longest_pause_us: u64,
    /// How long both accepted, in milliseconds: there was no time in which neither did.
    pub both_accepted_ms: u64,
    /// From the request until the new process served, in milliseconds.
    pub took_ms: u64,
}

impl UpgradeReport {
    /// As lines.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { version, pid, adopted, offered, opened, .. } = self;
        let drops = match self.listen_drops {
            Some(drops) => format!("ListenDrops +{drops}"),
            None => "ListenDrops unknown".to_owned(),
        };
        format!(
            "upgraded in {} ms: process {pid} (evenkeel {version}) serves\n\
             listening sockets: {adopted} of {offered} changed hands, {opened} opened\n\
             {} waited in their queues; {drops}\n\
             no time without accept: both processes accepted for {} ms\n\
             {}\n",
            self.took_ms,
            count(self.queued, "connection"),
            self.both_accepted_ms,
            self.sessions(),
        )
    }

    fn sessions(&self) -> String {
        let Self { predecessor, sessions_left, sessions_lost, longest_pause_us, .. } = self;
        let moved = count(self.sessions_moved, "session");
        let left = match sessions_left {
            0 => format!("process {predecessor} ends"),
            _ => format!("process {predecessor} ends with the last one or at the end of its drain"),
        };
        format!(
            "{moved} moved, {sessions_left} left, {sessions_lost} lost, longest pause {}.{} ms: \
             {left}",
            longest_pause_us / 1_000,
            longest_pause_us % 1_000 / 100,
        )
    }
}
