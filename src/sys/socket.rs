//! TCP sockets: the ones that accept and the ones that go to a backend.
//!
//! Options that Linux lets an accepted socket inherit (TCP_NODELAY, keepalive, TCP_USER_TIMEOUT)
//! are set once on the listener. See tcp(7), ip(7), socket(7).

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::net::sockopt;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, ipproto,
};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::multipath;

/// Connections that may be open before their handshake is over, TCP Fast Open.
const FAST_OPEN_QUEUE: libc::c_int = 256;

/// Options of a listening socket, inherited by what it accepts where Linux does that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenOptions {
    /// Length of the accept queue; the kernel caps it at `net.core.somaxconn`.
    pub backlog: u32,
    /// Keepalive of accepted sockets.
    pub keepalive: KeepaliveOptions,
    /// TCP_USER_TIMEOUT of accepted sockets.
    pub user_timeout: Option<Duration>,
    /// Accept data in the SYN.
    pub fast_open: bool,
    /// Report a connection only once data has come, or after a second.
    pub defer_accept: bool,
    /// Speak Multipath TCP.
    pub mptcp: bool,
    /// Bind an address that this host does not have (IP_FREEBIND, ip(7)).
    pub freebind: bool,
}

/// Keepalive settings, whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepaliveOptions {
    /// Silence before the first keepalive packet.
    pub idle: Duration,
    /// Time between packets.
    pub interval: Duration,
    /// Unanswered packets that end the connection.
    pub count: u32,
}

impl KeepaliveOptions {
    fn to_socket2(self) -> TcpKeepalive {
        TcpKeepalive::new()
            .with_time(self.idle)
            .with_interval(self.interval)
            .with_retries(self.count)
    }
}

/// Opens `count` SO_REUSEPORT sockets that listen on one address.
///
/// The address is first bound without SO_REUSEPORT: a second process of the same user would
/// otherwise share the port silently and take a part of the connections.
///
/// # Errors
/// What socket(2), bind(2) and listen(2) report; none is left open then.
pub fn listen(
    address: SocketAddr,
    count: usize,
    options: &ListenOptions,
) -> io::Result<Vec<OwnedFd>> {
    let probe = unbound(address, options)?;
    probe.bind(&address.into())?;
    // Port 0: the kernel chose one, and every worker's socket must have the same.
    let bound = local_address(probe.as_fd())?;
    drop(probe);
    listen_beside(bound, count, options)
}

/// Opens `count` more sockets on an address on which sockets of [`listen`] are open, here or in
/// another process of this user.
///
/// # Errors
/// As [`listen`].
pub fn listen_beside(
    address: SocketAddr,
    count: usize,
    options: &ListenOptions,
) -> io::Result<Vec<OwnedFd>> {
    (0..count).map(|_| listen_once(address, options)).collect()
}

fn listen_once(address: SocketAddr, options: &ListenOptions) -> io::Result<OwnedFd> {
    let socket = unbound(address, options)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    apply_inherited(&socket, options)?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

fn unbound(address: SocketAddr, options: &ListenOptions) -> io::Result<Socket> {
    let protocol = if options.mptcp { Protocol::MPTCP } else { Protocol::TCP };
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // "[::]:80" must not take "0.0.0.0:80" away.
        socket.set_only_v6(true)?;
    }
    match address {
        SocketAddr::V4(_) if options.freebind => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) if options.freebind => socket.set_freebind_v6(true)?,
        _ => {}
    }
    Ok(socket)
}

fn apply_inherited(socket: &Socket, options: &ListenOptions) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&options.keepalive.to_socket2())?;
    // Of Multipath TCP both are set on what is accepted.
    if !multipath::is_multipath(socket.as_fd()) {
        // Reads pass an urgent byte over otherwise, and it may come before any event tells of it.
        socket.set_out_of_band_inline(true)?;
        socket.set_tcp_user_timeout(options.user_timeout)?;
    }
    if options.fast_open {
        set_tcp_option(socket.as_fd(), libc::TCP_FASTOPEN, FAST_OPEN_QUEUE)?;
    }
    if options.defer_accept {
        set_tcp_option(socket.as_fd(), libc::TCP_DEFER_ACCEPT, 1)?;
    }
    Ok(())
}

