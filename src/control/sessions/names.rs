//! Which sessions an operator means: names and networks, as a filter that workers obey.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

use crate::dataplane::SessionFilter;
use crate::policy::admit::access::NetSet;
use crate::policy::glob;
use crate::shared::{Backend, Snapshot};

/// What an operator says of the sessions that are meant. Names may have `*` and `?`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SessionsNamed {
    /// A listener.
    pub(crate) listener: Option<String>,
    /// A pool.
    pub(crate) pool: Option<String>,
    /// `POOL/BACKEND`.
    pub(crate) backend: Option<String>,
    /// A network or an address.
    pub(crate) client: Option<String>,
}

/// Why it is not clear which sessions are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NamingError {
    /// There is no such thing; in words, with what there is.
    Unknown(String),
    /// It cannot be read; in words.
    Malformed(String),
}

impl SessionsNamed {
    /// Whether it says nothing, so that all sessions are meant.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Those sessions. Listeners and backends that have left the file count while they have some.
    ///
    /// # Errors
    /// A name stands for nothing, or the client is no network.
    pub(crate) fn filter(&self, snapshot: &Snapshot) -> Result<SessionFilter, NamingError> {
        let listeners = || snapshot.listeners.iter().flatten().map(|it| (it.name.clone(), it.id));
        let pools = || {
            let configured = snapshot.pools.iter().flatten().map(|it| (it.name.clone(), it.id));
            let of_backends = backends(snapshot).map(|it| (it.pool_name.clone(), it.pool));
            configured.chain(of_backends)
        };
        let all_backends = || backends(snapshot).map(|it| (full_name(it), it.id));
        let clients = self.client.as_deref().map(network).transpose()?;
        Ok(SessionFilter {
            listeners: found("listener", self.listener.as_deref(), listeners)?,
            pools: found("pool", self.pool.as_deref(), pools)?,
            backends: found("backend", self.backend.as_deref(), all_backends)?,
            clients: clients.map(|net| NetSet::new(&[net])),
            number: None,
        })
    }

    /// In words, for messages.
    pub(crate) fn words(&self) -> String {
        let parts = [
            ("listener", &self.listener),
            ("pool", &self.pool),
            ("backend", &self.backend),
            ("client", &self.client),
        ];
        let said = parts.iter().filter_map(|(what, name)| Some((what, name.as_deref()?)));
        said.map(|(what, name)| format!("{what} {name}")).collect::<Vec<_>>().join(", ")
    }
}

fn backends(snapshot: &Snapshot) -> impl Iterator<Item = &Backend> {
    snapshot.backends.iter().flatten().map(AsRef::as_ref)
}

/// A backend with its pool.
pub(crate) fn full_name(backend: &Backend) -> String {
    format!("{}/{}", backend.pool_name, backend.name)
}

/// The ids of everything for which a pattern stands; `None` without a pattern.
fn found<T: Ord, I: Iterator<Item = (String, T)>>(
    what: &str,
    pattern: Option<&str>,
    all: impl Fn() -> I,
) -> Result<Option<BTreeSet<T>>, NamingError> {
    let Some(pattern) = pattern else { return Ok(None) };
    let fitting = all().filter(|(name, _)| glob::matches(pattern, name));
    let ids: BTreeSet<T> = fitting.map(|(_, id)| id).collect();
    if !ids.is_empty() {
        return Ok(Some(ids));
    }
    let known: BTreeSet<String> = all().map(|(name, _)| name).collect();
    let known: Vec<String> = known.into_iter().collect();
    let text = format!("no {what} {pattern:?}; there are: {}", known.join(", "));
    Err(NamingError::Unknown(text))
}

/// Reads a network, or an address as the network of it alone.
///
/// # Errors
/// It is neither.
pub(crate) fn network(text: &str) -> Result<IpNet, NamingError> {
    let address = || text.parse::<IpAddr>().map(IpNet::from).ok();
    text.parse::<IpNet>().ok().or_else(address).ok_or_else(|| {
        let text = format!("{text:?} is no network like 192.0.2.0/24 and no address");
        NamingError::Malformed(text)
    })
}
