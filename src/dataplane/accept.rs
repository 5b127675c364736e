//! Taking connections from the listening sockets, and judging each on arrival.
//!
//! A few at a time, so that sessions have their turn; edge-triggered epoll tells of waiting
//! connections once, so a socket stays pending until accept(2) says that its queue is empty. When
//! descriptors run out one that is held back is spent to turn a client away at once; when even
//! that fails, accepting pauses and resumes on a timer. Sessions go on all the while.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use mio::Interest;
use mio::unix::SourceFd;
use rustix::io::Errno;

use crate::policy::limiter::{Decision, Entry, LimitKey};
use crate::shared::{Limit, LimitDecision, Listener, RefuseReason, Snapshot};
use crate::sys::process::reserve_descriptor;
use crate::sys::socket::{self, ListenOptions};

use super::clock::Tick;
use super::slots::Addressed;
use super::worker::Worker;

/// Connections taken from one socket in one turn. Small batches beat large ones: the kernel
/// completes handshakes while sessions are served.
const ACCEPTS_PER_TURN: usize = 4;
/// How long accepting pauses when the process is out of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// The listening sockets of one worker.
#[derive(Debug)]
pub(super) struct Listening {
    sockets: Vec<Option<ListeningSocket>>,
    pending: usize,
    paused_until: Option<Tick>,
    reserve: Option<OwnedFd>,
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

    fn settle(&mut self, position: usize) {
        if let Some(Some(socket)) = self.sockets.get_mut(position)
            && socket.pending
        {
            socket.pending = false;
            self.pending -= 1;
        }
    }

    fn accept(&mut self, position: usize) -> Option<io::Result<(OwnedFd, SocketAddr)>> {
        let socket = self.sockets.get(position)?.as_ref()?;
        Some(socket::accept(socket.socket.as_fd()))
    }

    fn listener(&self, position: usize) -> Option<Arc<Listener>> {
        Some(Arc::clone(&self.sockets.get(position)?.as_ref()?.listener))
    }
}

/// How one attempt to accept ended.
enum Accepted {
    /// A connection, or one that was gone again: look for the next.
    Next,
    /// Nobody waits.
    Empty,
    /// Out of descriptors or memory.
    Exhausted,
}

impl Worker {
    /// Starts to accept on a socket.
    pub(super) fn listen(&mut self, address: SocketAddr, socket: OwnedFd) {
        let Some(listener) = self.snapshot.current().listener_on(address).cloned() else {
            // Gone again before this worker heard of it: closing is all there is to do.
            return;
        };
        let position = self.listening.sockets.iter().position(Option::is_none).unwrap_or_else(|| {
            self.listening.sockets.push(None);
            self.listening.sockets.len() - 1
        });
        let Ok(number) = u32::try_from(position) else { return };
        let token = Addressed::Listener(number).token();
        let raw = std::os::fd::AsRawFd::as_raw_fd(&socket);
        let registered =
            self.poll.registry().register(&mut SourceFd(&raw), token, Interest::READABLE);
        if registered.is_err() {
            // Without an epoll entry this queue would never be served; better that the kernel
            // gives its share to the other workers.
            return;
        }
        self.listening.sockets[position] =
            Some(ListeningSocket { listener, address, socket, pending: false });
        // Connections may have come before the registration.
        self.listening.note(number);
        self.setup.state.listening.set(self.listening.count() as u64);
    }

    /// Serves what waits, then closes all listening sockets.
    pub(super) fn stop_listening(&mut self) {
        self.close_listening(|_| true);
    }

    /// Empties and closes the sockets on addresses that a snapshot no longer has.
    pub(super) fn close_gone_listeners(&mut self, latest: &Snapshot) {
        self.close_listening(|address| latest.listener_on(address).is_none());
    }

    fn close_listening(&mut self, is_gone: impl Fn(SocketAddr) -> bool) {
        for position in 0..self.listening.sockets.len() {
            let gone = self.listening.sockets[position]
                .as_ref()
                .is_some_and(|socket| is_gone(socket.address));
            if !gone {
                continue;
            }
            let Some(listener) = self.listening.listener(position) else { continue };
            while matches!(self.accept_one(position, &listener), Accepted::Next) {}
            self.listening.settle(position);
            // Closed, never shut down: the socket may be shared with a successor.
            self.listening.sockets[position] = None;
        }
        self.setup.state.listening.set(self.listening.count() as u64);
    }

    /// Accepts a few connections from every socket on which some wait.
    pub(super) fn accept_pending(&mut self) {
        if !self.listening.has_pending(self.now) {
            return;
        }
        self.listening.paused_until = None;
        for position in 0..self.listening.sockets.len() {
            let pending = self.listening.sockets[position].as_ref().is_some_and(|s| s.pending);
            if pending && self.accept_batch(position).is_err() {
                self.listening.paused_until = Some(self.now.after(PAUSE));
                return;
            }
        }
    }

