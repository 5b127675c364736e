//! What a schedule fixes, from its seed: the configuration that the worker runs with, and what is
//! in store for it.

use std::num::NonZeroU64;
use std::time::Duration;

use evenkeel::dataplane::TurnBounds;
use evenkeel::policy::admit::meter::Meter;
use evenkeel::policy::first_bytes::proxy_header::ProxyVersion;
use evenkeel::policy::pace::pacer::Rates;
use evenkeel::policy::terms::OnIdle;
use evenkeel::shared::{Leave, LimitAction, Protocol, Queue, RefusalText, SpliceMode};

/// How long one connection attempt may take.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);
/// How long a client may take over what it says first.
pub(crate) const READING_TIMEOUT: Duration = Duration::from_millis(250);
/// What clients that do not speak HTTP are told when they are turned away.
pub(crate) const SAID: &[u8] = b"421 not now\r\n";
/// Time between two sessions that leave a backend at a pace.
pub(crate) const LEAVE_INTERVAL: Duration = Duration::from_millis(50);
/// Backends tried after the first.
pub(crate) const RETRIES: u32 = 2;

/// The change that a newer snapshot makes in the middle of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The timeouts of the listener are others.
    Timeouts,
    /// The first backend leaves its pool.
    BackendRemoved,
    /// The pool has another name: it is another pool, with other backends.
    PoolRenamed,
    /// The listener has another name: it is another listener on the same address.
    ListenerRenamed,
    /// Both have other names.
    BothRenamed,
    /// No listener has the address any more.
    ListenerRemoved,
}

/// What else happens to the worker in the middle of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// It stops to accept.
    Stop,
    /// It stops to accept, and resets all sessions a while later.
    Drain,
    /// The first backend goes down.
    Down,
    /// The primaries, down until then, are back: sessions on the backup leave.
    Back,
    /// The first backend is drained and its sessions leave, which is taken back a while later.
    Empty,
    /// An operator kills the sessions that are there, and stops that a while later.
    Kill,
}

/// Turns so short that sessions wait for the next one.
const SHORT_TURNS: TurnBounds =
    TurnBounds { light_run: 100, bulk_run: 3_000, runs: 2, light: 4_000, bulk: 20_000 };

/// The limits of the listener.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LimitSetting {
    pub(crate) rate: Option<Meter>,
    pub(crate) concurrent_max: Option<u32>,
    pub(crate) listener_rate: Option<Meter>,
    pub(crate) action: LimitAction,
    pub(crate) observe: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) splice: SpliceMode,
    pub(crate) workers: usize,
    /// Each worker's buffer.
    pub(crate) scratch: usize,
    /// How much work a turn of each holds.
    pub(crate) bounds: TurnBounds,
    pub(crate) idle: Duration,
    pub(crate) half_closed: Duration,
    pub(crate) on_idle: OnIdle,
    pub(crate) lifetime: Option<Duration>,
    pub(crate) bandwidth: Rates,
    pub(crate) protocol: Protocol,
    /// Sessions that the process, the listener and each backend may have.
    pub(crate) process_max: u64,
    pub(crate) listener_max: u64,
    pub(crate) backend_max: Option<u32>,
    pub(crate) backends: u32,
    /// Which way a backend is chosen.
    pub(crate) balance: u8,
    pub(crate) queue: Option<Queue>,
    /// How long a backend that failed a session is not tried again for it.
    pub(crate) retry_delay: Duration,
    /// The last backend serves only when no other can.
    pub(crate) has_backup: bool,
    /// How sessions leave a backend: `on_down`, `on_up` and that of a drain.
    pub(crate) leave: Leave,
    /// Some addresses may not connect.
    pub(crate) denies: bool,
    pub(crate) limit: Option<LimitSetting>,
    /// Clients that do not speak HTTP are told something when they are turned away.
    pub(crate) says: bool,
    /// Some clients have to begin with a header; whether the others are served.
    pub(crate) accept_proxy: Option<bool>,
    pub(crate) send_proxy: Option<ProxyVersion>,
    /// What clients say is looked at; whether one that says too little is served.
    pub(crate) routing: Option<bool>,
    pub(crate) has_sources: bool,
    pub(crate) unix_clients: bool,
    pub(crate) unix_backends: bool,
    /// Backends are at the port to which the client connected.
    pub(crate) is_without_port: bool,
    pub(crate) dials_fail: bool,
    pub(crate) descriptors: usize,
    pub(crate) change: Option<Change>,
    pub(crate) order: Option<Order>,
    /// Clients that come, and how many are there at once.
    pub(crate) clients: usize,
    pub(crate) open_max: usize,
}

