//! Reading the file again: all of it or nothing.
//!
//! Parse and check everything, refuse what cannot change while running, open what is new, compile,
//! and only then publish, with one swap. Anything that fails before that leaves everything as it
//! was, closes what was opened for it, and says why.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{self, Config, KeyPath, Parsed, Problem, Severity};
use crate::dataplane::Command;

use crate::control::host::listeners::{self, Plan};
use crate::control::host::warnings;
use crate::control::plane::overrides::Overrides;
use crate::control::plane::state::Plane;
use crate::control::reload::diff::changes;
use crate::control::reload::publish::publish;

/// How long the workers may take to take up a snapshot before a reload goes on without them.
const WORKERS_DEADLINE: Duration = Duration::from_millis(100);

/// What came of a reload.
#[derive(Debug, Clone)]
pub(crate) struct Reloaded {
    /// The generation in force afterwards; the same as before when nothing changed.
    pub(crate) generation: u64,
    /// What changed, one line each; what was set at run time and stays, too.
    pub(crate) changes: Vec<String>,
    /// Warnings about the new file.
    pub(crate) warnings: Vec<Problem>,
}

/// Why a reload was refused.
#[derive(Debug, Clone)]
pub(crate) struct RefusedReload {
    /// Every problem, with its place.
    pub(crate) problems: Vec<Problem>,
    /// All of them as text for a person.
    pub(crate) text: String,
}

/// Reads the file again and puts it in force, or only checks it when `dry_run`.
///
/// # Errors
/// With every problem of the new file; nothing has changed then.
pub(crate) fn reload(plane: &Plane, dry_run: bool) -> Result<Reloaded, RefusedReload> {
    let outcome = attempt(plane, dry_run);
    if dry_run {
        return outcome;
    }
    match &outcome {
        Ok(reloaded) => {
            plane.reloads.note_success();
            let summary = if reloaded.changes.is_empty() {
                "nothing changed".to_owned()
            } else {
                reloaded.changes.join("; ")
            };
            tracing::info!("reloaded, generation {} is in force: {summary}", reloaded.generation);
        }
        Err(refused) => {
            plane.reloads.note_refusal();
            for problem in &refused.problems {
                tracing::error!(
                    "reload refused: {}:{}:{}: {}",
                    problem.file,
                    problem.line,
                    problem.column,
                    problem.message
                );
            }
        }
    }
    outcome
}

fn attempt(plane: &Plane, dry_run: bool) -> Result<Reloaded, RefusedReload> {
    let (mut parsed, text) = config::load(&plane.file);
    let mut current = plane.current.lock();
    let Some(config) = parsed.config.clone() else { return Err(refused(&parsed, &text)) };
    refuse_what_cannot_change(&current.config, &config, &mut parsed);
    if has_errors(&parsed) {
        return Err(refused(&parsed, &text));
    }
    let Some(tls) = warnings::tls_probes(&mut parsed, &config, &current.tls) else {
        return Err(refused(&parsed, &text));
    };
    let mut changes = changes(&current.config, &config);
    changes.extend(tls.changes(&current.tls));
    changes.extend(kept_overrides(&current.overrides, &config));
    warnings::warn_at_reload(&mut parsed, &config);
    let warnings = parsed.problems.clone();
    await_workers(plane);
    let workers = plane.workers.states.len();
    let plan =
        listeners::plan(&config, &current.bound, &mut Vec::new(), workers).map_err(|failures| {
            for failure in failures {
                parsed.refuse(&failure.key, failure.message, failure.hint);
            }
            refused(&parsed, &text)
        })?;
    for address in listeners::lost_files(&plan.bound) {
        tracing::warn!(
            "somebody has removed or replaced {address}; restart evenkeel to get it back"
        );
    }
    if dry_run {
        // Dropping the plan closes what was opened for it.
        let generation = plane.publisher.latest().generation.0;
        return Ok(Reloaded { generation, changes, warnings });
    }
    if config == current.config {
        // Whatever was set at run time is in force already: nothing to publish. Certificates may
        // have changed behind the file.
        current.tls = tls;
        let generation = plane.publisher.latest().generation.0;
        return Ok(Reloaded { generation, changes, warnings });
    }
    let overrides = current.overrides.clone();
    let snapshot = publish(plane, &config, &plan.addresses, &overrides).map_err(|message| {
        parsed.refuse(
            &KeyPath::table("pool"),
            message,
            "change the pool so that a table can be built",
        );
        refused(&parsed, &text)
    })?;
    current.bound = plan.bound.clone();
    current.config = config;
    current.tls = tls;
    hand_over(plane, plan);
    Ok(Reloaded { generation: snapshot.generation.0, changes, warnings })
}

