//! The long part of a reload: everything that can fail, done beside the thread `control`.
//!
//! Parse and check everything, refuse what cannot change while running, open what is new, compile.
//! What comes of it is put in force by `apply`, or dropped, which closes what was opened for it.

use std::sync::Arc;

use crate::config::{self, Config, Difference, KeyPath, Parsed, Severity};
use crate::control::host::gates::{GateRefusal, InForce, ListenerGate, Wanted};
use crate::control::host::listeners::{self, ListenFailure, Plan};
use crate::control::host::passed::GivenSockets;
use crate::control::host::trust::TlsProbes;
use crate::control::host::warnings;
use crate::control::log::Logging;
use crate::control::log::sink::{LogFailure, LogSink};
use crate::control::plane::configured::real_addresses;
use crate::control::plane::overrides::Overrides;
use crate::control::plane::state::{Current, Plane};
use crate::control::reload::kept::kept;
use crate::control::reload::outcome::{Candidate, ProblemList, RefusalCause, RefusedReload};
use crate::control::reload::publish::compiled;
use crate::control::reload::succession::Succession;
use crate::shared::{AddressRange, Snapshot};

/// A configuration that can be put in force.
#[derive(Debug)]
pub(crate) struct PreparedReload {
    /// The file that was read.
    pub(crate) file: String,
    pub(crate) config: Arc<Config>,
    pub(crate) overrides: Overrides,
    pub(crate) tls: TlsProbes,
    /// The sockets that it needs. Dropping it closes those that were opened for it.
    pub(crate) plan: Plan,
    /// Where lines of the log are to go, if that is another place than now.
    pub(crate) log_sink: Option<Box<dyn LogSink>>,
    /// `None` when what is in force serves it.
    pub(crate) succession: Option<Succession>,
    pub(crate) differences: Vec<Difference>,
    /// What has changed beside the keys, and what operators have set.
    pub(crate) notes: Vec<String>,
    pub(crate) warnings: ProblemList,
}

impl PreparedReload {
    /// The snapshot in force after it.
    pub(crate) fn snapshot(&self, plane: &Plane) -> Arc<Snapshot> {
        let next = self.succession.as_ref().map(|succession| Arc::clone(&succession.snapshot));
        next.unwrap_or_else(|| plane.publisher.latest())
    }
}

/// Reads and checks the file of the process, or a candidate for it, and makes what it needs.
///
/// # Errors
/// With every problem; nothing has changed then.
pub(crate) fn prepare(
    plane: &Plane,
    logging: &Logging,
    candidate: Option<&Candidate>,
) -> Result<PreparedReload, RefusedReload> {
    let (parsed, text) = match candidate {
        Some(Candidate { name, text }) => (config::parse(text, name), text.clone()),
        None => config::load(&plane.file),
    };
    let name = candidate.map_or(&plane.file, |candidate| &candidate.name);
    let file = std::path::absolute(name).unwrap_or_else(|_| name.clone()).display().to_string();
    ReadFile { plane, logging, file, parsed, text }.prepared()
}

/// A file that has been read.
struct ReadFile<'a> {
    plane: &'a Plane,
    logging: &'a Logging,
    file: String,
    parsed: Parsed,
    text: String,
}

