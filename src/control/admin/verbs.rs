//! What an operator may do to one backend while evenkeel runs: drain, ready, maint, weight, forget.
//!
//! What is set here survives reloads until the file agrees with it or loses the backend; `forget`
//! drops it. It is listed in `status` and in a reload's answer.

use std::sync::Arc;

use crate::config::{self, Config, LeaveConfig};
use crate::shared::{AdminState, Backend, Snapshot};

use crate::control::off_thread::off_thread;
use crate::control::plane::configured::real_addresses;
use crate::control::plane::overrides::{Override, admin_by_file};
use crate::control::plane::state::Plane;
use crate::control::reload::publish::{compiled, publish};
use crate::control::reload::saved::save;
use crate::control::reload::services::Services;
use crate::control::watch::leave::leave_drained;
use crate::control::watch::outlier::readmit_at_once;
use crate::control::watch::panic::judge_pool;

/// A backend verb of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BackendVerb {
    /// Take no new sessions; what happens to those that are there.
    Drain(LeaveConfig),
    /// Serve.
    Ready,
    /// Take no new sessions, send no probes.
    Maint,
    /// Another share of the sessions.
    Weight(u32),
    /// What the file says, whatever was set before.
    Forget,
}

/// Which backend a verb is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VerbTarget {
    pub(crate) pool: String,
    pub(crate) backend: String,
}

impl BackendVerb {
    fn words(self) -> String {
        match self {
            Self::Drain(_) => "drain, set by an operator".into(),
            Self::Ready => "ready, set by an operator".into(),
            Self::Maint => "maint, set by an operator".into(),
            Self::Weight(weight) => format!("weight {weight}, set by an operator"),
            Self::Forget => "as the file says, by an operator".into(),
        }
    }

    /// What is set at run time after this verb; `file` is what the file says.
    fn applied_to(self, set: Override, file: &config::BackendConfig) -> Override {
        let set = match self {
            Self::Drain(_) => Override { admin: Some(AdminState::Drain), ..set },
            Self::Ready => Override { admin: Some(AdminState::Ready), ..set },
            Self::Maint => Override { admin: Some(AdminState::Maint), ..set },
            Self::Weight(weight) => Override { weight: Some(weight), ..set },
            Self::Forget => Override::default(),
        };
        set.beyond(file)
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

/// Carries out an operator's verb, after any reload that is under way; returns what is so now, in
/// words.
///
/// # Errors
/// When there is no such backend, or the weight is out of range.
pub(crate) async fn obey(
    services: &Services,
    target: VerbTarget,
    verb: BackendVerb,
) -> Result<String, VerbError> {
    if let BackendVerb::Weight(weight) = verb
        && weight > u32::from(u16::MAX)
    {
        return Err(VerbError::Refused(format!("weight {weight} is not in 0..=65535")));
    }
    services.change(|services| async move { set(&services.plane, target, verb).await }).await
}

async fn set(
    plane: &Arc<Plane>,
    target: VerbTarget,
    verb: BackendVerb,
) -> Result<String, VerbError> {
    if plane.upgrades.has_handed_over() {
        let text = "another process has taken over: ask again, it answers now";
        return Err(VerbError::Refused(text.to_owned()));
    }
    let VerbTarget { pool, backend } = target;
    let snapshot = plane.publisher.latest();
    let found = find_backend(&snapshot, &pool, &backend)?;
    let current = plane.current.lock().clone();
    let Some(file) = find_configured(&current.config, &pool, &backend) else {
        return Err(VerbError::Unknown(format!("backend {pool}/{backend} has left the file")));
    };
    let key = (pool, backend);
    let before = current.overrides.get(&key).copied().unwrap_or_default();
    let after = verb.applied_to(before, file);
    if !matches!(verb, BackendVerb::Weight(_)) {
        // The latest word counts.
        plane.drains.revoke(found.id);
    }
    let mut overrides = current.overrides.clone();
    if after == Override::default() {
        overrides.remove(&key);
    } else {
        overrides.insert(key.clone(), after);
    }
    if before.weight != after.weight {
        let addresses = real_addresses(&current.config, &current.bound);
        let (config, set) = (Arc::clone(&current.config), overrides.clone());
        let its = Arc::clone(plane);
        let compiled = off_thread(move || compiled(&its, &config, &addresses, &set, &[])).await;
        publish(plane, compiled.map_err(VerbError::Refused)?).await;
    } else if let Some(pool) = snapshot.pool(found.pool) {
        let admin = after.admin.unwrap_or_else(|| admin_by_file(file));
        found.state.set_admin(admin, &pool.state.tally);
        if verb == BackendVerb::Ready {
            readmit_at_once(plane, pool, &found);
        }
        judge_pool(plane, pool);
    }
    plane.current.lock().overrides = overrides;
    save(plane).await;
    let (pool, backend) = key;
    let mut said = format!("backend {pool}/{backend}: {}", verb.words());
    if let BackendVerb::Drain(leave) = verb
        && let Some(resets) = leave_drained(plane, &found, leave)
    {
        said += &format!("; {resets}");
    }
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

    // If this fails, a reload keeps telling of settings that the file has too, or a
    // backend that the file drains can never be made ready.
    #[test]
    fn what_says_the_same_as_the_file_is_not_kept() {
        let plain = backend(false);
        let drained = backend(true);
        let after = |verb: BackendVerb, before, file| verb.applied_to(before, file);
        let kept = after(BackendVerb::Drain(LeaveConfig::Keep), Override::default(), &plain);
        assert_eq!(kept.admin, Some(AdminState::Drain));
        assert_eq!(after(BackendVerb::Ready, kept, &plain), Override::default());
        assert_eq!(
            after(BackendVerb::Ready, Override::default(), &drained).admin,
            Some(AdminState::Ready)
        );
        assert_eq!(after(BackendVerb::Weight(7), Override::default(), &plain).weight, Some(7));
        assert_eq!(after(BackendVerb::Weight(5), Override::default(), &plain), Override::default());
        assert_eq!(after(BackendVerb::Forget, kept, &plain), Override::default());
    }
}