impl Setting {
    /// Half of the schedules have plain sessions; the others have a few of all that may stand in a
    /// session's way.
    pub(crate) fn new(random: &mut fastrand::Rng) -> Self {
        let modes = [SpliceMode::Auto, SpliceMode::Never, SpliceMode::Always];
        let plain = Self {
            splice: modes[random.usize(..3)],
            workers: [1, 1, 2, 3][random.usize(..4)],
            scratch: [64, 4096, 65_536][random.usize(..3)],
            bounds: [TurnBounds::SERVING, SHORT_TURNS][random.usize(..2)],
            idle: Duration::from_millis([150, 700, 40_000][random.usize(..3)]),
            half_closed: Duration::from_millis([100, 300, 20_000][random.usize(..3)]),
            on_idle: OnIdle::Reset,
            lifetime: None,
            bandwidth: [(); 2]
                .map(|()| NonZeroU64::new([0, 0, 0, 0, 100_000, 2_000_000][random.usize(..6)])),
            protocol: Protocol::Tcp,
            process_max: 100,
            listener_max: 100,
            backend_max: None,
            backends: 1,
            balance: 0,
            queue: None,
            retry_delay: Duration::from_millis([0, 30][random.usize(..2)]),
            has_backup: false,
            leave: Leave::Keep,
            denies: false,
            limit: None,
            says: false,
            accept_proxy: None,
            send_proxy: None,
            routing: (random.u8(..4) == 0).then_some(true),
            has_sources: false,
            unix_clients: false,
            unix_backends: false,
            is_without_port: false,
            dials_fail: false,
            descriptors: usize::MAX,
            change: None,
            order: None,
            clients: [1, 1, 2, 3][random.usize(..4)],
            open_max: 2,
        };
        let more = more_clients(plain.workers);
        let plain =
            Self { clients: plain.clients + more, open_max: plain.open_max + more, ..plain };
        let setting = if random.bool() { plain } else { plain.with_more(random) };
        // What is read before there is a backend has to fit into it.
        let is_read = setting.routing.is_some() || setting.accept_proxy.is_some();
        let least = if is_read { 4096 } else { 0 };
        Self { scratch: setting.scratch.max(least), ..setting }
    }

    /// Whether sessions may change hands: for moments each is counted twice, and an order does not
    /// reach the ones that are on their way.
    pub(crate) fn may_be_replaced(&self) -> bool {
        let is_bounded = self.process_max < 100
            || self.listener_max < 100
            || self.backend_max.is_some()
            || self.limit.is_some()
            || self.has_sources
            || self.descriptors < usize::MAX;
        self.order.is_none() && !is_bounded
    }

