//! Which backend serves a session, and from which of our addresses it is connected.
//!
//! [`maglev`] hashes consistently over [`hash`], the function that every node agrees on;
//! [`round_robin`], [`least_connections`], [`least_latency`] and [`random`] choose by turn, load,
//! waiting time or chance. [`bounded_load`] and [`slow_start`] limit what one backend gets,
//! [`sticky`] remembers the backend that a client had, and [`panic_mode`] says when too few
//! backends are healthy to believe the verdicts. [`source`] chooses the address to connect from.

pub mod bounded_load;
pub mod hash;
pub mod least_connections;
pub mod least_latency;
pub mod maglev;
pub mod panic_mode;
pub mod random;
pub mod round_robin;
#[cfg(test)]
mod shares;
pub mod slow_start;
pub mod source;
pub mod sticky;

use crate::policy::terms::Word;

/// How a backend is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BalanceAlgorithm {
    /// Consistent hashing of the client.
    Maglev,
    /// Smooth weighted round-robin.
    RoundRobin,
    /// Fewest open sessions for its weight, fractions of a session in turn.
    LeastConnections,
    /// Two by chance, of which the one where sessions wait less.
    LeastLatency,
    /// Two by chance, of which the one with fewer sessions for its weight.
    RandomTwo,
    /// One by chance, by weight.
    Random,
    /// The first in the file that can serve.
    First,
}

impl Word for BalanceAlgorithm {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("maglev", Self::Maglev),
        ("round-robin", Self::RoundRobin),
        ("least-connections", Self::LeastConnections),
        ("least-latency", Self::LeastLatency),
        ("random-two", Self::RandomTwo),
        ("random", Self::Random),
        ("first", Self::First),
    ];
}
