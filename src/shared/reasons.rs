//! Why a client was turned away, why a session ended, why a backend could not be reached.
//!
//! One enum each is the index of a counter, the label of a metric, and the code and words of the
//! session log, so that the three can never disagree. The two-letter codes are those of HAProxy's
//! log (configuration manual, section 8.5): which side ended it, then what was going on.

use crate::policy::log_choice::LoggedEnd;

/// An end as a line of the session log names it: two letters, and words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndCode {
    /// Two letters, as HAProxy's log has them.
    pub term: &'static str,
    /// The reason in words.
    pub words: &'static str,
}

impl EndCode {
    /// A client that waited in line for a place and was turned away.
    pub const NO_PLACE: Self = Self { term: "sQ", words: "no place at a backend in time" };
    /// A client whose last attempt to connect a backend timed out.
    pub const CONNECT_TIMEOUT: Self = Self { term: "sC", words: RefuseReason::NoBackend.words() };

    /// How the session log's choice sees a session of this end that delivered so many bytes.
    #[must_use]
    pub fn logged_end(self, session: u64, bytes: u64) -> LoggedEnd {
        let [done, client_reset] =
            [CloseReason::Done, CloseReason::ClientReset].map(CloseReason::code);
        LoggedEnd {
            session,
            is_failed: self != done,
            is_silent: bytes == 0 && (self == done || self == client_reset),
        }
    }
}

/// Why a connection was refused before it became a session with a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefuseReason {
    /// The client connects more often than its limit allows.
    Limit,
    /// The client has all the sessions that it may have.
    Concurrent,
    /// All clients of the listener together connect more often than its limit allows.
    ListenerRate,
    /// The client's address is not admitted.
    Access,
    /// An operator has banned the client.
    Ban,
    /// The process or the listener holds all the sessions that it may hold.
    MaxSessions,
    /// The process has no descriptor or no kernel memory left.
    Descriptors,
    /// No backend could be reached.
    NoBackend,
    /// No PROXY header came from a peer that has to send one, or from one that may not.
    ProxyHeader,
    /// The client did not say in time where it wants to go.
    Peek,
}

impl RefuseReason {
    /// Code and words of the session log.
    #[must_use]
    pub const fn code(self) -> EndCode {
        EndCode { term: self.term(), words: self.words() }
    }

    /// All of them, in the order of their indexes.
    pub const ALL: [Self; 10] = [
        Self::Limit,
        Self::Concurrent,
        Self::ListenerRate,
        Self::Access,
        Self::Ban,
        Self::MaxSessions,
        Self::Descriptors,
        Self::NoBackend,
        Self::ProxyHeader,
        Self::Peek,
    ];

    /// Those for which the kernel may refuse clients by itself.
    pub const IN_KERNEL: [Self; 3] = [Self::Limit, Self::Access, Self::Ban];

    /// Position in [`Self::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Concurrent => "concurrent",
            Self::ListenerRate => "listener_rate",
            Self::Access => "access",
            Self::Ban => "ban",
            Self::MaxSessions => "max_sessions",
            Self::Descriptors => "descriptors",
            Self::NoBackend => "no_backend",
            Self::ProxyHeader => "proxy_header",
            Self::Peek => "peek",
        }
    }

    /// HAProxy's two letters.
    #[must_use]
    pub const fn term(self) -> &'static str {
        match self {
            Self::Limit
            | Self::Concurrent
            | Self::ListenerRate
            | Self::Access
            | Self::Ban
            | Self::ProxyHeader => "PR",
            Self::Peek => "cR",
            Self::MaxSessions | Self::Descriptors => "RC",
            Self::NoBackend => "SC",
        }
    }

    /// For the session log.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Limit => "client over its rate",
            Self::Concurrent => "client over its concurrent sessions",
            Self::ListenerRate => "listener over its rate",
            Self::Access => "client address not admitted",
            Self::Ban => "client banned by an operator",
            Self::MaxSessions => "max_sessions reached",
            Self::Descriptors => "out of descriptors",
            Self::NoBackend => "no backend could be reached",
            Self::ProxyHeader => "no PROXY header, or none that is valid",
            Self::Peek => "client did not say where it wants to go",
        }
    }
}

