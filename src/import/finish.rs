//! What evenkeel accepts of one statement and not beside another: addresses that two listeners
//! have, backends that are listeners of the same process.

use super::draft::{BindDraft, Draft, PoolDraft};
use super::endpoint::Endpoint;
use super::notes::{Noted, Notes};
use super::place::SourcePlace;

/// An address, with the place of the statement that has it.
struct WrittenAddress<'a> {
    place: &'a SourcePlace,
    shown: String,
}

impl Noted for WrittenAddress<'_> {
    fn place(&self) -> SourcePlace {
        self.place.clone()
    }

    fn shown(&self) -> String {
        self.shown.clone()
    }
}

/// Takes out of a draft what would have the whole refused, with a note for each.
pub(super) fn finish(draft: &mut Draft, notes: &mut Notes) {
    keep_one_of_each_address(draft, notes);
    draft.listeners.retain(|listener| {
        let what = format!("listener {}", listener.name);
        if listener.binds.is_empty() {
            let reason = "it has no address left to accept on";
            notes.lost(&WrittenAddress { place: &listener.place, shown: what }, reason);
        }
        !listener.binds.is_empty()
    });
    let binds = draft.listeners.iter().flat_map(|listener| listener.binds.iter().cloned());
    let binds: Vec<BindDraft> = binds.collect();
    for pool in &mut draft.pools {
        without_loops(pool, &binds, notes);
    }
    keep_used_pools(draft);
}

fn keep_one_of_each_address(draft: &mut Draft, notes: &mut Notes) {
    let mut taken: Vec<(usize, Endpoint)> = Vec::new();
    for (number, listener) in draft.listeners.iter_mut().enumerate() {
        // A wildcard first: it serves what the addresses beside it do.
        let mut order: Vec<usize> = (0..listener.binds.len()).collect();
        let is_any = |bind: &BindDraft| match &bind.endpoint {
            Endpoint::Ports { ip, .. } => ip.is_unspecified(),
            _ => false,
        };
        order.sort_by_key(|at| !listener.binds.get(*at).is_some_and(is_any));
        let mut kept = vec![false; listener.binds.len()];
        for at in order {
            let Some(bind) = listener.binds.get(at) else { continue };
            let other = taken.iter().find(|(_, endpoint)| endpoint.excludes(&bind.endpoint));
            let Some((owner, endpoint)) = other else {
                taken.push((number, bind.endpoint.clone()));
                if let Some(kept) = kept.get_mut(at) {
                    *kept = true;
                }
                continue;
            };
            if *owner == number && covers(endpoint, &bind.endpoint) {
                continue;
            }
            let shown = bind.endpoint.to_string();
            let reason =
                format!("evenkeel cannot listen there beside {endpoint}, which comes first");
            notes.lost(&WrittenAddress { place: &bind.place, shown }, reason);
        }
        let mut kept = kept.into_iter();
        listener.binds.retain(|_| kept.next().unwrap_or(false));
    }
}

/// Whether each connection to `other` comes to a socket at `endpoint`, too.
fn covers(endpoint: &Endpoint, other: &Endpoint) -> bool {
    match (endpoint, other) {
        (
            Endpoint::Ports { first, last, .. },
            Endpoint::Ports { first: their_first, last: their_last, .. },
        ) => first <= their_first && their_last <= last,
        _ => true,
    }
}

fn without_loops(pool: &mut PoolDraft, binds: &[BindDraft], notes: &mut Notes) {
    pool.backends.retain(|backend| {
        let bind = binds.iter().find(|bind| backend.endpoint.comes_back_to(&bind.endpoint));
        if let Some(bind) = bind {
            let shown = format!("{} {}", backend.name, backend.endpoint);
            let reason = format!(
                "it is this configuration's own listener at {}: a pool cannot lead back to its own \
                 process; send its clients to the other pool itself",
                bind.place
            );
            notes.lost(&WrittenAddress { place: &backend.place, shown }, reason);
        }
        bind.is_none()
    });
}

/// Leaves out pools for refused clients whose listener is gone.
fn keep_used_pools(draft: &mut Draft) {
    let mut used: Vec<&str> = Vec::new();
    for listener in &draft.listeners {
        used.push(&listener.pool);
        used.extend(listener.routes.iter().map(|route| route.pool.as_str()));
    }
    draft.pools.retain(|pool| pool.refuses.is_none() || used.contains(&pool.name.as_str()));
}
