//! What the control plane and other workers may ask of a worker.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender};

use crate::policy::client::Client;
use crate::shared::{
    Address, Generation, LeaveOrder, Listener, SessionLog, Subscriber, WorkerState,
};
use crate::sys::socket::ListenOptions;

use super::kernel::{Kernel, Wake};
use super::linux::Linux;
use super::linux::pipes::PipeShare;
use super::look::{Description, SessionLook};
use super::parked::Window;
use super::passed_session::ArrivedSession;
use super::ready_queue::TurnBounds;
use super::session::Admitted;
use super::slots::SlotKey;

/// The buffer through which a worker copies small messages, in bytes. What is read of a client
/// before it has a backend has to fit into it.
pub const SCRATCH_BYTES: usize = 64 * 1024;

/// A request to a worker.
#[derive(Debug)]
pub enum Command<K: Kernel = Linux> {
    /// Accept on this socket too.
    Listen {
        /// The address it is bound to; the snapshot says which listener has it.
        address: Address,
        /// Which listener had it when the socket was opened.
        listener: Arc<Listener>,
        /// The socket.
        socket: K::ListeningSocket,
        /// Whether other workers accept from the very same socket.
        is_shared: bool,
    },
    /// Change the options of the sockets on these addresses.
    Retune {
        /// The addresses they are bound to.
        addresses: Arc<HashSet<Address>>,
        /// For what it accepts from now on.
        options: ListenOptions,
    },
    /// Put the gates before the addresses again: another process has put its own there, and ended.
    PutGates,
    /// Learn of the other workers, to which sessions may be handed.
    Meet(Vec<Peer<K>>),
    /// Serve this client, which another worker has accepted.
    Take(Box<Arrival<K>>),
    /// Serve what waits in the accept queues, then close all listening sockets.
    StopListening,
    /// Leave the sockets on these addresses, and what waits there, to the process that has them
    /// now; then as [`Self::StopListening`].
    LetGo {
        /// The addresses they are bound to.
        passed: Arc<HashSet<Address>>,
    },
    /// Reset the sessions that a backend has by now, as long as this order holds.
    Leave(Arc<LeaveOrder>),
    /// Reset these sessions, as long as this order holds.
    LeaveNamed(Arc<LeaveOrder>, Vec<SlotKey>),
    /// Look at a slice of the sessions, and hand the look back.
    Look(Box<SessionLook>, Sender<Box<SessionLook>>),
    /// Tell of some sessions, and hand the report back.
    Describe(Box<Description>, Sender<Box<Description>>),
    /// Park the next sessions that another process may have, and hand them over.
    Park(Box<Window<K>>, Sender<Box<Window<K>>>),
    /// Have these sessions of another process parked, and hand them over.
    TakeIn(Vec<ArrivedSession<K>>, Sender<Box<Window<K>>>),
    /// Go on with these sessions.
    Resume(Box<Window<K>>),
    /// Give up these sessions, which another process has.
    GiveUp(Box<Window<K>>),
    /// Reset all sessions.
    ResetAll,
    /// Leave the loop.
    Exit,
}

/// A worker's end of the way to it.
#[derive(Debug)]
pub struct Inbox<K: Kernel> {
    /// What others ask of it.
    pub commands: Receiver<Command<K>>,
    /// How others end its sleep.
    pub waker: Arc<dyn Wake>,
}

/// Another worker, as far as a worker may know it.
#[derive(Debug)]
pub struct Peer<K: Kernel> {
    /// The way to it.
    pub commands: Sender<Command<K>>,
    /// How to end its sleep.
    pub waker: Arc<dyn Wake>,
    /// Its numbers.
    pub state: Arc<WorkerState>,
}

impl<K: Kernel> Peer<K> {
    /// Sessions it has, and those on the way to it.
    pub(super) fn sessions(&self) -> u64 {
        self.state.sessions.value() + self.state.arriving.load(Ordering::Relaxed)
    }
}

/// A client whose session has its places and has not begun.
#[derive(Debug)]
pub struct Arrival<K: Kernel> {
    pub(super) listener: Arc<Listener>,
    /// The snapshot by which it was accepted.
    pub(super) generation: Generation,
    pub(super) client_socket: K::Socket,
    pub(super) client: Client,
    /// `None`: a PROXY header has to name the client first.
    pub(super) admitted: Option<Admitted>,
}

/// Everything that a worker is given at its start.
#[derive(Debug)]
pub struct WorkerSetup {
    /// Its number, from 0.
    pub number: usize,
    /// How many there are.
    pub workers: usize,
    /// Numbers of sessions begin above this one: earlier processes have given those up to it.
    pub numbers_from: u64,
    /// The CPU to run on, if it is bound to one.
    pub cpu: Option<usize>,
    /// How long to poll before sleeping.
    pub spin: Duration,
    /// Pipes it may have out at once.
    pub pipes: PipeShare,
    /// Bytes of the buffer for small messages: [`SCRATCH_BYTES`], but in tests.
    pub scratch_bytes: usize,
    /// How much work a turn holds: [`TurnBounds::SERVING`], but in tests.
    pub bounds: TurnBounds,
    /// From when all workers count time: the start of the process, or of the first of those that
    /// have passed their sessions on up to it.
    pub start: Instant,
    /// Where snapshots come from.
    pub snapshot: Subscriber,
    /// Where its numbers go.
    pub state: Arc<WorkerState>,
    /// Where lines of the session log go.
    pub log: SessionLog,
}
