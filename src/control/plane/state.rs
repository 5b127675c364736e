//! The state of the control plane, shared by its tasks: configuration, workers, verdicts.
//!
//! What changes it runs on one thread, after one another (`changing`); what only reads it may run
//! beside that. Other locks are held for a few instructions and never across an await.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::config::Config;
use crate::control::host::gates::Gates;
use crate::control::host::listeners::BoundAddresses;
use crate::control::host::sizing::Sizes;
use crate::control::host::trust::TlsProbes;
use crate::control::plane::ban_book::BanBook;
use crate::control::plane::clock::seconds_now;
use crate::control::plane::doors::Doors;
use crate::control::plane::drain_book::DrainBook;
use crate::control::plane::gate_book::GateBook;
use crate::control::plane::health_book::HealthBook;
use crate::control::plane::inherited::InheritedTables;
use crate::control::plane::kill_book::KillBook;
use crate::control::plane::loss_bells::LossBells;
use crate::control::plane::outlier_book::OutlierBook;
use crate::control::plane::overrides::Overrides;
use crate::control::plane::source_book::SourceBook;
use crate::control::plane::state_file::StateFile;
use crate::control::plane::upgrade_book::UpgradeBook;
use crate::control::plane::workers::Workers;
use crate::shared::Publisher;

/// How far the process has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProcessPhase {
    /// Not everything is open yet.
    Starting,
    /// Serving.
    Serving,
    /// Asked to stop.
    Stopping,
}

/// The state that a reload or an operator's verb changes.
#[derive(Debug, Clone)]
pub(crate) struct Current {
    pub(crate) config: Arc<Config>,
    pub(crate) bound: BoundAddresses,
    pub(crate) overrides: Overrides,
    pub(crate) tls: TlsProbes,
}

/// Counters of reloads.
#[derive(Debug, Default)]
pub(crate) struct ReloadCounts {
    pub(crate) ok: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// Seconds since the epoch of the latest success; 0 is never.
    pub(crate) last_success: AtomicU64,
    /// 1 when the latest attempt succeeded.
    last_ok: AtomicU64,
}

impl ReloadCounts {
    /// A new configuration is in force.
    pub(crate) fn note_success(&self) {
        self.ok.fetch_add(1, Ordering::Relaxed);
        self.last_ok.store(1, Ordering::Relaxed);
        self.last_success.store(seconds_now(), Ordering::Relaxed);
    }

    /// A new configuration was refused; the one before stays in force.
    pub(crate) fn note_refusal(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.last_ok.store(0, Ordering::Relaxed);
    }

    /// Whether the latest attempt succeeded; a process that never reloaded started from a good
    /// file.
    pub(crate) fn is_last_ok(&self) -> bool {
        let attempts = self.ok.load(Ordering::Relaxed) + self.refused.load(Ordering::Relaxed);
        attempts == 0 || self.last_ok.load(Ordering::Relaxed) == 1
    }
}

/// The parts of a new plane.
#[derive(Debug)]
pub(crate) struct PlaneSetup {
    pub(crate) file: PathBuf,
    /// The program that an upgrade starts; `None`: this process cannot be replaced.
    pub(crate) program: Option<PathBuf>,
    pub(crate) began: Instant,
    pub(crate) started: Instant,
    pub(crate) sizes: Sizes,
    pub(crate) workers: Workers,
    pub(crate) publisher: Publisher,
    pub(crate) current: Current,
    pub(crate) gates: Arc<Gates>,
}

