//! The floor that `versus.py` compares with: a relay that does the same work without any feature.
//!
//! One thread, one epoll, one fixed backend for each listening address; accept, connect, copy or
//! splice, half-close, and nothing else: no limits, no timers, no log, no choice. An error of
//! either side ends the session. What evenkeel costs above this is the price of its features.
//!
//!     bare-relay LISTEN=BACKEND...

#![allow(missing_docs, reason = "a program for measuring, not an interface")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use evenkeel::sys::socket::{self, ConnectStatus};
use evenkeel::sys::splice::{Capacity, Pipe};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

const BACKLOG: i32 = 4096;
const EVENTS: usize = 1024;
const SCRATCH_BYTES: usize = 64 * 1024;
/// A read of at least this many bytes makes a direction splice, a smaller fill makes it copy.
const LARGE_READ_BYTES: usize = 32 * 1024;
const SMALL_FILL_BYTES: usize = 8 * 1024;
/// Batches of one direction before the others have their turn.
const BATCHES: usize = 4;
const CLIENT: usize = 0;
const BACKEND: usize = 1;

/// One socket of a session, and the direction that begins at it.
struct End {
    socket: OwnedFd,
    readable: bool,
    writable: bool,
    /// FIN has come, so no edge will tell of what is still unread.
    over: bool,
    spill: Vec<u8>,
    pipe: Option<Pipe>,
    splices: bool,
    ended: bool,
    finished: bool,
}

impl End {
    fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            readable: false,
            writable: false,
            over: false,
            spill: Vec::new(),
            pipe: None,
            splices: false,
            ended: false,
            finished: false,
        }
    }
}

struct Session {
    ends: [End; 2],
    connected: bool,
}

/// What all sessions share.
struct Lent {
    scratch: Box<[u8]>,
    pipes: Vec<Pipe>,
}

impl Session {
    /// Moves what can be moved; true when there may be more.
    fn advance(&mut self, lent: &mut Lent) -> io::Result<bool> {
        let more = self.pump(CLIENT, lent)?;
        Ok(self.pump(BACKEND, lent)? || more)
    }

    fn pump(&mut self, from: usize, lent: &mut Lent) -> io::Result<bool> {
        let [client, backend] = &mut self.ends;
        let (source, target) = if from == CLIENT { (client, backend) } else { (backend, client) };
        for _ in 0..BATCHES {
            if source.finished || !deliver(source, target, lent)? {
                return Ok(false);
            }
            if source.ended {
                source.finished = true;
                socket::shutdown_write(target.socket.as_fd())?;
                return Ok(false);
            }
            if !source.readable || !target.writable {
                return Ok(false);
            }
            take(source, target, lent)?;
        }
        Ok(true)
    }

    fn is_over(&self) -> bool {
        self.ends.iter().all(|end| end.finished)
    }
}

/// `None` instead of the error that says "not now".
fn now<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Delivers what `source` holds; true when nothing is left.
fn deliver(source: &mut End, target: &mut End, lent: &mut Lent) -> io::Result<bool> {
    while target.writable && !source.spill.is_empty() {
        match now(socket::send(target.socket.as_fd(), &source.spill))? {
            Some(sent) => drop(source.spill.drain(..sent)),
            None => target.writable = false,
        }
    }
    while let Some(pipe) = &mut source.pipe {
        if pipe.held() == 0 {
            lent.pipes.extend(source.pipe.take());
        } else if !target.writable || now(pipe.drain(target.socket.as_fd()))?.is_none() {
            target.writable = false;
            return Ok(false);
        }
    }
    Ok(source.spill.is_empty())
}

/// Takes one batch.
fn take(source: &mut End, target: &mut End, lent: &mut Lent) -> io::Result<()> {
    if source.splices
        && let Some(mut pipe) = lent.pipes.pop().or_else(|| Pipe::new(Capacity::Wide).ok())
    {
        let filled = now(pipe.fill(source.socket.as_fd(), usize::MAX))?;
        source.readable = filled.is_some();
        source.ended = filled == Some(0);
        source.splices = filled.is_none_or(|filled| filled >= SMALL_FILL_BYTES);
        source.pipe = Some(pipe);
        return Ok(());
    }
    let Some(received) = now(socket::receive(source.socket.as_fd(), &mut lent.scratch))? else {
        source.readable = false;
        return Ok(());
    };
    source.ended = received == 0;
    source.readable = received == lent.scratch.len() || source.over;
    source.splices = received >= LARGE_READ_BYTES;
    let bytes = &lent.scratch[..received];
    let sent = now(socket::send(target.socket.as_fd(), bytes))?.unwrap_or(0);
    source.spill.extend_from_slice(&bytes[sent..]);
    target.writable = sent == received;
    Ok(())
}

