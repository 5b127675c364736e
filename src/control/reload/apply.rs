//! Putting a prepared configuration in force: one swap, then the sockets and the log.

use std::collections::HashSet;
use std::sync::Arc;

use crate::config::{Problem, Severity};
use crate::control::host::listeners::{BoundAddress, OpenedSockets, Plan};
use crate::control::off_thread::off_thread;
use crate::control::plane::state::{Current, Plane, ProcessPhase};
use crate::control::reload::outcome::{ProblemList, RefusalCause, RefusedReload, Reloaded};
use crate::control::reload::prepare::PreparedReload;
use crate::control::reload::publish::{drop_when_unused, follow, put_in_force};
use crate::dataplane::Command;
use crate::shared::Address;
use crate::sys::accepting::AcceptingSocket;
use crate::sys::socket::ListenOptions;

/// Changes that the log names one by one, and warnings.
const LOGGED_MAX: usize = 20;

/// Puts it in force. On the thread `control`, with no other change between [`prepare`] and this;
/// others act while its consequences are drawn.
///
/// # Errors
/// When the process has been asked to stop: listeners would be opened again, and the stop would
/// wait for them.
///
/// [`prepare`]: crate::control::reload::prepare::prepare
pub(crate) async fn apply(
    plane: &Arc<Plane>,
    mut prepared: PreparedReload,
) -> Result<Reloaded, RefusedReload> {
    if plane.phase() == ProcessPhase::Stopping {
        let text = "evenkeel is stopping: nothing is reloaded\n".to_owned();
        let problems = ProblemList { problems: Vec::new(), text };
        return Err(RefusedReload { file: prepared.file, problems, cause: RefusalCause::Stopping });
    }
    let succession = prepared.succession.take();
    if let Some(succession) = &succession {
        put_in_force(plane, succession);
    }
    let PreparedReload { config, overrides, tls, .. } = &prepared;
    let current = Current {
        config: Arc::clone(config),
        bound: prepared.plan.bound.clone(),
        overrides: overrides.clone(),
        // Certificates may have changed behind the file.
        tls: tls.clone(),
    };
    let old = std::mem::replace(&mut *plane.current.lock(), current);
    let (outcome, Plan { opened, retuned, .. }) = told(plane, prepared);
    hand_over(plane, opened);
    retune(plane, &retuned);
    take_effect(plane).await;
    if let Some(succession) = &succession {
        follow(plane, succession).await;
    }
    drop_when_unused(plane, (old, succession));
    Ok(outcome)
}

/// Waits until the workers use the latest snapshot, and the kernel their gates: what a reload
/// answers is so for the next client. A worker that is stuck is not waited for.
async fn take_effect(plane: &Arc<Plane>) {
    let (plane, latest) = (Arc::clone(plane), plane.publisher.latest().generation);
    off_thread(move || plane.workers.await_up_to(latest)).await;
}

/// What a prepared reload does, or would do, and the sockets that it needs.
pub(crate) fn told(plane: &Plane, prepared: PreparedReload) -> (Reloaded, Plan) {
    let PreparedReload { file, differences, notes, warnings, plan, .. } = prepared;
    let generation = plane.publisher.latest().generation.0;
    (Reloaded { file, generation, differences, notes, warnings }, plan)
}

/// Counts a reload and writes it to the log.
pub(crate) fn record(plane: &Plane, outcome: &Result<Reloaded, RefusedReload>) {
    match outcome {
        Ok(reloaded) => {
            plane.reloads.note_success();
            log_warnings(&reloaded.warnings);
            let Reloaded { file, generation, .. } = reloaded;
            let summary = summary(reloaded);
            tracing::info!("reloaded, generation {generation} of {file} is in force: {summary}");
        }
        Err(RefusedReload { cause: RefusalCause::Stopping, .. }) => {
            tracing::warn!("evenkeel is stopping: nothing is reloaded");
        }
        Err(refused) => {
            plane.reloads.note_refusal();
            log_warnings(&refused.problems);
            for problem in of_severity(&refused.problems, Severity::Error) {
                let Problem { file, line, column, message, .. } = problem;
                tracing::error!("reload refused: {file}:{line}:{column}: {message}");
            }
        }
    }
}

fn log_warnings(problems: &ProblemList) {
    for Problem { file, line, column, message, .. } in of_severity(problems, Severity::Warning) {
        tracing::warn!("{file}:{line}:{column}: {message}");
    }
}

fn of_severity(list: &ProblemList, severity: Severity) -> impl Iterator<Item = &Problem> {
    list.problems.iter().filter(move |problem| problem.severity == severity).take(LOGGED_MAX)
}

/// One line of the log for all changes.
fn summary(reloaded: &Reloaded) -> String {
    let shown: Vec<String> = reloaded.lines().take(LOGGED_MAX).collect();
    match reloaded.lines_count() {
        0 => "nothing changed".to_owned(),
        count if count > LOGGED_MAX => {
            format!("{}; and {} more changes", shown.join("; "), count - LOGGED_MAX)
        }
        _ => shown.join("; "),
    }
}

/// Gives the workers the sockets that were opened, in turn.
pub(crate) fn hand_over(plane: &Plane, opened: Vec<OpenedSockets>) {
    let snapshot = plane.publisher.latest();
    for opened in opened {
        // Every address that is opened is one of the snapshot just published.
        let Some(listener) = snapshot.listener_on(&opened.address) else { continue };
        for (worker, socket) in plane.workers.handles.iter().cycle().zip(opened.sockets) {
            let (address, listener) = (opened.address.clone(), Arc::clone(listener));
            let socket = AcceptingSocket::new(socket, listener.terms.user_timeout);
            let is_shared = opened.is_shared;
            let listen = Command::Listen { address, listener, socket, is_shared };
            if let Err(error) = worker.send(listen) {
                tracing::error!(%error, "cannot reach a worker");
            }
        }
    }
}

/// Gives the workers the options that changed.
pub(crate) fn retune(plane: &Plane, retuned: &[BoundAddress]) {
    // A worker looks through its sockets once for each command.
    let mut alike: Vec<(ListenOptions, HashSet<Address>)> = Vec::new();
    for BoundAddress { real, options, .. } in retuned {
        match alike.iter_mut().find(|(known, _)| known == options) {
            Some((_, addresses)) => _ = addresses.insert(real.clone()),
            None => alike.push((*options, HashSet::from([real.clone()]))),
        }
    }
    for (options, addresses) in alike {
        let addresses = Arc::new(addresses);
        plane.workers.tell(|| Command::Retune { addresses: Arc::clone(&addresses), options });
    }
}
