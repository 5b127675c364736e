//! What a session may ask of its two sockets.
//!
//! A trait, so that the state machines of [`super::relay`] and [`super::Stream`] can be run
//! against scripted sockets: every short write, `EAGAIN`, EOF and reset, in every order, without
//! a kernel.

use std::io;

use crate::sys::splice::Pipe;

/// One end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The host that connected to the listener.
    Client = 0,
    /// The server that the worker connected to.
    Backend = 1,
}

/// Both, in their order.
pub const SIDES: [Side; 2] = [Side::Client, Side::Backend];

impl Side {
    /// The opposite end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Backend,
            Self::Backend => Self::Client,
        }
    }
}

/// A pipe that knows how much it holds.
pub trait Holds {
    /// Bytes in it.
    fn held(&self) -> usize;
}

/// The two sockets of a session, non-blocking, and the pipes of its worker.
pub trait Wire {
    /// Carries bytes between sockets without copying them.
    type Pipe: Holds;

    /// Receives from one side; 0 is end of stream.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has come.
    fn receive(&mut self, from: Side, buffer: &mut [u8]) -> io::Result<usize>;

    /// Sends to one side; returns how many bytes were taken.
    ///
    /// # Errors
    /// `WouldBlock` when none are taken now.
    fn send(&mut self, to: Side, bytes: &[u8]) -> io::Result<usize>;

    /// The same with the last bytes of a stream: once all of them are taken they wait for the FIN,
    /// which has to follow at once.
    ///
    /// # Errors
    /// As [`Wire::send`].
    fn send_last(&mut self, to: Side, bytes: &[u8]) -> io::Result<usize>;

    /// Fills an empty pipe from one side with at most `most` bytes; 0 is end of stream.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has come.
    fn fill(&mut self, from: Side, pipe: &mut Self::Pipe, most: usize) -> io::Result<usize>;

    /// Drains a pipe into one side; returns how many bytes were taken.
    ///
    /// # Errors
    /// `WouldBlock` when none are taken now.
    fn drain(&mut self, pipe: &mut Self::Pipe, to: Side) -> io::Result<usize>;

    /// Sends FIN to one side.
    ///
    /// # Errors
    /// When the connection is gone already.
    fn shutdown_write(&mut self, to: Side) -> io::Result<()>;

    /// Bytes sent to one side that it has not acknowledged; 0 where nothing can get lost.
    fn unacknowledged(&mut self, to: Side) -> usize;

    /// Takes the error of one side's socket, if it has one that was not reported yet (SO_ERROR).
    fn take_error(&mut self, side: Side) -> Option<io::Error>;

    /// An empty pipe, if there is one to be had.
    fn lend_pipe(&mut self) -> Option<Self::Pipe>;

    /// Takes a pipe back; one that still holds bytes is closed, never lent again.
    fn return_pipe(&mut self, pipe: Self::Pipe);

    /// Whether so many pipes of this kind are out that none may stay with a direction that waits.
    fn runs_short_of(&self, pipe: &Self::Pipe) -> bool;

    /// Bytes that a pipe of which there are few may carry to one side: what it has room for now, as
    /// far as the kernel tells. 0: too little to begin, and an event will tell of more.
    fn room(&mut self, to: Side) -> usize;

    /// Takes everything out of a pipe, which is empty then.
    ///
    /// # Errors
    /// As read(2); a pipe gives what it holds.
    fn unload(&mut self, pipe: &mut Self::Pipe) -> io::Result<Box<[u8]>>;
}

impl Holds for Pipe {
    fn held(&self) -> usize {
        Self::held(self)
    }
}
