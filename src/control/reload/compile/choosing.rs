//! How a pool chooses among its backends, and what it remembers of a choice.

use std::sync::Arc;

use crate::config;
use crate::policy::balance::sticky::{Memory, SECONDS_MAX};
use crate::policy::balance::{Balance, BalanceAlgorithm};
use crate::shared::{Backend, Group, HashPlan, HashedWords, Sticky};

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

/// What is one client for a pool.
pub(crate) fn hash_plan(pool: &config::PoolConfig, seed: u64) -> HashPlan {
    HashPlan {
        said: hashed_words(pool),
        prefix: pool.hash_prefix,
        with_port: pool.hash_key == config::HashKey::ClientIpPort,
        is_one: pool.hash_key == config::HashKey::None,
        seed,
    }
}

/// What is remembered stays as long as it means the same: the same size, the same idea of one
/// client.
pub(crate) fn sticky(
    wanted: config::StickyConfig,
    hash: &HashPlan,
    known: Option<(&HashPlan, &Sticky)>,
    random_seed: u64,
) -> Sticky {
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

/// Backends among which one choice is made. The table of `known`, the group that they were before,
/// goes on if it would be made the same.
pub(super) fn group(
    pool: &config::PoolConfig,
    members: Vec<Arc<Backend>>,
    seed: u64,
    known: Option<&Group>,
) -> Result<Group, String> {
    let list = shares(&members);
    if pool.balance == BalanceAlgorithm::Maglev
        && let Some(Group { members: before, balance: Balance::Maglev(table) }) = known
        && table.is_made_with(pool.table_size, seed)
        && shares(before) == list
    {
        let balance = Balance::Maglev(table.clone());
        return Ok(Group { members, balance });
    }
    let balance = Balance::new(pool.balance, &list, pool.table_size, seed)
        .map_err(|error| format!("pool {}: {error}", pool.name))?;
    Ok(Group { members, balance })
}

fn shares(members: &[Arc<Backend>]) -> Vec<(&str, u32)> {
    members.iter().map(|backend| (backend.name.as_str(), backend.weight)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::path::Path;

    use crate::policy::balance::maglev::Maglev;
    use crate::shared::{Address, BackendId, BackendState, PoolId};

    fn pool(keys: &str) -> config::PoolConfig {
        let text = format!(
            "[listener.l]\nbind = [\"127.0.0.1:1\"]\npool = \"p\"\n[pool.p]\n\
             backends = [\"127.0.0.1:2\"]\n{keys}"
        );
        config::parse(&text, Path::new("a.toml")).config.unwrap().pools.remove(0)
    }

    fn members(list: &[(&str, u32)]) -> Vec<Arc<Backend>> {
        let member = |(name, weight): &(&str, u32)| {
            Arc::new(Backend {
                id: BackendId::new(0),
                pool: PoolId::new(0),
                pool_name: "p".to_owned(),
                name: (*name).to_owned(),
                address: Address::Ip(([192, 0, 2, 1], 80).into()),
                weight: *weight,
                sessions_max: None,
                backup: false,
                measured: false,
                line: None,
                source: None,
                state: Arc::new(BackendState::new(1, true, 0)),
            })
        };
        list.iter().map(member).collect()
    }

    fn table(group: &Group) -> &Maglev {
        let Balance::Maglev(table) = &group.balance else { panic!("{:?}", group.balance) };
        table
    }

    // If this fails, a reload of thousands of pools fills all their tables again, for seconds; or
    // clients go where an old file sends them.
    #[test]
    fn a_table_goes_on_exactly_where_it_would_be_made_the_same() {
        let maglev = pool("balance = \"maglev\"\n");
        let list = [("a", 1), ("b", 2), ("c", 1)];
        let known = group(&maglev, members(&list), 7, None).unwrap();
        let goes_on = |pool: &config::PoolConfig, list: &[(&str, u32)], seed| {
            let after = group(pool, members(list), seed, Some(&known)).unwrap();
            let anew = group(pool, members(list), seed, None).unwrap();
            assert_eq!(table(&after), table(&anew), "{list:?}");
            table(&after).slots().as_ptr() == table(&known).slots().as_ptr()
        };
        assert!(goes_on(&maglev, &list, 7));
        assert!(!goes_on(&maglev, &list, 8), "another seed");
        assert!(!goes_on(&maglev, &[("a", 1), ("b", 1), ("c", 1)], 7), "another weight");
        assert!(!goes_on(&maglev, &[("b", 2), ("a", 1), ("c", 1)], 7), "another order");
        assert!(!goes_on(&maglev, &list[..2], 7), "fewer");
        assert!(!goes_on(&pool("balance = \"maglev\"\ntable_size = 5003\n"), &list, 7));
        let turns = group(&pool("balance = \"round-robin\"\n"), members(&list), 7, Some(&known));
        assert!(matches!(turns.unwrap().balance, Balance::RoundRobin(_)));
    }
}
