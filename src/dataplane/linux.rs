//! The kernel that serves: epoll, sockets and pipes of Linux.
//!
//! Each socket is registered once, edge-triggered, for everything. One case needs more: while a
//! target is full, every arrival at its source is an edge that the worker cannot act on; a fast
//! server behind a slow client gives thousands a second. The first that tells nothing new mutes the
//! source; once its bytes move again it is heard again, and the kernel then tells at once what has
//! come meanwhile. See docs/adr/0017.

pub mod pipes;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::policy::client::Client;
use crate::shared::{Address, Gate};
use crate::sys::accepting::AcceptingSocket;
use crate::sys::gate;
use crate::sys::handshake;
use crate::sys::process;
use crate::sys::room;
use crate::sys::socket::{self, ConnectStatus, KeepaliveOptions, ListenOptions};
use crate::sys::source::{self, Unconnected};
use crate::sys::splice::Pipe;
use crate::sys::unix;

use self::pipes::{PipePool, PipeShare};
use super::kernel::{Dial, Kernel, Wake};
use super::slots::Addressed;

/// Everything there is to hear.
const ALL: Interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);
/// Room to write; errors and hang-ups are always told. An arrival counts as priority, too.
const MUTED: Interest = Interest::WRITABLE;
/// Events of a held client: it asks, and takes its answer.
const HELD: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// The epoll instance and the pipes of one worker.
#[derive(Debug)]
pub struct Linux {
    poll: Poll,
    pipes: PipePool,
    /// The lowest and the highest port that the kernel gives to connections by itself.
    ephemeral_ports: (u16, u16),
    /// Bytes that a socket keeps unsent, where this host bounds them.
    unsent_max: Option<u32>,
}

impl Linux {
    /// An epoll instance on which nothing is registered, and no pipe yet.
    ///
    /// # Errors
    /// As epoll_create1(2).
    pub fn new(pipes: PipeShare) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            pipes: PipePool::new(pipes),
            ephemeral_ports: process::ephemeral_ports(),
            unsent_max: room::unsent_max(),
        })
    }

    /// What ends a sleep in [`Self::poll`].
    ///
    /// # Errors
    /// As eventfd(2) and epoll_ctl(2).
    pub fn waker(&self) -> io::Result<Arc<Waker>> {
        Waker::new(self.poll.registry(), Addressed::Waker.token()).map(Arc::new)
    }

    /// Sleeps until something happens or the time is over.
    ///
    /// # Errors
    /// As epoll_wait(2), `Interrupted` among them.
    pub fn poll(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        self.poll.poll(events, timeout)
    }

    fn reregister(&self, socket: &OwnedFd, token: Token, interest: Interest) -> io::Result<()> {
        self.poll.registry().reregister(&mut SourceFd(&socket.as_raw_fd()), token, interest)
    }
}

impl Wake for Waker {
    fn wake(&self) -> io::Result<()> {
        Self::wake(self)
    }
}

impl Kernel for Linux {
    type Socket = OwnedFd;
    type ListeningSocket = AcceptingSocket;
    type Pipe = Pipe;
    type Reserve = OwnedFd;

    fn accept(&mut self, from: &AcceptingSocket) -> io::Result<(OwnedFd, Client)> {
        let (socket, peer) = from.accept()?;
        Ok((socket, Client::from(peer)))
    }

