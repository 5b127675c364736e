//! The listening sockets of one worker, and which of them may have connections waiting.
//!
//! Edge-triggered epoll tells of waiting connections once, so a socket stays pending until
//! accept(2) has said that its queue is empty.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use rustix::io::Errno;

use crate::policy::client::Client;
use crate::shared::{Address, Listener, Snapshot};
use crate::sys::socket::ListenOptions;

use super::clock::Tick;
use super::kernel::{Kernel, is_exhaustion};
use super::slots::Addressed;

/// The listening sockets of one worker.
#[derive(Debug)]
pub(super) struct Listening<K: Kernel> {
    sockets: Vec<Option<Accepting<K>>>,
    /// Positions without a socket.
    free: Vec<usize>,
    /// Positions of the sockets on which connections may wait, each once.
    pending: Vec<usize>,
    /// Set while accepting pauses because descriptors or memory have run out.
    pub(super) paused_until: Option<Tick>,
    /// A descriptor held back, to be spent when there is no other.
    reserve: Option<K::Reserve>,
    /// This worker puts the gates before the addresses: one does, since the sockets of all workers
    /// on an address are one group, and two could put them in another order than they were made.
    keeps_gates: bool,
}

#[derive(Debug)]
struct Accepting<K: Kernel> {
    listener: Arc<Listener>,
    bound: Bound<K>,
    pending: bool,
}

/// A listening socket as the control plane hands it over.
#[derive(Debug)]
pub(super) struct Bound<K: Kernel> {
    /// What it is bound to; the snapshot says which listener has it.
    pub(super) address: Address,
    pub(super) socket: K::ListeningSocket,
    /// Other workers accept from the very same socket.
    pub(super) is_shared: bool,
}

/// How one attempt to accept ended.
#[derive(Debug)]
pub(super) enum Accepted<K: Kernel> {
    /// A client has come.
    Client(K::Socket, Client),
    /// One that was gone again: look for the next.
    Gone,
    /// The queue is empty.
    Empty,
    /// Out of descriptors or memory: see [`Listening::shed`].
    Exhausted,
    /// An error that is not known to pass at once: asking again without a pause would spin.
    Failed,
}

impl<K: Kernel> Listening<K> {
    /// No socket yet.
    ///
    /// # Errors
    /// When there is no descriptor to hold back.
    pub(super) fn new(kernel: &mut K, keeps_gates: bool) -> io::Result<Self> {
        let reserve = Some(kernel.reserve()?);
        Ok(Self {
            sockets: Vec::new(),
            free: Vec::new(),
            pending: Vec::new(),
            paused_until: None,
            reserve,
            keeps_gates,
        })
    }

    /// Takes a connection from a socket.
    pub(super) fn accept(&self, position: usize, kernel: &mut K) -> Accepted<K> {
        let Some(Some(socket)) = self.sockets.get(position) else { return Accepted::Empty };
        match kernel.accept(&socket.bound.socket) {
            Ok((socket, client)) => Accepted::Client(socket, client),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Accepted::Empty,
            Err(error) if is_exhaustion(&error) => Accepted::Exhausted,
            Err(error) if is_of_the_connection(&error) => Accepted::Gone,
            Err(_) => Accepted::Failed,
        }
    }

    /// Spends the descriptor held back to take one client, which is to be turned away. `None`:
    /// accepting has to pause.
    pub(super) fn shed(&mut self, position: usize, kernel: &mut K) -> Option<(K::Socket, Client)> {
        if self.reserve.take().is_none() {
            self.hold_back(kernel);
            return None;
        }
        match self.accept(position, kernel) {
            Accepted::Client(socket, client) => Some((socket, client)),
            _ => {
                self.hold_back(kernel);
                None
            }
        }
    }

    /// Holds a descriptor back again, if there is one.
    pub(super) fn hold_back(&mut self, kernel: &mut K) {
        self.reserve = kernel.reserve().ok();
    }

