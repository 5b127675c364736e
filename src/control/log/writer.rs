//! The thread `log`: formats what is queued and writes it, many lines to one write(2).
//!
//! It is the only thread that may wait for stderr, a file or a syslog server. After lines of
//! sessions it does not wait for the next one at once but lets some gather: a worker that closes a
//! session then need not wake the thread, which would cost it a system call.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use crossbeam::channel::{Receiver, RecvTimeoutError, Select, Sender};

use crate::shared::ClosedSession;

use crate::control::log::event::Event;
use crate::control::log::level::Level;
use crate::control::log::line::{event_line, session_line};
use crate::control::log::settings::Settings;
use crate::control::log::shape::LineShape;
use crate::control::log::sink::{LogSink, Stderr};
use crate::control::words::count;

/// Written at once as soon as this much has been formatted.
const BATCH_BYTES: usize = 64 * 1024;
/// How long lines gather after sessions have ended.
const GATHER: Duration = Duration::from_millis(20);

/// What the log's thread takes its work from.
pub(crate) struct LogQueues {
    pub(crate) events: Receiver<Event>,
    pub(crate) sessions: Receiver<ClosedSession>,
    /// Where lines go from now on.
    pub(crate) outlets: Receiver<Outlet>,
    /// A sender that arrives here is answered once everything queued before is written.
    pub(crate) flushes: Receiver<Sender<()>>,
}

/// Where lines go, and how they look there.
pub(crate) struct Outlet {
    pub(crate) shape: LineShape,
    /// `None`: where they went before.
    pub(crate) sink: Option<Box<dyn LogSink>>,
}

/// The thread's state.
pub(crate) struct LogWriter {
    settings: Arc<Settings>,
    queues: LogQueues,
    sink: Box<dyn LogSink>,
    shape: LineShape,
    batch: Vec<u8>,
    /// The last line that was begun is not whole.
    is_torn: bool,
    dropped_told: u64,
}

impl LogWriter {
    /// Writes what arrives in `queues`, at first to stderr.
    pub(crate) fn new(settings: Arc<Settings>, queues: LogQueues, outlet: Outlet) -> Self {
        let Outlet { shape, sink } = outlet;
        let sink = sink.unwrap_or_else(|| Box::new(Stderr));
        Self { settings, queues, sink, shape, batch: Vec::new(), is_torn: false, dropped_told: 0 }
    }

    /// Works until the last sender of flushes is gone.
    pub(crate) fn run(mut self) {
        let flushes = self.queues.flushes.clone();
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
                // The asker may have given up.
                let _gone = done.send(());
            }
        }
    }

    /// Sleeps until one of the queues has something.
    fn wait(&self) {
        let LogQueues { events, sessions, outlets, flushes } = &self.queues;
        let mut select = Select::new();
        select.recv(events);
        select.recv(sessions);
        select.recv(outlets);
        select.recv(flushes);
        select.ready();
    }

    /// Writes all that is queued; tells whether sessions were among it.
    fn drain(&mut self) -> bool {
        while let Ok(outlet) = self.queues.outlets.try_recv() {
            self.take_up(outlet);
        }
        let mut had_sessions = false;
        let except = self.settings.except();
        loop {
            if let Ok(event) = self.queues.events.try_recv() {
                event_line(&event, &self.shape, &mut self.batch);
            } else if let Ok((closed, record)) = self.queues.sessions.try_recv() {
                had_sessions = true;
                if !record.client.ip().is_some_and(|client| except.contains(client)) {
                    session_line(closed, &record, &self.shape, &mut self.batch);
                }
            } else {
                break;
            }
            if self.batch.len() >= BATCH_BYTES {
                self.write_lines();
            }
        }
        if self.write_lines() == 0 {
            self.tell_dropped();
        }
        had_sessions
    }

    fn take_up(&mut self, Outlet { shape, sink }: Outlet) {
        self.shape = shape;
        if let Some(sink) = sink {
            self.sink = sink;
            self.is_torn = false;
        }
    }

    /// Writes the batch and counts the lines of it that are lost.
    fn write_lines(&mut self) -> u64 {
        let lost = self.write_batch();
        self.settings.count_dropped(lost);
        lost
    }

    /// Says how many lines are missing, once there is room again.
    fn tell_dropped(&mut self) {
        let dropped = self.settings.dropped.load(Ordering::Relaxed);
        let lost = dropped.saturating_sub(self.dropped_told);
        if lost > 0 {
            let message = format!("{} lost: they were not taken", count(lost, "log line"));
            let event =
                Event { time: SystemTime::now(), level: Level::Warn, message, fields: Vec::new() };
            event_line(&event, &self.shape, &mut self.batch);
            // If this one is lost, too, the next one says it.
            if self.write_batch() == 0 {
                self.dropped_told = dropped;
            }
        }
    }

    /// Writes as much of the batch as is taken; how many lines are lost.
    fn write_batch(&mut self) -> u64 {
        if self.is_torn && !self.batch.is_empty() {
            // Ends what was begun, or the next line would be part of it.
            self.is_torn = self.sink.write_all(b"\n").is_err();
        }
        let room = if self.is_torn { 0 } else { write_what_fits(&mut *self.sink, &self.batch) };
        let (taken, left) = self.batch.split_at(room);
        if let Some(last) = taken.last() {
            self.is_torn = *last != b'\n';
        }
        let lost = left.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.batch.clear();
        lost
    }
}

