//! The answer of a chapter of a session's life: the next step.

use crate::dataplane::stream::{End, Reset};
use crate::policy::admit::http_answer::HttpAnswer;
use crate::shared::{CloseReason, ConnectFailure, RefuseReason};

/// What comes next for one session. Two words, which chapters hand on in registers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Wait for the next event or the timer, which is armed already.
    Wait,
    /// Wait, with the timer armed for where the session is now.
    Rearm,
    /// There is more to move: have another turn.
    Again,
    /// Read what the client says first.
    Read,
    /// Choose a backend and connect it, but do not overtake clients that wait in line.
    Connect,
    /// The attempt under way has failed: choose another backend.
    Retry(ConnectFailure),
    /// An attempt has begun: hear of its sockets, and wait.
    Watch,
    /// Every backend that could serve is full, and the pool lets clients wait: join the line.
    LineUp,
    /// Wait in the line; a place may be there already.
    TryLine,
    /// Wait until a backend that failed may be tried again.
    Rest,
    /// The backend is connected: send it the header that it has to get first.
    Greet,
    /// The backend is connected and has its PROXY header, if it wants one: bytes may move.
    Move,
    /// Turn the client away.
    Refuse(RefuseReason),
    /// Turn the client away, who is over a limit.
    RefuseOver(Box<Refusal>),
    /// End the session.
    End(End),
}

/// Why a client is turned away, and what it is told if it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: RefuseReason,
    pub(crate) answer: HttpAnswer,
    /// The place of the limit among those of the listener, where the reason is one.
    pub(crate) limit: usize,
}

impl From<RefuseReason> for Refusal {
    fn from(reason: RefuseReason) -> Self {
        Self { reason, answer: HttpAnswer::Unavailable, limit: 0 }
    }
}

impl Next {
    /// End a session whose client is gone before it was served.
    pub(crate) const GONE: Self =
        Self::End(End { reason: CloseReason::ClientGone, reset: Reset::Both });
}
