//! What is logged, in which form, and how it gets out without a thread waiting for it.
//!
//! Events and session records go through two bounded queues to one thread, `log`, that formats and
//! writes them; a line that finds its queue full is dropped and counted. A flood of sessions cannot
//! push a change of state out: events have their own queue.
//!
//! **Synchronization.** Level and the choice of sessions are atomics written by the control plane
//! and read relaxed by every thread that logs: a line more or less around a change is harmless.
//! Where lines go, and how they look there, comes to the thread by a queue.

mod event;
mod level;
mod line;
mod row;
mod session_line;
mod settings;
mod shape;
pub(crate) mod sink;
mod text;
mod writer;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Sender, bounded, unbounded};
use parking_lot::Mutex;
use tracing_subscriber::layer::SubscriberExt;

use crate::config::{Log, LogTarget};
use crate::shared::{ClosedSession, SessionLog};

use crate::control::log::event::{Event, EventLayer};
use crate::control::log::settings::Settings;
use crate::control::log::shape::LineShape;
use crate::control::log::sink::{LogFailure, LogSink};
use crate::control::log::writer::{LogQueues, LogWriter, Outlet};

/// Events that may wait to be written.
const EVENTS_MAX: usize = 1024;
/// Sessions that may wait: a fifth of a second at 40,000 sessions a second.
const SESSIONS_MAX: usize = 8192;
/// How long the end of the process waits for what is queued.
const FINISH_DEADLINE: Duration = Duration::from_secs(1);

/// The log of the process.
#[derive(Debug)]
pub(crate) struct Logging {
    settings: Arc<Settings>,
    events: Sender<Event>,
    sessions: Sender<ClosedSession>,
    outlets: Sender<Outlet>,
    /// Where lines go.
    target: Mutex<LogTarget>,
    /// A sender that arrives is answered once everything queued before is written; dropping it ends
    /// the thread.
    flushes: Mutex<Option<Sender<Sender<()>>>>,
    /// Kept so that the thread is known to be ours; never joined, for it may be stuck in write(2).
    _writer: JoinHandle<()>,
}

impl Logging {
    /// Starts the thread, which writes to `sink`, and takes the events of the whole process.
    ///
    /// # Errors
    /// When no thread can be started, or the process logs already.
    pub(crate) fn start(log: &Log, sink: Box<dyn LogSink>) -> io::Result<Self> {
        let logging = Self::start_into(log, sink)?;
        let subscriber = tracing_subscriber::registry().with(logging.layer());
        tracing::subscriber::set_global_default(subscriber).map_err(io::Error::other)?;
        Ok(logging)
    }

    /// Starts the thread; what is logged goes to `sink`.
    fn start_into(log: &Log, sink: Box<dyn LogSink>) -> io::Result<Self> {
        let settings = Arc::new(Settings::default());
        settings.apply(log);
        let (events, event_queue) = bounded(EVENTS_MAX);
        let (sessions, session_queue) = bounded(SESSIONS_MAX);
        let (outlets, outlet_queue) = unbounded();
        let (flushes, flush_queue) = bounded(1);
        let queues = LogQueues {
            events: event_queue,
            sessions: session_queue,
            outlets: outlet_queue,
            flushes: flush_queue,
        };
        let outlet = Outlet { shape: LineShape::of(log), sink: Some(sink) };
        let writer = LogWriter::new(Arc::clone(&settings), queues, outlet);
        let thread = std::thread::Builder::new().name("log".into()).spawn(move || writer.run())?;
        let flushes = Mutex::new(Some(flushes));
        let target = Mutex::new(log.to.clone());
        Ok(Self { settings, events, sessions, outlets, target, flushes, _writer: thread })
    }

    /// What sends events of tracing to the thread.
    fn layer(&self) -> EventLayer {
        EventLayer::new(Arc::clone(&self.settings), self.events.clone())
    }

    /// A worker's end of the session log.
    pub(crate) fn session_log(&self) -> SessionLog {
        let Settings { sessions, dropped, .. } = &*self.settings;
        SessionLog::new(self.sessions.clone(), Arc::clone(sessions), Arc::clone(dropped))
    }

    /// Takes new settings up at once; lines go to `sink` from now on, if there is one.
    pub(crate) fn apply(&self, log: &Log, sink: Option<Box<dyn LogSink>>) {
        self.settings.apply(log);
        if sink.is_some() {
            self.target.lock().clone_from(&log.to);
        }
        // The thread is gone only once the process ends.
        let _ending = self.outlets.send(Outlet { shape: LineShape::of(log), sink });
        // Callsites remember whether their events are wanted.
        tracing::callsite::rebuild_interest_cache();
    }

    /// Opens what `target` names, if lines do not go there already.
    ///
    /// # Errors
    /// When the system does not let it be opened.
    pub(crate) fn open_other(
        &self,
        target: &LogTarget,
    ) -> Result<Option<Box<dyn LogSink>>, LogFailure> {
        if *self.target.lock() == *target {
            return Ok(None);
        }
        sink::open(target).map(Some)
    }

