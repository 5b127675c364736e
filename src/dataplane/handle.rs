//! What the control plane holds of a running worker.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, unbounded};
use mio::Waker;

use crate::policy::pace::spin::Spin;
use crate::shared::WorkerState;

use super::clock::Clock;
use super::command::{Command, Inbox, Peer, WorkerSetup};
use super::kernel::Wake;
use super::linux::Linux;
use super::thread::WorkerThread;
use super::worker::Worker;

/// A running worker.
#[derive(Debug)]
pub struct WorkerHandle {
    commands: Sender<Command>,
    waker: Arc<Waker>,
    state: Arc<WorkerState>,
    thread: JoinHandle<()>,
    /// Commands sent through this handle.
    sent: AtomicU64,
}

impl WorkerHandle {
    /// Starts the thread `worker-N`.
    ///
    /// # Errors
    /// When the kernel gives no epoll instance, eventfd or thread.
    pub fn start(setup: WorkerSetup) -> io::Result<Self> {
        let (commands, inbox): (Sender<Command>, Receiver<Command>) = unbounded();
        let name = format!("worker-{}", setup.number);
        let state = Arc::clone(&setup.state);
        let kernel = Linux::new(setup.pipes)?;
        let waker = kernel.waker()?;
        let wakes: Arc<dyn Wake> = Arc::<Waker>::clone(&waker);
        let clock = Clock::new(setup.start);
        let (spin, cpu, now) = (Spin::new(setup.spin), setup.cpu, clock.now());
        let worker = Worker::new(setup, kernel, Inbox { commands: inbox, waker: wakes }, now)?;
        let worker = WorkerThread { worker, clock, spin, cpu, now };
        let thread = std::thread::Builder::new().name(name).spawn(move || worker.run())?;
        Ok(Self { commands, waker, state, thread, sent: AtomicU64::new(0) })
    }

    /// This worker, for the others to know.
    #[must_use]
    pub fn peer(&self) -> Peer<Linux> {
        Peer {
            commands: self.commands.clone(),
            waker: Arc::<Waker>::clone(&self.waker),
            state: Arc::clone(&self.state),
        }
    }

    /// Sends a command and wakes the worker.
    ///
    /// # Errors
    /// When the worker is gone.
    pub fn send(&self, command: Command) -> io::Result<()> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.commands
            .send(command)
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the worker is gone"))?;
        self.wake()
    }

    /// Wakes the worker, so that it sees a new snapshot at once.
    ///
    /// # Errors
    /// As write(2) on an eventfd.
    pub fn wake(&self) -> io::Result<()> {
        self.waker.wake()
    }

    /// Whether the worker has obeyed every command that was sent through this handle.
    #[must_use]
    pub fn has_obeyed(&self) -> bool {
        self.state.obeyed.value() >= self.sent.load(Ordering::Relaxed)
    }

    /// Whether its thread has ended: it has sent its last line to the session log.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}
