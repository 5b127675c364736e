//! The thread `log`: formats what is queued and writes it, many lines to one write(2).
//!
//! It is the only thread that may wait for stderr. After lines of sessions it does not wait for the
//! next one at once but lets some gather: a worker that closes a session then finds nobody to wake,
//! which costs it a system call.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use crossbeam::channel::{Receiver, RecvTimeoutError, Select, Sender};
use rustix::event::{PollFd, PollFlags, poll};

use crate::shared::ClosedSession;

use crate::control::logging::Settings;
use crate::control::logging::event::{Event, Level};
use crate::control::logging::line::{event_line, session_line};
use crate::control::words::count;

/// Written at once as soon as this much has been formatted.
const BATCH_BYTES: usize = 64 * 1024;
/// How long lines gather after sessions have ended.
const GATHER: Duration = Duration::from_millis(20);

/// Events, sessions, and who wants to know when all of them are written.
type Queues = (Receiver<Event>, Receiver<ClosedSession>, Receiver<Sender<()>>);

/// The thread's state.
pub(crate) struct LogWriter {
    settings: Arc<Settings>,
    queues: Queues,
    sink: Box<dyn Write + Send>,
    batch: Vec<u8>,
    lines: u64,
    dropped_told: u64,
}

impl LogWriter {
    /// Writes what arrives in `queues` to `sink`.
    pub(crate) fn new(
        settings: Arc<Settings>,
        queues: Queues,
        sink: Box<dyn Write + Send>,
    ) -> Self {
        Self { settings, queues, sink, batch: Vec::new(), lines: 0, dropped_told: 0 }
    }

    /// Works until nobody can ask for a flush any more.
    pub(crate) fn run(mut self) {
        let flushes = self.queues.2.clone();
        loop {
            let mut asked = None;
            if self.drain() {
                match flushes.recv_timeout(GATHER) {
                    Ok(done) => asked = Some(done),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            } else {
                self.wait();
                match flushes.try_recv() {
                    Ok(done) => asked = Some(done),
                    Err(error) if error.is_disconnected() => {
                        self.drain();
                        return;
                    }
                    Err(_) => {}
                }
            }
            if let Some(done) = asked {
                self.drain();
                // Whoever asked may have given up.
                let _gone = done.send(());
            }
        }
    }

    /// Sleeps until one of the queues has something.
    fn wait(&self) {
        let (events, sessions, flushes) = &self.queues;
        let mut select = Select::new();
        select.recv(events);
        select.recv(sessions);
        select.recv(flushes);
        select.ready();
    }

    /// Writes all that is queued; tells whether sessions were among it.
    fn drain(&mut self) -> bool {
        let mut had_sessions = false;
        loop {
            let shape = self.settings.shape();
            if let Ok(event) = self.queues.0.try_recv() {
                event_line(&event, shape, &mut self.batch);
            } else if let Ok((closed, record)) = self.queues.1.try_recv() {
                session_line(closed, &record, shape, &mut self.batch);
                had_sessions = true;
            } else {
                break;
            }
            self.lines += 1;
            if self.batch.len() >= BATCH_BYTES {
                self.write_batch();
            }
        }
        self.tell_dropped();
        self.write_batch();
        had_sessions
    }

    /// Says how many lines are missing, once there is room again.
    fn tell_dropped(&mut self) {
        let dropped = self.settings.dropped.load(Ordering::Relaxed);
        let lost = dropped.saturating_sub(self.dropped_told);
        if lost > 0 {
            self.dropped_told = dropped;
            let message = format!("{} lost: stderr takes them too slowly", count(lost, "log line"));
            let event =
                Event { time: SystemTime::now(), level: Level::Warn, message, fields: Vec::new() };
            event_line(&event, self.settings.shape(), &mut self.batch);
        }
    }

    fn write_batch(&mut self) {
        if !self.batch.is_empty() && self.sink.write_all(&self.batch).is_err() {
            // There is nowhere left to say it, so it is not told again either.
            self.settings.count_dropped(self.lines);
            self.dropped_told += self.lines;
        }
        self.batch.clear();
        self.lines = 0;
    }
}

/// The process's stderr, also when somebody made it non-blocking.
#[derive(Debug)]
pub(crate) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match io::stderr().write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_for_room()?,
                outcome => return outcome,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn wait_for_room() -> io::Result<()> {
    let stderr = io::stderr();
    let mut wanted = [PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::OUT)];
    poll(&mut wanted, None)?;
    Ok(())
}
