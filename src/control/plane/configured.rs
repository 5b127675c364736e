//! From the configuration to its parts in the snapshot: backends, real addresses of listeners, ways
//! to leave a backend.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{Config, LeaveConfig};
use crate::control::host::listeners::{self, AskedAddress, BoundAddresses};
use crate::policy::admit::meter::Meter;
use crate::shared::{AddressRange, Backend, Leave, Pool, Snapshot};

/// Real addresses of each listener, in the order of the configuration.
pub(crate) fn real_addresses(config: &Config, bound: &BoundAddresses) -> Vec<Vec<AddressRange>> {
    let real = |(range, asked): (&AddressRange, Vec<AskedAddress>)| {
        let first = bound.get(asked.first()?)?;
        Some(range.beginning_at(first.real.clone()))
    };
    let of_listener = |ranges: Vec<_>| ranges.into_iter().filter_map(real).collect();
    listeners::asked(config).into_iter().map(of_listener).collect()
}

/// Each backend of a configuration with its pool, and its counterpart in the snapshot. Looks at all
/// of them: not on the thread `control`.
pub(crate) fn configured_backends<'a>(
    config: &'a Config,
    snapshot: &'a Snapshot,
) -> impl Iterator<
    Item = (&'a crate::config::PoolConfig, &'a crate::config::BackendConfig, &'a Arc<Backend>),
> {
    let pools: HashMap<&str, &Arc<Pool>> =
        snapshot.pools.iter().flatten().map(|pool| (pool.name.as_str(), pool)).collect();
    config.pools.iter().flat_map(move |pool| {
        let members = pools.get(pool.name.as_str()).into_iter().flat_map(|built| built.backends());
        let by_name: HashMap<&str, &Arc<Backend>> =
            members.map(|backend| (backend.name.as_ref(), backend)).collect();
        pool.backends
            .iter()
            .filter_map(move |backend| Some((pool, backend, *by_name.get(backend.name.as_str())?)))
    })
}

/// How sessions leave a backend.
pub(crate) fn leave(wanted: LeaveConfig) -> Leave {
    match wanted {
        LeaveConfig::Keep => Leave::Keep,
        LeaveConfig::Reset => Leave::Reset,
        // A rate that no meter can hold is beyond what is read.
        LeaveConfig::Pace(rate) => {
            Meter::token_bucket(rate.count, rate.period, 1).map_or(Leave::Reset, Leave::Pace)
        }
    }
}
