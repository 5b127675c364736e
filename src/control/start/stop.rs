//! The stop: not ready, `shutdown_delay`, close the listeners, drain, reset what is left at
//! `drain_timeout`. A second signal resets at once. After a hand-over only the drain is left.

use std::time::{Duration, Instant};

use crate::config::units::show_duration;
use crate::control::host::listeners;
use crate::control::plane::state::{Plane, ProcessPhase};
use crate::control::reload::services::Services;
use crate::control::start::signals::{SignalRequest, Signals};
use crate::control::tell::notify;
use crate::control::words::count;
use crate::dataplane::Command;

/// How long workers may take to reset their sessions and close their sockets.
const RESET_DEADLINE: Duration = Duration::from_secs(10);
/// How long the last answer over the admin socket may take after the last session.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
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

/// Serves the sessions that are left once another process has taken over, and says nothing to
/// systemd. A stop that is asked for meanwhile is for both processes and shortens nothing here:
/// this one drains already. Asked again, it resets.
pub(super) async fn drain_beside(services: &Services, signals: &mut Signals) {
    let plane = &*services.plane;
    let drain = plane.current.lock().config.global.drain_timeout;
    let sessions = count(plane.workers.sessions(), "session");
    tracing::info!(
        "another process has taken over: {sessions} left here, waiting up to {}",
        show_duration(drain)
    );
    tokio::select! {
        () = drained(plane) => {}
        () = tokio::time::sleep(drain) => tracing::warn!("drain_timeout: sessions are reset"),
        () = asked_twice(services, signals) => tracing::warn!("second signal: sessions are reset"),
    }
    // The operator who asked for the upgrade gets the answer.
    let until = Instant::now() + ANSWER_DEADLINE;
    while plane.doors.is_answering() && Instant::now() < until {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    reset_and_exit(plane).await;
}

/// Waits for a second stop; says of everything else that it is for the other process.
async fn asked_twice(services: &Services, signals: &mut Signals) {
    let mut is_asked = false;
    loop {
        match signals.next().await {
            SignalRequest::Stop if is_asked => return,
            SignalRequest::Stop => {
                is_asked = true;
                tracing::info!("asked to stop: draining already");
            }
            // This process still writes to its own file.
            SignalRequest::Reopen => services.reopen_log(),
            SignalRequest::Reload | SignalRequest::Upgrade => {
                tracing::warn!("another process has taken over: signal it instead");
            }
        }
    }
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
    // A place is given back before the line of its session is logged: only a thread that has ended
    // logs no more.
    while Instant::now() < deadline && !plane.workers.have_ended() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tracing::info!("stopped");
}
