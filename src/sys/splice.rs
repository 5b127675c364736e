//! splice(2): move bytes from one socket to another through a pipe, without copying them.
//!
//! A pipe is filled only while it is empty and drained fully before the next fill. `EAGAIN` on a
//! fill can then only mean "the socket is empty", never "the pipe has no free slot"; a slot is one
//! socket buffer fragment of any size, so a pipe may be full at a fraction of its nominal bytes.
//! Never `SPLICE_F_MORE`: it corks the target for up to 200 ms. See splice(2), pipe(7).

use std::io::{self, ErrorKind};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// How large a pipe is.
///
/// What counts is its slots, one for each 4 KiB: a packet takes one, however small. The 16 of a
/// pipe of 64 KiB, the kernel's default, are used up by 23 KB of MSS-sized packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capacity {
    /// 1 MiB: 370 KB of MSS-sized packets in one call.
    Wide,
    /// 256 KiB: enough where packets come in large, and four fit where one of the others does.
    Narrow,
}

impl Capacity {
    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Wide => 1024 * 1024,
            Self::Narrow => 256 * 1024,
        }
    }
}

/// A pipe and the bytes that are in it.
#[derive(Debug)]
pub struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    held: usize,
    capacity: Capacity,
}

impl Pipe {
    /// Makes an empty pipe.
    ///
    /// # Errors
    /// What pipe2(2) reports, `EMFILE` and `ENFILE` above all, and `EPERM` when the user has used
    /// up `fs.pipe-user-pages-soft`: the pipe would have two pages, and copying is cheaper.
    pub fn new(capacity: Capacity) -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        fcntl_setpipe_size(&writer, capacity.bytes())?;
        Ok(Self { reader, writer, held: 0, capacity })
    }

    /// How large it is.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// Bytes that were filled in and not drained yet.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// Moves what `source` has received, at most `most` bytes, into the empty pipe; 0 is end of
    /// stream.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has been received; otherwise the socket's error.
    pub fn fill(&mut self, source: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        debug_assert_eq!(self.held, 0, "only an empty pipe may be filled");
        let most = most.min(self.capacity.bytes());
        let moved = splice(source, None, &self.writer, None, most, SpliceFlags::NONBLOCK)?;
        self.held = moved;
        Ok(moved)
    }

    /// Reads everything that the pipe holds.
    ///
    /// # Errors
    /// As read(2). A pipe gives at once what it holds (pipe(7)): `UnexpectedEof` would be less than
    /// was filled in.
    pub fn unload(&mut self) -> io::Result<Box<[u8]>> {
        let mut bytes = vec![0; self.held].into_boxed_slice();
        let mut rest = &mut *bytes;
        while !rest.is_empty() {
            let read =
                match rustix::io::retry_on_intr(|| rustix::io::read(&self.reader, &mut *rest))? {
                    0 => return Err(ErrorKind::UnexpectedEof.into()),
                    read => read,
                };
            self.held -= read;
            rest = rest.get_mut(read..).unwrap_or_default();
        }
        Ok(bytes)
    }

    /// Moves bytes out of the pipe into `target`'s send buffer; returns how many went.
    ///
    /// # Errors
    /// `WouldBlock` when the target takes nothing now; otherwise the socket's error.
    pub fn drain(&mut self, target: BorrowedFd<'_>) -> io::Result<usize> {
        let moved = splice(&self.reader, None, target, None, self.held, SpliceFlags::NONBLOCK)?;
        self.held -= moved;
        Ok(moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    // If this fails, spliced bytes are lost, repeated or reordered.
    #[test]
    fn bytes_arrive_in_order_and_are_accounted_for() {
        let (mut client, inside) = UnixStream::pair().unwrap();
        let (outside, mut backend) = UnixStream::pair().unwrap();
        inside.set_nonblocking(true).unwrap();
        outside.set_nonblocking(true).unwrap();
        let mut pipe = Pipe::new(Capacity::Narrow).unwrap();
        assert_eq!(
            pipe.fill(inside.as_fd(), 9).unwrap_err().kind(),
            ErrorKind::WouldBlock,
            "an empty pipe and an empty socket"
        );
        client.write_all(b"splice me").unwrap();
        assert_eq!(pipe.fill(inside.as_fd(), 6).unwrap(), 6, "no more than asked for");
        assert_eq!(pipe.drain(outside.as_fd()).unwrap(), 6);
        assert_eq!(pipe.fill(inside.as_fd(), usize::MAX).unwrap(), 3);
        assert_eq!(pipe.held(), 3);
        assert_eq!(pipe.drain(outside.as_fd()).unwrap(), 3);
        assert_eq!(pipe.held(), 0);
        let mut got = [0_u8; 9];
        backend.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"splice me");
        drop(client);
        assert_eq!(pipe.fill(inside.as_fd(), 1).unwrap(), 0, "end of stream");
    }

    // If this fails, a direction that gives its pipe back loses or repeats bytes.
    #[test]
    fn a_pipe_is_unloaded_to_the_last_byte() {
        let (mut client, inside) = UnixStream::pair().unwrap();
        let (outside, _backend) = UnixStream::pair().unwrap();
        let mut pipe = Pipe::new(Capacity::Narrow).unwrap();
        let sent: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
        client.write_all(&sent).unwrap();
        let mut got = Vec::new();
        while got.len() < sent.len() {
            let filled = pipe.fill(inside.as_fd(), usize::MAX).unwrap();
            got.extend(pipe.unload().unwrap());
            assert_eq!((pipe.held(), filled > 0), (0, true));
        }
        assert!(got == sent, "other bytes than were sent");
        assert!(pipe.unload().unwrap().is_empty());
        assert_eq!(pipe.drain(outside.as_fd()).unwrap(), 0, "nothing is left");
    }
}
