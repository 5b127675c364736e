//! What an operator may do to one backend while evenkeel runs: drain, ready, maint, weight.
//!
//! What is set here survives reloads until it says the same as the file, and is listed in a
//! reload's answer.

use std::sync::Arc;

use crate::config::{self, Config};
use crate::shared::{AdminState, Backend, Snapshot};

use crate::control::plane::configured::real_addresses;
use crate::control::plane::overrides::Override;
use crate::control::plane::state::Plane;
use crate::control::reload::publish::publish;
use crate::control::watch::outlier::readmit_at_once;
use crate::control::watch::panic::judge_panic;

/// A backend verb of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BackendVerb {
    /// Keep sessions, take no new ones.
    Drain,
    /// Serve.
    Ready,
    /// Take no new sessions, send no probes.
    Maint,
    /// Another share of the sessions.
    Weight(u32),
}

impl BackendVerb {
    fn words(self) -> String {
        match self {
            Self::Drain => "drain".into(),
            Self::Ready => "ready".into(),
            Self::Maint => "maint".into(),
            Self::Weight(weight) => format!("weight {weight}"),
        }
    }

    /// What is set at run time after this verb; `file` is what the file says.
    fn applied_to(self, mut set: Override, file: Option<&config::BackendConfig>) -> Override {
        let drained_by_file = file.is_some_and(|backend| backend.drain);
        match self {
            Self::Drain => set.admin = (!drained_by_file).then_some(AdminState::Drain),
            Self::Ready => set.admin = drained_by_file.then_some(AdminState::Ready),
            Self::Maint => set.admin = Some(AdminState::Maint),
            Self::Weight(weight) => {
                let says_the_file = file.is_some_and(|backend| backend.weight == weight);
                set.weight = (!says_the_file).then_some(weight);
            }
        }
        set
    }
}

/// Why a verb was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum VerbError {
    /// There is no such pool or backend; in words, with what there is.
    Unknown(String),
    /// It cannot be done; in words.
    Refused(String),
}

/// Carries out an operator's verb; returns what is so now, in words.
///
/// # Errors
/// When there is no such backend, or the weight is out of range.
pub(crate) fn obey(
    plane: &Plane,
    pool: &str,
    backend: &str,
    verb: BackendVerb,
) -> Result<String, VerbError> {
    if let BackendVerb::Weight(weight) = verb
        && weight > u32::from(u16::MAX)
    {
        return Err(VerbError::Refused(format!("weight {weight} is not in 0..=65535")));
    }
    let mut current = plane.current.lock();
    let snapshot = plane.publisher.latest();
    let target = find_backend(&snapshot, pool, backend)?;
    let file = find_configured(&current.config, pool, backend);
    let key = (pool.to_owned(), backend.to_owned());
    let before = current.overrides.get(&key).copied().unwrap_or_default();
    let set = verb.applied_to(before, file);
    let by_file = file.is_some_and(|backend| backend.drain);
    let mut overrides = current.overrides.clone();
    if set == Override::default() {
        overrides.remove(&key);
    } else {
        overrides.insert(key, set);
    }
    if matches!(verb, BackendVerb::Weight(_)) {
        let addresses = real_addresses(&current.config, &current.bound);
        publish(plane, &current.config, &addresses, &overrides).map_err(VerbError::Refused)?;
    } else {
        let default = if by_file { AdminState::Drain } else { AdminState::Ready };
        target.state.set_admin(set.admin.unwrap_or(default));
        if verb == BackendVerb::Ready {
            readmit_at_once(plane, &target);
        }
        if let Some(pool) = snapshot.pool(target.pool) {
            judge_panic(plane, pool);
        }
    }
    current.overrides = overrides;
    let said = format!("backend {pool}/{backend}: {}, set by an operator", verb.words());
    tracing::warn!("{said}");
    Ok(said)
}

fn find_configured<'a>(
    config: &'a Config,
    pool: &str,
    name: &str,
) -> Option<&'a config::BackendConfig> {
    let pool = config.pools.iter().find(|candidate| candidate.name == pool)?;
    pool.backends.iter().find(|backend| backend.name == name)
}

fn find_backend(snapshot: &Snapshot, pool: &str, name: &str) -> Result<Arc<Backend>, VerbError> {
    let names = |list: Vec<&str>| list.join(", ");
    let found = snapshot.pools.iter().flatten().find(|candidate| candidate.name == pool);
    let Some(found) = found else {
        let known = snapshot.pools.iter().flatten().map(|pool| pool.name.as_str()).collect();
        return Err(VerbError::Unknown(format!("no pool {pool:?}; there are: {}", names(known))));
    };
    found.backends().find(|backend| backend.name == name).cloned().ok_or_else(|| {
        let known = found.backends().map(|backend| backend.name.as_str()).collect();
        VerbError::Unknown(format!("pool {pool} has no backend {name:?}; it has: {}", names(known)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(drain: bool) -> config::BackendConfig {
        let parsed = config::parse(
            &format!(
                "[listener.l]\nbind = [\"127.0.0.1:1\"]\npool = \"p\"\n[pool.p]\n\
                 backends = [{{ address = \"127.0.0.1:2\", weight = 5, drain = {drain} }}]\n"
            ),
            std::path::Path::new("test.toml"),
        );
        parsed.config.unwrap().pools[0].backends[0].clone()
    }

    // If this fails, a reload keeps telling of settings that say the same as the file, or a
    // backend that the file drains can never be made ready.
    #[test]
    fn what_says_the_same_as_the_file_is_not_kept() {
        let plain = backend(false);
        let drained = backend(true);
        let after = |verb: BackendVerb, before, file| verb.applied_to(before, Some(file));
        let kept = after(BackendVerb::Drain, Override::default(), &plain);
        assert_eq!(kept.admin, Some(AdminState::Drain));
        assert_eq!(after(BackendVerb::Ready, kept, &plain), Override::default());
        assert_eq!(
            after(BackendVerb::Ready, Override::default(), &drained).admin,
            Some(AdminState::Ready)
        );
        assert_eq!(after(BackendVerb::Weight(7), Override::default(), &plain).weight, Some(7));
        assert_eq!(after(BackendVerb::Weight(5), Override::default(), &plain), Override::default());
    }
}
