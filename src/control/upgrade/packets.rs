//! What two processes of evenkeel say to each other during an upgrade: JSON in packets.
//!
//! ```text
//! predecessor                     successor
//! Opening, manifest (memfd)  ──►
//! sockets, at most 252       ──►
//!                            ◄──  Taken, with their cookies        until all are passed
//!                                 reads its file, opens, starts workers
//!                            ◄──  Ready
//! Begin, latest state        ──►
//!    (two memfds)                 publishes its first snapshot, accepts
//!                            ◄──  Left, where it has not taken all
//!                            ◄──  Accepting
//! lets go, tells systemd
//! Lead                       ──►
//!                                 tells systemd, owns the files
//! Sessions, at most 100      ──►
//!                            ◄──  TakenIn                          until the predecessor has none
//! ```
//!
//! Instead of each of its packets the successor may send `Refused`. A closed channel before `Begin`
//! ends the successor; after it the successor serves alone. Sessions are the predecessor's until it
//! has `TakenIn`, which the successor sends before it moves a byte of theirs.

use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::time::Instant;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::sys::channel::{Channel, ChannelPacket};

/// Grows when a process cannot understand one of the number before.
pub(crate) const PROTOCOL: u32 = 1;

/// The form in which sessions are described; each change of it has another number. A successor of
/// another form takes no sessions.
pub(crate) const SESSIONS_FORM: u32 = 1;

/// Where the number of the process that starts a successor stands: its parent.
pub(crate) const CALLED_BY: &str = "EVENKEEL_UPGRADE_FROM";

/// Indexes in one `Left`.
pub(crate) const LEFT_MAX: usize = 4096;

/// The first packet; no version may change these two.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Opening {
    pub(crate) protocol: u32,
    /// Of the program.
    pub(crate) version: String,
}

/// What the predecessor says after [`Opening`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Call {
    /// Sockets come with it.
    Sockets,
    /// Accept. What describes the latest state comes with it in a memfd, then its words in another.
    Begin,
    /// The predecessor has let go.
    Lead,
    /// Sessions come with it: what describes them in a memfd, then two sockets of each.
    Sessions,
}

/// What the successor says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HeirAnswer {
    /// The sockets that came are here.
    Taken { cookies: Vec<u64> },
    /// Everything is open; nothing is accepted yet.
    Ready {
        version: String,
        /// [`SESSIONS_FORM`] of the sessions that it takes; 0: none.
        #[serde(default)]
        sessions: u32,
    },
    /// Addresses of the manifest that the file no longer has, by their index.
    Left { addresses: Vec<u32> },
    /// Every worker accepts.
    Accepting { has_control: bool, opened: u64 },
    /// The sessions that came are its own from now on, but these, by number: they belong nowhere.
    TakenIn { refused: Vec<u64> },
    /// It will not serve; after `Accepting`: it takes no sessions.
    Refused { reason: String },
}

/// Sends a packet.
///
/// # Errors
/// As [`Channel::send`].
pub(crate) fn send(
    channel: &Channel,
    what: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
    until: Instant,
) -> io::Result<()> {
    channel.send(&serde_json::to_vec(what)?, descriptors, until)
}

/// Reads a packet.
///
/// # Errors
/// `InvalidData` when it says something else.
pub(crate) fn said<T: DeserializeOwned>(packet: &ChannelPacket) -> io::Result<T> {
    serde_json::from_slice(&packet.bytes).map_err(|_| {
        let shown: String = String::from_utf8_lossy(&packet.bytes).chars().take(80).collect();
        io::Error::new(ErrorKind::InvalidData, format!("{shown:?} is no packet of an upgrade"))
    })
}