/// The control plane.
#[derive(Debug)]
pub(crate) struct Plane {
    pub(crate) file: PathBuf,
    /// The program that an upgrade starts; `None`: this process cannot be replaced.
    pub(crate) program: Option<PathBuf>,
    /// From when the workers count time, as this process does for them.
    pub(crate) started: Instant,
    /// When this process began.
    pub(crate) began: Instant,
    /// When that was, in seconds since the epoch.
    pub(crate) started_at: u64,
    pub(crate) sizes: Sizes,
    pub(crate) workers: Workers,
    pub(crate) publisher: Publisher,
    pub(crate) current: Mutex<Current>,
    /// Held, across awaits, while a reload or a verb changes what is in force.
    pub(crate) changing: tokio::sync::Mutex<()>,
    pub(crate) health: Mutex<HealthBook>,
    pub(crate) outliers: OutlierBook,
    pub(crate) drains: DrainBook,
    pub(crate) kills: KillBook,
    pub(crate) bans: BanBook,
    /// Held, across awaits, while workers look through their sessions for an operator.
    pub(crate) looking: tokio::sync::Mutex<()>,
    pub(crate) loss_bells: LossBells,
    pub(crate) sources: SourceBook,
    pub(crate) gates: Arc<Gates>,
    pub(crate) gate_book: GateBook,
    pub(crate) reloads: ReloadCounts,
    pub(crate) doors: Doors,
    pub(crate) upgrades: Arc<UpgradeBook>,
    /// Of the process before, until the first snapshot carries it on.
    pub(crate) inherited: Mutex<InheritedTables>,
    /// What operators have set, on disk.
    pub(crate) state_file: Arc<StateFile>,
    phase: AtomicU8,
}

impl Plane {
    /// A plane that serves nothing yet.
    pub(crate) fn new(setup: PlaneSetup) -> Self {
        let PlaneSetup { file, program, began, started, sizes, .. } = setup;
        let PlaneSetup { workers, publisher, current, gates, .. } = setup;
        let bans = BanBook::new(Arc::clone(&publisher.latest().bans), Arc::clone(&gates));
        Self {
            file,
            program,
            started,
            began,
            started_at: seconds_now().saturating_sub(began.elapsed().as_secs()),
            sizes,
            workers,
            publisher,
            current: Mutex::new(current),
            changing: tokio::sync::Mutex::default(),
            health: Mutex::default(),
            outliers: OutlierBook::default(),
            drains: DrainBook::default(),
            kills: KillBook::default(),
            bans,
            looking: tokio::sync::Mutex::default(),
            loss_bells: LossBells::default(),
            sources: SourceBook::default(),
            gates,
            gate_book: GateBook::default(),
            reloads: ReloadCounts::default(),
            doors: Doors::default(),
            upgrades: Arc::default(),
            inherited: Mutex::default(),
            state_file: Arc::new(StateFile::of_this_service()),
            phase: AtomicU8::new(ProcessPhase::Starting as u8),
        }
    }

    /// A plane with no workers and nothing in force.
    #[cfg(test)]
    pub(crate) fn without_workers(config: Config) -> Self {
        Self::new(PlaneSetup {
            file: PathBuf::new(),
            program: None,
            began: Instant::now(),
            started: Instant::now(),
            sizes: Sizes { descriptors: 1024, memory_bytes: None, workers: 1, pipe_bytes: None },
            workers: Workers { handles: Vec::new(), states: Vec::new() },
            publisher: Publisher::new(Arc::new(crate::shared::Snapshot::nothing())),
            current: Current {
                config: Arc::new(config),
                bound: BoundAddresses::new(),
                overrides: Overrides::new(),
                tls: TlsProbes::default(),
            },
            gates: Arc::new(Gates::new(Instant::now())),
        })
    }

    /// How far the process has come.
    pub(crate) fn phase(&self) -> ProcessPhase {
        match self.phase.load(Ordering::Relaxed) {
            0 => ProcessPhase::Starting,
            1 => ProcessPhase::Serving,
            _ => ProcessPhase::Stopping,
        }
    }

    /// Records how far the process has come.
    pub(crate) fn set_phase(&self, phase: ProcessPhase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Whether listeners accept and some pool that a listener uses can serve by a healthy backend.
    pub(crate) fn is_ready(&self) -> bool {
        let snapshot = self.publisher.latest();
        let serves = snapshot.open_listeners().any(|listener| {
            let routes = listener.routing.iter().flat_map(|routing| &routing.routes);
            let mut pools = routes.map(|route| route.target).chain([listener.pool]);
            pools.any(|id| snapshot.pool(id).is_some_and(|pool| pool.health().serves()))
        });
        self.phase() == ProcessPhase::Serving && serves
    }

    /// Whether a pool has a healthy backend that operators let serve.
    pub(crate) fn can_serve(&self, pool: &str) -> bool {
        let snapshot = self.publisher.latest();
        let found = snapshot.pools.iter().flatten().find(|known| known.name == pool);
        found.is_some_and(|pool| pool.health().serves())
    }

    /// The time by the workers' clock, in microseconds.
    pub(crate) fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}
