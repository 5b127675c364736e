//! The listening sockets of one worker, and which of them may have connections waiting.
//!
//! Edge-triggered epoll tells of waiting connections once, so a socket stays pending until
//! accept(2) has said that its queue is empty.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use crate::shared::{Listener, Snapshot};
use crate::sys::process::reserve_descriptor;
use crate::sys::socket::{self, ListenOptions};

use super::clock::Tick;

/// The listening sockets of one worker.
#[derive(Debug)]
pub(super) struct Listening {
    sockets: Vec<Option<ListeningSocket>>,
    pending: usize,
    /// Set while accepting pauses because descriptors or memory have run out.
    pub(super) paused_until: Option<Tick>,
    /// A descriptor held back, to be spent when there is no other.
    pub(super) reserve: Option<OwnedFd>,
}

#[derive(Debug)]
struct ListeningSocket {
    listener: Arc<Listener>,
    address: SocketAddr,
    socket: OwnedFd,
    pending: bool,
}

impl Listening {
    pub(super) fn new() -> io::Result<Self> {
        let reserve = Some(reserve_descriptor()?);
        Ok(Self { sockets: Vec::new(), pending: 0, paused_until: None, reserve })
    }

    /// Connections may wait on this socket.
    pub(super) fn note(&mut self, position: u32) {
        if let Some(Some(socket)) = self.sockets.get_mut(position as usize)
            && !socket.pending
        {
            socket.pending = true;
            self.pending += 1;
        }
    }

    /// Whether there is something to accept now.
    pub(super) fn has_pending(&self, now: Tick) -> bool {
        self.pending > 0 && self.paused_until.is_none_or(|until| until <= now)
    }

    /// When a pause ends.
    pub(super) fn resumes_at(&self) -> Option<Tick> {
        if self.pending > 0 { self.paused_until } else { None }
    }

    /// Sockets that accept.
    pub(super) fn count(&self) -> usize {
        self.sockets.iter().flatten().count()
    }

    /// Uses the listeners of a new snapshot from now on. A socket belongs to whoever has its
    /// address, so a listener can be renamed or an address moved without closing anything.
    pub(super) fn take_up(&mut self, snapshot: &Snapshot) {
        for socket in self.sockets.iter_mut().flatten() {
            if let Some(listener) = snapshot.listener_on(socket.address) {
                socket.listener = Arc::clone(listener);
            }
        }
    }

    /// Changes the options of the socket on an address, for what it accepts from now on.
    pub(super) fn retune(&self, address: SocketAddr, options: &ListenOptions) {
        for socket in self.sockets.iter().flatten().filter(|socket| socket.address == address) {
            // The same options were accepted for a new socket of the same kind; a kernel that
            // refuses them here leaves the old ones in force.
            let _old_options_kept = socket::retune(socket.socket.as_fd(), options);
        }
    }

    /// Nobody waits on this socket any more.
    pub(super) fn settle(&mut self, position: usize) {
        if let Some(Some(socket)) = self.sockets.get_mut(position)
            && socket.pending
        {
            socket.pending = false;
            self.pending -= 1;
        }
    }

    /// Takes a connection from a socket; `None` when there is no such socket.
    pub(super) fn accept(&self, position: usize) -> Option<io::Result<(OwnedFd, SocketAddr)>> {
        let socket = self.sockets.get(position)?.as_ref()?;
        Some(socket::accept(socket.socket.as_fd()))
    }

    /// The listener a socket belongs to.
    pub(super) fn listener(&self, position: usize) -> Option<Arc<Listener>> {
        Some(Arc::clone(&self.sockets.get(position)?.as_ref()?.listener))
    }

    /// Adds a socket and returns its position.
    pub(super) fn add(
        &mut self,
        listener: Arc<Listener>,
        address: SocketAddr,
        socket: OwnedFd,
    ) -> usize {
        let added = Some(ListeningSocket { listener, address, socket, pending: false });
        match self.sockets.iter_mut().position(|slot| slot.is_none()) {
            Some(position) => {
                if let Some(slot) = self.sockets.get_mut(position) {
                    *slot = added;
                }
                position
            }
            None => {
                self.sockets.push(added);
                self.sockets.len() - 1
            }
        }
    }

    /// Closes a socket. Never shut down: it may be shared with another process.
    pub(super) fn close(&mut self, position: usize) {
        self.settle(position);
        if let Some(slot) = self.sockets.get_mut(position) {
            *slot = None;
        }
    }

    /// The descriptor of a socket, to register it.
    pub(super) fn descriptor(&self, position: usize) -> Option<RawFd> {
        Some(self.sockets.get(position)?.as_ref()?.socket.as_raw_fd())
    }

    /// Positions of the sockets whose address satisfies a condition.
    pub(super) fn positions(&self, wanted: impl Fn(SocketAddr) -> bool) -> Vec<usize> {
        let sockets = self.sockets.iter().enumerate();
        sockets
            .filter(|(_, socket)| socket.as_ref().is_some_and(|socket| wanted(socket.address)))
            .map(|(position, _)| position)
            .collect()
    }

    /// Sockets there have ever been: every position is below this.
    pub(super) fn positions_max(&self) -> usize {
        self.sockets.len()
    }

    /// Whether connections may wait on a socket.
    pub(super) fn is_pending(&self, position: usize) -> bool {
        self.sockets.get(position).and_then(Option::as_ref).is_some_and(|socket| socket.pending)
    }
}
