//! The order that sessions end: those that leave a backend, or that an operator names.
//!
//! The control plane gives an order when something happens; whether and how it still holds is
//! found anew each time that a worker looks, from the snapshot and the verdicts of that moment.
//!
//! **Synchronization.** An order and its pace are shared by all workers. That it is revoked is a
//! relaxed flag: a worker that sees it a moment late resets sessions that were to be reset a moment
//! ago.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::policy::admit::limiter::Decision;
use crate::policy::admit::meter::Meter;
use crate::policy::admit::shared_rate::SharedRate;

use super::backend::BackendState;
use super::ids::BackendId;
use super::leave::Leave;
use super::reasons::CloseReason;
use super::snapshot::{Backend, Pool, Snapshot};
use super::tally::AdminState;

/// Why sessions have to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaveCause {
    /// It is down; `on_down` of its pool says how they leave.
    Down,
    /// It is a backup, and a primary can serve again; `on_up` of its pool says how they leave.
    PrimaryUp,
    /// An operator drains it and has its sessions reset, in this way.
    Drain(Leave),
    /// An operator kills sessions, in this way.
    Kill(Leave),
}

/// The order that the sessions which a backend has by now leave it, or that sessions end which are
/// named one by one.
#[derive(Debug)]
pub struct LeaveOrder {
    /// `None`: it is about sessions that are named.
    left: Option<LeftBackend>,
    cause: LeaveCause,
    /// What the workers have used of the pace.
    pace: Arc<SharedRate>,
    revoked: AtomicBool,
}

/// The backend that an order is about.
#[derive(Debug)]
struct LeftBackend {
    id: BackendId,
    /// Tells the backend apart from another one that gets its id later.
    state: Arc<BackendState>,
}

impl LeaveOrder {
    /// An order for one backend. Orders that share a pace keep it together.
    #[must_use]
    pub fn new(backend: &Backend, cause: LeaveCause, pace: Arc<SharedRate>) -> Self {
        let left = LeftBackend { id: backend.id, state: Arc::clone(&backend.state) };
        Self { left: Some(left), cause, pace, revoked: AtomicBool::new(false) }
    }

    /// An order for sessions that are named to each worker, wherever they are.
    #[must_use]
    pub fn to_kill(leave: Leave) -> Self {
        let (cause, pace) = (LeaveCause::Kill(leave), Arc::default());
        Self { left: None, cause, pace, revoked: AtomicBool::new(false) }
    }

    /// The backend that is to be left; `None`: it is about sessions that are named.
    #[must_use]
    pub fn backend(&self) -> Option<BackendId> {
        self.left.as_ref().map(|left| left.id)
    }

    /// Whether it is about this backend, and not about an earlier one with its id.
    #[must_use]
    pub fn is_of(&self, backend: &Backend) -> bool {
        self.left.as_ref().is_some_and(|left| Arc::ptr_eq(&left.state, &backend.state))
    }

    /// Whether it takes the place of an earlier order: the same backend for the same cause.
    #[must_use]
    pub fn replaces(&self, earlier: &Self) -> bool {
        let causes = [self.cause, earlier.cause].map(|cause| std::mem::discriminant(&cause));
        let (Some(left), Some(before)) = (&self.left, &earlier.left) else { return false };
        causes[0] == causes[1] && Arc::ptr_eq(&left.state, &before.state)
    }

    /// Why its sessions end.
    #[must_use]
    pub fn reason(&self) -> CloseReason {
        match self.cause {
            LeaveCause::Down => CloseReason::BackendDown,
            LeaveCause::PrimaryUp => CloseReason::PrimaryUp,
            LeaveCause::Drain(_) => CloseReason::DrainReset,
            LeaveCause::Kill(_) => CloseReason::Killed,
        }
    }

    /// Ends it: what is left stays.
    pub fn revoke(&self) {
        self.revoked.store(true, Ordering::Relaxed);
    }

    /// How sessions leave now. `Keep`: they do not any more, and the order is over.
    #[must_use]
    pub fn leave(&self, snapshot: &Snapshot) -> Leave {
        if self.revoked.load(Ordering::Relaxed) {
            return Leave::Keep;
        }
        let Some(backend) = self.left_in(snapshot) else {
            return if let LeaveCause::Kill(leave) = self.cause { leave } else { Leave::Keep };
        };
        let pool = snapshot.pool(backend.pool);
        let leave = match self.cause {
            LeaveCause::Down => pool.filter(|_| !backend.state.is_up()).map(|pool| pool.on_down),
            LeaveCause::PrimaryUp => {
                let has_place = |pool: &&Arc<Pool>| backend.backup && roomy(pool).next().is_some();
                pool.filter(has_place).map(|pool| pool.on_up)
            }
            LeaveCause::Drain(leave) => {
                Some(leave).filter(|_| backend.state.admin() != AdminState::Ready)
            }
            LeaveCause::Kill(leave) => Some(leave),
        };
        leave.unwrap_or(Leave::Keep)
    }

