//! A page of the list of sessions.
//!
//! A page is what comes first of all that lies behind the page before, in the order that is asked
//! for. Workers look at all their sessions for it, but only as many as the page has are kept and
//! described: neither a page nor what it takes to make it grows with the number of sessions, but
//! for rates, which take 40 bytes each for half a second.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::control::plane::state::Plane;
use crate::control::sessions::document::{SessionRow, SessionsPage};
use crate::control::sessions::scan::{SilentWorker, describe, scan};
use crate::dataplane::{SessionFilter, SessionShown, Sighting, SlotKey};
use crate::shared::Snapshot;

/// Sessions on a page, unless another number is asked for.
pub(crate) const PAGE_DEFAULT: usize = 100;
/// Most sessions on a page.
pub(crate) const PAGE_MAX: usize = 1000;
/// Time between the two looks from which rates are made.
const LOOK_APART: Duration = Duration::from_millis(500);

/// What comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum SessionOrder {
    /// The oldest.
    #[default]
    Age,
    /// The one in which nothing has moved for longest.
    Idle,
    /// The one that has moved most.
    Bytes,
    /// The one that moves most now.
    Rate,
}

impl FromStr for SessionOrder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "age" => Ok(Self::Age),
            "idle" => Ok(Self::Idle),
            "bytes" => Ok(Self::Bytes),
            "rate" => Ok(Self::Rate),
            other => Err(format!("no order {other:?}; there are: age, idle, bytes, rate")),
        }
    }
}

/// The place of a session in an order: what is less comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    value: u64,
    number: u64,
}

impl fmt::Display for Rank {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.value, self.number)
    }
}

impl FromStr for Rank {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('.');
        let read =
            parts.and_then(|(value, number)| Some((value.parse().ok()?, number.parse().ok()?)));
        let (value, number) =
            read.ok_or_else(|| format!("{text:?} is no `next` of a page that was asked before"))?;
        Ok(Self { value, number })
    }
}

/// The page that is asked for.
#[derive(Debug)]
pub(crate) struct PageWanted {
    pub(crate) filter: Arc<SessionFilter>,
    pub(crate) order: SessionOrder,
    /// At most [`PAGE_MAX`].
    pub(crate) most: usize,
    /// The last of the page before.
    pub(crate) after: Option<Rank>,
    /// Tell how much each session moves in a second.
    pub(crate) has_rates: bool,
}

/// A session that may be on the page.
#[derive(Debug, Clone, Copy)]
struct RankedSession {
    rank: Rank,
    worker: usize,
    key: SlotKey,
    rate: Option<u64>,
}

/// Makes a page. It waits for the workers: not on the thread `control`.
///
/// # Errors
/// A worker does not answer.
pub(crate) fn page(plane: &Plane, wanted: &PageWanted) -> Result<SessionsPage, SilentWorker> {
    let rates = match wanted.has_rates || wanted.order == SessionOrder::Rate {
        true => Some(EarlierBytes::look(plane, &wanted.filter)?),
        false => None,
    };
    let mut kept = PageInMaking { wanted, rates, best: Vec::new(), total: 0, behind: 0 };
    scan(&plane.workers, &wanted.filter, |worker, found| {
        let now_us = plane.now_us();
        for sighting in found {
            kept.see(worker, sighting, now_us);
        }
    })?;
    kept.page(plane)
}

/// Bytes that sessions had moved at an earlier moment.
struct EarlierBytes {
    /// By the session's number.
    bytes: HashMap<u64, u64>,
    at_us: u64,
}

impl EarlierBytes {
    fn look(plane: &Plane, filter: &Arc<SessionFilter>) -> Result<Self, SilentWorker> {
        let mut moved = Self { bytes: HashMap::new(), at_us: plane.now_us() };
        scan(&plane.workers, filter, |_, found| {
            moved.bytes.extend(found.iter().map(|it| (it.number, it.bytes)));
        })?;
        // Waking early only makes the rates a little coarser.
        std::thread::park_timeout(LOOK_APART);
        Ok(moved)
    }

