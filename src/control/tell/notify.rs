//! What systemd is told: readiness, reloads, stops, status, and that the workers are alive.
//!
//! Protocol: sd_notify(3). Outside systemd every call is a no-op. The watchdog is fed only if the
//! event loop of *every* worker has turned since it was last fed: one stuck worker would silently
//! swallow its share of the connections.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::control::plane::state::Plane;
use crate::control::plane::workers::Workers;
use crate::control::words::count;

/// Tells systemd; failures are logged, since nothing depends on them.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}

/// Everything is open and served.
pub(crate) fn ready(plane: &Plane) {
    tell(&[NotifyState::Ready, NotifyState::Status(&status_line(plane))]);
}

/// A reload begins; [`ready`] ends it.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "cannot read the monotonic clock"),
    }
}

/// The process stops.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// From now on another process is the main one, and this one says nothing more.
pub(crate) fn main_process(pid: u32) {
    tell(&[NotifyState::MainPid(pid)]);
}

/// One line for `systemctl status`.
pub(crate) fn status(plane: &Plane) {
    tell(&[NotifyState::Status(&status_line(plane))]);
}

fn status_line(plane: &Plane) -> String {
    let snapshot = plane.publisher.latest();
    format!(
        "{}, generation {}, {}",
        count(plane.workers.sessions(), "session"),
        snapshot.generation,
        if plane.is_ready() { "ready" } else { "not ready" }
    )
}

/// How often the workers are looked at, at least.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Sees whether all workers turn, and feeds systemd's watchdog while they do.
#[derive(Debug)]
pub(crate) struct Watchdog {
    seen: Vec<Seen>,
    feeds: bool,
}

/// What was last seen of a worker.
#[derive(Debug, Clone, Copy)]
struct Seen {
    turns: u64,
    is_stuck: bool,
}

impl Watchdog {
    /// Before the first look.
    pub(crate) fn new(workers: &Workers) -> Self {
        let seen = vec![Seen { turns: u64::MAX, is_stuck: false }; workers.states.len()];
        Self { seen, feeds: sd_notify::watchdog_enabled().is_some() }
    }

    /// How often to look: at half of what systemd allows, so that a sleeping worker has been woken
    /// once in between.
    pub(crate) fn interval() -> Duration {
        sd_notify::watchdog_enabled().map_or(LOOK_INTERVAL, |period| LOOK_INTERVAL.min(period / 2))
    }

    /// Says which workers have not turned since the last look, or do so again, and wakes them all.
    /// Feeds the watchdog if all have turned.
    pub(crate) fn look(&mut self, workers: &Workers) {
        for (number, (state, seen)) in workers.states.iter().zip(&mut self.seen).enumerate() {
            let turns = state.turns.value();
            let is_stuck = seen.turns == turns;
            if is_stuck && !seen.is_stuck {
                state.stalls.add(1);
                tracing::error!(
                    "worker-{number} is stuck: its event loop does not turn; its share of the \
                     connections waits"
                );
            } else if seen.is_stuck && !is_stuck {
                tracing::warn!("worker-{number} turns again");
            }
            *seen = Seen { turns, is_stuck };
        }
        if self.feeds && self.seen.iter().all(|seen| !seen.is_stuck) {
            tell(&[NotifyState::Watchdog]);
        }
        workers.wake();
    }
}
