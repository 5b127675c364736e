//! What the kernel has measured of a connection's handshake, and how many wait behind it.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// How long the peer took to answer the SYN, as the kernel saw it; `None` when it was sent more
/// than once, for a Unix socket, and for one that is not connected.
///
/// Ask right after the handshake: later round trips count as well (tcp(7), TCP_INFO; the first
/// sample is the estimate, RFC 6298, section 2.2).
#[must_use]
pub fn handshake_time(socket: BorrowedFd<'_>) -> Option<Duration> {
    let info = tcp_info(socket)?;
    let is_measured = info.tcpi_rtt > 0 && info.tcpi_total_retrans == 0;
    is_measured.then(|| Duration::from_micros(u64::from(info.tcpi_rtt)))
}

/// Connections that wait in the accept queue of a listening socket; `None` for a Unix socket.
/// TCP_INFO of a listening socket has their number as `tcpi_unacked` (tcp_get_info of the kernel).
#[must_use]
pub fn queue_length(listening: BorrowedFd<'_>) -> Option<u32> {
    tcp_info(listening).map(|info| info.tcpi_unacked)
}

fn tcp_info(socket: BorrowedFd<'_>) -> Option<libc::tcp_info> {
    // SAFETY: `tcp_info` consists of integers, for which zeros are a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    // SAFETY: the descriptor is open for the life of the borrow; the kernel writes at most `length`
    // bytes into a live `tcp_info` of that size, and one `socklen_t`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    (result == 0).then_some(info)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use super::*;

    // If this fails, the delay of a busy worker is taken for slowness of its backends.
    #[test]
    fn only_the_handshake_is_measured() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let before = Instant::now();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let most = before.elapsed() + Duration::from_micros(1);
        let time = handshake_time(socket.as_fd()).unwrap();
        assert!(time > Duration::ZERO && time <= most, "{time:?} of {most:?}");
        let (unix, _other) = UnixStream::pair().unwrap();
        assert_eq!(handshake_time(unix.as_fd()), None);
        assert_eq!(handshake_time(listener.as_fd()), None);
    }

    // If this fails, an upgrade does not tell how many clients waited meanwhile.
    #[test]
    fn waiting_connections_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(queue_length(listener.as_fd()), Some(0));
        let address = listener.local_addr().unwrap();
        let _waiting: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        let until = Instant::now() + Duration::from_secs(10);
        while queue_length(listener.as_fd()) != Some(3) {
            assert!(Instant::now() < until, "{:?}", queue_length(listener.as_fd()));
            std::thread::yield_now();
        }
        let (unix, _other) = UnixStream::pair().unwrap();
        assert_eq!(queue_length(unix.as_fd()), None);
    }
}