    fn accept_batch(&mut self, position: usize) -> Result<(), ()> {
        let Some(listener) = self.listening.listener(position) else { return Ok(()) };
        for _ in 0..ACCEPTS_PER_TURN {
            match self.accept_one(position, &listener) {
                Accepted::Next => {}
                Accepted::Empty => {
                    self.listening.settle(position);
                    return Ok(());
                }
                Accepted::Exhausted => return Err(()),
            }
        }
        Ok(())
    }

    fn accept_one(&mut self, position: usize, listener: &Arc<Listener>) -> Accepted {
        match self.listening.accept(position) {
            None => Accepted::Empty,
            Some(Ok((client, peer))) => {
                self.arrive(listener, client, peer);
                Accepted::Next
            }
            Some(Err(error)) if error.kind() == ErrorKind::WouldBlock => Accepted::Empty,
            Some(Err(error)) if is_exhaustion(&error) => self.shed(position, listener),
            // The client left before we took it, a firewall forbade it, a signal came.
            Some(Err(_)) => Accepted::Next,
        }
    }

    /// Spends the descriptor held back to turn one client away.
    fn shed(&mut self, position: usize, listener: &Arc<Listener>) -> Accepted {
        self.tools.pipes.release_idle();
        if self.listening.reserve.take().is_none() {
            self.listening.reserve = reserve_descriptor().ok();
            return Accepted::Exhausted;
        }
        let accepted = self.listening.accept(position);
        let outcome = match accepted {
            Some(Ok((client, peer))) => {
                listener.state.counters(self.setup.number).accepted.add(1);
                self.refuse(listener, client, peer, RefuseReason::Descriptors);
                Accepted::Next
            }
            _ => Accepted::Exhausted,
        };
        self.listening.reserve = reserve_descriptor().ok();
        outcome
    }

    /// Judges a new connection and opens a session for it, or turns it away.
    fn arrive(&mut self, listener: &Arc<Listener>, client: OwnedFd, peer: SocketAddr) {
        listener.state.counters(self.setup.number).accepted.add(1);
        match self.admit(listener, peer.ip()) {
            Ok(counted) => self.open(listener, client, peer, counted),
            Err(reason) => self.refuse(listener, client, peer, reason),
        }
    }

    /// Asks every limit, cheapest first. On success a place is taken in each; the key says whether
    /// the client's concurrent sessions were counted.
    fn admit(&self, listener: &Listener, client: IpAddr) -> Result<Option<LimitKey>, RefuseReason> {
        if !listener.access.admits(client) {
            return Err(RefuseReason::Access);
        }
        let snapshot = self.snapshot.current();
        let counted = match &listener.limit {
            Some(limit) => self.within_limit(listener, limit, client)?,
            None => None,
        };
        let undo = || leave(listener, counted);
        if !snapshot.sessions.claim(snapshot.sessions_max) {
            undo();
            return Err(RefuseReason::MaxSessions);
        }
        if !listener.state.active.claim(listener.sessions_max) {
            snapshot.sessions.release();
            undo();
            return Err(RefuseReason::MaxSessions);
        }
        Ok(counted)
    }

    fn within_limit(
        &self,
        listener: &Listener,
        limit: &Limit,
        client: IpAddr,
    ) -> Result<Option<LimitKey>, RefuseReason> {
        if limit.exempt.as_ref().is_some_and(|list| list.contains(client)) {
            return Ok(None);
        }
        let key = limit.limiter.key(client, limit.key);
        let (counted, verdict) = self.ask_limiter(limit, key);
        let decision = match verdict {
            None => LimitDecision::Allowed,
            Some(_) if limit.observe => LimitDecision::WouldRefuse,
            Some(_) => LimitDecision::Refused,
        };
        listener.state.counters(self.setup.number).limit[decision as usize].add(1);
        match (decision, verdict) {
            (LimitDecision::Refused, Some(reason)) => Err(reason),
            _ => Ok(counted.then_some(key)),
        }
    }

    /// Whether the session was counted, and why it should be refused.
    fn ask_limiter(&self, limit: &Limit, key: LimitKey) -> (bool, Option<RefuseReason>) {
        if let Some(quota) = &limit.quota
            && let Decision::Refused { .. } =
                limit.limiter.admit(key, self.now.micros(), quota)
        {
            return (false, Some(RefuseReason::Limit));
        }
        match limit.concurrent_max {
            None => (false, None),
            Some(max) => match limit.limiter.enter(key, max) {
                Entry::Counted => (true, None),
                Entry::Uncounted => (false, None),
                Entry::Refused => (false, Some(RefuseReason::Concurrent)),
            },
        }
    }
}

/// Gives back what [`Worker::admit`] counted for a client.
pub(super) fn leave(listener: &Listener, counted: Option<LimitKey>) {
    if let (Some(key), Some(limit)) = (counted, &listener.limit) {
        limit.limiter.leave(key);
    }
}

/// Errors that pass only when descriptors or kernel memory become free.
pub(super) fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    )
}