    /// From when on sessions leave, in microseconds of the workers' clock: those on backups wait
    /// until a primary has had its slow start.
    #[must_use]
    pub fn from_us(&self, snapshot: &Snapshot) -> u64 {
        let backend = self.left_in(snapshot);
        let Some(pool) = backend.and_then(|backend| snapshot.pool(backend.pool)) else { return 0 };
        if self.cause != LeaveCause::PrimaryUp {
            return 0;
        }
        let ramp = pool.terms.slow_start.unwrap_or(Duration::ZERO).as_micros();
        let ramp_us = u64::try_from(ramp).unwrap_or(u64::MAX);
        let warm_at =
            |since_us: u64| if since_us == 0 { 0 } else { since_us.saturating_add(ramp_us) };
        roomy(pool).map(|primary| warm_at(primary.state.since_us())).min().unwrap_or(0)
    }

    fn left_in<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a Arc<Backend>> {
        snapshot.backend(self.backend()?).filter(|known| self.is_of(known))
    }

    /// Lets one more session leave at `now_us` of the workers' clock by a pace. Otherwise: how long
    /// until the next one may.
    ///
    /// # Errors
    /// The pace does not let one leave yet.
    pub fn next(&self, now_us: u64, meter: &Meter) -> Result<(), Duration> {
        match self.pace.admit(now_us, meter) {
            Decision::Refused { retry_after_us, .. } => {
                Err(Duration::from_micros(retry_after_us.max(1)))
            }
            _ => Ok(()),
        }
    }
}

