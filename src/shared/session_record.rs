//! One line of the session log, on its way from a worker to the thread that writes it.
//!
//! The queue is bounded and a worker never waits for it: a line that finds no room is dropped and
//! counted. Which sessions are logged can change while workers run: one atomic word, read before a
//! record is made.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use crossbeam::channel::Sender;

use crate::policy::client::Client;
use crate::policy::first_bytes::proxy_header::Malformed;
use crate::policy::log_choice::{LogChoice, LoggedEnd, LoggedSessions};

use super::ids::Generation;
use super::pick::{Obstacle, Pick};
use super::reasons::{ConnectFailure, EndCode, HeldOutcome, RefuseReason};
use super::snapshot::{Backend, Listener, Pool};
use super::stats::PathKind;

/// A session at its end, as the log gets it.
#[derive(Debug, Clone)]
pub struct SessionRecord {
    /// Unique within the process.
    pub session: u64,
    /// Where the client connected.
    pub listener: Arc<Listener>,
    /// The pool asked for a backend; `None` when the client was refused before.
    pub pool: Option<Arc<Pool>>,
    /// The backend that served, or was tried last.
    pub backend: Option<Arc<Backend>>,
    /// Where that was connected; `None` of a Unix socket.
    pub to: Option<SocketAddr>,
    /// The address that its client reached, where the log was to ask for it.
    pub client_local: Option<SocketAddr>,
    /// The address that its backend sees, where the log was to ask for it.
    pub backend_local: Option<SocketAddr>,
    /// What the client said first, where that decided anything.
    pub first_words: Option<Box<FirstWords>>,
    /// How it was chosen.
    pub pick: Pick,
    /// Backends that were passed over for it, and why.
    pub skipped: Box<[(Arc<Backend>, Obstacle)]>,
    /// The client.
    pub client: Client,
    /// Bytes delivered to the backend.
    pub bytes_to_backend: u64,
    /// Bytes delivered to the client.
    pub bytes_to_client: u64,
    /// Milliseconds it waited for a place at a backend; `None` when it did not.
    pub queue_ms: Option<u64>,
    /// Milliseconds, without those, until the backend was connected; `None` when it never was.
    pub connect_ms: Option<u64>,
    /// Milliseconds from accept to close.
    pub total_ms: u64,
    /// How most of its bytes went.
    pub path: PathKind,
    /// The snapshot under which it was accepted.
    pub generation: Generation,
    /// Two letters, as HAProxy's log has them.
    pub term: &'static str,
    /// The reason in words.
    pub reason: &'static str,
    /// What else there is to say.
    pub detail: Detail,
    /// The limit that turned the client away, or would have if it did not only observe.
    pub limit: Option<Arc<str>>,
}

impl SessionRecord {
    /// The record of a client of which nothing is known but how it ended.
    #[must_use]
    pub fn new(session: u64, arrival: ArrivedClient<'_>, code: EndCode) -> Self {
        let ArrivedClient { listener, client, generation } = arrival;
        Self {
            session,
            listener: Arc::clone(listener),
            pool: None,
            backend: None,
            to: None,
            client_local: None,
            backend_local: None,
            first_words: None,
            pick: Pick::default(),
            skipped: Box::default(),
            client,
            bytes_to_backend: 0,
            bytes_to_client: 0,
            queue_ms: None,
            connect_ms: None,
            total_ms: 0,
            path: PathKind::Copy,
            generation,
            term: code.term,
            reason: code.words,
            detail: Detail::None,
            limit: None,
        }
    }
}

/// What was learned from the bytes that were read of a client before there was a backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FirstWords {
    /// The route that it took, counted from 0 in the order of the file.
    pub route: Option<usize>,
    /// The server's name in its TLS hello, if that was looked at.
    pub server_name: Option<String>,
    /// Milliseconds until it had said enough.
    pub read_ms: u64,
}

/// What each line of the log names.
#[derive(Debug, Clone, Copy)]
pub struct ArrivedClient<'a> {
    /// Where it connected.
    pub listener: &'a Arc<Listener>,
    /// The client.
    pub client: Client,
    /// The snapshot under which it was judged.
    pub generation: Generation,
}

/// The detail that a line of the session log gives beside its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Nothing.
    None,
    /// A limit that only observes would have turned the client away.
    Observed(RefuseReason),
    /// What came of holding a refused connection.
    Held(HeldOutcome),
    /// Why the bytes at the beginning are no PROXY header.
    Header(Malformed),
    /// The number of connection attempts that failed, and how the last did.
    Attempts(usize, ConnectFailure),
    /// The kernel refused the client this many times since it was told last; clients with the same
    /// leading bits count as one.
    InKernel(u64, u8),
}

/// A record and the moment its session ended.
pub type ClosedSession = (SystemTime, SessionRecord);

/// A worker's end of the session log.
#[derive(Debug, Clone)]
pub struct SessionLog {
    queue: Sender<ClosedSession>,
    choice: Arc<AtomicU64>,
    dropped: Arc<AtomicU64>,
}

impl SessionLog {
    /// Writes to `queue` what the bits of `choice`, a [`LogChoice`], want; counts what finds no
    /// room in `dropped`.
    #[must_use]
    pub fn new(
        queue: Sender<ClosedSession>,
        choice: Arc<AtomicU64>,
        dropped: Arc<AtomicU64>,
    ) -> Self {
        Self { queue, choice, dropped }
    }

    /// What is wanted of the log now.
    #[must_use]
    pub fn choice(&self) -> LogChoice {
        LogChoice::from_bits(self.choice.load(Ordering::Relaxed))
    }

    /// Whether any record goes anywhere.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.choice().sessions != LoggedSessions::None
    }

    /// What is wanted of the log, if it wants a session that ends so; else no record of it need be
    /// made.
    #[must_use]
    pub fn wants(&self, end: LoggedEnd) -> Option<LogChoice> {
        let choice = self.choice();
        choice.wants(end).then_some(choice)
    }

    /// Hands a record over without waiting. `closed` comes from the worker: the thread that writes
    /// the line may be held up for long.
    pub fn write(&self, closed: SystemTime, record: SessionRecord) {
        if self.queue.try_send((closed, record)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}
