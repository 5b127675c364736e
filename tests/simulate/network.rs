//! The network that all sockets of a schedule belong to: accept queues, descriptors, pipes, and
//! what epoll tells of them.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::time::Duration;

use evenkeel::dataplane::clock::Tick;
use evenkeel::dataplane::slots::Addressed;
use evenkeel::dataplane::stream::Readiness;
use evenkeel::policy::first_bytes::proxy_header::ProxyVersion;
use mio::Token;

use super::pipe::Pipes;
use super::socket::{Attempt, Socket, SocketId};

/// For how long a worker leaves a socket alone that cannot accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening socket.
#[derive(Debug, Default)]
pub(crate) struct Listening {
    /// Clients that wait to be accepted.
    pub(crate) queue: VecDeque<SocketId>,
    token: Option<Token>,
    edge: bool,
    pub(crate) closed: bool,
    /// Until when accept(2) fails, and when it last did.
    fails_until: Tick,
    failed_at: Tick,
    /// It was not left alone, which is right only before it is closed.
    asked_early: bool,
}

/// How connection attempts begin.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Dialing {
    /// Backends are Unix sockets, connected at once.
    pub(crate) is_unix: bool,
    /// One attempt in this many fails before it has begun; 0 is none.
    pub(crate) fails_at_once: u8,
    /// The PROXY header that backends have to get first.
    pub(crate) greeting: Option<ProxyVersion>,
}

#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) random: fastrand::Rng,
    pub(crate) now: Tick,
    pub(crate) sockets: Vec<Socket>,
    /// One for each worker.
    pub(crate) listening: Vec<Listening>,
    pub(crate) pipes: Pipes,
    pub(crate) dialing: Dialing,
    /// Descriptors left.
    pub(crate) descriptors: usize,
    /// Times that no descriptor was left.
    pub(crate) shortages: u64,
    /// Times that a listening socket began to fail.
    pub(crate) accept_errors: u64,
    /// Connections that were gone when they were accepted.
    pub(crate) aborted: u64,
    /// Pipes that directions gave back although they had to wait.
    pub(crate) unloaded: u64,
    /// Sockets that the worker has closed.
    closings: u64,
    pub(crate) problems: Vec<String>,
    /// Tell of every call and event: for a single schedule.
    pub(crate) traces: bool,
    /// Events that come a turn or more too late, with the worker that gets them.
    late: Vec<(usize, Token, Readiness)>,
}