/// What came of a refusal that was held: answered in HTTP, or kept waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeldOutcome {
    /// The answer was sent.
    Answered,
    /// No HTTP request came: something else, or nothing in time.
    NotHttp,
    /// The client left before.
    Left,
    /// It was kept waiting for the full time, and reset.
    Tarpitted,
    /// The room for held clients was full: it was reset at once.
    NoRoom,
    /// It was reset for a stop, a reload, or want of descriptors.
    GivenUp,
}

impl HeldOutcome {
    /// HAProxy's two letters for a client that was kept waiting; `None` where those of its refusal
    /// stay.
    #[must_use]
    pub const fn tarpit_term(self) -> Option<&'static str> {
        match self {
            Self::NoRoom => None,
            Self::Left => Some("CT"),
            _ => Some("PT"),
        }
    }

    /// All of them, in the order of their indexes.
    pub const ALL: [Self; 6] =
        [Self::Answered, Self::NotHttp, Self::Left, Self::Tarpitted, Self::NoRoom, Self::GivenUp];

    /// Position in [`Self::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::NotHttp => "not_http",
            Self::Left => "left",
            Self::Tarpitted => "tarpitted",
            Self::NoRoom => "no_room",
            Self::GivenUp => "given_up",
        }
    }

    /// For the session log, behind the reason.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::NotHttp => "sent no HTTP request",
            Self::Left => "left before an answer",
            Self::Tarpitted => "kept waiting",
            Self::NoRoom => "no room to hold it",
            Self::GivenUp => "given up",
        }
    }
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// Both sides sent EOF and everything was delivered.
    Done,
    /// The client reset the connection.
    ClientReset,
    /// The backend reset the connection.
    BackendReset,
    /// The kernel gave the client up: it did not acknowledge what it was sent, or answer keepalive.
    ClientTimeout,
    /// The kernel gave the backend up, for the same.
    BackendTimeout,
    /// The client went away while the backend was being connected.
    ClientGone,
    /// No byte in either direction for `idle_timeout`.
    Idle,
    /// One side had sent EOF and the other was silent for `half_closed_timeout`.
    HalfClosed,
    /// The session has lasted for `max_lifetime`.
    Lifetime,
    /// Its backend went down and `on_down` says to reset such sessions.
    BackendDown,
    /// Its backend is a backup, a primary can serve again, and `on_up` says to reset such sessions.
    PrimaryUp,
    /// An operator had the sessions of its backend reset (`drain --reset`).
    DrainReset,
    /// An operator had it ended (`kill`).
    Killed,
    /// `drain_timeout` passed, or a second signal asked to stop at once.
    Drain,
    /// Something that should not happen; the words in the log say what.
    Internal,
}

impl CloseReason {
    /// Code and words of the session log.
    #[must_use]
    pub const fn code(self) -> EndCode {
        EndCode { term: self.term(), words: self.words() }
    }

    /// All of them, in the order of their indexes.
    pub const ALL: [Self; 15] = [
        Self::Done,
        Self::ClientReset,
        Self::BackendReset,
        Self::ClientTimeout,
        Self::BackendTimeout,
        Self::ClientGone,
        Self::Idle,
        Self::HalfClosed,
        Self::Lifetime,
        Self::BackendDown,
        Self::PrimaryUp,
        Self::DrainReset,
        Self::Killed,
        Self::Drain,
        Self::Internal,
    ];

    /// Position in [`Self::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::ClientReset => "client_reset",
            Self::BackendReset => "backend_reset",
            Self::ClientTimeout => "client_timeout",
            Self::BackendTimeout => "backend_timeout",
            Self::ClientGone => "client_gone",
            Self::Idle => "idle_timeout",
            Self::HalfClosed => "half_closed_timeout",
            Self::Lifetime => "max_lifetime",
            Self::BackendDown => "backend_down",
            Self::PrimaryUp => "primary_up",
            Self::DrainReset => "drain_reset",
            Self::Killed => "killed",
            Self::Drain => "drain",
            Self::Internal => "internal",
        }
    }

    /// HAProxy's two letters.
    #[must_use]
    pub const fn term(self) -> &'static str {
        match self {
            Self::Done => "--",
            Self::ClientReset => "CD",
            Self::BackendReset => "SD",
            Self::ClientGone => "CC",
            Self::Idle | Self::HalfClosed | Self::ClientTimeout => "cD",
            Self::BackendTimeout => "sD",
            Self::Lifetime | Self::Drain | Self::DrainReset | Self::Killed => "KD",
            Self::BackendDown => "DD",
            Self::PrimaryUp => "UD",
            Self::Internal => "ID",
        }
    }

    /// For the session log.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Done => "closed by both sides",
            Self::ClientReset => "client reset the connection",
            Self::BackendReset => "backend reset the connection",
            Self::ClientTimeout => "client did not answer",
            Self::BackendTimeout => "backend did not answer",
            Self::ClientGone => "client left during the connect",
            Self::Idle => "idle_timeout reached",
            Self::HalfClosed => "half_closed_timeout reached",
            Self::Lifetime => "max_lifetime reached",
            Self::BackendDown => "backend went down",
            Self::PrimaryUp => "a primary can serve again",
            Self::DrainReset => "reset by an operator",
            Self::Killed => "killed by an operator",
            Self::Drain => "drain ended",
            Self::Internal => "internal error",
        }
    }
}