/// Prepares a listening socket that another process opened (systemd socket activation).
///
/// # Errors
/// What setsockopt(2), fcntl(2) and listen(2) report.
pub fn adopt_listener(socket: OwnedFd, options: &ListenOptions) -> io::Result<OwnedFd> {
    let socket = Socket::from(socket);
    socket.set_nonblocking(true)?;
    apply_inherited(&socket, options)?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// Changes the options of a socket that listens already; `mptcp` cannot change and is ignored.
///
/// # Errors
/// As setsockopt(2) and listen(2); options before the one refused are in force.
pub fn retune(socket: BorrowedFd<'_>, options: &ListenOptions) -> io::Result<()> {
    let socket = socket2::SockRef::from(&socket);
    apply_inherited(&socket, options)?;
    if !options.fast_open {
        // What has come with a SYN already stays in the accept queue.
        set_tcp_option(socket.as_fd(), libc::TCP_FASTOPEN, 0)?;
    }
    set_tcp_option(socket.as_fd(), libc::TCP_DEFER_ACCEPT, i32::from(options.defer_accept))?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))
}

fn set_tcp_option(socket: BorrowedFd<'_>, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_TCP, name, value)
}

/// Sets an option that is one number and that no crate of ours has a name for.
pub(super) fn set_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4);
    // SAFETY: the descriptor is open for the life of the borrow, and the pointer and length
    // describe one live `c_int`, which the kernel only reads.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether a socket listens.
#[must_use]
pub fn is_listening(socket: BorrowedFd<'_>) -> bool {
    sockopt::socket_acceptconn(socket) == Ok(true)
}

/// The number that the kernel gives a socket for good, whichever process has it (SO_COOKIE,
/// socket(7)).
///
/// # Errors
/// As getsockopt(2).
pub fn cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(sockopt::socket_cookie(socket)?)
}

/// Registers a listening socket that several threads share: of those that sleep, one connection
/// wakes one (EPOLLEXCLUSIVE, epoll_ctl(2)) instead of all. Edge-triggered.
///
/// # Errors
/// As epoll_ctl(2).
pub fn watch_shared(epoll: impl AsFd, socket: BorrowedFd<'_>, token: u64) -> io::Result<()> {
    let flags = EventFlags::IN | EventFlags::ET | EventFlags::EXCLUSIVE;
    Ok(epoll::add(epoll, socket, EventData::new_u64(token), flags)?)
}

/// Ends what [`watch_shared`] and other registrations began. A close alone would not, as long as
/// another thread or process has the socket.
///
/// # Errors
/// As epoll_ctl(2).
pub fn unwatch(epoll: impl AsFd, socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(epoll::delete(epoll, socket)?)
}

/// Takes one connection from a listening socket, non-blocking, with the peer's address; `None` is
/// a Unix socket, whose peers have none that says anything.
///
/// # Errors
/// `WouldBlock` when the queue is empty; otherwise as accept4(2).
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (socket, peer) = rustix::net::acceptfrom_with(listener, flags)?;
    if peer.as_ref().is_some_and(|peer| peer.address_family() == AddressFamily::UNIX) {
        super::unix::keep_urgent_bytes(&socket)?;
        return Ok((socket, None));
    }
    let peer = peer
        .and_then(|any| SocketAddr::try_from(any).ok())
        .unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
    Ok((socket, Some(peer)))
}