impl ReadFile<'_> {
    fn prepared(mut self) -> Result<PreparedReload, RefusedReload> {
        let current = self.plane.current.lock().clone();
        let Some(config) = self.parsed.config.take() else { return Err(self.refused()) };
        refuse_what_cannot_change(&current.config, &config, &mut self.parsed);
        let tls = warnings::tls_probes(&mut self.parsed, &config, &current.tls);
        let Some(tls) = tls.filter(|_| !has_errors(&self.parsed)) else {
            return Err(self.refused());
        };
        warnings::warn(&mut self.parsed, &config, &self.plane.sizes);
        // They close what the previous reload took out, and take what it gave them: a listener that
        // comes back at once would find its address in use.
        self.plane.workers.await_up_to(self.plane.publisher.latest().generation);
        let plan = self.plan(&config, &current)?;
        let log_sink = self.log_sink(&config)?;
        let mut differences = config::differences(&current.config, &config);
        differences.extend(moved(&current, &config, &plan.addresses));
        let kept = kept(&current.overrides, &config);
        let mut notes = tls.changes(&current.tls);
        notes.extend(kept.notes);
        let is_new = !differences.is_empty() || kept.overrides != current.overrides;
        let succession = match is_new {
            true => {
                let gates = self.gates(&config, &plan, &current)?;
                Some(self.compiled(&config, &plan, &kept.overrides, &gates)?)
            }
            false => None,
        };
        Ok(PreparedReload {
            warnings: ProblemList::of(&self.parsed, &self.text),
            file: self.file,
            config: Arc::new(config),
            overrides: kept.overrides,
            tls,
            plan,
            log_sink,
            succession,
            differences,
            notes,
        })
    }

    fn plan(&mut self, config: &Config, current: &Current) -> Result<Plan, RefusedReload> {
        let workers = self.plane.workers.states.len();
        let plan =
            match listeners::plan(config, &current.bound, &mut GivenSockets::default(), workers) {
                Ok(plan) => plan,
                Err(failures) => {
                    for ListenFailure { key, message, hint, .. } in failures {
                        self.parsed.refuse(&key, message, hint);
                    }
                    return Err(RefusedReload { cause: RefusalCause::Host, ..self.refused() });
                }
            };
        for address in listeners::lost_files(&plan.bound) {
            tracing::warn!(
                "the file of {address} has been removed or replaced: no client reaches it; restart \
                 evenkeel to make it again"
            );
        }
        Ok(plan)
    }

    fn log_sink(&mut self, config: &Config) -> Result<Option<Box<dyn LogSink>>, RefusedReload> {
        self.logging.open_other(&config.global.log.to).map_err(|failure| {
            let LogFailure { key, message, hint, .. } = failure;
            self.parsed.refuse(&key, message, hint);
            RefusedReload { cause: RefusalCause::Host, ..self.refused() }
        })
    }

    fn gates(
        &mut self,
        config: &Config,
        plan: &Plan,
        current: &Current,
    ) -> Result<Vec<ListenerGate>, RefusedReload> {
        let shared = listeners::shared_sockets(config, &plan.bound);
        let snapshot = self.plane.publisher.latest();
        let now = InForce { config: &current.config, snapshot: &snapshot };
        self.plane.gates.of(Wanted { config, shared: &shared }, now).map_err(|refusals| {
            for GateRefusal { key, message, hint } in refusals {
                self.parsed.refuse(&key, message, hint);
            }
            RefusedReload { cause: RefusalCause::Host, ..self.refused() }
        })
    }

    fn compiled(
        &mut self,
        config: &Config,
        plan: &Plan,
        overrides: &Overrides,
        gates: &[ListenerGate],
    ) -> Result<Succession, RefusedReload> {
        let compiled = compiled(self.plane, config, &plan.addresses, overrides, gates);
        compiled.map_err(|message| {
            let hint = "change the pool so that a table can be built";
            self.parsed.refuse(&KeyPath::table("pool"), message, hint);
            self.refused()
        })
    }

    fn refused(&self) -> RefusedReload {
        RefusedReload {
            file: self.file.clone(),
            problems: ProblemList::of(&self.parsed, &self.text),
            cause: RefusalCause::File,
        }
    }
}

/// Listeners whose addresses stay as they are written and are others nevertheless: of port 0.
fn moved(current: &Current, config: &Config, addresses: &[Vec<AddressRange>]) -> Vec<Difference> {
    let before = real_addresses(&current.config, &current.bound);
    let known: std::collections::HashMap<&str, _> = current
        .config
        .listeners
        .iter()
        .zip(&before)
        .map(|(listener, real)| (listener.name.as_str(), (&listener.bind, real)))
        .collect();
    let shown = |list: &[AddressRange]| {
        let words: Vec<String> = list.iter().map(ToString::to_string).collect();
        Some(words.join(" "))
    };
    let mut found = Vec::new();
    for (listener, real) in config.listeners.iter().zip(addresses) {
        if let Some((bind, before)) = known.get(listener.name.as_str())
            && **bind == listener.bind
            && *before != real
        {
            let subject = format!("listener {}", listener.name);
            let values = [shown(before), shown(real)];
            found.push(Difference::of_key(&subject, "real address", values));
        }
    }
    found
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

fn has_errors(parsed: &Parsed) -> bool {
    parsed.problems.iter().any(|problem| problem.severity == Severity::Error)
}
