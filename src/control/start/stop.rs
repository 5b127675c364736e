//! The stop: not ready, `shutdown_delay`, close the listeners, drain, reset what is left at
//! `drain_timeout`. A second signal resets at once.

use std::time::{Duration, Instant};

use crate::config::units::show_duration;
use crate::control::host::listeners;
use crate::control::plane::state::{Plane, ProcessPhase};
use crate::control::start::signals::Signals;
use crate::control::tell::notify;
use crate::control::words::count;
use crate::dataplane::Command;

/// How long workers may take to reset their sessions and close their sockets.
const RESET_DEADLINE: Duration = Duration::from_secs(10);
/// How often to look whether the last session has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Stops in order; a second signal cuts it short.
pub(super) async fn stop(plane: &Plane, signals: &mut Signals) {
    plane.set_phase(ProcessPhase::Stopping);
    notify::stopping();
    let (delay, drain) = {
        let current = plane.current.lock();
        (current.config.global.shutdown_delay, current.config.global.drain_timeout)
    };
    let sessions = count(plane.workers.sessions(), "session");
    let drains = format!("waiting up to {}", show_duration(drain));
    if delay.is_zero() {
        tracing::info!("stopping: {sessions}, {drains}");
    } else {
        let delay = show_duration(delay);
        tracing::info!(
            "stopping: {sessions}, accepting for {delay} (shutdown_delay), then {drains}"
        );
    }
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        () = signals.stop() => return reset_and_exit(plane).await,
    }
    // A reload that is being put in force opens addresses; a later one sees the phase.
    tokio::select! {
        _last = plane.changing.lock() => {}
        () = signals.stop() => return reset_and_exit(plane).await,
    }
    stop_listening(plane);
    tokio::select! {
        () = drained(plane) => {}
        () = tokio::time::sleep(drain) => tracing::warn!("drain_timeout: sessions are reset"),
        () = signals.stop() => tracing::warn!("second signal: sessions are reset"),
    }
    reset_and_exit(plane).await;
}

/// Removes the files of Unix sockets first: a client that finds one is served, and a later one
/// learns at once that there is nothing.
fn stop_listening(plane: &Plane) {
    listeners::remove_files(&plane.current.lock().bound);
    plane.workers.tell(|| Command::StopListening);
}

async fn drained(plane: &Plane) {
    while plane.workers.listening() > 0
        || active_sessions(plane) > 0
        || plane.workers.refusals_held() > 0
    {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn active_sessions(plane: &Plane) -> u64 {
    plane.publisher.latest().sessions.value()
}

async fn reset_and_exit(plane: &Plane) {
    stop_listening(plane);
    plane.workers.tell(|| Command::ResetAll);
    let deadline = Instant::now() + RESET_DEADLINE;
    while Instant::now() < deadline && (active_sessions(plane) > 0 || plane.workers.listening() > 0)
    {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    plane.workers.tell(|| Command::Exit);
    tracing::info!("stopped");
}
