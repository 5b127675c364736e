//! `upstream` blocks of nginx, as pools.

use std::time::Duration;

use crate::import::amounts::time;
use crate::import::draft::{BackendDraft, KeyLines, PoolDraft, free_name};
use crate::import::endpoint::{Endpoint, ip};
use crate::import::notes::Notes;

use super::blocks::Directive;
use super::elsewhere::reason;
use super::quantities::nginx_time;

/// What nginx takes for a failed server, unless it is said.
const MAX_FAILS: u16 = 1;
const FAIL_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest time that an ejection may take.
const EJECT_MAX: Duration = Duration::from_secs(300);

/// Failures after which a server is left out, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Patience {
    max_fails: u16,
    fail_timeout: Duration,
}

/// Reads an `upstream` block, without what the servers that pass to it say.
pub(super) fn upstream(directive: &Directive, notes: &mut Notes) -> PoolDraft {
    let mut pool = PoolDraft::named(directive.word(1));
    pool.keys.set_text("balance", "round-robin");
    let mut patiences: Vec<(Patience, &Directive)> = Vec::new();
    for inside in directive.inside() {
        match inside.name() {
            "server" => {
                let mut patience = Patience { max_fails: MAX_FAILS, fail_timeout: FAIL_TIMEOUT };
                if let Some(backend) = server(&pool, inside, &mut patience, notes) {
                    pool.backends.push(backend);
                    patiences.push((patience, inside));
                } else {
                    pool.missing.push(inside.words.join(" "));
                }
            }
            "least_conn" => pool.keys.set_text("balance", "least-connections"),
            "hash" => hash(&mut pool, inside, notes),
            "random" => random(&mut pool, inside, notes),
            "least_time" => {
                pool.keys.set_text("balance", "least-latency");
                notes.differs(inside, "evenkeel looks at the time that a connect takes");
            }
            // All workers share the state of a backend anyway.
            "zone" => {}
            name => notes.lost(inside, reason(name)),
        }
    }
    set_outlier(&mut pool, &patiences, notes);
    pool
}

fn hash(pool: &mut PoolDraft, line: &Directive, notes: &mut Notes) {
    let key = match line.word(1) {
        "$remote_addr" | "$binary_remote_addr" => "client-ip",
        "$remote_addr$remote_port" | "$remote_addr:$remote_port" => "client-ip-port",
        "$ssl_preread_server_name" => "sni",
        other => {
            let reason = format!("evenkeel cannot hash `{other}`: it takes turns instead");
            notes.lost(line, reason);
            return;
        }
    };
    pool.keys.set_text("balance", "maglev");
    pool.keys.set_text("hash_key", key);
    notes.differs(
        line,
        "the hash is another: each client keeps one backend, but not the one that nginx gave it, \
         and few move when backends change",
    );
}

fn random(pool: &mut PoolDraft, line: &Directive, notes: &mut Notes) {
    match (line.word(1), line.word(2)) {
        ("two", "" | "least_conn") => pool.keys.set_text("balance", "random-two"),
        ("two", _) => {
            pool.keys.set_text("balance", "least-latency");
            notes.differs(line, "evenkeel looks at the time that a connect takes");
        }
        _ => pool.keys.set_text("balance", "random"),
    }
}

/// A `server` of an upstream, as a backend.
fn server(
    pool: &PoolDraft,
    line: &Directive,
    patience: &mut Patience,
    notes: &mut Notes,
) -> Option<BackendDraft> {
    let endpoint = match server_address(line.word(1)) {
        Ok(endpoint) => endpoint,
        Err(why) => {
            notes.lost(line, why);
            return None;
        }
    };
    let mut keys = KeyLines::default();
    for option in line.arguments().iter().skip(1) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let wrong = || format!("`{option}` is not understood");
        let done = match name {
            "weight" => value.parse::<u16>().map_err(|_| wrong()).map(|weight| {
                if weight != 1 {
                    keys.set("weight", weight);
                }
            }),
            "max_conns" => value.parse::<u64>().map_err(|_| wrong()).map(|most| {
                if most > 0 {
                    keys.set("max_sessions", most.min(100_000_000));
                }
            }),
            "max_fails" => value
                .parse::<u16>()
                .map_err(|_| wrong())
                .map(|fails| patience.max_fails = fails.min(1000)),
            "fail_timeout" => {
                nginx_time(value).ok_or_else(wrong).map(|time| patience.fail_timeout = time)
            }
            "backup" => {
                keys.set("backup", true);
                Ok(())
            }
            "down" => {
                keys.set("drain", true);
                Ok(())
            }
            "slow_start" => Err("`slow_start` is a key of the whole pool".to_owned()),
            "resolve" | "service" => Err(format!("`{name}`: evenkeel asks no resolver")),
            other => Err(format!("`{other}` has no counterpart")),
        };
        if let Err(why) = done {
            notes.lost(line, why);
        }
    }
    let address = endpoint.to_string();
    let taken = pool.backends.iter().map(|backend| backend.name.as_str());
    // A path is a name as it is; another text needs to be one.
    let is_taken = taken.clone().any(|name| name == address);
    let name = if is_taken { free_name(&address, taken) } else { address };
    Some(BackendDraft { endpoint, name, keys, place: line.place.clone() })
}

fn set_outlier(pool: &mut PoolDraft, all: &[(Patience, &Directive)], notes: &mut Notes) {
    let Some((first, _)) = all.first() else { return };
    for (patience, line) in all {
        if line.words.iter().any(|word| word.starts_with("max_fails=")) && patience.max_fails > 0 {
            let reason = "`outlier` ejects after failures in a row, early resets too, and each \
                          time for longer";
            notes.differs(*line, reason);
        }
        if patience != first {
            notes.differs(*line, "a pool has one `outlier`: that of the first server");
        }
    }
    // nginx never leaves out the only server.
    if first.max_fails == 0 || all.len() < 2 {
        return;
    }
    let mut outlier = KeyLines::default();
    outlier.set("consecutive_failures", first.max_fails);
    outlier.set("eject", time(first.fail_timeout.min(EJECT_MAX)));
    outlier.set_text("max_ejected", "100%");
    pool.outlier = Some(outlier);
}

/// Where a server is.
pub(super) fn server_address(text: &str) -> Result<Endpoint, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Endpoint::unix(path);
    }
    let no_address = |host: &str| {
        format!("`{host}` is no IP address, and evenkeel asks no resolver: write the address")
    };
    let Some((host, port)) = text.rsplit_once(':').filter(|_| ip(text).is_none()) else {
        return Err(format!("`{text}` has no port"));
    };
    let host = ip(host).ok_or_else(|| no_address(host))?;
    let endpoint = match port {
        "$server_port" => Endpoint::Host(host),
        port => Endpoint::ports(host, port)?,
    };
    if endpoint.can_be_connected() {
        Ok(endpoint)
    } else {
        Err(format!("`{text}` cannot be a backend"))
    }
}
