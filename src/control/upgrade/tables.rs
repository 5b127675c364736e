//! What clients have used of their limits, and which backends they had, for the process after an
//! upgrade: a client that was over its rate gets no fresh burst there, and stays with its backend.
//!
//! The tables go as they are, with the seeds of their hashes; both processes count time from one
//! moment. The new process makes limits and memories of the old file from its text, fills them, and
//! has the new file carry them on as a reload does. They are copied when the new process is to
//! begin: what the old one admits after that, until it has let go, is not in them.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::{self, Config};
use crate::control::plane::inherited::{InheritedChoices, InheritedTables};
use crate::control::plane::overrides::Overrides;
use crate::control::plane::state::Plane;
use crate::control::reload::compile::inputs::Inputs;
use crate::control::reload::compile::{choosing, limits};
use crate::shared::{Generation, Limit, Snapshot};

/// Bytes of a word of a table.
const WORD_BYTES: usize = size_of::<u64>();

/// The tables of a process, beside their words.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct PassedTables {
    /// The configuration in force, all defaults filled in; empty where there are no tables.
    config: String,
    /// In the order of their words.
    limits: Vec<PassedLimit>,
    /// In the order of their words, which come after those of limits.
    choices: Vec<PassedChoices>,
}

/// One limit.
#[derive(Debug, Serialize, Deserialize)]
struct PassedLimit {
    listener: String,
    limit: String,
    seeds: [u64; 4],
    words: usize,
    /// What all clients together have used; `None` is nothing.
    shared: Option<u64>,
}

/// What one pool remembers.
#[derive(Debug, Serialize, Deserialize)]
struct PassedChoices {
    pool: String,
    seed: u64,
    words: usize,
    /// Which backends the words name.
    marks: Vec<PassedMark>,
}

/// The number by which the words of a pool name a backend.
#[derive(Debug, Serialize, Deserialize)]
struct PassedMark {
    mark: u16,
    backend: String,
    address: String,
}

/// Copies the tables in force; the words come in the order of the lists.
pub(crate) fn passed(plane: &Plane) -> (PassedTables, Vec<u8>) {
    let (snapshot, config) = (plane.publisher.latest(), Arc::clone(&plane.current.lock().config));
    let (mut tables, mut bytes) = (PassedTables::default(), Vec::new());
    for listener in snapshot.open_listeners() {
        for limit in &listener.limits {
            tables.limits.push(PassedLimit {
                listener: listener.name.clone(),
                limit: limit.name.to_string(),
                seeds: limit.limiter.seeds(),
                words: append(&mut bytes, limit.limiter.rate_words()),
                shared: limit.listener_rate.word(),
            });
        }
    }
    for pool in snapshot.pools.iter().flatten() {
        let Some(sticky) = &pool.sticky else { continue };
        let marks = pool.backends().map(|backend| PassedMark {
            mark: backend.state.mark(),
            backend: backend.name.clone(),
            address: backend.address.to_string(),
        });
        tables.choices.push(PassedChoices {
            pool: pool.name.clone(),
            seed: sticky.memory.seed(),
            words: append(&mut bytes, sticky.memory.words()),
            marks: marks.collect(),
        });
    }
    if !(tables.limits.is_empty() && tables.choices.is_empty()) {
        tables.config = config.to_toml();
    }
    (tables, bytes)
}

fn append(bytes: &mut Vec<u8>, words: impl Iterator<Item = u64>) -> usize {
    let before = bytes.len();
    bytes.extend(words.flat_map(u64::to_le_bytes));
    (bytes.len() - before) / WORD_BYTES
}

/// Choices that wait for the marks of the first snapshot.
#[derive(Debug, Default)]
pub(crate) struct WaitingChoices(Vec<(PassedChoices, Vec<u64>)>);