/// Starts a non-blocking connection, with this TCP_USER_TIMEOUT if it is to have one.
///
/// # Errors
/// As socket(2) and connect(2); `EINPROGRESS` is not an error here.
pub fn connect(address: SocketAddr, user_timeout: Option<Duration>) -> io::Result<OwnedFd> {
    let socket = unconnected(address, user_timeout)?;
    start(&socket, address)?;
    Ok(socket)
}

/// A non-blocking socket that is to be connected to this address.
pub(super) fn unconnected(
    address: SocketAddr,
    user_timeout: Option<Duration>,
) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    // Outside the stream an urgent byte is lost as soon as the next one arrives.
    sockopt::set_socket_oobinline(&socket, true)?;
    if let Some(timeout) = user_timeout {
        let milliseconds = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(&socket, milliseconds)?;
    }
    Ok(socket)
}

/// Starts to connect it.
pub(super) fn start(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    match rustix::net::connect(socket, &address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Sets keepalive on a connected socket, and TCP_USER_TIMEOUT if there is one.
///
/// # Errors
/// As setsockopt(2).
pub fn set_keepalive(
    socket: BorrowedFd<'_>,
    options: &KeepaliveOptions,
    user_timeout: Option<Duration>,
) -> io::Result<()> {
    let socket = socket2::SockRef::from(&socket);
    socket.set_tcp_keepalive(&options.to_socket2())?;
    match user_timeout {
        Some(timeout) => socket.set_tcp_user_timeout(Some(timeout)),
        None => Ok(()),
    }
}

/// How a connection attempt stands.
#[derive(Debug)]
pub enum ConnectStatus {
    /// Neither connected nor failed; a spurious event.
    Pending,
    /// Connected.
    Established,
    /// Failed with this error.
    Failed(io::Error),
}

/// Asks the kernel how a connection attempt stands. An event alone proves nothing: some kernels
/// report HUP while the handshake still runs.
#[must_use]
pub fn connect_status(socket: BorrowedFd<'_>) -> ConnectStatus {
    match sockopt::socket_error(socket) {
        Err(error) | Ok(Err(error)) => ConnectStatus::Failed(error.into()),
        Ok(Ok(())) => match rustix::net::getpeername(socket) {
            Ok(Some(_)) => ConnectStatus::Established,
            Ok(None) | Err(rustix::io::Errno::NOTCONN) => ConnectStatus::Pending,
            Err(error) => ConnectStatus::Failed(error.into()),
        },
    }
}

/// True when a connection ended up connected to itself: a connect to a free port of this host in
/// the ephemeral range may choose that very port as its source (simultaneous open, RFC 9293 3.5).
#[must_use]
pub fn is_self_connected(socket: BorrowedFd<'_>, peer: SocketAddr) -> bool {
    local_address(socket).is_ok_and(|local| local == peer)
}

/// The address a socket is bound to.
///
/// # Errors
/// As getsockname(2), or `Unsupported` for another address family.
pub fn local_address(socket: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    let any = rustix::net::getsockname(socket)?;
    SocketAddr::try_from(any).map_err(|_| io::Error::from(io::ErrorKind::Unsupported))
}

/// The address of a socket's peer.
///
/// # Errors
/// As getpeername(2), or `Unsupported` for another address family.
pub fn peer_address(socket: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    // The kernel may give none at all, of a peer that is gone.
    let any = rustix::net::getpeername(socket)?;
    any.and_then(|any| SocketAddr::try_from(any).ok())
        .ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))
}

/// Receives into `buffer`; 0 is end of stream.
///
/// # Errors
/// `WouldBlock` when nothing has come; otherwise the socket's error.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let (received, _) = rustix::net::recv(socket, buffer, RecvFlags::empty())?;
    Ok(received)
}

/// Sends from `bytes`; returns how many the kernel took. Never raises SIGPIPE.
///
/// # Errors
/// `WouldBlock` when the send buffer is full; otherwise the socket's error.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(socket, bytes, SendFlags::NOSIGNAL)?)
}