impl Network {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let pipes = Pipes::new(random.usize(..4));
        Self {
            random,
            now: Tick::from_micros(1_000_000),
            sockets: Vec::new(),
            listening: Vec::new(),
            pipes,
            dialing: Dialing::default(),
            descriptors: usize::MAX,
            shortages: 0,
            accept_errors: 0,
            aborted: 0,
            unloaded: 0,
            closings: 0,
            problems: Vec::new(),
            traces: false,
            late: Vec::new(),
        }
    }

    pub(crate) fn trace(&self, what: impl FnOnce() -> String) {
        if self.traces {
            println!("{}", what());
        }
    }

    pub(crate) fn one_in(&mut self, many: u8) -> bool {
        self.random.u8(..many) == 0
    }

    pub(crate) fn problem(&mut self, what: String) {
        self.trace(|| format!("PROBLEM {what}"));
        self.problems.push(what);
    }

    /// Takes a descriptor.
    pub(crate) fn descriptor(&mut self) -> io::Result<()> {
        match self.descriptors.checked_sub(1) {
            Some(left) => {
                self.descriptors = left;
                Ok(())
            }
            None => {
                self.shortages += 1;
                Err(rustix::io::Errno::MFILE.into())
            }
        }
    }

    pub(crate) fn give_descriptors_back(&mut self, count: usize) {
        self.descriptors = self.descriptors.saturating_add(count);
    }

    /// Takes memory for an entry of an epoll instance, which a host that is short of descriptors
    /// may be short of as well.
    pub(crate) fn epoll_entry(&mut self) -> io::Result<()> {
        if self.descriptors < usize::MAX / 2 && self.one_in(16) {
            self.shortages += 1;
            return Err(rustix::io::Errno::NOMEM.into());
        }
        Ok(())
    }

    /// A client connects: it waits in the accept queue.
    pub(crate) fn knock(&mut self, listening: usize, client: Socket) -> SocketId {
        let id = self.sockets.len();
        self.sockets.push(client);
        self.listening[listening].queue.push_back(id);
        self.listening[listening].edge = true;
        id
    }

    pub(crate) fn accept(&mut self, listening: usize) -> io::Result<SocketId> {
        if self.one_in(64) {
            return Err(rustix::io::Errno::INTR.into());
        }
        self.accept_error(listening)?;
        let Some(&first) = self.listening[listening].queue.front() else {
            return Err(ErrorKind::WouldBlock.into());
        };
        self.descriptor()?;
        self.listening[listening].queue.pop_front();
        if self.sockets[first].reset && self.random.bool() {
            // Linux hands out one that was reset meanwhile; others say so.
            self.give_descriptors_back(1);
            self.sockets[first].closed = true;
            self.aborted += 1;
            return Err(rustix::io::Errno::CONNABORTED.into());
        }
        Ok(first)
    }

    /// An error of the socket itself, which lasts for a while. To ask again at once would spin.
    fn accept_error(&mut self, listening: usize) -> io::Result<()> {
        let (now, begins) = (self.now, self.one_in(128));
        let lasts = Duration::from_millis(self.random.u64(1..400));
        let its = &mut self.listening[listening];
        if begins && its.fails_until <= now {
            its.fails_until = now.after(lasts);
            self.accept_errors += 1;
        } else if its.fails_until <= now {
            return Ok(());
        } else if its.failed_at.after(ACCEPT_PAUSE) > now {
            its.asked_early = true;
        }
        its.failed_at = now;
        Err(rustix::io::Errno::INVAL.into())
    }

    pub(crate) fn listen(&mut self, listening: usize, token: Token) {
        self.listening[listening].token = Some(token);
        self.listening[listening].edge |= !self.listening[listening].queue.is_empty();
    }

    pub(crate) fn close_listening(&mut self, listening: usize) {
        let closing = &mut self.listening[listening];
        closing.closed = true;
        let left = std::mem::take(&mut closing.queue);
        // A close resets the clients that wait. With no descriptor left there is no other way.
        let fails = closing.fails_until > self.now;
        if !left.is_empty() && self.shortages == 0 && !fails {
            self.problem(format!("{} clients in the accept queue are reset", left.len()));
        }
        for client in left {
            self.sockets[client].closed = true;
        }
    }

    /// Starts to connect.
    pub(crate) fn dial(&mut self) -> io::Result<SocketId> {
        self.descriptor()?;
        let Dialing { is_unix, fails_at_once, greeting } = self.dialing;
        if fails_at_once > 0 && self.one_in(fails_at_once) {
            self.give_descriptors_back(1);
            // Of Unix sockets `WouldBlock` is a full accept queue.
            let errors = [ErrorKind::ConnectionRefused, ErrorKind::AddrNotAvailable];
            let chosen = errors[self.random.usize(..2)];
            return Err(if is_unix { ErrorKind::WouldBlock.into() } else { chosen.into() });
        }
        let speech = super::bytes::Speech::new(&mut self.random);
        let attempt = if is_unix { Attempt::Established } else { Attempt::Pending };
        let wants_greeting = greeting.is_some();
        let backend = Socket { attempt, wants_greeting, ..Socket::new(speech, &mut self.random) };
        self.sockets.push(backend);
        Ok(self.sockets.len() - 1)
    }

    /// Which two sockets are one session.
    pub(crate) fn pair(&mut self, client: SocketId, backend: Option<SocketId>) {
        self.sockets[client].across = backend;
        if let Some(backend) = backend {
            self.sockets[backend].across = Some(client);
        }
    }

    pub(crate) fn close(&mut self, id: SocketId) {
        self.give_descriptors_back(1);
        self.closings += 1;
        let socket = &mut self.sockets[id];
        socket.closed = true;
        socket.closed_as = self.closings;
        socket.registered = None;
        socket.edge = None;
        let resets = socket.resets_on_close;
        self.trace(|| format!("  close {id}, by a reset: {resets}"));
    }

    pub(crate) fn interrupted(&mut self, id: SocketId) -> io::Result<()> {
        if self.one_in(64) {
            self.sockets[id].moved += 1;
            return Err(ErrorKind::Interrupted.into());
        }
        Ok(())
    }

    /// Whether an event is late.
    pub(crate) fn has_late(&self) -> bool {
        !self.late.is_empty()
    }

    /// Events of a worker's epoll instance: in any order, not all at once, and now and then one
    /// that has been held up in the batch while its session ended.
    pub(crate) fn events(&mut self, worker: usize) -> Vec<(Token, Readiness)> {
        let late = self.late.extract_if(.., |(number, ..)| *number == worker);
        let mut events: Vec<(Token, Readiness)> = late.map(|(_, token, it)| (token, it)).collect();
        let listening = &mut self.listening[worker];
        let is_spun = std::mem::take(&mut listening.asked_early) && !listening.closed;
        if let Some(token) = listening.token.filter(|_| listening.edge && !listening.closed)
            && self.random.u8(..4) != 0
        {
            listening.edge = false;
            events.push((token, Readiness { readable: true, ..Readiness::default() }));
        }
        if is_spun {
            self.problem("a socket that cannot accept is not left alone".into());
        }
        for id in 0..self.sockets.len() {
            if self.sockets[id].registered.is_none_or(|(entry, _)| entry.worker != worker) {
                continue;
            }
            let (delivered, fresh, repeated) =
                (self.random.u8(..4) != 0, self.random.bool(), self.random.u8(..8) == 0);
            if !delivered {
                continue;
            }
            let Some(event) = self.sockets[id].take_event(fresh) else { continue };
            events.push(event);
            if repeated && self.is_about_to_end(id) {
                self.late.push((worker, event.0, event.1));
            }
        }
        if self.random.bool() {
            events.reverse();
        }
        if self.traces {
            for (token, readiness) in &events {
                println!(" {:?} {readiness:?}", Addressed::of(*token));
            }
        }
        events
    }

    /// An event can be too late only for a session that has ended: as long as it lives, its sockets
    /// give what is so. Whether it will have ended by then is not known; both are tried, but not
    /// for what a muted side was told: a turn takes up all events before it unmutes anything.
    fn is_about_to_end(&self, id: SocketId) -> bool {
        let one = &self.sockets[id];
        let Some(other) = one.across.map(|across| &self.sockets[across]) else { return false };
        let is_in_use = |socket: &Socket| socket.is_in_use && !socket.closed;
        if !is_in_use(one) || !is_in_use(other) || one.is_muted() || one.is_held() {
            return false;
        }
        let client = if one.accepted { one } else { other };
        one.peer_finished && other.peer_finished || client.reset
    }
}
