//! What a worker keeps of one accepted connection, beside the state machine of its bytes.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::policy::limiter::{LimitKey, Limiter};
use crate::shared::{
    BackendId, ConnectFailure, Generation, Listener, ListenerId, PoolId, RefuseReason, Snapshot,
};
use crate::sys::splice::Pipe;

use super::clock::Tick;
use super::session::Session;

/// Silence after which a session's backend socket gets its keepalive. Most sessions end sooner and
/// never pay for it; the client's socket inherits it from the listening one.
const KEEPALIVE_DELAY: Duration = Duration::from_secs(20);
/// How often to look whether a lingering session may be closed: no event tells.
const LINGER_LOOK: Duration = Duration::from_millis(20);

/// One accepted connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) session: Session<Pipe>,
    pub(crate) client: OwnedFd,
    pub(crate) backend: Option<OwnedFd>,
    pub(crate) stage: Stage,
    pub(crate) peer: SocketAddr,
    pub(crate) place: Place,
    pub(crate) times: Times,
    /// Backends that failed this session; empty for nearly all, and then owns nothing.
    pub(crate) tried: Vec<BackendId>,
    /// How the latest of those failed.
    pub(crate) failure: Option<ConnectFailure>,
    /// In the ready queue.
    pub(crate) queued: bool,
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Waiting for a backend's handshake.
    Connecting,
    /// Moving bytes; keepalive is not set on the backend's socket yet.
    Young,
    /// Moving bytes.
    Settled,
    /// Over, but for the last bytes in the kernel.
    Lingering,
}

/// Where a connection belongs.
#[derive(Debug)]
pub(crate) struct Place {
    /// Unique within the process.
    pub(crate) number: u64,
    pub(crate) listener: ListenerId,
    pub(crate) pool: PoolId,
    /// The backend on which a place is claimed.
    pub(crate) backend: Option<BackendId>,
    pub(crate) generation: Generation,
    /// Where the session is counted against its client's concurrent sessions.
    pub(crate) counted: Option<Counted>,
    /// Why a limit that only observes would have turned the client away.
    pub(crate) observed: Option<RefuseReason>,
}

/// One session counted for its client; holds on to the table, which a reload may replace.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) key: LimitKey,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.limiter.leave(self.key);
    }
}

/// What came of judging a client that was let in.
#[derive(Debug, Default)]
pub(crate) struct Admitted {
    pub(crate) counted: Option<Counted>,
    pub(crate) observed: Option<RefuseReason>,
}

/// When things happened to a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) opened: Tick,
    /// When the latest connection attempt began.
    pub(crate) attempted: Tick,
    /// When the backend was connected.
    pub(crate) connected: Option<Tick>,
    /// When a byte last moved.
    pub(crate) active: Tick,
}

impl Connection {
    /// When its timer has to be looked at.
    pub(crate) fn next_check(&self, snapshot: &Snapshot, now: Tick) -> Tick {
        if self.stage == Stage::Connecting {
            let timeout =
                snapshot.pool(self.place.pool).map_or(Duration::ZERO, |pool| pool.connect_timeout);
            return self.times.attempted.after(timeout);
        }
        let Some(listener) = snapshot.listener(self.place.listener) else { return now };
        let deadline = self.silence_deadline(listener);
        match self.stage {
            Stage::Young => deadline.min(now.after(KEEPALIVE_DELAY)),
            Stage::Lingering => deadline.min(now.after(LINGER_LOOK)),
            Stage::Connecting | Stage::Settled => deadline,
        }
    }

    /// When silence ends the session.
    pub(crate) fn silence_deadline(&self, listener: &Listener) -> Tick {
        let bound = if self.session.is_half_closed() {
            listener.half_closed_timeout.min(listener.idle_timeout)
        } else {
            listener.idle_timeout
        };
        self.times.active.after(bound)
    }

    /// Makes the coming close of the backend's socket send a reset.
    pub(crate) fn reset_backend(&self) {
        if let Some(backend) = &self.backend {
            crate::sys::socket::reset_on_close(backend.as_fd());
        }
    }

    /// Makes the coming close of the client's socket send a reset.
    pub(crate) fn reset_client(&self) {
        crate::sys::socket::reset_on_close(self.client.as_fd());
    }
}