    fn with_more(self, random: &mut fastrand::Rng) -> Self {
        let mut one_in = |many: u8| random.u8(..many) == 0;
        let (queues, limits) = (one_in(3), one_in(3));
        let (is_full, is_paced) = (one_in(8), one_in(3));
        let more = Self {
            on_idle: if one_in(3) { OnIdle::Close } else { OnIdle::Reset },
            lifetime: one_in(8).then_some(Duration::from_millis(400)),
            protocol: if one_in(3) { Protocol::Http } else { Protocol::Tcp },
            process_max: if one_in(8) { 2 } else { 100 },
            listener_max: if is_full { 1 } else { 100 },
            backend_max: (queues || one_in(8)).then_some(1),
            denies: one_in(6),
            accept_proxy: one_in(3).then(|| one_in(2)),
            send_proxy: one_in(3)
                .then(|| if one_in(2) { ProxyVersion::V1 } else { ProxyVersion::V2 }),
            routing: one_in(4).then(|| one_in(2)),
            has_sources: one_in(8),
            unix_clients: one_in(8),
            unix_backends: one_in(8),
            is_without_port: one_in(4),
            dials_fail: one_in(3),
            // Each worker holds one back.
            descriptors: if one_in(6) { 3 + self.workers } else { usize::MAX },
            ..self
        };
        let changes = [
            Change::Timeouts,
            Change::BackendRemoved,
            Change::PoolRenamed,
            Change::ListenerRenamed,
            Change::BothRenamed,
            Change::ListenerRemoved,
        ];
        let orders = [Order::Stop, Order::Drain, Order::Down].map(Some);
        let orders =
            [&orders[..], &[Some(Order::Back), Some(Order::Empty), Some(Order::Kill), None]]
                .concat();
        let order = orders[random.usize(..orders.len())];
        let has_backup = order == Some(Order::Back);
        let pace = Meter::token_bucket(20, LEAVE_INTERVAL * 20, 1);
        Self {
            queue: queues.then(|| Queue {
                max: random.u32(1..4),
                timeout: Duration::from_millis([40, 300, 30_000][random.usize(..3)]),
            }),
            has_backup,
            leave: match (is_paced, pace) {
                (true, Some(pace)) => Leave::Pace(pace),
                _ => Leave::Reset,
            },
            limit: limits.then(|| LimitSetting::new(random)),
            change: random.bool().then(|| changes[random.usize(..changes.len())]),
            order,
            backends: random.u32(1..4) + u32::from(has_backup),
            balance: random.u8(..4),
            clients: random.usize(1..7) + more_clients(self.workers),
            open_max: random.usize(1..5) + more_clients(self.workers),
            says: random.u8(..3) == 0,
            ..more
        }
        .with_time_to_leave()
    }

    /// Whether sessions leave a backend one after the other.
    pub(crate) fn is_left_at_a_pace(&self) -> bool {
        matches!(self.order, Some(Order::Down | Order::Back | Order::Empty | Order::Kill))
            && matches!(self.leave, Leave::Pace(_))
    }

    /// A pace takes a while: several sessions are there, and silence does not end them before.
    fn with_time_to_leave(self) -> Self {
        if !self.is_left_at_a_pace() {
            return self;
        }
        let (clients, open_max) = (self.clients + 3, self.open_max + 3);
        let (idle, half_closed) = (Duration::from_secs(40), Duration::from_secs(20));
        Self { clients, open_max, idle, half_closed, ..self }
    }

    /// The longest silence that any of the snapshots of the schedule allows.
    pub(crate) fn longest(&self) -> [Duration; 2] {
        if self.change != Some(Change::Timeouts) {
            return [self.idle, self.half_closed];
        }
        let [idle, half_closed] = self.other_timeouts();
        [self.idle.max(idle), self.half_closed.max(half_closed)]
    }

    /// The shortest silence that any of the snapshots of the schedule allows.
    pub(crate) fn shortest(&self) -> [Duration; 2] {
        if self.change != Some(Change::Timeouts) {
            return [self.idle, self.half_closed];
        }
        let [idle, half_closed] = self.other_timeouts();
        [self.idle.min(idle), self.half_closed.min(half_closed)]
    }

    /// What clients that are turned away are told.
    pub(crate) fn refusal(&self) -> RefusalText {
        let bytes = self.says.then(|| SAID.into());
        RefusalText { headers: "X-Refused: yes\r\n".into(), bytes }
    }

    /// Silence both ways and of one side, under the snapshot that changes them.
    pub(crate) fn other_timeouts(&self) -> [Duration; 2] {
        [self.idle / 2, self.half_closed * 2]
    }
}

/// A session is handed over only from a worker that has two more.
fn more_clients(workers: usize) -> usize {
    if workers > 1 { 2 } else { 0 }
}

impl LimitSetting {
    fn new(random: &mut fastrand::Rng) -> Self {
        let actions =
            [LimitAction::Reset, LimitAction::Close, LimitAction::Reply, LimitAction::Tarpit];
        let meter = || Meter::token_bucket(2, Duration::from_secs(1), 1);
        let which = random.u8(..3);
        Self {
            rate: meter().filter(|_| which == 0),
            concurrent_max: (which == 1).then_some(1),
            listener_rate: meter().filter(|_| which == 2),
            // To be kept waiting takes long, and few clients stay for it.
            action: actions[random.usize(..6).min(3)],
            observe: random.u8(..6) == 0,
        }
    }
}
