//! A channel between two processes that carries packets with descriptors (unix(7), cmsg(3)).
//!
//! Its sockets keep the bounds of packets (SOCK_SEQPACKET), and only recvmsg(2) reads them: a
//! descriptor rides on the packet it was sent with, and is neither lost by a plain read nor doubled
//! by a look ahead. Both ends are made as a pair, so that no third process can be at one of them.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType,
    recvmsg, sendmsg, shutdown, socketpair, sockopt,
};

/// Descriptors of one packet, at most; the kernel has 253 (SCM_MAX_FD).
pub const PACKET_DESCRIPTORS_MAX: usize = 252;
/// Bytes of one packet, at most.
pub const PACKET_BYTES_MAX: usize = 64 * 1024;

/// One end.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// What comes in one piece.
#[derive(Debug)]
pub struct ChannelPacket {
    /// What it says.
    pub bytes: Vec<u8>,
    /// What it brings.
    pub descriptors: Vec<OwnedFd>,
}

impl Channel {
    /// Two ends; the second one is for another process.
    ///
    /// # Errors
    /// As socketpair(2).
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(ours), theirs))
    }

    /// The end that the parent has left as standard input, which reads nothing from then on. It is
    /// not handed down to programs that this process starts.
    ///
    /// # Errors
    /// `InvalidInput` when standard input is no such end; else as fcntl(2), open(2) and dup2(2).
    pub fn from_stdin() -> io::Result<Self> {
        let stdin = io::stdin();
        let is_one = sockopt::socket_type(&stdin) == Ok(SocketType::SEQPACKET)
            && sockopt::socket_domain(&stdin) == Ok(AddressFamily::UNIX);
        if !is_one {
            let what = "standard input is no end of such a channel";
            return Err(io::Error::new(ErrorKind::InvalidInput, what));
        }
        let end = stdin.as_fd().try_clone_to_owned()?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        Ok(Self(end))
    }

    /// Sends a packet.
    ///
    /// # Errors
    /// `TimedOut` when the other end takes nothing until then, `BrokenPipe` when it is closed,
    /// `InvalidInput` for more than a packet holds; else as sendmsg(2), such as ETOOMANYREFS when
    /// too many descriptors are on their way.
    pub fn send(
        &self,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
        until: Instant,
    ) -> io::Result<()> {
        if bytes.len() > PACKET_BYTES_MAX || descriptors.len() > PACKET_DESCRIPTORS_MAX {
            return Err(io::Error::new(ErrorKind::InvalidInput, "more than a packet holds"));
        }
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PACKET_DESCRIPTORS_MAX))];
        loop {
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty()
                && !control.push(SendAncillaryMessage::ScmRights(descriptors))
            {
                return Err(io::Error::new(ErrorKind::InvalidInput, "more than a packet holds"));
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, flags) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, until)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Lets the other end send nothing from now on, nor hear anything: what it has sent before can
    /// still be received. Whoever gives a wait up knows after that whether the answer came in time,
    /// and so does the other end, whose sending then fails.
    pub fn shut(&self) {
        // Fails only for an end that is closed already.
        let _shut_already = shutdown(&self.0, Shutdown::Both);
    }

    /// Waits for the next packet; `None`: the other end is closed.
    ///
    /// # Errors
    /// `TimedOut` when none has come until then. `InvalidData` for one that was cut: by its length,
    /// or because this process may not open as many descriptors as it brings; those that were
    /// received are closed then. Else as recvmsg(2).
    pub fn receive(&self, until: Instant) -> io::Result<Option<ChannelPacket>> {
        let mut bytes = vec![0; PACKET_BYTES_MAX];
        loop {
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PACKET_DESCRIPTORS_MAX))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            let received =
                recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags);
            let received = match received {
                Ok(received) => received,
                // The other end was closed with packets unread: told once, before what it has sent.
                Err(Errno::INTR | Errno::CONNRESET) => continue,
                Err(Errno::AGAIN) => {
                    self.wait(PollFlags::IN, until)?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let mut descriptors = Vec::new();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(passed) = message {
                    descriptors.extend(passed);
                }
            }
            if received.flags.contains(ReturnFlags::CTRUNC) {
                let what = "this process may not open as many descriptors as were passed: raise \
                            its limit (LimitNOFILE=, ulimit -n)";
                return Err(io::Error::new(ErrorKind::InvalidData, what));
            }
            if received.flags.contains(ReturnFlags::TRUNC) {
                return Err(io::Error::new(ErrorKind::InvalidData, "a packet was cut"));
            }
            if received.bytes == 0 {
                // Packets have at least a byte.
                return Ok(None);
            }
            bytes.truncate(received.bytes);
            return Ok(Some(ChannelPacket { bytes, descriptors }));
        }
    }

    fn wait(&self, wanted: PollFlags, until: Instant) -> io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        let mut watched = [PollFd::new(&self.0, wanted)];
        match poll(&mut watched, Some(&timespec(left))) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn pair() -> (Channel, Channel) {
        let (one, other) = Channel::pair().unwrap();
        (one, Channel(other))
    }

    // If this fails, a descriptor arrives with another packet than its own, or not at all.
    #[test]
    fn descriptors_come_with_their_packet() {
        let (one, other) = pair();
        let passed = File::open("/dev/null").unwrap();
        let most = vec![passed.as_fd(); PACKET_DESCRIPTORS_MAX];
        one.send(b"first", &most, soon()).unwrap();
        one.send(b"second", &[], soon()).unwrap();
        for (word, count) in [(&b"first"[..], PACKET_DESCRIPTORS_MAX), (b"second", 0)] {
            let packet = other.receive(soon()).unwrap().unwrap();
            assert_eq!((&*packet.bytes, packet.descriptors.len()), (word, count));
        }
        let flags = rustix::io::fcntl_getfd(&one.0).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    // If this fails, a process waits for ever for one that is gone or hangs.
    #[test]
    fn a_closed_end_and_a_silent_one_are_told_apart() {
        let (one, other) = pair();
        let silent = other.receive(Instant::now()).unwrap_err();
        assert_eq!(silent.kind(), ErrorKind::TimedOut);
        drop(one);
        assert!(other.receive(soon()).unwrap().is_none());
        assert_eq!(other.send(b"x", &[], soon()).unwrap_err().kind(), ErrorKind::BrokenPipe);
    }

    // If this fails, the last words of a process that did not read all are lost.
    #[test]
    fn what_was_said_before_an_end_with_packets_unread_is_heard() {
        let (one, other) = pair();
        one.send(b"unread", &[], soon()).unwrap();
        other.send(b"last words", &[], soon()).unwrap();
        drop(other);
        assert_eq!(one.receive(soon()).unwrap().unwrap().bytes, b"last words");
        assert!(one.receive(soon()).unwrap().is_none());
    }

    // If this fails, an answer that came too late is taken for one that was heard, or the reverse:
    // two processes go on with one session, or none does.
    #[test]
    fn once_shut_an_answer_has_come_or_never_does() {
        let (one, other) = pair();
        other.send(b"in time", &[], soon()).unwrap();
        one.shut();
        let late = other.send(b"late", &[], soon()).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::BrokenPipe);
        assert_eq!(one.receive(soon()).unwrap().unwrap().bytes, b"in time");
        assert!(one.receive(soon()).unwrap().is_none());
    }

    // If this fails, a packet is cut in silence.
    #[test]
    fn what_is_too_long_is_refused() {
        let (one, _other) = pair();
        let long = vec![0; PACKET_BYTES_MAX + 1];
        assert_eq!(one.send(&long, &[], soon()).unwrap_err().kind(), ErrorKind::InvalidInput);
        one.send(&long[1..], &[], soon()).unwrap();
    }
}
