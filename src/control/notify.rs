//! What systemd is told: readiness, reloads, stops, status, and that the workers are alive.
//!
//! Protocol: sd_notify(3). Outside systemd every call is a no-op. The watchdog is fed only if the
//! event loop of *every* worker has turned since it was last fed: one stuck worker would silently
//! swallow its share of the connections.

use std::time::Duration;

use sd_notify::NotifyState;

use super::plane::Workers;

/// Tells systemd; failures are logged, since nothing depends on them.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}

/// Everything is open and served.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A reload begins; [`ready`] ends it.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "cannot read the monotonic clock"),
    }
}

/// The process stops.
pub(crate) fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// One line for `systemctl status`.
pub(crate) fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// Feeds the watchdog while all workers turn.
#[derive(Debug)]
pub(crate) struct Watchdog {
    turns: Vec<u64>,
}

impl Watchdog {
    /// How often to look: half of what systemd allows, so that a sleeping worker has been woken
    /// once in between; `None` without a watchdog.
    pub(crate) fn interval() -> Option<Duration> {
        sd_notify::watchdog_enabled().map(|period| period / 2)
    }

    /// Before the first look.
    pub(crate) fn new(workers: &Workers) -> Self {
        Self { turns: vec![u64::MAX; workers.states.len()] }
    }

    /// Feeds the watchdog if every worker has turned since the last look, and wakes them all.
    pub(crate) fn look(&mut self, workers: &Workers) {
        let mut all_turned = true;
        for (number, (state, seen)) in workers.states.iter().zip(&mut self.turns).enumerate() {
            let turns = state.turns.value();
            if *seen == turns {
                all_turned = false;
                tracing::error!("worker-{number} is stuck: its event loop has not turned");
            }
            *seen = turns;
        }
        if all_turned {
            tell(&[NotifyState::Watchdog]);
        }
        workers.wake();
    }
}
