//! The control socket as a file: made with mode 0600, never stolen, removed at the end.
//!
//! A file that a dead process left is removed only after a connect has proved that nobody answers,
//! and under a lock on its directory, so that two processes that start at once cannot both take it.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, flock};
use rustix::process::umask;

use crate::control::run_error::RunError;

/// The file of a bound socket; removed on drop if it is still that of this socket.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: Identity,
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // Left behind it would only be taken for stale by the next start.
            let _left = fs::remove_file(&self.path);
        }
    }
}

/// Device, inode and the time it was made: inodes are used again at once, and nothing but making a
/// socket changes its modification time.
type Identity = (u64, u64, i64, i64);

fn identity(path: &Path) -> io::Result<Identity> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
}

/// Why there is no control socket.
#[derive(Debug)]
pub(crate) struct SocketError {
    path: PathBuf,
    source: io::Error,
    help: &'static str,
}

impl From<SocketError> for RunError {
    fn from(error: SocketError) -> Self {
        Self::Failed {
            what: format!("cannot make the admin socket {}", error.path.display()),
            source: error.source,
            help: error.help.to_owned(),
        }
    }
}

/// Makes the socket, and its directory if need be.
pub(crate) fn bind(path: &Path) -> Result<(UnixListener, SocketFile), SocketError> {
    let failed = |source: io::Error| {
        let help = match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "name another path as admin.socket, or let the service manager make its directory \
                 (RuntimeDirectory= of systemd)"
            }
            io::ErrorKind::AddrInUse => {
                "stop the other process, or name another path as admin.socket"
            }
            _ => "name another path as admin.socket",
        };
        SocketError { path: path.to_owned(), source, help }
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(failed)?;
    let _lock = lock(directory).map_err(failed)?;
    remove_stale(path).map_err(failed)?;
    let listener = bind_private(path).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let file = SocketFile::of(path).map_err(failed)?;
    Ok((listener, file))
}

/// Held until dropped.
fn lock(directory: &Path) -> io::Result<File> {
    let opened = File::open(directory)?;
    match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process holds a lock on its directory",
        )),
        // A file system without locks has none to respect.
        Ok(()) | Err(_) => Ok(opened),
    }
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
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers there")),
        Err(error) => Err(error),
    }
}

/// Nobody else may connect, not even in the moment between bind(2) and a chmod(2).
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let before = umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
    let listener = UnixListener::bind(path);
    umask(before);
    listener
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, others on the host can control the process, or a crash prevents a restart.
    #[test]
    fn private_not_stolen_taken_over_when_stale_removed_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/admin.sock");
        let (listener, file) = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);

        let refused = bind(&path).unwrap_err();
        assert_eq!(refused.source.to_string(), "another process answers there");

        drop(listener);
        // Keeps the inode from being used again within the clock tick that tells two files apart.
        fs::hard_link(&path, directory.path().join("old")).unwrap();
        let (_taken, new_file) = bind(&path).unwrap();
        drop(file);
        assert!(path.exists(), "the old owner removed the file of the new one");
        drop(new_file);
        assert!(!path.exists());
    }

    // If this fails, a typo in admin.socket deletes an operator's file.
    #[test]
    fn a_file_that_is_no_socket_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes.txt");
        fs::write(&path, "mine").unwrap();
        assert!(bind(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }
}
