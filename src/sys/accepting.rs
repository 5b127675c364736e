//! A listening socket as a worker has it: what it accepts is ready to serve.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::multipath;
use super::socket::{self, ListenOptions};
use super::unix;

/// A listening socket, of TCP, Multipath TCP or a Unix stream.
#[derive(Debug)]
pub struct AcceptingSocket {
    /// Closed with this, unless an upgrade passes it on at that moment.
    socket: Arc<OwnedFd>,
    /// Of Multipath TCP: the TCP_USER_TIMEOUT of accepted sockets, which do not inherit it.
    not_inherited: Option<Cell<Option<Duration>>>,
}

impl AcceptingSocket {
    /// A socket that listens already, with the TCP_USER_TIMEOUT of its options.
    #[must_use]
    pub fn new(socket: Arc<OwnedFd>, user_timeout: Option<Duration>) -> Self {
        let is_multipath = multipath::is_multipath(socket.as_fd());
        let not_inherited = is_multipath.then(|| Cell::new(user_timeout));
        Self { socket, not_inherited }
    }

    /// Takes one connection, non-blocking, with the peer's address; `None` is a Unix socket.
    ///
    /// # Errors
    /// As [`socket::accept`].
    pub fn accept(&self) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
        let accepted = socket::accept(self.socket.as_fd())?;
        if let Some(user_timeout) = &self.not_inherited {
            multipath::complete(accepted.0.as_fd(), user_timeout.get());
        }
        Ok(accepted)
    }

    /// Changes its options, for what it accepts from now on; Multipath TCP stays as it is.
    ///
    /// # Errors
    /// As setsockopt(2) and listen(2); options before the one refused are in force.
    pub fn retune(&self, options: &ListenOptions) -> io::Result<()> {
        let socket = self.socket.as_fd();
        if unix::is_unix(socket) {
            return unix::set_backlog(socket, options.backlog);
        }
        if let Some(user_timeout) = &self.not_inherited {
            user_timeout.set(options.user_timeout);
        }
        socket::retune(socket, options)
    }
}

impl AsFd for AcceptingSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::net::Ipv4Addr;

    use rustix::net::sockopt;
    use socket2::{Domain, Protocol, SockRef, Socket, Type};

    use crate::sys::process::sysctl_number;
    use crate::sys::socket::{KeepaliveOptions, listen};

    const TIMEOUT: Duration = Duration::from_millis(1234);

    /// All combinations of the five options.
    fn kinds() -> impl Iterator<Item = ListenOptions> {
        let second = Duration::from_secs(1);
        (0_u8..32).map(move |bits| ListenOptions {
            backlog: 16,
            keepalive: KeepaliveOptions { idle: second, interval: second, count: 2 },
            user_timeout: (bits & 1 != 0).then_some(TIMEOUT),
            fast_open: bits & 2 != 0,
            defer_accept: bits & 4 != 0,
            mptcp: bits & 8 != 0,
            freebind: bits & 16 != 0,
        })
    }

    /// A listening socket; `None` on a host without Multipath TCP, which has to be the reason.
    fn opened(options: &ListenOptions) -> Option<AcceptingSocket> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        match listen(address, 1, options) {
            Ok(mut sockets) => {
                let socket = Arc::new(sockets.pop().unwrap());
                Some(AcceptingSocket::new(socket, options.user_timeout))
            }
            Err(error) => {
                let host_has_it = sysctl_number("net/mptcp/enabled") == Some(1);
                assert!(options.mptcp && !host_has_it, "{options:?}: {error}");
                None
            }
        }
    }

    /// What a client gets that speaks this protocol and says a word.
    fn accepted(listening: &AcceptingSocket, protocol: Protocol) -> OwnedFd {
        let client = Socket::new(Domain::IPV4, Type::STREAM, Some(protocol)).unwrap();
        let address = socket::local_address(listening.as_fd()).unwrap();
        client.connect(&address.into()).unwrap();
        client.send(b"word").unwrap();
        let patience = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
        let mut wanted = [rustix::event::PollFd::new(listening, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut wanted, Some(&patience)).unwrap();
        listening.accept().unwrap().0
    }

    // If this fails, some combination of options cannot be listened with at all, or a client of
    // such a listener has an option less.
    #[test]
    fn every_kind_of_listener_opens_and_hands_its_options_down() {
        for options in kinds() {
            let Some(listening) = opened(&options) else { continue };
            let plain = accepted(&listening, Protocol::TCP);
            let timeout = SockRef::from(&plain).tcp_user_timeout().unwrap();
            assert_eq!(timeout, options.user_timeout, "{options:?}");
            assert_eq!(sockopt::socket_oobinline(&plain), Ok(true), "{options:?}");
            if options.mptcp {
                let multipath = accepted(&listening, Protocol::MPTCP);
                assert!(multipath::is_multipath(multipath.as_fd()), "{options:?}");
            }
        }
    }

    // If this fails, a reload that changes an option of a listener has no effect, or fails.
    #[test]
    fn every_kind_of_listener_can_be_retuned() {
        for from in kinds() {
            let Some(listening) = opened(&from) else { continue };
            for to in kinds().filter(|to| to.mptcp == from.mptcp) {
                listening.retune(&to).unwrap_or_else(|error| panic!("{from:?} {to:?}: {error}"));
            }
            listening.retune(&from).unwrap();
            let plain = accepted(&listening, Protocol::TCP);
            let timeout = SockRef::from(&plain).tcp_user_timeout().unwrap();
            assert_eq!(timeout, from.user_timeout, "{from:?}");
        }
    }
}
