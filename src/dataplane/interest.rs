//! Which events of a session's sockets the kernel tells of.
//!
//! Each socket is registered once, edge-triggered, for everything. One case needs more: while a
//! target is full, every arrival at its source is an edge that nobody can act on; a fast server
//! behind a slow client gives thousands a second. The first that tells nothing new mutes the
//! source; once its bytes move again it is heard again, and the kernel then tells at once what has
//! come meanwhile. See docs/adr/0017.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use mio::unix::SourceFd;
use mio::{Interest, Token};

use super::connection::Connection;
use super::slots::{Addressed, SlotKey};
use super::stream::wire::Side;
use super::worker::Worker;

/// Everything there is to hear.
const ALL: Interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);
/// Room to write; errors and hang-ups are always told. An arrival counts as priority, too.
const MUTED: Interest = Interest::WRITABLE;

impl Worker {
    /// Starts to listen to one side of a session.
    pub(super) fn register(&self, key: SlotKey, side: Side) -> io::Result<()> {
        let Some(connection) = self.table.slots.get(key) else { return Ok(()) };
        let Some(raw) = descriptor(connection, side) else { return Ok(()) };
        self.poll.registry().register(&mut SourceFd(&raw), token(key, side), ALL)
    }

    /// Stops to hear of arrivals at one side.
    pub(super) fn mute(&mut self, key: SlotKey, side: Side) {
        let Some(connection) = self.table.slots.get_mut(key) else { return };
        let Some(raw) = descriptor(connection, side) else { return };
        if connection.stream.mute(side) {
            // If this fails the side is heard still, which costs wake-ups and nothing else.
            let _is_muted =
                self.poll.registry().reregister(&mut SourceFd(&raw), token(key, side), MUTED);
        }
    }

    /// Hears of everything again at the sides where that is due.
    ///
    /// # Errors
    /// What epoll_ctl(2) reports: the session would never hear of its bytes.
    pub(super) fn unmute(&mut self, key: SlotKey) -> io::Result<()> {
        let Some(connection) = self.table.slots.get_mut(key) else { return Ok(()) };
        for side in [Side::Client, Side::Backend] {
            if connection.stream.unmute(side)
                && let Some(raw) = descriptor(connection, side)
            {
                self.poll.registry().reregister(&mut SourceFd(&raw), token(key, side), ALL)?;
            }
        }
        Ok(())
    }
}

fn token(key: SlotKey, side: Side) -> Token {
    Addressed::Connection(key, side).token()
}

fn descriptor(connection: &Connection, side: Side) -> Option<RawFd> {
    match side {
        Side::Client => Some(connection.client.as_raw_fd()),
        Side::Backend => connection.backend.as_ref().map(AsRawFd::as_raw_fd),
    }
}
