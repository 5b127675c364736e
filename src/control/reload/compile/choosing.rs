//! How a pool chooses among its backends, and what it remembers of a choice.

use std::sync::Arc;

use crate::config;
use crate::policy::balance::Balance;
use crate::policy::balance::sticky::{Memory, SECONDS_MAX};
use crate::shared::{Backend, Group, HashPlan, HashedWords, Pool, Sticky};

/// What a pool hashes of what clients say; nothing where nothing is hashed.
pub(super) fn hashed_words(pool: &config::PoolConfig) -> Option<HashedWords> {
    match pool.hashed()? {
        config::HashKey::ClientIp | config::HashKey::ClientIpPort | config::HashKey::None => None,
        config::HashKey::Sni => Some(HashedWords::ServerName),
        config::HashKey::HttpHeader(name) => Some(HashedWords::Header(name.as_str().into())),
        config::HashKey::HttpCookie(name) => Some(HashedWords::Cookie(name.as_str().into())),
        config::HashKey::MqttClientId => Some(HashedWords::MqttClientId),
        config::HashKey::RdpCookie => Some(HashedWords::RdpCookie),
    }
}

/// What is remembered stays as long as it means the same: the same size, the same idea of one
/// client.
pub(super) fn sticky(
    wanted: config::StickyConfig,
    hash: &HashPlan,
    previous: Option<&Arc<Pool>>,
    random_seed: u64,
) -> Sticky {
    let known = previous.and_then(|pool| Some((&pool.hash, pool.sticky.as_ref()?)));
    let client = |plan: &HashPlan| (plan.said.clone(), plan.prefix, plan.with_port, plan.is_one);
    let memory = match known {
        Some((plan, old)) if old.size == wanted.size && client(plan) == client(hash) => {
            Arc::clone(&old.memory)
        }
        Some((_, old)) => {
            Arc::new(Memory::new(wanted.size, random_seed).counting_on_from(&old.memory))
        }
        None => Arc::new(Memory::new(wanted.size, random_seed)),
    };
    let seconds = u32::try_from(wanted.time.as_secs()).unwrap_or(SECONDS_MAX).min(SECONDS_MAX);
    Sticky { memory, seconds, size: wanted.size }
}

/// Backends among which one choice is made.
pub(super) fn group(
    pool: &config::PoolConfig,
    members: Vec<Arc<Backend>>,
    seed: u64,
) -> Result<Group, String> {
    let list: Vec<(&str, u32)> =
        members.iter().map(|backend| (backend.name.as_str(), backend.weight)).collect();
    let balance = Balance::new(pool.balance, &list, pool.table_size, seed)
        .map_err(|error| format!("pool {}: {error}", pool.name))?;
    Ok(Group { members, balance })
}
