//! The part of a kernel that a stream sees: two sockets and the pipes.

use std::io;

use crate::sys::socket::ConnectStatus;

use super::kernel::Kernel;
use super::stream::wire::{Side, Wire};

/// Two sockets of a kernel, and its pipes.
#[derive(Debug)]
pub(crate) struct Wires<'a, K: Kernel> {
    pub(crate) client: &'a K::Socket,
    pub(crate) backend: &'a K::Socket,
    pub(crate) kernel: &'a mut K,
}

impl<'a, K: Kernel> Wires<'a, K> {
    fn socket(&self, side: Side) -> &'a K::Socket {
        match side {
            Side::Client => self.client,
            Side::Backend => self.backend,
        }
    }
}

impl<K: Kernel> Wire for Wires<'_, K> {
    type Pipe = K::Pipe;

    fn receive(&mut self, from: Side, buffer: &mut [u8]) -> io::Result<usize> {
        self.kernel.receive(self.socket(from), buffer)
    }

    fn send(&mut self, to: Side, bytes: &[u8]) -> io::Result<usize> {
        self.kernel.send(self.socket(to), bytes)
    }

    fn send_last(&mut self, to: Side, bytes: &[u8]) -> io::Result<usize> {
        self.kernel.send_last(self.socket(to), bytes)
    }

    fn fill(&mut self, from: Side, pipe: &mut K::Pipe, most: usize) -> io::Result<usize> {
        self.kernel.fill(self.socket(from), pipe, most)
    }

    fn drain(&mut self, pipe: &mut K::Pipe, to: Side) -> io::Result<usize> {
        self.kernel.drain(pipe, self.socket(to))
    }

    fn shutdown_write(&mut self, to: Side) -> io::Result<()> {
        self.kernel.shutdown_write(self.socket(to))
    }

    fn unacknowledged(&mut self, to: Side) -> usize {
        self.kernel.unacknowledged(self.socket(to))
    }

    fn take_error(&mut self, side: Side) -> Option<io::Error> {
        match self.kernel.connect_status(self.socket(side)) {
            ConnectStatus::Failed(error) => Some(error),
            ConnectStatus::Pending | ConnectStatus::Established => None,
        }
    }

    fn lend_pipe(&mut self) -> Option<K::Pipe> {
        self.kernel.lend_pipe()
    }

    fn return_pipe(&mut self, pipe: K::Pipe) {
        self.kernel.return_pipe(pipe);
    }

    fn runs_short_of(&self, pipe: &K::Pipe) -> bool {
        self.kernel.runs_short_of(pipe)
    }

    fn room(&mut self, to: Side) -> usize {
        self.kernel.room(self.socket(to))
    }

    fn unload(&mut self, pipe: &mut K::Pipe) -> io::Result<Box<[u8]>> {
        self.kernel.unload(pipe)
    }
}