/// Sends the last bytes of a stream like [`send`]. Bytes that do not fill a segment wait for the
/// FIN, which must follow at once and then rides on them (MSG_MORE, send(2); Unix sockets ignore
/// it). If the kernel takes only some of the bytes, none waits.
///
/// # Errors
/// As [`send`].
pub fn send_last(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::MORE)?)
}

/// Sends FIN after what is queued.
///
/// # Errors
/// As shutdown(2); `NotConnected` when the peer has reset the connection.
pub fn shutdown_write(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::net::shutdown(socket, Shutdown::Write)?)
}

/// Bytes sent, and FIN, that the peer has not acknowledged yet; 0 for a socket that is gone, and
/// for a Unix socket: what is sent there is with the peer, and no close takes it away.
#[must_use]
pub fn unacknowledged(socket: BorrowedFd<'_>) -> usize {
    if super::unix::is_unix(socket) {
        return 0;
    }
    let mut count: libc::c_int = 0;
    // SAFETY: the descriptor is open for the life of the borrow, and SIOCOUTQ (which has the
    // number of TIOCOUTQ) writes one `c_int` through a pointer to a live one.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if result == 0 { usize::try_from(count).unwrap_or(0) } else { 0 }
}

/// Lets the kernel keep little of what the peer sends.
pub fn shrink_receive_buffer(socket: BorrowedFd<'_>, bytes: usize) {
    // Any size is taken; the kernel has a least one of its own.
    let _unchanged = sockopt::set_socket_recv_buffer_size(socket, bytes);
}

/// Makes the coming close send RST instead of FIN (SO_LINGER with time zero). A Unix socket knows
/// no such thing.
pub fn reset_on_close(socket: BorrowedFd<'_>) {
    // Fails only for a descriptor that is no socket, which an OwnedFd from here never is.
    let _closed_with_fin = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(on: bool) -> ListenOptions {
        let second = Duration::from_secs(1);
        ListenOptions {
            backlog: 16,
            keepalive: KeepaliveOptions { idle: second, interval: second, count: 2 },
            user_timeout: on.then_some(second),
            fast_open: on,
            defer_accept: on,
            mptcp: false,
            freebind: on,
        }
    }

    fn tcp_option(socket: &OwnedFd, name: libc::c_int) -> libc::c_int {
        let mut value: libc::c_int = -1;
        let mut length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap();
        // SAFETY: the descriptor is open, and the pointers are to a live `c_int` and to its length.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                name,
                (&raw mut value).cast(),
                &raw mut length,
            )
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        value
    }

    // If this fails, a backend that is gone while bytes are on their way to it keeps its sessions
    // until `idle_timeout`: the kernel sends it no keepalive.
    #[test]
    fn keepalive_brings_a_user_timeout() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let sockets = listen(address, 1, &options(false)).unwrap();
        let socket = connect(local_address(sockets[0].as_fd()).unwrap(), None).unwrap();
        let keepalive = options(false).keepalive;
        for (timeout, wanted) in [(None, 0), (Some(Duration::from_secs(3)), 3000), (None, 3000)] {
            set_keepalive(socket.as_fd(), &keepalive, timeout).unwrap();
            assert_eq!(tcp_option(&socket, libc::TCP_USER_TIMEOUT), wanted);
        }
    }

    // If this fails, what a reload switches off stays on until a restart.
    #[test]
    fn every_option_can_be_switched_on_and_off() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let sockets = listen(address, 1, &options(false)).unwrap();
        let is_on = |name| tcp_option(&sockets[0], name) > 0;
        for on in [true, false] {
            retune(sockets[0].as_fd(), &options(on)).unwrap();
            for name in [libc::TCP_FASTOPEN, libc::TCP_DEFER_ACCEPT, libc::TCP_USER_TIMEOUT] {
                assert_eq!(is_on(name), on, "option {name}");
            }
        }
    }
}
