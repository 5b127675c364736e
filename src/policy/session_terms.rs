//! What a configuration says that holds for each session, as the data plane reads it: a key that is
//! read into one of these needs no line in what makes snapshots.

use std::time::Duration;

use crate::policy::balance::panic_mode::PanicThreshold;
use crate::policy::first_bytes::proxy_header::ProxyVersion;
use crate::policy::first_bytes::proxy_header::tlv::TlvKinds;
use crate::policy::health::outlier::EjectionRules;
use crate::policy::pace::pacer::Rates;
use crate::policy::terms::{Keepalive, OnIdle, Protocol, Queue};

/// What a listener's table says that holds for each of its sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerTerms {
    /// What clients speak, as far as refusals go.
    pub protocol: Protocol,
    /// A session without a byte in either direction ends after this.
    pub idle_timeout: Duration,
    /// `idle_timeout` of a session of which one side has sent EOF.
    pub half_closed_timeout: Duration,
    /// How the first of these ends a session at rest.
    pub on_idle: OnIdle,
    /// A session ends after this, spread by a tenth either way; `None` is never.
    pub max_lifetime: Option<Duration>,
    /// TCP keepalive of both sockets.
    pub keepalive: Keepalive,
    /// TCP_USER_TIMEOUT of both sockets; `None` follows from `keepalive`.
    pub user_timeout: Option<Duration>,
    /// What a session may take from its client and from its backend, in bytes a second.
    pub bandwidth: Rates,
}

/// What a pool's table says that holds for each session that goes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolTerms {
    /// Bound on one connection attempt.
    pub connect_timeout: Duration,
    /// Further attempts, each on another backend while there is one.
    pub retries: u32,
    /// How long after an attempt that failed the same backend is not tried again for the client.
    pub retry_delay: Duration,
    /// The PROXY header that backends get before the client's bytes; `None` is none.
    pub send_proxy: Option<ProxyVersion>,
    /// TLVs of a client's own header that are passed on in it.
    pub pass_tlvs: TlvKinds,
    /// Its longest, in bytes.
    pub send_proxy_max: u32,
    /// Clients wait while every backend is full; `None`: they are turned away.
    pub queue: Option<Queue>,
    /// In thousandths, 1,000 to 100,000: see [`crate::policy::balance::bounded_load`]; `None` is no
    /// bound.
    pub load_factor: Option<u32>,
    /// How long the share of a backend that came up, or is new, grows: see
    /// [`crate::policy::balance::slow_start`]; `None`: it is whole at once.
    pub slow_start: Option<Duration>,
    /// When the verdicts of probes and sessions are ignored.
    pub panic_threshold: PanicThreshold,
    /// When backends are ejected; `None` is never.
    pub outlier: Option<EjectionRules>,
}

impl PoolTerms {
    /// How long after the beginning of an attempt that failed the same backend is not tried again:
    /// one that did not answer at all is free for another attempt at once.
    #[must_use]
    pub fn repeat_delay(&self) -> Duration {
        self.retry_delay.min(self.connect_timeout)
    }
}