/// Waits until every worker has closed what the previous reload took out, and taken what it was
/// given: a listener that comes back at once would find its address in use. A turn of a worker is
/// short; one that is stuck is not waited for.
fn await_workers(plane: &Plane) {
    let latest = plane.publisher.latest().generation;
    let deadline = Instant::now() + WORKERS_DEADLINE;
    while !plane.workers.are_up_to(latest) && Instant::now() < deadline {
        std::thread::park_timeout(Duration::from_micros(200));
    }
}

/// Gives the workers the sockets that were opened and the options that changed.
pub(crate) fn hand_over(plane: &Plane, plan: Plan) {
    let snapshot = plane.publisher.latest();
    for opened in plan.opened {
        // Every address that is opened is one of the snapshot just published.
        let Some(listener) = snapshot.listener_on(&opened.address) else { continue };
        for (worker, socket) in plane.workers.handles.iter().zip(opened.sockets) {
            let (address, listener) = (opened.address.clone(), Arc::clone(listener));
            let is_shared = opened.is_shared;
            let listen = Command::Listen { address, listener, socket, is_shared };
            if let Err(error) = worker.send(listen) {
                tracing::error!(%error, "cannot reach a worker");
            }
        }
    }
    for kept in plan.retuned {
        let (address, options) = (kept.real, kept.options);
        plane.workers.tell(|| Command::Retune { address: address.clone(), options });
    }
}

/// Settings that are read once, at start.
fn refuse_what_cannot_change(old: &Config, new: &Config, parsed: &mut Parsed) {
    let global = KeyPath::table("global");
    let admin = KeyPath::table("admin");
    let fixed = [
        (global.key("workers"), old.global.workers != new.global.workers),
        (global.key("pin_workers"), old.global.pin_workers != new.global.pin_workers),
        (global.key("spin"), old.global.spin != new.global.spin),
        (admin.key("socket"), old.admin.socket != new.admin.socket),
        (admin.key("http"), old.admin.http != new.admin.http),
    ];
    for (key, changed) in fixed {
        if changed {
            parsed.refuse(
                &key,
                format!("{key} cannot change while evenkeel runs"),
                "restart evenkeel to change it, or put the old value back",
            );
        }
    }
}

fn kept_overrides(overrides: &Overrides, config: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    for ((pool, backend), set) in overrides {
        let configured = config.pools.iter().any(|candidate| {
            candidate.name == *pool && candidate.backends.iter().any(|b| b.name == *backend)
        });
        if !configured {
            continue;
        }
        if let Some(admin) = set.admin {
            let word = format!("{admin:?}").to_lowercase();
            lines.push(format!("backend {pool}/{backend} stays {word} (set at run time)"));
        }
        if let Some(weight) = set.weight {
            lines.push(format!("backend {pool}/{backend} keeps weight {weight} (set at run time)"));
        }
    }
    lines.sort();
    lines
}

fn has_errors(parsed: &Parsed) -> bool {
    parsed.problems.iter().any(|problem| problem.severity == Severity::Error)
}

fn refused(parsed: &Parsed, text: &str) -> RefusedReload {
    RefusedReload {
        problems: parsed.problems.clone(),
        text: config::render(&parsed.problems, text, false),
    }
}