/// The limits of the process before, and memories that [`WaitingChoices::fill`] fills.
///
/// # Errors
/// `InvalidData` when its file cannot be read any more, or a table has another size.
pub(crate) fn rebuilt(
    plane: &Plane,
    passed: PassedTables,
    bytes: &[u8],
) -> io::Result<(InheritedTables, WaitingChoices)> {
    let (mut inherited, mut waiting) = (InheritedTables::default(), WaitingChoices::default());
    let PassedTables { config, limits, choices } = passed;
    if limits.is_empty() && choices.is_empty() {
        return Ok((inherited, waiting));
    }
    let before = config::parse(&config, Path::new("the file before the upgrade")).config;
    let before = before.ok_or_else(|| wrong("this version refuses the file before the upgrade"))?;
    let mut words = bytes.chunks_exact(WORD_BYTES).map(word);
    let mut lists: HashMap<String, Vec<Limit>> = HashMap::new();
    for table in limits {
        let limit = rebuilt_limit(plane, &before, &table, taken(&mut words, table.words)?)?;
        lists.entry(table.listener).or_default().push(limit);
    }
    inherited.limits = lists.into_iter().map(|(name, list)| (name, list.into())).collect();
    for table in choices {
        let pool = before.pools.iter().find(|pool| pool.name == table.pool);
        let pool = pool.and_then(|pool| Some((pool, pool.sticky?)));
        let (pool, sticky) = pool.ok_or_else(|| wrong("a pool of a table remembers nothing"))?;
        let hash = choosing::hash_plan(pool, before.global.hash_seed);
        let sticky = choosing::sticky(sticky, &hash, None, table.seed);
        inherited.choices.insert(table.pool.clone(), InheritedChoices { hash, sticky });
        let words = taken(&mut words, table.words)?;
        waiting.0.push((table, words));
    }
    Ok((inherited, waiting))
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.to_owned())
}

fn word(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

fn taken(words: &mut impl Iterator<Item = u64>, count: usize) -> io::Result<Vec<u64>> {
    let taken: Vec<u64> = words.take(count).collect();
    if taken.len() == count { Ok(taken) } else { Err(wrong("a table is cut")) }
}

fn rebuilt_limit(
    plane: &Plane,
    before: &Config,
    table: &PassedLimit,
    words: Vec<u64>,
) -> io::Result<Limit> {
    let listener = before.listeners.iter().find(|known| known.name == table.listener);
    let limit = listener
        .and_then(|known| known.limits.iter().find(|limit| limit.name == table.limit))
        .ok_or_else(|| wrong("a table is of no limit of the file"))?;
    let nothing = Snapshot::nothing();
    let inputs = Inputs {
        previous: &nothing,
        acknowledged: Generation(u64::MAX),
        addresses: &[],
        overrides: &Overrides::new(),
        gates: &[],
        inherited: &InheritedTables::default(),
        workers: plane.workers.states.len(),
        now_us: plane.now_us(),
        // Sessions are counted in a table that the new file sizes.
        sessions_max: 0,
        source_ports: 0,
        seeds: table.seeds,
    };
    let made = limits::limits(&inputs, std::slice::from_ref(limit), None, &[]).into_iter().next();
    let made = made.ok_or_else(|| wrong("no limit was made"))?;
    if !made.limiter.load_rates(words.into_iter()) {
        return Err(wrong("a table has another size"));
    }
    if let Some(word) = table.shared {
        made.listener_rate.load(word);
    }
    Ok(made)
}

impl WaitingChoices {
    /// Fills the memories of pools that `snapshot`, which no worker has yet, goes on with. Choices
    /// of backends that it does not have are forgotten.
    pub(crate) fn fill(self, snapshot: &Snapshot) {
        for (table, words) in self.0 {
            let mut pools = snapshot.pools.iter().flatten();
            let Some(pool) = pools.find(|pool| pool.name == table.pool) else { continue };
            let Some(sticky) = &pool.sticky else { continue };
            if sticky.memory.seed() != table.seed {
                // Its size or its idea of a client has changed: as after a reload.
                continue;
            }
            let now: HashMap<_, u16> = pool
                .backends()
                .map(|one| ((one.name.clone(), one.address.to_string()), one.state.mark()))
                .collect();
            let marks = table
                .marks
                .into_iter()
                .filter_map(|known| Some((known.mark, *now.get(&(known.backend, known.address))?)));
            let marks: HashMap<u16, u16> = marks.collect();
            if !sticky.memory.load(words.into_iter(), |mark| marks.get(&mark).copied()) {
                tracing::warn!("pool {}: remembered choices begin anew: another size", pool.name);
            }
        }
    }
}
