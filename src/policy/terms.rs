//! Terms that the configuration writes and the planes obey, each one type for both.
//!
//! A term that the configuration writes as a word has its words here as well, in [`Word::WORDS`]:
//! they are read, shown, documented and proposed from that list.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A term that is written as one word of a fixed list.
pub trait Word: Copy + PartialEq + 'static {
    /// Every word with what it means, in the order in which messages show them.
    const WORDS: &'static [(&'static str, Self)];

    /// The term that a word stands for.
    fn of_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, term)| *term)
    }

    /// The word for it; empty for a value that has none.
    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, term)| *term == self).map_or("", |(word, _)| word)
    }
}

/// Most clients that a table remembers, 8 bytes each: those of a limit, those with open sessions,
/// and those whose backend is remembered.
pub const CLIENT_TABLE_MAX: u32 = 1 << 24;

/// Where a listener accepts or a backend listens. A copy of an IP address costs no more than the
/// address; that of a path counts a reference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// TCP.
    Ip(SocketAddr),
    /// TCP, at the port to which the client connected; of backends only.
    Host(HostAddress),
    /// A Unix stream socket: an absolute path of at most 107 bytes, without control characters;
    /// compared by its parts, so that `//` is `/`.
    Unix(Arc<Path>),
}

impl Address {
    /// What is written before the path of a Unix socket.
    pub const UNIX_PREFIX: &'static str = "unix:";

    /// The IP address and port; `None` of a Unix socket, and of a host without a port.
    #[must_use]
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Host(_) | Self::Unix(_) => None,
        }
    }

    /// The IP address alone; `None` of a Unix socket.
    #[must_use]
    pub fn host_ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Host(host) => Some(host.ip()),
            Self::Unix(_) => None,
        }
    }

    /// Whether it is that of a host, without a port.
    #[must_use]
    pub fn is_without_port(&self) -> bool {
        matches!(self, Self::Host(_))
    }

    /// Whether it is a Unix socket.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(_))
    }
}

/// An IP address without a port; that of a link has its interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostAddress(SocketAddr);

impl HostAddress {
    /// The host of an address, whatever its port.
    #[must_use]
    pub fn of(mut address: SocketAddr) -> Self {
        address.set_port(0);
        Self(address)
    }

    /// Its IP address.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        self.0.ip()
    }

    /// Its address at a port.
    #[must_use]
    pub fn at(self, port: u16) -> SocketAddr {
        let mut address = self.0;
        address.set_port(port);
        address
    }
}

impl fmt::Display for HostAddress {
    /// As the configuration has it: `10.0.0.1`, `fd00::1`, `fe80::1%3`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            SocketAddr::V6(link) if link.scope_id() != 0 => {
                write!(out, "{}%{}", link.ip(), link.scope_id())
            }
            other => write!(out, "{}", other.ip()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for Address {
    /// As the configuration has it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => write!(out, "{address}"),
            Self::Host(host) => write!(out, "{host}"),
            Self::Unix(path) => write!(out, "{}{}", Self::UNIX_PREFIX, path.display()),
        }
    }
}

/// TCP keepalive: first packet after `idle`, then `count` packets `interval` apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first packet (whole seconds).
    pub idle: Duration,
    /// Time between packets (whole seconds).
    pub interval: Duration,
    /// Unanswered packets that end the connection.
    pub count: u32,
}

impl Keepalive {
    /// How long a silent peer that is gone keeps its connection: `idle`, and `count` times
    /// `interval`. At most 24 days, which TCP_USER_TIMEOUT can say.
    #[must_use]
    pub fn patience(&self) -> Duration {
        const MOST: Duration = Duration::from_secs(24 * 86_400);
        self.idle.saturating_add(self.interval.saturating_mul(self.count)).min(MOST)
    }
}

/// How clients wait while every backend is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// How many wait at once, over all workers; at least 1.
    pub max: u32,
    /// How long each waits.
    pub timeout: Duration,
}

/// How what clients say first is looked at, where a route or a hash needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peek {
    /// How long the client may take to say enough.
    pub timeout: Duration,
    /// Bytes looked at, at most.
    pub max_bytes: u32,
    /// Then: true is the listener's pool, false is a refusal.
    pub is_default_else: bool,
    /// Whether PostgreSQL clients that ask for TLS are answered, so that their hello comes.
    pub is_postgres: bool,
}

/// When a session may move bytes by splice(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpliceMode {
    /// Copy small messages, splice bulk, decided per direction as bytes arrive.
    Auto,
    /// Always copy.
    Never,
    /// Splice from the first byte.
    Always,
}

impl Word for SpliceMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("never", Self::Never), ("always", Self::Always)];
}

/// What clients of a listener speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Anything; refusals are resets or closes.
    Tcp,
    /// HTTP/1; refusals are answered.
    Http,
}

impl Word for Protocol {
    const WORDS: &'static [(&'static str, Self)] = &[("tcp", Self::Tcp), ("http", Self::Http)];
}

/// How silence ends a session of which nothing is on its way and neither side has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnIdle {
    /// TCP reset, once bytes have moved.
    Reset,
    /// FIN.
    Close,
}

impl Word for OnIdle {
    const WORDS: &'static [(&'static str, Self)] =
        &[("reset", Self::Reset), ("close", Self::Close)];
}

/// Whether the kernel refuses clients that are over a limit, where it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelRefusal {
    /// It does where it can; else workers refuse.
    Auto,
    /// Workers refuse.
    Off,
    /// It does, or the configuration is refused.
    Require,
}

impl Word for KernelRefusal {
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("off", Self::Off), ("require", Self::Require)];
}

/// How a client over its limit is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitAction {
    /// TCP reset.
    Reset,
    /// Orderly close.
    Close,
    /// HTTP 429 where the protocol is HTTP, else as `Close`.
    Reply,
    /// Kept waiting in silence, then reset.
    Tarpit,
}

impl Word for LimitAction {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("reset", Self::Reset),
        ("close", Self::Close),
        ("reply", Self::Reply),
        ("tarpit", Self::Tarpit),
    ];
}
