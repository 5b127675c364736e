//! Files of Unix sockets that listen: never stolen, replaced when stale, removed at the end.
//!
//! A file that a dead process left is removed only after a connect has proved that no process
//! listens, and under a lock on its directory, so that two processes that start at once cannot both
//! take it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::sys::unix;

/// How long to wait for another process to make its own sockets in the same directory.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
/// Time between two attempts to lock a directory.
const LOCK_LOOK: Duration = Duration::from_millis(5);

/// The file of a bound socket; removed on drop if it is still that of this socket and has not
/// changed hands.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: FileIdentity,
    is_ours: AtomicBool,
}

impl SocketFile {
    /// The file that a socket has just been bound to.
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)?, is_ours: true.into() })
    }

    /// The file of a socket that another process has bound and passes on; its own until
    /// [`Self::own`].
    pub(crate) fn passed(path: &Path, identity: FileIdentity) -> Self {
        Self { path: path.to_owned(), identity, is_ours: false.into() }
    }

    /// By which another process knows it.
    pub(crate) fn identity(&self) -> FileIdentity {
        self.identity
    }

    /// From now on this process removes it.
    pub(crate) fn own(&self) {
        self.is_ours.store(true, Ordering::Relaxed);
    }

    /// From now on another process removes it.
    pub(crate) fn disown(&self) {
        self.is_ours.store(false, Ordering::Relaxed);
    }

    /// Whether the path still leads to the socket.
    pub(crate) fn is_there(&self) -> bool {
        identity(&self.path).is_ok_and(|found| found == self.identity)
    }

    /// Removes it, if it is ours and still that of the socket: no client can connect from then on.
    pub(crate) fn remove(&self) {
        if self.is_ours.load(Ordering::Relaxed) && self.is_there() {
            // Left behind it would only be taken for stale by the next start.
            let _left = fs::remove_file(&self.path);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Device, inode and the time it was made: inodes are used again at once, and nothing but making a
/// socket changes its modification time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileIdentity {
    device: u64,
    inode: u64,
    made_s: i64,
    made_ns: i64,
}

fn identity(path: &Path) -> io::Result<FileIdentity> {
    let metadata = fs::symlink_metadata(path)?;
    Ok(FileIdentity {
        device: metadata.dev(),
        inode: metadata.ino(),
        made_s: metadata.mtime(),
        made_ns: metadata.mtime_nsec(),
    })
}

/// Makes a socket by `bind`, in the place of a file that is stale.
///
/// # Errors
/// `AddrInUse` when a process listens there, `AlreadyExists` when a file is there that is no
/// socket, and whatever `bind` reports.
pub(crate) fn make<T>(
    path: &Path,
    bind: impl FnOnce() -> io::Result<T>,
) -> io::Result<(T, SocketFile)> {
    let _lock = lock(directory_of(path))?;
    remove_stale(path)?;
    let bound = bind()?;
    Ok((bound, SocketFile::of(path)?))
}

/// The directory that a socket's file is in.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Held until dropped. Goes on without it after a time: every user who may read a directory may
/// lock it, and must not keep evenkeel from its start.
fn lock(directory: &Path) -> io::Result<File> {
    let opened = File::open(directory)?;
    let since = Instant::now();
    // A file system without locks has none to respect.
    while flock(&opened, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK)
        && since.elapsed() < LOCK_PATIENCE
    {
        std::thread::park_timeout(LOCK_LOOK);
    }
    Ok(opened)
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file is there, no socket"));
    }
    let in_use = || Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers there"));
    match unix::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Its accept queue is full, or it is a socket of another kind that is in use.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => in_use(),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::PROTOTYPE) => in_use(),
        Ok(_) => in_use(),
        Err(error) => Err(error),
    }
}
