//! What the control thread does between start and stop: signals, the watchdog, systemd's line.

use std::sync::Arc;
use std::time::Duration;

use crate::control::off_thread::off_thread;
use crate::control::plane::state::{Plane, ProcessPhase};
use crate::control::reload::services::Services;
use crate::control::start::signals::{SignalRequest, Signals};
use crate::control::tell::notify::{self, Watchdog};
use crate::control::upgrade::predecessor::{UpgradeOrder, upgrade};
use crate::control::watch::accepting::AcceptWatch;

/// How often `systemctl status` gets a new line.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);
/// How often quiet clients are forgotten: well within the shortest
/// [`Meter::turn_us`](crate::policy::admit::meter::Meter::turn_us), about 500 windows of a second.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// What is to be done next.
enum LoopTask {
    Look,
    Status,
    Sweep,
    Signal(SignalRequest),
}

/// Why the loop has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoopEnd {
    /// The process is to stop.
    Stop,
    /// Another process has taken over.
    HandedOver,
}

/// Works until asked to stop, for as long as `limit`, or until another process has taken over.
pub(super) async fn main_loop(
    services: &Services,
    signals: &mut Signals,
    limit: Option<Duration>,
) -> LoopEnd {
    let plane = &services.plane;
    let mut watchdog = Watchdog::new(&plane.workers);
    let mut accepting = AcceptWatch::default();
    let mut look = tokio::time::interval(Watchdog::interval());
    let mut status = tokio::time::interval(STATUS_INTERVAL);
    let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
    let end = tokio::time::sleep(limit.unwrap_or(Duration::MAX / 4));
    tokio::pin!(end);
    loop {
        let task = tokio::select! {
            request = signals.next() => LoopTask::Signal(request),
            _ = look.tick() => LoopTask::Look,
            _ = status.tick() => LoopTask::Status,
            _ = sweep.tick() => LoopTask::Sweep,
            () = &mut end => return LoopEnd::Stop,
            () = plane.upgrades.handed_over.notified() => return LoopEnd::HandedOver,
        };
        match task {
            LoopTask::Signal(SignalRequest::Stop) => return LoopEnd::Stop,
            LoopTask::Signal(request) => obey(services, request),
            LoopTask::Look => {
                watchdog.look(&plane.workers);
                accepting.look(plane);
            }
            // After a hand-over the other process tells it.
            LoopTask::Status if plane.phase() == ProcessPhase::Stopping => {}
            LoopTask::Status => notify::status(plane),
            LoopTask::Sweep => {
                forget_quiet_clients(plane);
                let plane = Arc::clone(plane);
                tokio::spawn(off_thread(move || plane.bans.sweep(plane.now_us())));
            }
        }
    }
}

fn obey(services: &Services, request: SignalRequest) {
    match request {
        SignalRequest::Stop => {}
        SignalRequest::Reload => {
            // The sender of HUP gets no answer; the log has the whole of it. Further signals are
            // heard meanwhile.
            let services = services.clone();
            tokio::spawn(async move { services.reload().await.is_ok() });
        }
        SignalRequest::Reopen => services.reopen_log(),
        SignalRequest::Upgrade => {
            // As with HUP.
            let services = services.clone();
            tokio::spawn(async move {
                let order = UpgradeOrder::default();
                if let Err(reason) = upgrade(&services, order).await {
                    tracing::warn!("USR2 came to nothing: {reason}");
                }
            });
        }
    }
}

/// Forgets clients whose budget is whole, before their stored times could come round.
fn forget_quiet_clients(plane: &Plane) {
    let now_us = plane.now_us();
    let latest = plane.publisher.latest();
    for limit in latest.open_listeners().flat_map(|listener| &listener.limits) {
        if let Some(meter) = &limit.rules.rate {
            limit.limiter.sweep(now_us, meter);
        }
        if let Some(meter) = &limit.rules.listener_rate {
            limit.listener_rate.sweep(now_us, meter);
        }
    }
}
