//! The sockets by which operators and tools reach the process: what an upgrade passes on of them,
//! and lets go of.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::control::host::socket_file::SocketFile;

/// Which of the two a door is.
#[derive(Debug, Clone)]
pub(crate) enum DoorKind {
    /// The control socket: its path as the file names it, and its file.
    Control(PathBuf, Arc<SocketFile>),
    /// The read-only page: its address as the file names it.
    Page(SocketAddr),
}

/// A socket that is answered.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) kind: DoorKind,
    /// A copy: the answering task has its own.
    pub(crate) socket: Arc<OwnedFd>,
    /// The task that accepts; connections have tasks of their own.
    pub(crate) accepting: AbortHandle,
}

/// The doors of this process.
#[derive(Debug, Default)]
pub(crate) struct Doors {
    open: Mutex<Vec<Door>>,
    /// Connections that are open.
    connections: Arc<AtomicUsize>,
}

/// A connection that is open, as long as this lives.
#[derive(Debug)]
pub(crate) struct OpenConnection(Arc<AtomicUsize>);

impl OpenConnection {
    /// Counted among these.
    pub(crate) fn new(connections: &Arc<AtomicUsize>) -> Self {
        connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(connections))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Doors {
    /// A door is answered from now on.
    pub(crate) fn opened(&self, door: Door) {
        self.open.lock().push(door);
    }

    /// What counts the connections.
    pub(crate) fn connections(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.connections)
    }

    /// Whether a connection is open.
    pub(crate) fn is_answering(&self) -> bool {
        self.connections.load(Ordering::Relaxed) > 0
    }

    /// All of them, to be passed on.
    pub(crate) fn list(&self) -> Vec<(DoorKind, Arc<OwnedFd>)> {
        let open = self.open.lock();
        open.iter().map(|door| (door.kind.clone(), Arc::clone(&door.socket))).collect()
    }

    /// Accepts at none of them any more. The file of the control socket stays if another process
    /// has that socket now.
    pub(crate) fn let_go(&self, is_control_passed: bool) {
        for door in self.open.lock().drain(..) {
            door.accepting.abort();
            if let DoorKind::Control(_, file) = &door.kind {
                if is_control_passed {
                    file.disown();
                } else {
                    file.remove();
                }
            }
        }
    }
}