    /// Opens the file of the log again, which another program may have moved away.
    pub(crate) fn reopen(&self, log: &Log) {
        if !matches!(log.to, LogTarget::File(_)) {
            return tracing::info!("USR1: no file to open again, lines go to {}", log.to);
        }
        match sink::open(&log.to) {
            Ok(sink) => {
                self.apply(log, Some(sink));
                tracing::info!("USR1: {} is open again", log.to);
            }
            Err(LogFailure { message, hint, .. }) => {
                tracing::error!("USR1: {message}; lines go where they went; {hint}");
            }
        }
    }

    /// Lines that were not taken, or not in time.
    pub(crate) fn dropped(&self) -> u64 {
        self.settings.dropped.load(Ordering::Relaxed)
    }

    /// Waits, not for long, until everything queued is written; nothing is written afterwards.
    pub(crate) fn finish(&self) {
        let Some(flushes) = self.flushes.lock().take() else { return };
        let (done, finished) = bounded(1);
        if flushes.send_timeout(done, FINISH_DEADLINE).is_ok() {
            // A stderr without a reader does not keep the process from ending.
            let _late = finished.recv_timeout(FINISH_DEADLINE);
        }
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::Write;

    use crate::config::{LogFormat, LogLevel};
    use crate::policy::log_choice::{LogChoice, LoggedSessions};
    use crossbeam::channel::Receiver;

    /// Passes on what is written; blocks until it is taken if the channel is a rendezvous.
    #[derive(Debug)]
    struct Sink(Sender<Vec<u8>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(level: LogLevel, format: LogFormat) -> Log {
        let (to, choice) = (LogTarget::Stderr, LogChoice::default());
        Log { level, format, to, choice, except: Vec::new() }
    }

    fn text(written: &Receiver<Vec<u8>>) -> String {
        let bytes: Vec<u8> = written.try_iter().flatten().collect();
        String::from_utf8(bytes).unwrap()
    }

    fn with_events(logging: &Logging, say: impl FnOnce()) {
        let subscriber = tracing_subscriber::registry().with(logging.layer());
        tracing::subscriber::with_default(subscriber, say);
    }

    // If this fails, lines logged just before the end of the process are lost.
    #[test]
    fn what_is_queued_is_written_before_the_end() {
        let (wire, written) = unbounded();
        let log = log(LogLevel::Info, LogFormat::Json);
        let logging = Logging::start_into(&log, Box::new(Sink(wire))).unwrap();
        with_events(&logging, || {
            tracing::warn!(error = "no route", "backend {} down", "pg/b2");
            tracing::debug!("not asked for");
        });
        logging.finish();
        let line: serde_json::Value = serde_json::from_str(&text(&written)).unwrap();
        assert_eq!(line["event"], "log");
        assert_eq!(line["level"], "warn");
        assert_eq!(line["message"], "backend pg/b2 down");
        assert_eq!(line["error"], "no route");
        assert_eq!(logging.dropped(), 0);
    }

    // If this fails, a stderr without a reader stops the control plane.
    #[test]
    fn a_blocked_reader_costs_lines_and_no_time() {
        let (wire, written) = bounded(0);
        let log = log(LogLevel::Info, LogFormat::Text);
        let logging = Logging::start_into(&log, Box::new(Sink(wire))).unwrap();
        with_events(&logging, || {
            // More than the queue and the batch being written can hold.
            for number in 0..8 * EVENTS_MAX {
                tracing::info!("line {number}");
            }
        });
        assert!(logging.dropped() > 0);
        drop(written);
    }

    // If this fails, `log.level` of a reload does nothing.
    #[test]
    fn the_level_changes_while_running() {
        let (wire, written) = unbounded();
        let logging =
            Logging::start_into(&log(LogLevel::Error, LogFormat::Text), Box::new(Sink(wire)))
                .unwrap();
        with_events(&logging, || {
            let say = |number: u32| tracing::info!("line {number}");
            say(1);
            logging.apply(&log(LogLevel::Debug, LogFormat::Text), None);
            say(2);
        });
        logging.finish();
        let written = text(&written);
        assert!(
            !written.contains("line 1") && written.contains(" message=\"line 2\"\n"),
            "{written}"
        );
    }

    // If this fails, workers make records that are not wanted, or none that are.
    #[test]
    fn the_session_log_can_be_switched() {
        let (wire, _written) = unbounded();
        let mut log = log(LogLevel::Info, LogFormat::Text);
        log.choice.sessions = LoggedSessions::None;
        let logging = Logging::start_into(&log, Box::new(Sink(wire))).unwrap();
        let sessions = logging.session_log();
        assert!(!sessions.is_on());
        log.choice.sessions = LoggedSessions::Failed;
        logging.apply(&log, None);
        assert!(sessions.is_on());
    }
}
