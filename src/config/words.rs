//! Words of the format that a configuration keeps as something else: a flag, or the beginning of a
//! value that says more.

use crate::policy::terms::Word;

/// `others` of `accept_proxy`: what becomes of peers of which no header is required.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OtherPeers {
    /// They are refused.
    Refuse,
    /// They are served as clients.
    Direct,
}

impl Word for OtherPeers {
    const WORDS: &'static [(&'static str, Self)] =
        &[("refuse", Self::Refuse), ("direct", Self::Direct)];
}

/// `on_timeout` of `peek`: what becomes of a client that does not say enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnPeekTimeout {
    /// It is reset.
    Close,
    /// It goes on to the listener's pool.
    Default,
}

impl Word for OnPeekTimeout {
    const WORDS: &'static [(&'static str, Self)] =
        &[("close", Self::Close), ("default", Self::Default)];
}

/// `mode` of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LimitMode {
    /// Clients over it are turned away.
    Enforce,
    /// They are counted and let through.
    Observe,
}

impl Word for LimitMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("enforce", Self::Enforce), ("observe", Self::Observe)];
}

/// `initial` of `health`: the verdict before the first probe has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InitialVerdict {
    /// The backend serves.
    Up,
    /// It waits for its probes.
    Down,
}

impl Word for InitialVerdict {
    const WORDS: &'static [(&'static str, Self)] = &[("up", Self::Up), ("down", Self::Down)];
}

/// `hash_key` up to the name of the header or the cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HashKeyForm {
    /// The client's address.
    ClientIp,
    /// The client's address and port.
    ClientIpPort,
    /// The server name in the client's TLS hello.
    Sni,
    /// A header of the first request, whose name follows.
    Header,
    /// A cookie of the first request, whose name follows.
    Cookie,
}

impl Word for HashKeyForm {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("client-ip", Self::ClientIp),
        ("client-ip-port", Self::ClientIpPort),
        ("sni", Self::Sni),
        ("http-header ", Self::Header),
        ("http-cookie ", Self::Cookie),
    ];
}

/// `on_down` up to the rate of `pace`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnDownForm {
    /// Sessions go on.
    Keep,
    /// All are reset at once.
    Reset,
    /// They are reset at the rate that follows.
    Pace,
}

impl Word for OnDownForm {
    const WORDS: &'static [(&'static str, Self)] =
        &[("keep", Self::Keep), ("reset", Self::Reset), ("pace ", Self::Pace)];
}

/// `probe` of `health`, without what belongs to each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProbeKind {
    /// Connects.
    Tcp,
    /// Makes a request over HTTP.
    Http,
    /// Sends bytes and expects others.
    SendExpect,
    /// Makes a TLS handshake.
    Tls,
}

impl Word for ProbeKind {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("tcp", Self::Tcp),
        ("http", Self::Http),
        ("send-expect", Self::SendExpect),
        ("tls", Self::Tls),
    ];
}
