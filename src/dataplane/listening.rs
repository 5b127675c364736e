//! The listening sockets of one worker, and which of them may have connections waiting.
//!
//! Edge-triggered epoll tells of waiting connections once, so a socket stays pending until
//! accept(2) has said that its queue is empty.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::policy::client::Client;
use crate::shared::{Address, Listener, Snapshot};
use crate::sys::process::reserve_descriptor;
use crate::sys::socket::{self, ListenOptions};
use crate::sys::unix;

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
    bound: Bound,
    pending: bool,
}

/// A listening socket as the control plane hands it over.
#[derive(Debug)]
pub(super) struct Bound {
    /// What it is bound to; the snapshot says which listener has it.
    pub(super) address: Address,
    pub(super) socket: OwnedFd,
    /// Other workers accept from the very same socket.
    pub(super) is_shared: bool,
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
            if let Some(listener) = snapshot.listener_on(&socket.bound.address) {
                socket.listener = Arc::clone(listener);
            }
        }
    }

    /// Changes the options of the socket on an address, for what it accepts from now on.
    pub(super) fn retune(&self, address: &Address, options: &ListenOptions) {
        let bound = self.sockets.iter().flatten().map(|socket| &socket.bound);
        for bound in bound.filter(|bound| bound.address == *address) {
            let socket = bound.socket.as_fd();
            // The same options were accepted for a new socket of the same kind; a kernel that
            // refuses them here leaves the old ones in force.
            let _old_options_kept = match address {
                Address::Ip(_) => socket::retune(socket, options),
                Address::Unix(_) => unix::set_backlog(socket, options.backlog),
            };
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
    pub(super) fn accept(&self, position: usize) -> Option<io::Result<(OwnedFd, Client)>> {
        let socket = self.sockets.get(position)?.as_ref()?;
        let accepted = socket::accept(socket.bound.socket.as_fd());
        Some(accepted.map(|(socket, peer)| (socket, Client::from(peer))))
    }

    /// The listener a socket belongs to.
    pub(super) fn listener(&self, position: usize) -> Option<Arc<Listener>> {
        Some(Arc::clone(&self.sockets.get(position)?.as_ref()?.listener))
    }

    /// Adds a socket and returns its position.
    pub(super) fn add(&mut self, listener: Arc<Listener>, bound: Bound) -> usize {
        let added = Some(ListeningSocket { listener, bound, pending: false });
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

    /// A socket, to register it, and whether it is shared.
    pub(super) fn socket(&self, position: usize) -> Option<(BorrowedFd<'_>, bool)> {
        let bound = &self.sockets.get(position)?.as_ref()?.bound;
        Some((bound.socket.as_fd(), bound.is_shared))
    }

    /// Positions of the sockets whose address satisfies a condition.
    pub(super) fn positions(&self, wanted: impl Fn(&Address) -> bool) -> Vec<usize> {
        let sockets = self.sockets.iter().enumerate();
        sockets
            .filter(|(_, socket)| {
                socket.as_ref().is_some_and(|socket| wanted(&socket.bound.address))
            })
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
