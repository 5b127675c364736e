//! Worker threads that accept connections and move their bytes.
//!
//! Each worker owns its epoll instance, its listening sockets, its sessions, timers and pipes; it
//! shares nothing with other workers but the snapshot and the atomics of [`crate::shared`]. It
//! knows nothing of tokio, TOML or files, and of HTTP only how to turn a client away. All that the
//! control plane can do is start a worker, send it a [`Command`], wake it and join it.

#![deny(clippy::indexing_slicing, reason = "a panic here would end every session")]

mod accept;
mod choose;
pub mod clock;
mod connect;
mod connection;
mod downs;
mod ending;
mod explain;
pub mod greeting;
mod guest;
mod handle;
mod held;
mod interest;
pub mod kernel;
pub mod linux;
mod listening;
mod opening;
pub mod phase;
mod picker;
mod queue;
mod refuse;
mod routing;
pub mod slots;
mod source;
mod spread;
pub mod stream;
mod symptoms;
pub mod timers;
mod worker;

pub use crate::policy::defects;
pub use explain::{ChoiceSaid, Explanation, LimitSaid, Outcome, Question, RouteSaid};
pub use handle::WorkerHandle;
pub use linux::pipes::PipeShare;
pub use spread::{Arrival, Peer};

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::policy::admit::shared_rate::SharedRate;
use crate::shared::{Address, BackendId, Listener, SessionLog, Subscriber, WorkerState};
use crate::sys::socket::ListenOptions;

/// What the control plane may ask of a worker.
#[derive(Debug)]
pub enum Command {
    /// Accept on this socket too.
    Listen {
        /// The address it is bound to; the snapshot says which listener has it.
        address: Address,
        /// Which listener had it when the socket was opened.
        listener: Arc<Listener>,
        /// The socket.
        socket: OwnedFd,
        /// Whether other workers accept from the very same socket.
        is_shared: bool,
    },
    /// Change the options of the socket on this address.
    Retune {
        /// The address it is bound to.
        address: Address,
        /// For what it accepts from now on.
        options: ListenOptions,
    },
    /// Know the other workers, to which sessions may be handed.
    Meet(Vec<Peer>),
    /// Serve this client, whom another worker has accepted.
    Take(Box<Arrival>),
    /// Serve what waits in the accept queues, then close all listening sockets.
    StopListening,
    /// Reset the sessions of a backend that went down, as its pool says.
    BackendDown {
        /// Which.
        backend: BackendId,
        /// The pace, which all workers share.
        pace: Arc<SharedRate>,
    },
    /// Reset all sessions.
    ResetAll,
    /// Leave the loop.
    Exit,
}

/// What a worker is given at its start.
#[derive(Debug)]
pub struct WorkerSetup {
    /// Its number, from 0.
    pub number: usize,
    /// How many there are.
    pub workers: usize,
    /// The CPU to run on, if it is bound to one.
    pub cpu: Option<usize>,
    /// How long to poll before sleeping.
    pub spin: Duration,
    /// Pipes it may have out at once.
    pub pipes: PipeShare,
    /// The start of the process, from which all workers count time.
    pub start: Instant,
    /// Where snapshots come from.
    pub snapshot: Subscriber,
    /// Where its numbers go.
    pub state: Arc<WorkerState>,
    /// Where lines of the session log go.
    pub log: SessionLog,
}
