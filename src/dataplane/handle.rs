//! What the control plane holds of a running worker.

use std::io;
use std::sync::Arc;
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
        Ok(Self { commands, waker, state, thread })
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

    /// Waits for the thread to end.
    pub fn join(self) {
        // A worker that panicked has ended the process already.
        let _ended = self.thread.join();
    }
}
