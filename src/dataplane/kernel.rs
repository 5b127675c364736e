//! What a worker asks of the kernel, behind one trait.
//!
//! Everything a session does to the outside goes through here: accept, connect, receive, send,
//! splice, register, close. Production is [`super::linux::Linux`]; the simulation in
//! `tests/simulate` scripts every short write, `EAGAIN`, EOF, reset and refused descriptor, in
//! every order, and drives the very worker that serves. Dropping a socket closes it.
//!
//! One thing is not here: chance. The choosers draw from the generator of their thread, which a
//! test seeds.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use mio::Token;
use rustix::io::Errno;

use crate::policy::client::Client;
use crate::shared::{Address, Gate};
use crate::sys::socket::{ConnectStatus, KeepaliveOptions, ListenOptions};
use crate::sys::source::{LocalEnd, Unconnected};

use super::stream::wire::Holds;

/// How to connect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dial {
    /// The address to come from; `None` leaves it to the kernel. A Unix socket knows no such thing.
    pub from: Option<LocalEnd>,
    /// TCP_USER_TIMEOUT, if there is to be one.
    pub user_timeout: Option<Duration>,
}

/// Ends the sleep of a worker from another thread.
pub trait Wake: fmt::Debug + Send + Sync {
    /// Has the worker take a turn soon.
    ///
    /// # Errors
    /// As write(2) on an eventfd.
    fn wake(&self) -> io::Result<()>;
}

/// The kernel, as far as one worker needs it. All sockets are non-blocking.
pub trait Kernel: fmt::Debug {
    /// A connected or connecting socket. Dropping it closes the connection.
    type Socket: fmt::Debug;
    /// A socket that accepts. Dropping it closes it.
    type ListeningSocket: fmt::Debug;
    /// Carries bytes between sockets without copying them.
    type Pipe: Holds + fmt::Debug;
    /// A descriptor held back. Dropping it makes room for one socket.
    type Reserve: fmt::Debug;

    /// Takes a connection from an accept queue.
    ///
    /// # Errors
    /// `WouldBlock` when the queue is empty; otherwise as accept4(2).
    fn accept(&mut self, from: &Self::ListeningSocket) -> io::Result<(Self::Socket, Client)>;

    /// Starts to hear of arrivals at a listening socket, edge-triggered. Of those that share a
    /// socket one is woken (EPOLLEXCLUSIVE).
    ///
    /// # Errors
    /// As epoll_ctl(2).
    fn watch_listening(
        &mut self,
        socket: &Self::ListeningSocket,
        token: Token,
        is_shared: bool,
    ) -> io::Result<()>;

    /// Ends what [`Self::watch_listening`] began: a close alone would not, as long as another
    /// worker or process has the socket.
    fn unwatch_listening(&mut self, socket: &Self::ListeningSocket);

    /// Changes the options of a listening socket, for what it accepts from now on. Options that the
    /// kernel refuses stay as they were.
    fn retune(&mut self, socket: &Self::ListeningSocket, options: &ListenOptions);

    /// Puts a gate before the address of a listening socket, in place of what stands there, or
    /// takes away what does.
    ///
    /// # Errors
    /// As [`GateKernel::put_before`](crate::shared::GateKernel::put_before).
    fn put_gate(&mut self, socket: &Self::ListeningSocket, gate: Option<&Gate>) -> io::Result<()>;

    /// Holds a descriptor back.
    ///
    /// # Errors
    /// When there is none.
    fn reserve(&mut self) -> io::Result<Self::Reserve>;

    /// Starts to connect. To a Unix socket that is done with it, and the next event says so.
    ///
    /// # Errors
    /// As socket(2), bind(2) and connect(2); `EINPROGRESS` is not an error here.
    fn connect(&mut self, to: &Address, dial: Dial) -> Result<Self::Socket, Unconnected>;

    /// How a connection attempt stands. Asking takes the socket's error, which clears it.
    fn connect_status(&mut self, socket: &Self::Socket) -> ConnectStatus;

    /// Whether a connection to this address has ended up connected to itself (simultaneous open,
    /// RFC 9293, section 3.5).
    fn is_self_connected(&mut self, socket: &Self::Socket, to: SocketAddr) -> bool;

    /// The address a socket is bound to.
    ///
    /// # Errors
    /// As getsockname(2), or `Unsupported` for another address family.
    fn local_address(&mut self, socket: &Self::Socket) -> io::Result<SocketAddr>;

    /// The address of a socket's peer.
    ///
    /// # Errors
    /// As getpeername(2), or `Unsupported` for another address family.
    fn peer_address(&mut self, socket: &Self::Socket) -> io::Result<SocketAddr>;