    /// Bytes in a second since then, or since the session began.
    fn rate(&self, sighting: &Sighting, now_us: u64) -> u64 {
        let before = self.bytes.get(&sighting.number).copied();
        let since_us = if before.is_some() { self.at_us } else { sighting.opened_us };
        let elapsed_us = u128::from(now_us.saturating_sub(since_us).max(1));
        let bytes = u128::from(sighting.bytes.saturating_sub(before.unwrap_or(0)));
        u64::try_from(bytes * 1_000_000 / elapsed_us).unwrap_or(u64::MAX)
    }
}

/// What has been seen for a page.
struct PageInMaking<'a> {
    wanted: &'a PageWanted,
    rates: Option<EarlierBytes>,
    /// The first ones, up to twice as many as the page has.
    best: Vec<RankedSession>,
    total: u64,
    /// Those that lie behind the page before.
    behind: usize,
}

impl PageInMaking<'_> {
    fn see(&mut self, worker: usize, sighting: &Sighting, now_us: u64) {
        self.total += 1;
        let rate = self.rates.as_ref().map(|moved| moved.rate(sighting, now_us));
        let value = match self.wanted.order {
            SessionOrder::Age => sighting.opened_us,
            SessionOrder::Idle => sighting.active_us,
            SessionOrder::Bytes => !sighting.bytes,
            SessionOrder::Rate => !rate.unwrap_or(0),
        };
        let rank = Rank { value, number: sighting.number };
        if self.wanted.after.is_some_and(|after| rank <= after) {
            return;
        }
        self.behind += 1;
        self.best.push(RankedSession { rank, worker, key: sighting.key, rate });
        if self.best.len() >= 2 * self.wanted.most {
            self.shorten();
        }
    }

    /// Keeps as many as the page has.
    fn shorten(&mut self) {
        self.best.sort_unstable_by_key(|candidate| candidate.rank);
        self.best.truncate(self.wanted.most);
    }

    fn page(mut self, plane: &Plane) -> Result<SessionsPage, SilentWorker> {
        self.shorten();
        let mut by_worker: HashMap<usize, Vec<SlotKey>> = HashMap::new();
        for RankedSession { worker, key, .. } in &self.best {
            by_worker.entry(*worker).or_default().push(*key);
        }
        let mut shown: HashMap<u64, SessionShown> = HashMap::new();
        for (worker, keys) in by_worker {
            let told = describe(&plane.workers, worker, &keys)?;
            shown.extend(told.into_iter().map(|session| (session.number, session)));
        }
        let (snapshot, now_us) = (plane.publisher.latest(), plane.now_us());
        let next = self.best.last().filter(|_| self.behind > self.best.len());
        let next = next.map(|last| last.rank.to_string());
        let rows = self.best.iter().filter_map(|candidate| {
            let session = shown.get(&candidate.rank.number)?;
            let mut row = row(session, &snapshot, now_us);
            row.worker = candidate.worker;
            row.bytes_per_second = candidate.rate;
            Some(row)
        });
        Ok(SessionsPage { total: self.total, sessions: rows.collect(), next })
    }
}

fn row(session: &SessionShown, snapshot: &Snapshot, now_us: u64) -> SessionRow {
    let listener = snapshot.listener(session.listener);
    let backend = session.backend.and_then(|id| snapshot.backend(id));
    let pool = session.pool.and_then(|id| snapshot.pool(id)).map(|pool| pool.name.clone());
    // One that is still being connected, or a Unix socket, has no peer that the kernel names.
    let configured = backend.map(|backend| backend.address.to_string());
    let ms_since = |then_us: u64| now_us.saturating_sub(then_us) / 1000;
    let [client_peer, client_local] = session.client_leg.map(|it| it.map(|it| it.to_string()));
    let [backend_local, backend_peer] = session.backend_leg.map(|it| it.map(|it| it.to_string()));
    let [bytes_to_backend, bytes_to_client] = session.bytes;
    SessionRow {
        id: session.number,
        worker: 0,
        listener: listener.map(|listener| listener.name.clone()).unwrap_or_default(),
        pool: pool.or_else(|| backend.map(|backend| backend.pool_name.clone())),
        backend: backend.map(|backend| backend.name.clone()),
        stage: session.stage.to_owned(),
        client: session.client.to_string(),
        client_peer,
        client_local,
        backend_local,
        backend_peer: backend_peer.or(configured),
        age_ms: ms_since(session.opened_us),
        idle_ms: ms_since(session.active_us),
        bytes_to_backend,
        bytes_to_client,
        bytes_per_second: None,
    }
}
