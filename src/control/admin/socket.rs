//! The control socket: its file is made with mode 0600, never stolen, removed at the end.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::control::host::socket_file::{SocketFile, directory_of, make};
use crate::control::run_error::RunError;
use crate::sys::unix;

/// Only the user of the process, and root, may connect.
const PERMISSIONS: u32 = 0o600;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;

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
    let directory = directory_of(path);
    DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(failed)?;
    let bind = || unix::listen(path, PERMISSIONS, BACKLOG);
    let (listener, file) = make(path, bind).map_err(failed)?;
    Ok((listener.into(), file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

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

    // If this fails, any user of the host can keep evenkeel from its start by a lock.
    #[test]
    fn a_lock_of_another_process_does_not_keep_the_socket_away() {
        let directory = tempfile::tempdir().unwrap();
        let held = fs::File::open(directory.path()).unwrap();
        rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let path = directory.path().join("admin.sock");
        let (_listener, _file) = bind(&path).unwrap();
        assert!(path.exists());
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
