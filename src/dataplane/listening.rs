//! The listening sockets of one worker, and which of them may have connections waiting.
//!
//! Edge-triggered epoll tells of waiting connections once, so a socket stays pending until
//! accept(2) has said that its queue is empty. One from which accept(2) fails for a reason of its
//! own is left alone for a while, and no other is held up by it.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use rustix::io::Errno;

use crate::policy::client::Client;
use crate::shared::{Address, Listener, Snapshot, WorkerState};
use crate::sys::socket::ListenOptions;

use super::clock::Tick;
use super::command::WorkerSetup;
use super::kernel::{Kernel, is_exhaustion};
use super::slots::Addressed;

/// The listening sockets of one worker.
#[derive(Debug)]
pub(super) struct Listening<K: Kernel> {
    sockets: Vec<Option<Accepting<K>>>,
    /// Positions without a socket.
    free: Vec<usize>,
    /// How many there are.
    count: usize,
    /// Positions of the sockets on which connections may wait, each once.
    pending: Vec<usize>,
    /// Positions of the sockets that are left alone, and until when.
    resting: Vec<(Tick, usize)>,
    /// The worker's number, and its numbers.
    worker: usize,
    state: Arc<WorkerState>,
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
    wants: Wants,
    /// Why accept(2) failed the last time, as errno(3) has it; 0 when it did not.
    errno: i32,
}

/// What is to be done with a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wants {
    /// Nothing until an event.
    Nothing,
    /// Connections may wait: it is among the pending.
    Accept,
    /// To be left alone: it is among the resting.
    Rest,
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
    /// An error that may last: asking again without a pause would spin. See [`Listening::rest`].
    Failed,
}

impl<K: Kernel> Listening<K> {
    /// No socket yet.
    ///
    /// # Errors
    /// When there is no descriptor to hold back.
    pub(super) fn new(setup: &WorkerSetup, kernel: &mut K) -> io::Result<Self> {
        let reserve = Some(kernel.reserve()?);
        Ok(Self {
            sockets: Vec::new(),
            free: Vec::new(),
            count: 0,
            pending: Vec::new(),
            resting: Vec::new(),
            worker: setup.number,
            state: Arc::clone(&setup.state),
            paused_until: None,
            reserve,
            keeps_gates: setup.number == 0,
        })
    }

    /// Takes a connection from a socket.
    pub(super) fn accept(&mut self, position: usize, kernel: &mut K) -> Accepted<K> {
        let Some(Some(socket)) = self.sockets.get_mut(position) else { return Accepted::Empty };
        let accepted = match kernel.accept(&socket.bound.socket) {
            Ok((socket, client)) => Accepted::Client(socket, client),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Accepted::Empty,
            Err(error) if is_exhaustion(&error) => return Accepted::Exhausted,
            Err(error) if is_of_the_connection(&error) => Accepted::Gone,
            Err(error) => {
                socket.note_errno(error.raw_os_error().unwrap_or(-1), self.worker);
                self.state.accept_errors.add(1);
                return Accepted::Failed;
            }
        };
        if socket.errno != 0 {
            socket.note_errno(0, self.worker);
        }
        accepted
    }

    /// Leaves a socket alone until then.
    #[cold]
    pub(super) fn rest(&mut self, position: usize, until: Tick) {
        self.is_drained(position);
        if let Some(Some(socket)) = self.sockets.get_mut(position) {
            socket.wants = Wants::Rest;
            self.resting.push((until, position));
        }
    }

    /// Ends all pauses that are over by now.
    pub(super) fn resume(&mut self, now: Tick) {
        self.paused_until = None;
        if self.resting.is_empty() {
            return;
        }
        let over: Vec<_> = self.resting.extract_if(.., |(until, _)| *until <= now).collect();
        for (_, position) in over {
            if let Some(Some(socket)) = self.sockets.get_mut(position) {
                socket.wants = Wants::Accept;
                self.pending.push(position);
            }
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
            && socket.wants == Wants::Nothing
        {
            socket.wants = Wants::Accept;
            self.pending.push(position as usize);
        }
    }

    /// Whether there is something to accept now.
    pub(super) fn has_pending(&self, now: Tick) -> bool {
        let is_over = |until: Tick| until <= now;
        (!self.pending.is_empty() || self.resting.iter().any(|(until, _)| is_over(*until)))
            && self.paused_until.is_none_or(is_over)
    }

    /// When a pause ends.
    pub(super) fn resumes_at(&self) -> Option<Tick> {
        if !self.pending.is_empty() {
            return self.paused_until;
        }
        let first = self.resting.iter().map(|(until, _)| *until).min();
        first.map(|first| self.paused_until.map_or(first, |paused| paused.max(first)))
    }

    /// Sockets that accept.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Uses the listeners of a new snapshot from now on. A socket belongs to the listener that has
    /// its address, so a listener can be renamed or an address moved without closing anything.
    pub(super) fn take_up(&mut self, snapshot: &Snapshot, kernel: &mut K) {
        for socket in self.sockets.iter_mut().flatten() {
            if let Some(listener) = snapshot.listener_on(&socket.bound.address) {
                let errno = socket.errno;
                if errno != 0 {
                    socket.note_errno(0, self.worker);
                }
                let before = std::mem::replace(&mut socket.listener, Arc::clone(listener));
                if errno != 0 {
                    socket.note_errno(errno, self.worker);
                }
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
            && socket.wants == Wants::Accept
        {
            socket.wants = Wants::Nothing;
            self.pending.retain(|other| *other != position);
        }
    }

    /// The listener a socket belongs to.
    pub(super) fn listener(&self, position: usize) -> Option<Arc<Listener>> {
        Some(Arc::clone(&self.sockets.get(position)?.as_ref()?.listener))
    }

    /// Adds a socket and returns its position.
    pub(super) fn add(&mut self, listener: Arc<Listener>, bound: Bound<K>) -> usize {
        let added = Some(Accepting { listener, bound, wants: Wants::Nothing, errno: 0 });
        self.count += 1;
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
        self.resting.retain(|(_, other)| *other != position);
        if let Some(mut closed) = self.sockets.get_mut(position).and_then(Option::take) {
            if closed.errno != 0 {
                closed.note_errno(0, self.worker);
            }
            self.count -= 1;
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

impl<K: Kernel> Accepting<K> {
    /// Counts an attempt to accept that failed, or with 0 that there was one which did not.
    #[cold]
    fn note_errno(&mut self, errno: i32, worker: usize) {
        let counters = self.listener.state.counters(worker);
        if errno != 0 {
            counters.accept_errors.add(1);
            counters.accept_errno.set(errno.unsigned_abs().into());
        }
        let others = counters.accept_failing.value() - u64::from(self.errno != 0);
        counters.accept_failing.set(others + u64::from(errno != 0));
        self.errno = errno;
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
