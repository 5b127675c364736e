//! Where connections to a backend come from, where that is not left to the kernel.
//!
//! **Synchronization.** The ports of a source towards one backend are counted by all workers and
//! exact, as every [`Gauge`]. A turn has one writer, its worker. Until when a source rests is a
//! hint: a worker that reads an old one asks a source that has nothing, or asks it last.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use crate::policy::balance::source::{REST_US, in_turn, ports_for_sessions};
use crate::policy::terms::Address;

use super::stats::{Counter, Gauge};

/// Where connections to a backend come from.
#[derive(Debug)]
pub enum SourceRule {
    /// From these addresses, in turn.
    Sources(Sources),
    /// From the client's own.
    Client,
}

/// Why a connection did not come from the source whose turn it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spill {
    /// Sessions had all ports that they may use.
    Full,
    /// The kernel had none left.
    NoPort,
    /// It is no address of this host.
    NoAddress,
}

impl Spill {
    /// All of them, in the order of their indexes.
    pub const ALL: [Self; 3] = [Self::Full, Self::NoPort, Self::NoAddress];

    /// Metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::NoPort => "no_port",
            Self::NoAddress => "no_address",
        }
    }
}

/// One address to connect from, towards one backend's address. Pools that share both share it.
#[derive(Debug)]
pub struct Source {
    address: IpAddr,
    backend: Address,
    in_use: Gauge,
    /// In microseconds of the workers' clock.
    rests_until_us: AtomicU64,
    /// By [`Spill`].
    spills: [AtomicU64; Spill::ALL.len()],
}

impl Source {
    /// One from which no connection has come yet.
    #[must_use]
    pub fn new(address: IpAddr, backend: impl Into<Address>) -> Self {
        Self {
            address,
            backend: backend.into(),
            in_use: Gauge::default(),
            rests_until_us: AtomicU64::new(0),
            spills: Default::default(),
        }
    }

    /// The address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Where its connections go.
    #[must_use]
    pub fn backend(&self) -> &Address {
        &self.backend
    }

    /// Ports that sessions have now, those being connected too.
    #[must_use]
    pub fn in_use(&self) -> u64 {
        self.in_use.value()
    }

    /// Times it had nothing to give when it was asked.
    #[must_use]
    pub fn spills(&self, why: Spill) -> u64 {
        self.spills[why as usize].load(Ordering::Relaxed)
    }

    /// Counts that it had nothing to give.
    pub fn spilled(&self, why: Spill) {
        self.spills[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Has it asked last for a while.
    pub fn rest(&self, now_us: u64) {
        self.rests_until_us.store(now_us.saturating_add(REST_US), Ordering::Relaxed);
    }

    fn rests(&self, now_us: u64) -> bool {
        now_us < self.rests_until_us.load(Ordering::Relaxed)
    }
}

/// A port of a source, taken for as long as this lives.
#[derive(Debug)]
pub struct SourcePort(Arc<Source>);

impl SourcePort {
    /// Takes one if sessions have fewer than `most`.
    #[must_use]
    pub fn take(source: &Arc<Source>, most: u32) -> Option<Self> {
        source.in_use.claim(u64::from(most)).then(|| Self(Arc::clone(source)))
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.0.address
    }
}

impl Drop for SourcePort {
    fn drop(&mut self) {
        self.0.in_use.release();
    }
}

/// The addresses from which one backend is connected.
#[derive(Debug)]
pub struct Sources {
    list: Vec<Arc<Source>>,
    most: u32,
    /// By worker.
    turns: Box<[CachePadded<Counter>]>,
}

impl Sources {
    /// Those of the backend's family, each with this number of ports to connect from: for a backend
    /// without a port, those towards all ports of the listeners. Not all workers begin with the
    /// same source.
    #[must_use]
    pub fn new(list: Vec<Arc<Source>>, ports: u32, workers: usize) -> Self {
        let turns: Box<[CachePadded<Counter>]> = (0..workers).map(|_| Default::default()).collect();
        for (first, turn) in (0..).zip(&turns) {
            turn.set(first);
        }
        Self { list, most: ports_for_sessions(ports), turns }
    }

    /// In the order of the file.
    #[must_use]
    pub fn list(&self) -> &[Arc<Source>] {
        &self.list
    }

    /// Ports of each that sessions may have.
    #[must_use]
    pub fn most(&self) -> u32 {
        self.most
    }

    /// Takes a port of the source whose turn it is, or of the next that has one, and calls
    /// `connect` with it, until that gives something. Only the worker with this number may call.
    pub fn connect<T>(
        &self,
        worker: usize,
        now_us: u64,
        mut connect: impl FnMut(&Source, SourcePort) -> Option<T>,
    ) -> Option<T> {
        let turn = self.turns.get(worker).map_or(0, |turn| {
            turn.add(1);
            turn.value()
        });
        let rests = |position: usize| self.list.get(position).is_some_and(|it| it.rests(now_us));
        in_turn(turn.wrapping_sub(1), self.list.len(), rests, |position| {
            let source = self.list.get(position)?;
            let Some(port) = SourcePort::take(source, self.most) else {
                source.spilled(Spill::Full);
                return None;
            };
            connect(source, port)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(ports: u32) -> Sources {
        let backend: std::net::SocketAddr = "10.0.0.9:80".parse().unwrap();
        let of = |address: &str| Arc::new(Source::new(address.parse().unwrap(), backend));
        Sources::new(vec![of("10.0.0.1"), of("10.0.0.2")], ports, 1)
    }

    fn used(sources: &Sources) -> Vec<u64> {
        sources.list().iter().map(|source| source.in_use()).collect()
    }

    // If this fails, a source is exhausted while another has ports, or a port is lost for good.
    #[test]
    fn ports_are_taken_in_turn_until_there_are_none_and_given_back() {
        let sources = sources(3);
        let take = || sources.connect(0, 0, |_, port| Some(port));
        let mut taken: Vec<SourcePort> = (0..3).filter_map(|_| take()).collect();
        assert_eq!(used(&sources), [2, 1]);
        taken.remove(1);
        taken.extend((0..4).filter_map(|_| take()));
        assert_eq!(used(&sources), [3, 3]);
        assert!(take().is_none());
        let full: Vec<u64> = sources.list().iter().map(|it| it.spills(Spill::Full)).collect();
        assert!(full.iter().all(|spills| *spills > 0), "{full:?}");
        drop(taken);
        assert_eq!(used(&sources), [0, 0]);
    }

    // If this fails, every connection asks a source that has nothing to give, or none ever again.
    #[test]
    fn a_source_that_had_nothing_is_asked_last_for_a_second() {
        let sources = sources(9);
        let first_asked = |now_us| sources.connect(0, now_us, |source, _| Some(source.address()));
        sources.list()[0].rest(5);
        let second = sources.list()[1].address();
        for _ in 0..4 {
            assert_eq!(first_asked(REST_US), Some(second));
        }
        let later = [first_asked(REST_US + 5), first_asked(REST_US + 5)];
        assert!(later.contains(&Some(sources.list()[0].address())), "{later:?}");
        // Better one that may have nothing than none.
        sources.list()[1].rest(5);
        assert!(first_asked(6).is_some());
        assert_eq!(used(&sources), [0, 0]);
    }
}
