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

use maglev::{Maglev, MaglevError};

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

impl BalanceAlgorithm {
    /// Whether it looks at how long it takes to connect.
    #[must_use]
    pub fn measures(self) -> bool {
        self == Self::LeastLatency
    }

    /// Whether the same client gets the same backend, while the same backends can serve.
    #[must_use]
    pub fn is_certain(self) -> bool {
        matches!(self, Self::Maglev | Self::First)
    }

    /// How it comes to its choice, in words for an operator.
    #[must_use]
    pub fn explained(self) -> &'static str {
        match self {
            Self::Maglev => "by the client's slot",
            Self::RoundRobin => "each worker takes its own turns",
            Self::LeastConnections => "of equals each in turn",
            Self::LeastLatency | Self::RandomTwo => "the better of two drawn by chance",
            Self::Random => "by chance",
            Self::First => "in the order of the file",
        }
    }
}

/// How a group of backends chooses: an algorithm with what it looks at.
#[derive(Debug)]
pub enum Balance {
    /// Consistent hashing.
    Maglev(Maglev),
    /// In turn; each worker keeps its own turn.
    RoundRobin(Vec<u32>),
    /// Fewest sessions for its weight.
    LeastConnections(Vec<u32>),
    /// Two by chance, of which the one where sessions wait less.
    LeastLatency(Vec<u32>),
    /// Two by chance, of which the one with fewer sessions for its weight.
    RandomTwo(Vec<u32>),
    /// One by chance.
    Random(Vec<u32>),
    /// The first that can serve.
    First,
    /// There is no backend to choose.
    Empty,
}

impl Balance {
    /// How the backends of `list`, each with its weight, are chosen; only `maglev` looks at their
    /// names, and at `table_size` and `seed`.
    ///
    /// # Errors
    /// Those of [`Maglev::new`].
    pub fn new(
        algorithm: BalanceAlgorithm,
        list: &[(&str, u32)],
        table_size: u32,
        seed: u64,
    ) -> Result<Self, MaglevError> {
        let weights: Vec<u32> = list.iter().map(|(_, weight)| *weight).collect();
        if weights.iter().all(|weight| *weight == 0) {
            return Ok(Self::Empty);
        }
        Ok(match algorithm {
            BalanceAlgorithm::Maglev => Self::Maglev(Maglev::new(list, table_size, seed)?),
            BalanceAlgorithm::RoundRobin => Self::RoundRobin(weights),
            BalanceAlgorithm::LeastConnections => Self::LeastConnections(weights),
            BalanceAlgorithm::LeastLatency => Self::LeastLatency(weights),
            BalanceAlgorithm::RandomTwo => Self::RandomTwo(weights),
            BalanceAlgorithm::Random => Self::Random(weights),
            BalanceAlgorithm::First => Self::First,
        })
    }
}
