//! Taking connections from the listening sockets, and judging each on arrival.
//!
//! A few at a time, so that sessions have their turn. When descriptors run out, one that is held
//! back is spent to turn a client away at once; when even that fails, accepting pauses and resumes
//! on a timer. Sessions go on all the while.

use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use mio::Interest;
use mio::unix::SourceFd;
use rustix::io::Errno;

use crate::policy::admit::admission::{Over, Refused};
use crate::policy::admit::http_answer::HttpAnswer;
use crate::policy::admit::limiter::{Entry, LimitKey};
use crate::policy::balance::hash::mask;
use crate::policy::client::Client;
use crate::policy::defects::{Defect, has};
use crate::shared::{Address, Limit, LimitDecision, Listener, RefuseReason, Snapshot};
use crate::sys::process::reserve_descriptor;
use crate::sys::socket::{unwatch_shared, watch_shared};

use super::connection::{Admitted, Counted};
use super::listening::Bound;
use super::refuse::Refusal;
use super::slots::Addressed;
use super::worker::Worker;

/// Connections taken from one socket in one turn. Small batches beat large ones: the kernel
/// completes handshakes while sessions are served.
const ACCEPTS_PER_TURN: usize = 4;
/// Connections taken from a socket before it is closed; the longest accept queue there is.
const QUEUE_MAX: usize = 65_535;
/// How long accepting pauses when the process is out of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

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
    /// Starts to accept on a socket that was opened for this listener.
    pub(super) fn listen(&mut self, bound: Bound, listener: Arc<Listener>) {
        let Some(listener) = self.snapshot.current().listener_on(&bound.address).cloned() else {
            // Gone again before this worker heard of it; who has connected meanwhile is served.
            let address = bound.address.clone();
            self.listening.add(listener, bound);
            return self.close_listening(|its| *its == address);
        };
        if has(Defect::BindAnew) {
            for old in self.listening.positions(|its| *its == bound.address) {
                self.close_listener(old);
            }
        }
        let position = self.listening.add(listener, bound);
        if self.register_listening(position).is_err() {
            // Without an epoll entry this queue would never be served; better that the kernel
            // gives its share to the other workers.
            self.close_listener(position);
        }
        self.setup.state.listening.set(self.listening.count() as u64);
    }

    fn register_listening(&mut self, position: usize) -> io::Result<()> {
        let number = u32::try_from(position).map_err(|_| ErrorKind::OutOfMemory)?;
        let Some((socket, is_shared)) = self.listening.socket(position) else { return Ok(()) };
        let token = Addressed::Listener(number).token();
        let registry = self.poll.registry();
        if is_shared {
            watch_shared(registry, socket, token.0 as u64)?;
        } else {
            registry.register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)?;
        }
        // Connections may have come before the registration.
        self.listening.note(number);
        Ok(())
    }

    fn close_listener(&mut self, position: usize) {
        if let Some((socket, true)) = self.listening.socket(position) {
            // Fails only for one whose registration has failed.
            let _unregistered = unwatch_shared(self.poll.registry(), socket);
        }
        self.listening.close(position);
    }

    /// Serves what waits, then closes all listening sockets.
    pub(super) fn stop_listening(&mut self) {
        self.close_listening(|_| true);
    }

    /// Empties and closes the sockets on addresses that a snapshot no longer has.
    pub(super) fn close_gone_listeners(&mut self, latest: &Snapshot) {
        self.close_listening(|address| latest.listener_on(address).is_none());
    }

    fn close_listening(&mut self, is_gone: impl Fn(&Address) -> bool) {
        for position in self.listening.positions(is_gone) {
            let Some(listener) = self.listening.listener(position) else { continue };
            for _ in 0..QUEUE_MAX {
                if !matches!(self.accept_one(position, &listener), Accepted::Next) {
                    break;
                }
            }
            self.close_listener(position);
        }
        self.setup.state.listening.set(self.listening.count() as u64);
    }

    /// Accepts a few connections from every socket on which some wait.
    pub(super) fn accept_pending(&mut self) {
        if !self.listening.has_pending(self.now) {
            return;
        }
        self.listening.paused_until = None;
        for position in 0..self.listening.positions_max() {
            if self.listening.is_pending(position) && self.accept_batch(position).is_err() {
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
            Some(Err(error)) if is_of_the_connection(&error) => Accepted::Next,
            // Nothing known to pass at once: asking again without a pause would spin.
            Some(Err(_)) => Accepted::Exhausted,
        }
    }

    /// Spends the descriptor held back to turn one client away.
    fn shed(&mut self, position: usize, listener: &Arc<Listener>) -> Accepted {
        self.tools.pipes.release_idle();
        self.held_give_way();
        if self.listening.reserve.take().is_none() {
            self.listening.reserve = reserve_descriptor().ok();
            return Accepted::Exhausted;
        }
        let accepted = self.listening.accept(position);
        let outcome = match accepted {
            Some(Ok((client, peer))) => {
                listener.state.counters(self.setup.number).accepted.add(1);
                self.refuse(listener, client, peer, RefuseReason::Descriptors.into());
                Accepted::Next
            }
            _ => Accepted::Exhausted,
        };
        self.listening.reserve = reserve_descriptor().ok();
        outcome
    }

    /// Judges a new connection and opens a session for it, or turns it away.
    fn arrive(&mut self, listener: &Arc<Listener>, client: OwnedFd, peer: Client) {
        listener.state.counters(self.setup.number).accepted.add(1);
        if let Some(rule) = &listener.accept_proxy
            && (!rule.is_direct_else || rule.is_from(peer))
        {
            return self.arrive_with_header(listener, rule, (client, peer));
        }
        match self.admit(listener, peer.ip()) {
            Ok(admitted) => self.place(listener, client, peer, Some(admitted)),
            Err(refusal) => self.refuse(listener, client, peer, refusal),
        }
    }

    /// Asks every limit, cheapest first. On success a place is taken in each.
    fn admit(&self, listener: &Listener, client: Option<IpAddr>) -> Result<Admitted, Refusal> {
        let admitted = self.admit_client(listener, client)?;
        self.claim_places(listener)?;
        Ok(admitted)
    }

    /// Asks what concerns the client.
    pub(super) fn admit_client(
        &self,
        listener: &Listener,
        client: Option<IpAddr>,
    ) -> Result<Admitted, Refusal> {
        if !listener.access.admits(client) {
            return Err(RefuseReason::Access.into());
        }
        match &listener.limit {
            Some(limit) => self.within_limit(listener, limit, client),
            None => Ok(Admitted::default()),
        }
    }

    /// Takes a place for a session, of the process and of the listener.
    pub(super) fn claim_places(&self, listener: &Listener) -> Result<(), Refusal> {
        let snapshot = self.snapshot.current();
        if !snapshot.sessions.claim(snapshot.sessions_max) {
            return Err(RefuseReason::MaxSessions.into());
        }
        if !listener.state.active.claim(listener.sessions_max) {
            snapshot.sessions.release();
            return Err(RefuseReason::MaxSessions.into());
        }
        Ok(())
    }

    fn within_limit(
        &self,
        listener: &Listener,
        limit: &Limit,
        client: Option<IpAddr>,
    ) -> Result<Admitted, Refusal> {
        let is_exempt = |client| limit.exempt.as_ref().is_some_and(|list| list.contains(client));
        if client.is_some_and(is_exempt) {
            return Ok(Admitted::default());
        }
        let (counted, verdict) = self.ask_limiter(limit, limit.key_of(client));
        let decision = match &verdict {
            None => LimitDecision::Allowed,
            Some(_) if limit.observe => LimitDecision::WouldRefuse,
            Some(_) => LimitDecision::Refused,
        };
        let counters = listener.state.counters(self.setup.number);
        counters.limit_said(decision).add(1);
        if decision == LimitDecision::WouldRefuse {
            counters.offenders.note(client.map(|client| mask(client, limit.key)));
        }
        match (decision, verdict) {
            (LimitDecision::Refused, Some(refusal)) => Err(refusal),
            (_, verdict) => Ok(Admitted { counted, observed: verdict.map(|over| over.reason) }),
        }
    }

    /// Where the session was counted, and why it should be refused.
    fn ask_limiter(&self, limit: &Limit, key: LimitKey) -> (Option<Counted>, Option<Refusal>) {
        let Limit { limiter, listener_rate, rules, .. } = limit;
        match rules.admit(limiter, listener_rate, key, self.now.micros()) {
            Ok(Entry::Counted) => (Some(Counted { limiter: Arc::clone(limiter), key }), None),
            Ok(_) => (None, None),
            Err(Refused { over, wait }) => {
                let answer = HttpAnswer::TooMany { limit: rules.allowance(over), wait };
                (None, Some(Refusal { reason: refused_for(over), answer }))
            }
        }
    }
}

/// What a client is refused for that is over this limit.
pub(super) fn refused_for(over: Over) -> RefuseReason {
    match over {
        Over::Rate => RefuseReason::Limit,
        Over::Concurrent => RefuseReason::Concurrent,
        Over::ListenerRate => RefuseReason::ListenerRate,
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

/// Errors that pass only when descriptors or kernel memory become free.
pub(super) fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    )
}