    /// Starts to hear of arrivals at a socket.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub(super) fn watch(&mut self, position: usize, kernel: &mut K) -> io::Result<()> {
        let number = u32::try_from(position).map_err(|_| ErrorKind::OutOfMemory)?;
        let Some(Some(socket)) = self.sockets.get(position) else { return Ok(()) };
        if self.keeps_gates {
            put_gate(socket, kernel);
        }
        let token = Addressed::Listener(number).token();
        kernel.watch_listening(&socket.bound.socket, token, socket.bound.is_shared)?;
        // Connections may have come before the registration.
        self.note(number);
        Ok(())
    }

    /// Connections may wait on this socket.
    pub(super) fn note(&mut self, position: u32) {
        if let Some(Some(socket)) = self.sockets.get_mut(position as usize)
            && !socket.pending
        {
            socket.pending = true;
            self.pending.push(position as usize);
        }
    }

    /// Whether there is something to accept now.
    pub(super) fn has_pending(&self, now: Tick) -> bool {
        !self.pending.is_empty() && self.paused_until.is_none_or(|until| until <= now)
    }

    /// When a pause ends.
    pub(super) fn resumes_at(&self) -> Option<Tick> {
        if self.pending.is_empty() { None } else { self.paused_until }
    }

    /// Sockets that accept.
    pub(super) fn count(&self) -> usize {
        self.sockets.iter().flatten().count()
    }

    /// Uses the listeners of a new snapshot from now on. A socket belongs to the listener that has
    /// its address, so a listener can be renamed or an address moved without closing anything.
    pub(super) fn take_up(&mut self, snapshot: &Snapshot, kernel: &mut K) {
        for socket in self.sockets.iter_mut().flatten() {
            if let Some(listener) = snapshot.listener_on(&socket.bound.address) {
                let before = std::mem::replace(&mut socket.listener, Arc::clone(listener));
                let [gate, before] =
                    [listener, &before].map(|it| it.gate.as_ref().map(Arc::as_ptr));
                if self.keeps_gates && gate != before {
                    put_gate(socket, kernel);
                }
            }
        }
    }

    /// Puts the gates before the addresses again.
    pub(super) fn put_gates(&self, kernel: &mut K) {
        if self.keeps_gates {
            self.sockets.iter().flatten().for_each(|socket| put_gate(socket, kernel));
        }
    }

    /// Changes the options of the sockets on these addresses, for what they accept from now on.
    pub(super) fn retune(
        &self,
        addresses: &HashSet<Address>,
        options: &ListenOptions,
        kernel: &mut K,
    ) {
        let bound = self.sockets.iter().flatten().map(|socket| &socket.bound);
        for bound in bound.filter(|bound| addresses.contains(&bound.address)) {
            kernel.retune(&bound.socket, options);
        }
    }

    /// No connection waits on this socket any more.
    pub(super) fn is_drained(&mut self, position: usize) {
        if let Some(Some(socket)) = self.sockets.get_mut(position)
            && socket.pending
        {
            socket.pending = false;
            self.pending.retain(|other| *other != position);
        }
    }

    /// The listener a socket belongs to.
    pub(super) fn listener(&self, position: usize) -> Option<Arc<Listener>> {
        Some(Arc::clone(&self.sockets.get(position)?.as_ref()?.listener))
    }

    /// Adds a socket and returns its position.
    pub(super) fn add(&mut self, listener: Arc<Listener>, bound: Bound<K>) -> usize {
        let added = Some(Accepting { listener, bound, pending: false });
        let position = self.free.pop().unwrap_or(self.sockets.len());
        match self.sockets.get_mut(position) {
            Some(slot) => *slot = added,
            None => self.sockets.push(added),
        }
        position
    }

    /// Closes a socket. Never shut down, and never closed while its arrivals are still told:
    /// another worker or process may have it.
    pub(super) fn close(&mut self, position: usize, kernel: &mut K) {
        if let Some(Some(socket)) = self.sockets.get(position) {
            kernel.unwatch_listening(&socket.bound.socket);
        }
        self.is_drained(position);
        if self.sockets.get_mut(position).and_then(Option::take).is_some() {
            self.free.push(position);
        }
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

    /// The position of a socket on which connections may wait: the first of them, the second, and
    /// so on; a socket that is drained leaves its place to the next.
    #[inline]
    pub(super) fn pending_at(&self, index: usize) -> Option<usize> {
        self.pending.get(index).copied()
    }
}

/// Puts the gate of its listener before the address of a socket. Without one: takes away what an
/// earlier process may have left on a socket that was handed down.
fn put_gate<K: Kernel>(socket: &Accepting<K>, kernel: &mut K) {
    let Accepting { listener, bound, .. } = socket;
    if bound.is_shared {
        return;
    }
    let put = kernel.put_gate(&bound.socket, listener.gate.as_deref());
    if let (Err(error), Some(gate)) = (put, &listener.gate) {
        gate.note_trouble(&error);
    }
}

/// Errors of one connection, which is gone with them, and a signal: accept(2) says to go on.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::CONNABORTED
                | Errno::INTR
                | Errno::PERM
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NONET
                | Errno::OPNOTSUPP
        )
    )
}