/// Writes until all is written or `sink` refuses; how much that was.
fn write_what_fits(sink: &mut dyn Write, bytes: &[u8]) -> usize {
    let mut taken = 0;
    while let Some(left) = bytes.get(taken..).filter(|left| !left.is_empty()) {
        match sink.write(left) {
            Ok(0) => break,
            Ok(count) => taken += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    taken.min(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::control::log::shape::LineBody;
    use crossbeam::channel::bounded;
    use parking_lot::Mutex;

    /// A disk with room for this many bytes, and what is on it.
    #[derive(Debug, Clone, Default)]
    struct Disk(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (room, written) = &mut *self.0.lock();
            let count = bytes.len().min(*room);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            *room -= count;
            written.extend(bytes.iter().take(count));
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    // If this fails, a full disk costs the first line after it as well, or the gap is not told.
    #[test]
    fn a_line_that_does_not_fit_is_the_only_torn_one() {
        let (disk, settings) = (Disk::default(), Arc::new(Settings::default()));
        let (events, queue) = bounded(8);
        let queues = LogQueues {
            events: queue,
            sessions: bounded(1).1,
            outlets: bounded(1).1,
            flushes: bounded(1).1,
        };
        let outlet =
            Outlet { shape: LineShape::bare(LineBody::Text), sink: Some(Box::new(disk.clone())) };
        let mut writer = LogWriter::new(Arc::clone(&settings), queues, outlet);
        let mut log = |room, messages: &[&str]| {
            disk.0.lock().0 = room;
            for message in messages {
                let (time, message) = (SystemTime::UNIX_EPOCH, (*message).to_owned());
                let event = Event { time, level: Level::Info, message, fields: Vec::new() };
                events.send(event).unwrap();
            }
            writer.drain();
            settings.dropped.load(Ordering::Relaxed)
        };
        assert_eq!(log(100, &["whole", "torn", "lost"]), 2);
        assert_eq!(log(0, &["lost"]), 3);
        assert_eq!(log(1000, &["again"]), 3);
        assert_eq!(log(1000, &["more"]), 3);
        let written = String::from_utf8(disk.0.lock().1.clone()).unwrap();
        let messages = written.lines().map(|line| line.split_once("message="));
        let messages: Vec<_> = messages.map(|found| found.map_or("?", |found| found.1)).collect();
        let told = "\"3 log lines lost: they were not taken\"";
        assert_eq!(messages, ["whole", "?", "again", told, "more"]);
    }
}