/// Primaries that could take a session at this moment, by their verdicts.
fn roomy(pool: &Pool) -> impl Iterator<Item = &Arc<Backend>> {
    pool.primary.members.iter().filter(|primary| primary.is_eligible(false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::balance::hash::Prefix;
    use crate::policy::balance::panic_mode::PanicThreshold;
    use crate::policy::first_bytes::proxy_header::tlv::TlvKinds;
    use crate::policy::nat64::Nat64;
    use crate::policy::session_terms::PoolTerms;
    use crate::shared::{
        Address, Balance, Gauge, Generation, Group, HashPlan, ListenerIndex, PoolId, PoolState,
        SpliceMode, Tally,
    };

    fn backend(id: u32, state: &Arc<BackendState>, backup: bool) -> Arc<Backend> {
        Arc::new(Backend {
            id: BackendId::new(id),
            pool: PoolId::new(0),
            pool_name: "p".to_owned(),
            name: id.to_string(),
            address: Address::Ip(([192, 0, 2, 1], 80).into()),
            weight: 1,
            sessions_max: Some(1),
            backup,
            measured: false,
            source: None,
            line: None,
            state: Arc::clone(state),
        })
    }

    /// A pool of two primaries and a backup, which is the last.
    fn snapshot(leave: Leave, states: &[Arc<BackendState>; 3]) -> Snapshot {
        let members: Vec<_> =
            (0..).zip(states).map(|(id, state)| backend(id, state, id == 2)).collect();
        let group =
            |members: &[Arc<Backend>]| Group { members: members.to_vec(), balance: Balance::First };
        let terms = PoolTerms {
            connect_timeout: Duration::from_secs(1),
            retries: 0,
            retry_delay: Duration::ZERO,
            send_proxy: None,
            pass_tlvs: TlvKinds::AUTHORITY,
            send_proxy_max: 107,
            queue: None,
            load_factor: None,
            slow_start: Some(Duration::from_millis(3)),
            panic_threshold: PanicThreshold::Never,
            outlier: None,
        };
        let prefix = Prefix::WHOLE;
        let hash = HashPlan { said: None, prefix, with_port: false, is_one: false, seed: 0 };
        let pool = Pool {
            id: PoolId::new(0),
            name: "p".to_owned(),
            hash,
            sticky: None,
            primary: group(&members[..2]),
            backup: group(&members[2..]),
            terms,
            on_down: leave,
            on_up: leave,
            state: Arc::new(PoolState::default()),
        };
        Snapshot {
            generation: Generation(1),
            listeners: Vec::new(),
            open: Vec::new(),
            by_address: ListenerIndex::default(),
            pools: vec![Some(Arc::new(pool))],
            backends: members.into_iter().map(Some).collect(),
            sources: Vec::new(),
            sessions_max: 1,
            sessions: Arc::new(Gauge::default()),
            bans: Arc::default(),
            nat64: Nat64::default(),
            splice: SpliceMode::Auto,
            has_bandwidth: false,
        }
    }

    fn states() -> [Arc<BackendState>; 3] {
        [0, 1, 2].map(|mark| Arc::new(BackendState::new(1, true, mark)))
    }

    fn order(snapshot: &Snapshot, backend: usize, cause: LeaveCause) -> LeaveOrder {
        let backend = snapshot.backends[backend].as_ref().unwrap();
        LeaveOrder::new(backend, cause, Arc::default())
    }

    // If this fails, sessions of a backend that is up again are reset, or those of another one that
    // has its id.
    #[test]
    fn a_backend_is_left_as_long_as_it_is_down() {
        let states = states();
        let reset = snapshot(Leave::Reset, &states);
        let down = order(&reset, 0, LeaveCause::Down);
        assert_eq!(down.leave(&reset), Leave::Keep);
        states[0].set_up(false, &Tally::default());
        assert_eq!(down.leave(&reset), Leave::Reset);
        assert_eq!(down.leave(&snapshot(Leave::Keep, &states)), Leave::Keep);
        let [_, second, third] = &states;
        let others = [Arc::new(BackendState::new(1, false, 9)), second.clone(), third.clone()];
        assert_eq!(down.leave(&snapshot(Leave::Reset, &others)), Leave::Keep);
    }

    // If this fails, clients that have to leave a backup find no primary that takes them.
    #[test]
    fn a_backup_is_left_as_long_as_a_primary_has_a_place() {
        let states = states();
        let reset = snapshot(Leave::Reset, &states);
        let back = order(&reset, 2, LeaveCause::PrimaryUp);
        assert_eq!(back.leave(&reset), Leave::Reset);
        assert_eq!(back.leave(&snapshot(Leave::Keep, &states)), Leave::Keep);
        assert_eq!(order(&reset, 0, LeaveCause::PrimaryUp).leave(&reset), Leave::Keep, "no backup");
        states[0].set_up(false, &Tally::default());
        assert_eq!(back.leave(&reset), Leave::Reset, "the other is up");
        states[1].set_admin(AdminState::Drain, &Tally::default());
        assert_eq!(back.leave(&reset), Leave::Keep, "down and drained");
        states[1].set_admin(AdminState::Ready, &Tally::default());
        let _place = states[1].claim(None);
        assert_eq!(back.leave(&reset), Leave::Keep, "down and full");
    }

    // If this fails, a primary that has just started gets all sessions of a backup, or those wait
    // although another primary has been there for long.
    #[test]
    fn a_backup_is_left_after_the_slow_start() {
        let states = states();
        let reset = snapshot(Leave::Reset, &states);
        let back = order(&reset, 2, LeaveCause::PrimaryUp);
        assert_eq!(back.from_us(&reset), 0, "they are there from the start");
        states[0].begin(5_000);
        states[1].begin(7_000);
        assert_eq!(back.from_us(&reset), 8_000);
        states[0].set_up(false, &Tally::default());
        assert_eq!(back.from_us(&reset), 10_000);
        assert_eq!(order(&reset, 0, LeaveCause::Down).from_us(&reset), 0);
    }

    // If this fails, a drain goes on that an operator has taken back.
    #[test]
    fn a_drained_backend_is_left_until_an_operator_says_otherwise() {
        let states = states();
        let keep = snapshot(Leave::Keep, &states);
        let drain = order(&keep, 0, LeaveCause::Drain(Leave::Reset));
        assert_eq!(drain.leave(&keep), Leave::Keep, "it serves");
        for admin in [AdminState::Drain, AdminState::Maint] {
            states[0].set_admin(admin, &Tally::default());
            assert_eq!(drain.leave(&keep), Leave::Reset);
        }
        drain.revoke();
        assert_eq!(drain.leave(&keep), Leave::Keep);
    }

    // If this fails, an operator cannot stop a kill, or it ends when some backend is made ready.
    #[test]
    fn a_kill_holds_until_it_is_revoked() {
        let keep = snapshot(Leave::Keep, &states());
        let kill = LeaveOrder::to_kill(Leave::Reset);
        assert_eq!((kill.leave(&keep), kill.reason()), (Leave::Reset, CloseReason::Killed));
        assert!(!kill.replaces(&LeaveOrder::to_kill(Leave::Reset)), "they name other sessions");
        kill.revoke();
        assert_eq!(kill.leave(&keep), Leave::Keep);
    }

    // If this fails, two orders for one backend and cause go on side by side, each at its pace.
    #[test]
    fn an_order_replaces_the_one_before() {
        let states = states();
        let keep = snapshot(Leave::Keep, &states);
        let [reset, other] =
            [Leave::Reset, Leave::Keep].map(|leave| order(&keep, 0, LeaveCause::Drain(leave)));
        assert!(other.replaces(&reset));
        assert!(!order(&keep, 1, LeaveCause::Drain(Leave::Reset)).replaces(&reset));
        assert!(!order(&keep, 0, LeaveCause::Down).replaces(&reset));
    }
}
