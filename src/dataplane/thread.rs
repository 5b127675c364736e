//! The thread around a worker: it sleeps in epoll until something happens, reads the clock once,
//! and has the worker take a turn.

use std::io;
use std::time::Duration;

use mio::Events;
use mio::event::Event;

use crate::policy::pace::spin::Spin;
use crate::sys::process;

use super::clock::{Clock, Tick};
use super::linux::Linux;
use super::stream::Readiness;
use super::worker::Worker;

/// Events taken from the kernel in one turn.
const EVENTS_PER_TURN: usize = 256;

/// A worker that serves.
pub(super) struct WorkerThread {
    pub(super) worker: Worker<Linux>,
    pub(super) clock: Clock,
    pub(super) spin: Spin,
    /// The CPU to run on, if it is bound to one.
    pub(super) cpu: Option<usize>,
    pub(super) now: Tick,
}

impl WorkerThread {
    /// Takes turns until the worker is asked to leave.
    pub(super) fn run(mut self) {
        if let Some(cpu) = self.cpu {
            // The CPU was usable at start; if it has gone since, running anywhere is right.
            let _runs_anywhere = process::pin_thread(cpu);
        }
        self.worker.state().thread.set(process::thread_id());
        self.worker.take_up_snapshot();
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        loop {
            self.sleep(&mut events);
            let told = events.iter().map(|event| (event.token(), readiness_of(event)));
            if self.worker.turn(told, self.now).is_break() {
                return;
            }
        }
    }

    /// Waits for events, but not when work is left over.
    fn sleep(&mut self, events: &mut Events) {
        let timeout = self.worker.patience(self.now);
        let waited = if self.spin.is_off() || timeout == Some(Duration::ZERO) {
            self.worker.kernel().poll(events, timeout)
        } else {
            self.spin_then_sleep(events)
        };
        if waited.is_err() {
            // EINTR leaves nothing to see; anything else would repeat and is no worse for it.
            events.clear();
        }
        self.now = self.clock.now();
    }

    /// Looks for events without sleeping for as long as that is promising.
    fn spin_then_sleep(&mut self, events: &mut Events) -> io::Result<()> {
        let from = self.clock.now();
        let until = from.after(self.spin.patience());
        self.now = from;
        let mut waited = Ok(());
        while waited.is_ok() && self.now < until {
            waited = self.worker.kernel().poll(events, Some(Duration::ZERO));
            self.now = self.clock.now();
            if !events.is_empty() {
                break;
            }
        }
        if waited.is_ok() && events.is_empty() {
            let timeout = self.worker.patience(self.now);
            waited = self.worker.kernel().poll(events, timeout);
        }
        self.spin.learn(self.clock.now().since(from));
        waited
    }
}

fn readiness_of(event: &Event) -> Readiness {
    Readiness {
        readable: event.is_readable(),
        // A write after HUP fails at once, which is how the session learns of it.
        writable: event.is_writable() || event.is_write_closed(),
        read_closed: event.is_read_closed() && !event.is_error(),
        error: event.is_error(),
        urgent: event.is_priority(),
    }
}
