//! How many bytes a socket would take now.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::process;

/// The answer to SO_MEMINFO, as far as it is asked for (linux/sock_diag.h).
type MemoryInfo = [u32; 6];
const WMEM_ALLOC: usize = libc::SK_MEMINFO_WMEM_ALLOC as usize;
const SNDBUF: usize = libc::SK_MEMINFO_SNDBUF as usize;
const WMEM_QUEUED: usize = libc::SK_MEMINFO_WMEM_QUEUED as usize;
/// Bytes that a socket is believed to take where its numbers do not say.
const LEAST: usize = 16 * 1024;
/// SIOCOUTQNSD: bytes that a TCP socket has not sent yet (linux/sockios.h).
const SIOCOUTQNSD: libc::Ioctl = 0x894B;

/// Bytes that a TCP socket of this host keeps unsent before it takes no more; `None` without such a
/// bound (`net.ipv4.tcp_notsent_lowat`, ip-sysctl).
#[must_use]
pub fn unsent_max() -> Option<u32> {
    let bytes = process::sysctl_number("net/ipv4/tcp_notsent_lowat")?;
    u32::try_from(bytes).ok().filter(|bytes| *bytes < u32::MAX)
}

/// Bytes that a socket has room for: its send buffer without what is queued there, and no more than
/// lacks to `unsent_max`. An estimate: a kernel short of memory takes less, the last segment may
/// take more.
///
/// 0 is less than poll(2) calls writable, a third of what TCP may queue; epoll tells once there is
/// more: that it was asked for is what has the kernel tell.
#[must_use]
pub fn room(socket: BorrowedFd<'_>, unsent_max: Option<u32>) -> usize {
    let Some([free, taken]) = send_buffer(socket) else { return LEAST };
    let room = unsent_max.map_or(free, |most| free.min(most.saturating_sub(unsent(socket))));
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    if room > 0 && free >= taken / 2 {
        return room;
    }
    let mut asked = [PollFd::from_borrowed_fd(socket, PollFlags::OUT)];
    match poll(&mut asked, Some(&Timespec::default())) {
        Ok(0) => 0,
        // Writable by now; or a write tells what is wrong.
        _ => room.max(LEAST),
    }
}

/// Bytes that are free in a send buffer, and bytes that are taken; `None` of what is no socket.
fn send_buffer(socket: BorrowedFd<'_>) -> Option<[u32; 2]> {
    let mut numbers = MemoryInfo::default();
    let mut length = libc::socklen_t::try_from(size_of_val(&numbers)).ok()?;
    // SAFETY: the descriptor is open for the life of the borrow; the kernel writes at most `length`
    // bytes into live integers of that size, and one `socklen_t`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            numbers.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    // TCP counts what it has queued, a Unix socket what it has allocated.
    let taken = numbers[WMEM_QUEUED].max(numbers[WMEM_ALLOC]);
    (result == 0).then_some([numbers[SNDBUF].saturating_sub(taken), taken])
}

/// Bytes that a TCP socket has not sent yet; 0 for any other.
fn unsent(socket: BorrowedFd<'_>) -> u32 {
    let mut count: libc::c_int = 0;
    // SAFETY: the descriptor is open for the life of the borrow, and SIOCOUTQNSD writes one `c_int`
    // through a pointer to a live one.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCOUTQNSD, &raw mut count) };
    if result == 0 { u32::try_from(count).unwrap_or(0) } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use mio::unix::SourceFd;
    use mio::{Events, Interest, Poll, Token};

    use super::*;

    /// Fills a socket.
    fn fill(mut socket: impl Write) {
        let chunk = vec![0; 16 * 1024];
        loop {
            match socket.write(&chunk) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    // If this fails, pipes stay with directions whose target is full; or bytes wait although there
    // is room, or for an event that does not come.
    #[test]
    fn a_full_socket_has_no_room_and_epoll_tells_once_it_has() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (reader, _) = listener.accept().unwrap();
        let (unix, unix_reader) = UnixStream::pair().unwrap();
        tcp.set_nonblocking(true).unwrap();
        unix.set_nonblocking(true).unwrap();
        let readers: [Box<dyn Read>; 2] = [Box::new(reader), Box::new(unix_reader)];
        for (socket, mut reader) in [OwnedFd::from(tcp), unix.into()].into_iter().zip(readers) {
            let mut epoll = Poll::new().unwrap();
            let mut source = SourceFd(&socket.as_raw_fd());
            epoll.registry().register(&mut source, Token(0), Interest::WRITABLE).unwrap();
            let mut events = Events::with_capacity(1);
            epoll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            let empty = room(socket.as_fd(), None);
            assert!((32 * 1024..usize::MAX).contains(&empty), "{empty}");
            assert!(room(socket.as_fd(), Some(9)) <= empty);
            fill(std::fs::File::from(socket.try_clone().unwrap()));
            assert_eq!(room(socket.as_fd(), None), 0);
            epoll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            let mut buffer = vec![0; 64 * 1024];
            while events.is_empty() {
                assert!(reader.read(&mut buffer).unwrap() > 0);
                epoll.poll(&mut events, Some(Duration::from_millis(1))).unwrap();
            }
            assert!(room(socket.as_fd(), None) > 0, "told, and there is none");
        }
    }

    // If this fails, a host that bounds what is unsent has its pipes taken by readers that stop.
    #[test]
    fn what_may_be_unsent_bounds_the_room() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        tcp.set_nonblocking(true).unwrap();
        assert_eq!(room(tcp.as_fd(), Some(5000)), 5000);
        fill(&tcp);
        assert!(unsent(tcp.as_fd()) > 0);
        let (unix, _other) = UnixStream::pair().unwrap();
        assert_eq!(unsent(unix.as_fd()), 0);
    }
}