struct Relay {
    poll: Poll,
    listeners: Vec<(OwnedFd, SocketAddr)>,
    sessions: Vec<Option<Box<Session>>>,
    free: Vec<usize>,
    /// Places that become free after this batch of events: it may still speak of them.
    closed: Vec<usize>,
    busy: Vec<usize>,
    lent: Lent,
}

impl Relay {
    fn new(pairs: &[(SocketAddr, SocketAddr)]) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listeners = Vec::new();
        for (index, (address, backend)) in pairs.iter().enumerate() {
            let socket = listen(*address)?;
            register(poll.registry(), &socket, index)?;
            listeners.push((socket, *backend));
        }
        let lent = Lent { scratch: vec![0; SCRATCH_BYTES].into(), pipes: Vec::new() };
        let (free, closed, busy) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { poll, listeners, sessions: Vec::new(), free, closed, busy, lent })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let timeout = (!self.busy.is_empty()).then_some(std::time::Duration::ZERO);
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for index in std::mem::take(&mut self.busy) {
                self.advance(index);
            }
            for event in &events {
                match event.token().0.checked_sub(self.listeners.len()) {
                    Some(place) => self.note(place / 2, place % 2, event),
                    None => self.accept(event.token().0),
                }
            }
            self.free.append(&mut self.closed);
        }
    }

    fn accept(&mut self, listener: usize) {
        loop {
            let (socket, backend) = &self.listeners[listener];
            // Any error: the next edge tells of the next connection.
            let Ok((client, _)) = socket::accept(socket.as_fd()) else { return };
            let backend = *backend;
            // A client that cannot be served is closed.
            let _closed = self.open(client, backend);
        }
    }

    fn open(&mut self, client: OwnedFd, backend: SocketAddr) -> io::Result<()> {
        let client = End::new(client);
        let backend = End::new(socket::connect(backend, None)?);
        let index = self.free.pop().unwrap_or(self.sessions.len());
        let token = self.listeners.len() + 2 * index;
        register(self.poll.registry(), &client.socket, token + CLIENT)?;
        register(self.poll.registry(), &backend.socket, token + BACKEND)?;
        let session = Box::new(Session { ends: [client, backend], connected: false });
        if index == self.sessions.len() {
            self.sessions.push(None);
        }
        self.sessions[index] = Some(session);
        Ok(())
    }

    fn note(&mut self, index: usize, side: usize, event: &mio::event::Event) {
        let Some(session) = &mut self.sessions[index] else { return };
        let end = &mut session.ends[side];
        end.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        end.over |= event.is_read_closed() || event.is_error();
        end.writable |= event.is_writable();
        if side == BACKEND && !session.connected {
            match socket::connect_status(session.ends[BACKEND].socket.as_fd()) {
                ConnectStatus::Pending => {
                    session.ends[BACKEND].writable = false;
                    return;
                }
                ConnectStatus::Established => session.connected = true,
                ConnectStatus::Failed(_) => return self.close(index),
            }
        }
        if session.connected {
            self.advance(index);
        }
    }

    fn advance(&mut self, index: usize) {
        let Some(session) = &mut self.sessions[index] else { return };
        match session.advance(&mut self.lent) {
            Ok(_) if session.is_over() => self.close(index),
            Ok(true) if !self.busy.contains(&index) => self.busy.push(index),
            Ok(_) => {}
            Err(_) => self.close(index),
        }
    }

    fn close(&mut self, index: usize) {
        self.sessions[index] = None;
        self.closed.push(index);
    }
}

fn listen(address: SocketAddr) -> io::Result<OwnedFd> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn register(registry: &Registry, socket: &OwnedFd, token: usize) -> io::Result<()> {
    let everything = Interest::READABLE | Interest::WRITABLE;
    registry.register(&mut SourceFd(&socket.as_raw_fd()), Token(token), everything)
}

fn main() {
    let pairs: Vec<(SocketAddr, SocketAddr)> = std::env::args()
        .skip(1)
        .map(|pair| {
            let (listen, backend) = pair.split_once('=').unwrap();
            (listen.parse().unwrap(), backend.parse().unwrap())
        })
        .collect();
    evenkeel::sys::process::raise_descriptor_limit().unwrap();
    Relay::new(&pairs).unwrap().run().unwrap();
}