    /// Starts to hear of everything that happens to a socket, edge-triggered; what is so already is
    /// told at once. See docs/adr/0017.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    fn register(&mut self, socket: &Self::Socket, token: Token) -> io::Result<()>;

    /// Hears no more of a socket that another process may go on with: its registration outlives a
    /// close as long as that one has it.
    fn deregister(&mut self, socket: &Self::Socket);

    /// Hears no more of arrivals; of room to write, errors and hang-ups still.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    fn mute(&mut self, socket: &Self::Socket, token: Token) -> io::Result<()>;

    /// Hears of everything again, and at once of what has come meanwhile.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    fn unmute(&mut self, socket: &Self::Socket, token: Token) -> io::Result<()>;

    /// Starts to hear of a held client's socket, which may be registered as a session's.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    fn register_held(&mut self, socket: &Self::Socket, token: Token) -> io::Result<()>;

    /// Receives; 0 is end of stream.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has come; otherwise the socket's error.
    fn receive(&mut self, from: &Self::Socket, buffer: &mut [u8]) -> io::Result<usize>;

    /// Sends; returns how many bytes were taken.
    ///
    /// # Errors
    /// `WouldBlock` when none are taken now; otherwise the socket's error.
    fn send(&mut self, to: &Self::Socket, bytes: &[u8]) -> io::Result<usize>;

    /// As [`Self::send`], with the last bytes of a stream: once all of them are taken they wait for
    /// the FIN, which has to follow at once.
    ///
    /// # Errors
    /// As [`Self::send`].
    fn send_last(&mut self, to: &Self::Socket, bytes: &[u8]) -> io::Result<usize>;

    /// Fills an empty pipe with at most this many bytes; 0 is end of stream.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has come; otherwise the socket's error.
    fn fill(
        &mut self,
        from: &Self::Socket,
        pipe: &mut Self::Pipe,
        most: usize,
    ) -> io::Result<usize>;

    /// Drains a pipe; returns how many bytes were taken.
    ///
    /// # Errors
    /// `WouldBlock` when none are taken now; otherwise the socket's error.
    fn drain(&mut self, pipe: &mut Self::Pipe, to: &Self::Socket) -> io::Result<usize>;

    /// Sends FIN.
    ///
    /// # Errors
    /// When the connection is gone already.
    fn shutdown_write(&mut self, socket: &Self::Socket) -> io::Result<()>;

    /// Bytes sent that the peer has not acknowledged; 0 where nothing can get lost.
    fn unacknowledged(&mut self, socket: &Self::Socket) -> usize;

    /// Makes the coming close send a reset.
    fn reset_on_close(&mut self, socket: &Self::Socket);

    /// Sets keepalive, and TCP_USER_TIMEOUT if there is one. A socket that has just been reset
    /// refuses them, and its session ends by itself.
    fn set_keepalive(
        &mut self,
        socket: &Self::Socket,
        options: &KeepaliveOptions,
        user_timeout: Option<Duration>,
    );

    /// How long the peer took to answer the SYN; `None` when that is not known. Ask right after the
    /// handshake.
    fn handshake_time(&mut self, socket: &Self::Socket) -> Option<Duration>;

    /// Lets the kernel keep at most this many bytes of what the peer sends, or the least it can.
    fn shrink_receive_buffer(&mut self, socket: &Self::Socket, bytes: usize);

    /// An empty pipe, if there is one to be had.
    fn lend_pipe(&mut self) -> Option<Self::Pipe>;

    /// Takes a pipe back; one that still holds bytes is closed, never lent again.
    fn return_pipe(&mut self, pipe: Self::Pipe);

    /// Whether so many pipes of this kind are out that none may stay with a direction that waits.
    fn runs_short_of(&self, pipe: &Self::Pipe) -> bool;

    /// Bytes that a pipe of which there are few may carry to a socket: what it has room for now, as
    /// far as the kernel tells. 0: too little to begin, and an event will tell of more.
    fn room(&mut self, to: &Self::Socket) -> usize;

    /// Takes everything out of a pipe, which is empty then.
    ///
    /// # Errors
    /// As read(2); a pipe gives what it holds.
    fn unload(&mut self, pipe: &mut Self::Pipe) -> io::Result<Box<[u8]>>;

    /// Pipes that are out.
    fn pipes_lent(&self) -> usize;

    /// Closes the idle pipes, to free descriptors and memory; how many that were. New ones are made
    /// only after a while.
    fn close_idle_pipes(&mut self) -> usize;

    /// The time of day, for the session log and for answers.
    fn time_of_day(&self) -> SystemTime;
}

/// Whether an error passes only when descriptors, kernel memory or entries of epoll instances
/// (ENOSPC: fs.epoll.max_user_watches, epoll_ctl(2)) become free.
pub(super) fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::NOSPC)
    )
}