/// Why one connection attempt to a backend failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectFailure {
    /// Nothing listens there, or the handshake was reset.
    Refused,
    /// `connect_timeout` passed.
    Timeout,
    /// No route, or no such network or host.
    Unreachable,
    /// This host has no source port left.
    NoPort,
    /// There is no address to connect from: this host does not have it, or the client has none of
    /// the backend's family; or no port to connect to, since the client of a Unix socket has none.
    NoSource,
    /// The connection met itself.
    Loop,
    /// The accept queue of its Unix socket is full.
    QueueFull,
    /// There is no such Unix socket.
    NoSocket,
    /// This user, or a security policy, may not.
    Denied,
    /// It does not speak TLS, which its client was promised.
    NoTls,
    /// Anything else.
    Other,
}

impl ConnectFailure {
    /// All of them, in the order of their indexes.
    pub const ALL: [Self; 11] = [
        Self::Refused,
        Self::Timeout,
        Self::Unreachable,
        Self::NoPort,
        Self::NoSource,
        Self::Loop,
        Self::QueueFull,
        Self::NoSocket,
        Self::Denied,
        Self::NoTls,
        Self::Other,
    ];

    /// Position in [`Self::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::NoPort => "no_port",
            Self::NoSource => "no_source",
            Self::Loop => "loop",
            Self::QueueFull => "queue_full",
            Self::NoSocket => "no_socket",
            Self::Denied => "denied",
            Self::NoTls => "no_tls",
            Self::Other => "other",
        }
    }

    /// For the session log.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Refused => "connect refused",
            Self::Timeout => "connect timed out",
            Self::Unreachable => "unreachable",
            Self::NoPort => "no source port left",
            Self::NoSource => "no address to connect from",
            Self::Loop => "connected to itself",
            Self::QueueFull => "accept queue full",
            Self::NoSocket => "no such socket",
            Self::Denied => "permission denied",
            Self::NoTls => "backend without TLS",
            Self::Other => "connect failed",
        }
    }

    /// Whether it tells of the backend, or of this host.
    #[must_use]
    pub const fn is_of_the_backend(self) -> bool {
        matches!(
            self,
            Self::Refused
                | Self::Timeout
                | Self::Unreachable
                | Self::QueueFull
                | Self::NoSocket
                | Self::Denied
                | Self::NoTls
        )
    }

    /// The class of an error that connect(2) gave.
    #[must_use]
    pub fn of(error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Self::Refused,
            ErrorKind::TimedOut => Self::Timeout,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Self::Unreachable,
            ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse => Self::NoPort,
            // Of Unix sockets: TCP is under way by then, and has no file.
            ErrorKind::WouldBlock => Self::QueueFull,
            ErrorKind::NotFound => Self::NoSocket,
            ErrorKind::PermissionDenied => Self::Denied,
            _ => Self::Other,
        }
    }
}

/// How a backend failed a session, as far as it speaks against the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Symptom {
    /// It could not be connected.
    Connect(ConnectFailure),
    /// It reset a new connection before its first byte.
    Reset,
    /// It closed a new connection before its first byte.
    Closed,
    /// It did not answer a new connection's first bytes.
    Unanswered,
}

impl Symptom {
    /// For the log.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Connect(failure) => failure.words(),
            Self::Reset => "reset before its first byte",
            Self::Closed => "closed before its first byte",
            Self::Unanswered => "did not answer",
        }
    }
}
