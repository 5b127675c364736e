//! Unix stream sockets: the ones that accept and the ones that go to a backend. See unix(7).
//!
//! What differs from TCP: one listening socket for all workers, since SO_REUSEPORT is not for them;
//! a connect that succeeds or fails at once; no reset; bytes that are with the peer as soon as they
//! are sent; and reads that end at passed descriptors, whatever lies behind.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use rustix::process::umask;

/// Held while the mode of new files, one for the whole process, is that of a socket's file.
static MAKES_FILE: Mutex<()> = Mutex::new(());

/// Opens a socket that listens on `path`, where no file may be, with these permissions of the file
/// from its first moment on.
///
/// # Errors
/// What socket(2), bind(2) and listen(2) report.
pub fn listen(path: &Path, permissions: u32, backlog: u32) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let socket = open()?;
    let alone = MAKES_FILE.lock();
    let before = umask(Mode::from_raw_mode(!permissions & 0o777));
    let bound = rustix::net::bind(&socket, &address);
    umask(before);
    drop(alone);
    bound?;
    rustix::net::listen(&socket, length(backlog))?;
    Ok(socket)
}

/// Prepares a listening socket that another process opened (systemd socket activation).
///
/// # Errors
/// What fcntl(2) and listen(2) report.
pub fn adopt_listener(socket: OwnedFd, backlog: u32) -> io::Result<OwnedFd> {
    rustix::io::ioctl_fionbio(&socket, true)?;
    rustix::net::listen(&socket, length(backlog))?;
    Ok(socket)
}

/// Sets the length of the accept queue of a socket that listens.
///
/// # Errors
/// As listen(2).
pub fn set_backlog(socket: BorrowedFd<'_>, backlog: u32) -> io::Result<()> {
    Ok(rustix::net::listen(socket, length(backlog))?)
}

fn length(backlog: u32) -> i32 {
    i32::try_from(backlog).unwrap_or(i32::MAX)
}

/// Connects to a listening socket. It is connected at once: nothing has to be waited for, but the
/// peer may not have accepted it yet.
///
/// # Errors
/// As connect(2): `WouldBlock` when its accept queue is full, `NotFound` and `ConnectionRefused`
/// when no process listens there, `PermissionDenied` when this user may not write to the file or
/// pass its directories.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let socket = open()?;
    keep_urgent_bytes(&socket)?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

fn open() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Leaves urgent bytes (MSG_OOB, Linux 5.15) in the stream: reads pass them over otherwise. A
/// listening socket does not hand it down.
///
/// # Errors
/// As setsockopt(2).
pub(super) fn keep_urgent_bytes(socket: &OwnedFd) -> rustix::io::Result<()> {
    sockopt::set_socket_oobinline(socket, true)
}

/// Whether a socket is one of these.
#[must_use]
pub fn is_unix(socket: BorrowedFd<'_>) -> bool {
    sockopt::socket_domain(socket) == Ok(AddressFamily::UNIX)
}

/// The path a socket is bound to; `None` when it is none, or an abstract one.
pub(super) fn bound_path(socket: BorrowedFd<'_>) -> Option<PathBuf> {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let any: SocketAddrAny = rustix::net::getsockname(socket).ok()?;
    let address = SocketAddrUnix::try_from(any).ok()?;
    Some(PathBuf::from(OsStr::from_bytes(address.path()?.to_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{IoSlice, Write};
    use std::mem::MaybeUninit;
    use std::os::fd::AsFd;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use crate::sys::socket::{accept, receive, reset_on_close, unacknowledged};

    // If this fails, clients of other users are locked out, or let in where they may not.
    #[test]
    fn the_file_has_the_permissions_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        for permissions in [0o666, 0o600] {
            let path = directory.path().join(format!("{permissions}"));
            let _socket = listen(&path, permissions, 1).unwrap();
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, permissions, "{mode:o}");
        }
    }

    // If this fails, the log and the metrics give a wrong reason for a failed connect.
    #[test]
    fn a_connect_fails_at_once_and_says_why() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let failed = |path: &Path| connect(path).unwrap_err().kind();
        assert_eq!(failed(&path), io::ErrorKind::NotFound);
        let socket = listen(&path, 0o600, 1).unwrap();
        // A queue of length 1 holds two.
        let _queued = [connect(&path).unwrap(), connect(&path).unwrap()];
        assert_eq!(failed(&path), io::ErrorKind::WouldBlock);
        drop(socket);
        assert_eq!(failed(&path), io::ErrorKind::ConnectionRefused);
    }

    // If this fails, what is written of resets on Unix sockets is wrong on this kernel.
    #[test]
    fn a_close_is_a_reset_only_where_something_is_unread() {
        for unread in [false, true] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let (ours, theirs) = (OwnedFd::from(ours), OwnedFd::from(theirs));
            if unread {
                rustix::net::send(&theirs, b"unread", SendFlags::empty()).unwrap();
            }
            rustix::net::send(&ours, b"last", SendFlags::empty()).unwrap();
            reset_on_close(ours.as_fd());
            drop(ours);
            let mut buffer = [0; 16];
            assert_eq!(receive(theirs.as_fd(), &mut buffer).unwrap(), 4, "what was sent is there");
            let end = receive(theirs.as_fd(), &mut buffer).map_err(|error| error.kind());
            let reset = Err(io::ErrorKind::ConnectionReset);
            assert_eq!(end, if unread { reset } else { Ok(0) });
        }
    }

    // If this fails, a session waits for bytes to arrive that have arrived.
    #[test]
    fn what_is_sent_cannot_get_lost() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        (&ours).write_all(b"unread").unwrap();
        assert_eq!(unacknowledged(ours.as_fd()), 0);
        assert!(is_unix(ours.as_fd()));
    }

    // If this fails, a short read may be taken for all there is, also on Unix sockets.
    #[test]
    fn a_read_ends_at_passed_descriptors() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let socket = listen(&path, 0o600, 1).unwrap();
        let client = connect(&path).unwrap();
        let (accepted, peer) = accept(socket.as_fd()).unwrap();
        assert_eq!(peer, None);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let passed = [socket.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&passed)));
        let first = [IoSlice::new(b"one")];
        sendmsg(&client, &first, &mut control, SendFlags::empty()).unwrap();
        rustix::net::send(&client, b"two", SendFlags::empty()).unwrap();
        let mut buffer = [0; 16];
        for word in [b"one", b"two"] {
            assert_eq!(receive(accepted.as_fd(), &mut buffer).unwrap(), 3);
            assert_eq!(&buffer[..3], word);
        }
    }
}