    fn watch_listening(
        &mut self,
        socket: &AcceptingSocket,
        token: Token,
        is_shared: bool,
    ) -> io::Result<()> {
        let (registry, socket) = (self.poll.registry(), socket.as_fd());
        if is_shared {
            return socket::watch_shared(registry, socket, token.0 as u64);
        }
        registry.register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)
    }

    fn unwatch_listening(&mut self, socket: &AcceptingSocket) {
        // Fails only for one whose registration has failed.
        let _unregistered = socket::unwatch(self.poll.registry(), socket.as_fd());
    }

    fn retune(&mut self, socket: &AcceptingSocket, options: &ListenOptions) {
        // A new socket of this kind was given these options; a kernel that refuses them here leaves
        // the old ones in force.
        let _old_options_kept = socket.retune(options);
    }

    fn put_gate(&mut self, socket: &AcceptingSocket, gate: Option<&Gate>) -> io::Result<()> {
        match gate {
            Some(gate) => gate.kernel.put_before(socket.as_fd()),
            None => gate::open(socket.as_fd()),
        }
    }

    fn reserve(&mut self) -> io::Result<OwnedFd> {
        process::reserve_descriptor()
    }

    fn connect(&mut self, to: &Address, dial: Dial) -> Result<OwnedFd, Unconnected> {
        match (to, dial.from) {
            (Address::Ip(address), None) => {
                socket::connect(*address, dial.user_timeout).map_err(Unconnected::Failed)
            }
            (Address::Ip(address), Some(from)) => {
                source::connect(from, *address, dial.user_timeout)
            }
            (Address::Host(_), _) => Err(Unconnected::Failed(ErrorKind::InvalidInput.into())),
            (Address::Unix(path), _) => unix::connect(path).map_err(Unconnected::Failed),
        }
    }

    fn connect_status(&mut self, socket: &OwnedFd) -> ConnectStatus {
        socket::connect_status(socket.as_fd())
    }

    fn is_self_connected(&mut self, socket: &OwnedFd, to: SocketAddr) -> bool {
        let (low, high) = self.ephemeral_ports;
        (low..=high).contains(&to.port()) && socket::is_self_connected(socket.as_fd(), to)
    }

    fn local_address(&mut self, socket: &OwnedFd) -> io::Result<SocketAddr> {
        socket::local_address(socket.as_fd())
    }

    fn peer_address(&mut self, socket: &OwnedFd) -> io::Result<SocketAddr> {
        socket::peer_address(socket.as_fd())
    }

    fn register(&mut self, socket: &OwnedFd, token: Token) -> io::Result<()> {
        self.poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), token, ALL)
    }

    fn deregister(&mut self, socket: &OwnedFd) {
        // Fails only for one that is not registered.
        let _unregistered = self.poll.registry().deregister(&mut SourceFd(&socket.as_raw_fd()));
    }

    fn mute(&mut self, socket: &OwnedFd, token: Token) -> io::Result<()> {
        self.reregister(socket, token, MUTED)
    }

    fn unmute(&mut self, socket: &OwnedFd, token: Token) -> io::Result<()> {
        self.reregister(socket, token, ALL)
    }

    fn register_held(&mut self, socket: &OwnedFd, token: Token) -> io::Result<()> {
        match self.poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), token, HELD) {
            // It was that of a session before.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                self.reregister(socket, token, HELD)
            }
            registered => registered,
        }
    }

    fn receive(&mut self, from: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
        socket::receive(from.as_fd(), buffer)
    }

    fn send(&mut self, to: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
        socket::send(to.as_fd(), bytes)
    }

    fn send_last(&mut self, to: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
        socket::send_last(to.as_fd(), bytes)
    }

    fn fill(&mut self, from: &OwnedFd, pipe: &mut Pipe, most: usize) -> io::Result<usize> {
        pipe.fill(from.as_fd(), most)
    }

    fn drain(&mut self, pipe: &mut Pipe, to: &OwnedFd) -> io::Result<usize> {
        pipe.drain(to.as_fd())
    }

    fn shutdown_write(&mut self, socket: &OwnedFd) -> io::Result<()> {
        socket::shutdown_write(socket.as_fd())
    }

    fn unacknowledged(&mut self, socket: &OwnedFd) -> usize {
        socket::unacknowledged(socket.as_fd())
    }

    fn reset_on_close(&mut self, socket: &OwnedFd) {
        socket::reset_on_close(socket.as_fd());
    }

    fn set_keepalive(
        &mut self,
        socket: &OwnedFd,
        options: &KeepaliveOptions,
        user_timeout: Option<Duration>,
    ) {
        let _reset = socket::set_keepalive(socket.as_fd(), options, user_timeout);
    }

    fn handshake_time(&mut self, socket: &OwnedFd) -> Option<Duration> {
        handshake::handshake_time(socket.as_fd())
    }

    fn shrink_receive_buffer(&mut self, socket: &OwnedFd, bytes: usize) {
        socket::shrink_receive_buffer(socket.as_fd(), bytes);
    }

    fn lend_pipe(&mut self) -> Option<Pipe> {
        self.pipes.lend()
    }

    fn return_pipe(&mut self, pipe: Pipe) {
        self.pipes.take_back(pipe);
    }

    fn runs_short_of(&self, pipe: &Pipe) -> bool {
        self.pipes.runs_short_of(pipe.capacity())
    }

    fn room(&mut self, to: &OwnedFd) -> usize {
        room::room(to.as_fd(), self.unsent_max).min(self.pipes.next_scarce_batch())
    }

    fn unload(&mut self, pipe: &mut Pipe) -> io::Result<Box<[u8]>> {
        self.pipes.note_unloaded(pipe.held());
        pipe.unload()
    }

    fn pipes_lent(&self) -> usize {
        self.pipes.lent()
    }

    fn close_idle_pipes(&mut self) -> usize {
        self.pipes.release_idle()
    }

    fn time_of_day(&self) -> SystemTime {
        SystemTime::now()
    }
}
