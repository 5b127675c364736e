//! One schedule, from its seed to the last line in the log.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam::channel::{Receiver, unbounded};
use evenkeel::dataplane::Command;
use evenkeel::dataplane::clock::Tick;
use evenkeel::dataplane::session::stage::Stage;
use evenkeel::policy::client::Client;
use evenkeel::policy::log_choice::LogChoice;
use evenkeel::shared::{
    AdminState, BackendId, CloseReason, ClosedSession, Leave, LeaveCause, LeaveOrder, LimitAction,
    Protocol, Publisher, SessionLog,
};

use super::bytes::Speech;
use super::checks::{self, LATE_MAX, LINE_LOOK, Look};
use super::ends::{EndOf, Happened, Said, ToldToLeave, said};
use super::house::{House, client_ip};
use super::kernel::{ListeningHandle, Scripted, SharedNetwork};
use super::killing::Killing;
use super::network::{Dialing, Network};
use super::peers;
use super::replacing::{Chance, Replacing};
use super::setting::{Change, LEAVE_INTERVAL, Order, Setting};
use super::socket::Socket;
use super::visit::{self, Visit};
use super::words::{self, Opening};
use super::workers::{Common, Seat};

/// More steps than any schedule needs.
const STEPS_MAX: usize = 30_000;

/// The results of many schedules, and how they are run.
#[derive(Default)]
pub(crate) struct Bench {
    /// Tell of every step: for a single schedule.
    pub(crate) traces: bool,
    /// A pipe that holds bytes is lent again: a fault to be found.
    pub(crate) lends_dirty_pipes: bool,
    /// Directions that wait are never told that pipes run short: a fault to be found.
    pub(crate) never_runs_short: bool,
    /// What the schedules came to, and how often: it shows that they get everywhere.
    pub(crate) reached: BTreeMap<String, u64>,
}

/// The course of a schedule.
struct Plan {
    /// Clients that still come.
    coming: usize,
    /// Steps until peers behave.
    wild: usize,
    /// In the end no peer says anything, instead of finishing.
    silent: bool,
    /// Large amounts are common.
    large: bool,
    /// A worker takes a turn only when it would be woken.
    sleeps: bool,
    /// Every client is accepted by the first worker.
    uneven: bool,
    /// Little time passes while peers are wild, so that few timers fire.
    hurries: bool,
    /// Clients that are kept waiting stay until they are reset.
    stays: bool,
    /// The process is replaced now and then.
    replaces: bool,
    /// Steps until a newer snapshot, and until an order.
    change_in: Option<usize>,
    order_in: Option<usize>,
    calm_since: Option<Tick>,
}

struct Run {
    plan: Plan,
    house: House,
    network: SharedNetwork,
    workers: Vec<Seat>,
    records: Receiver<ClosedSession>,
    publisher: Publisher,
    visits: Vec<Visit>,
    happened: Happened,
    /// The order to leave a backend, and when each session was told by it to end.
    leave_order: Option<Arc<LeaveOrder>>,
    killing: Killing,
    replacing: Replacing,
    left: Vec<Tick>,
    now: Tick,
    /// The number of the first client in line, and since when there has been a place for it.
    free_since: Option<(u64, Tick)>,
    reached: Vec<String>,
}

impl Bench {
    /// Runs one schedule; returns what was wrong with it.
    pub(crate) fn run(&mut self, seed: u64) -> Vec<String> {
        // The choosers draw from the generator of their thread.
        fastrand::seed(seed);
        let mut network = Network::new(seed);
        network.traces = self.traces;
        network.pipes.keeps_dirty = self.lends_dirty_pipes;
        network.pipes.never_short = self.never_runs_short;
        let mut run = Run::new(network);
        let problems = run.play();
        for kind in run.reached {
            *self.reached.entry(kind).or_default() += 1;
        }
        problems
    }
}

impl Plan {
    fn new(random: &mut fastrand::Rng, setting: &Setting) -> Self {
        let mut some_steps = || random.usize(1..80);
        let (change_in, order_in) = (some_steps(), some_steps());
        Self {
            coming: setting.clients,
            wild: 0,
            silent: random.u8(..if setting.is_left_at_a_pace() { 2 } else { 12 }) == 0,
            large: random.u8(..4) == 0,
            sleeps: random.bool(),
            uneven: random.bool(),
            hurries: random.u8(..4) == 0,
            stays: random.u8(..4) == 0,
            replaces: setting.may_be_replaced() && random.u8(..4) == 0,
            change_in: setting.change.map(|_| change_in),
            order_in: setting.order.map(|_| order_in),
            calm_since: None,
        }
    }
}

impl Run {
    fn new(mut network: Network) -> Self {
        let random = &mut network.random;
        let setting = Setting::new(random);
        let plan = Plan::new(random, &setting);
        network.dialing = Dialing {
            is_unix: setting.unix_backends,
            fails_at_once: if setting.dials_fail { 4 } else { 0 },
            greeting: setting.send_proxy,
        };
        network.descriptors = setting.descriptors;
        network.listening.resize_with(setting.workers, Default::default);
        let now = network.now;
        let house = House::new(setting);
        house.ban();
        if setting.order == Some(Order::Back) {
            house.primaries().for_each(|primary| primary.set_up(false, &house.pools[0].tally));
        }
        let publisher = Publisher::new(house.snapshot(None));
        let (log, records) = unbounded();
        let network = Rc::new(RefCell::new(network));
        let choice = Arc::new(LogChoice::default().to_bits().into());
        let log = SessionLog::new(log, choice, Arc::default());
        let (network_of, setting) = (&network, &house.setting);
        let workers =
            Seat::all(&Common { network: network_of, setting, publisher: &publisher, log, now });
        let run = Self {
            plan,
            house,
            workers,
            network,
            records,
            publisher,
            visits: Vec::new(),
            happened: Happened::default(),
            leave_order: None,
            killing: Killing::default(),
            replacing: Replacing::default(),
            left: Vec::new(),
            now,
            free_since: None,
            reached: Vec::new(),
        };
        run.listen();
        run
    }

    fn listen(&self) {
        let address = self.house.address();
        let snapshot = self.publisher.latest();
        let Some(listener) = snapshot.listener_on(&address) else { return };
        for (number, seat) in self.workers.iter().enumerate() {
            let (address, listener) = (address.clone(), Arc::clone(listener));
            let socket = ListeningHandle::new(number, &self.network);
            seat.send(Command::Listen { address, listener, socket, is_shared: false });
        }
    }

    fn send_all(&self, command: impl Fn() -> Command<Scripted>) {
        self.workers.iter().for_each(|seat| seat.send(command()));
    }

    fn problem(&self, what: String) {
        self.network.borrow_mut().problem(what);
    }

    fn play(&mut self) -> Vec<String> {
        for _ in 0..STEPS_MAX {
            let goes_on = self.step();
            if !goes_on {
                self.finish();
            }
            let problems = std::mem::take(&mut self.network.borrow_mut().problems);
            if !goes_on || !problems.is_empty() {
                return problems;
            }
        }
        let mut sessions = self.workers.iter().flat_map(|seat| seat.worker.sessions());
        vec![format!("never ended: {:?}, {:?}", sessions.next(), self.visits)]
    }

    /// One step; false once every client has come and gone.
    fn step(&mut self) -> bool {
        let mut open = self.open();
        let (random_come, wild) = {
            let network = &mut *self.network.borrow_mut();
            // While an event is late its slot may be used again.
            let often = if network.has_late() { 2 } else { 16 };
            (network.one_in(often), network.random.usize(5..120))
        };
        let has_room = open.len() < self.house.setting.open_max;
        if self.plan.coming > 0 && has_room && (open.is_empty() || random_come) {
            self.plan.coming -= 1;
            self.plan.wild = self.plan.wild.max(wild);
            self.come();
            open.push(self.visits.len() - 1);
        } else if open.is_empty() {
            return false;
        }
        let before = self.now;
        if self.plan.wild > 0 {
            self.plan.wild -= 1;
            self.plan.calm_since = None;
            self.disturb(&open);
        } else {
            self.plan.calm_since.get_or_insert(self.now);
            self.calm(&open);
        }
        self.interfere();
        self.turn(self.now.since(before));
        true
    }

    /// Clients of which something may still come.
    fn open(&self) -> Vec<usize> {
        let network = self.network.borrow();
        let is_open = |index: &usize| !self.visits[*index].is_over(&network);
        (0..self.visits.len()).filter(is_open).collect()
    }

    /// A client connects, and may have spoken already.
    fn come(&mut self) {
        let network = &mut *self.network.borrow_mut();
        let random = &mut network.random;
        let (which, port) = (random.u8(1..5), 1000 + self.visits.len() as u16);
        let address =
            (!self.house.setting.unix_clients).then(|| (client_ip(which, false), port).into());
        let claimed = (client_ip(which, true), port).into();
        let is_proxy = self.house.is_proxy(address.map_or(Client::Unix, Client::At));
        let is_http = self.house.setting.protocol == Protocol::Http;
        let (opening, said, header) = match random.u8(..8) {
            0 if is_proxy => (Opening::Malformed, words::malformed_header(random, claimed), 0),
            _ if is_proxy => {
                let header = words::header(random, claimed);
                let length = header.len();
                (Opening::Header, header, length)
            }
            0..6 if is_http => (Opening::Request, words::request(), 0),
            _ => (Opening::None, Vec::new(), 0),
        };
        let speech = Speech::new(random).opening_with(said, header);
        let mut client = Socket::new(speech, random);
        client.address = address;
        client.claimed = (opening == Opening::Header).then_some(claimed);
        match random.u8(..4) {
            0 => {
                client.sent = random.u64(1..250);
                client.peer_finished = random.u8(..8) == 0;
            }
            1 if random.u8(..4) == 0 => client.peer_finished = true,
            _ => {}
        }
        let count = self.workers.len();
        let worker = if self.plan.uneven { 0 } else { network.random.usize(..count) };
        let socket = network.knock(worker, client);
        self.visits.push(Visit::new(socket, opening, worker));
    }

    fn disturb(&mut self, open: &[usize]) {
        let network = &mut *self.network.borrow_mut();
        let pause = [0, 0, 0, 100, 1_000, 1_000, 5_000, 60_000][network.random.usize(..8)];
        let most = if self.plan.hurries { 100 } else { 60_000 };
        let most = if self.is_prompt() { 1 } else { most };
        self.now = self.now.after(Duration::from_micros(pause.min(most)));
        network.now = self.now;
        let index = open[network.random.usize(..open.len())];
        peers::disturb(network, self.visits[index].socket, self.plan.large);
    }

    fn calm(&mut self, open: &[usize]) {
        let setting = &self.house.setting;
        if self.is_prompt() {
            self.now = self.now.after(Duration::from_micros(1));
        } else if self.plan.silent {
            let longest = setting.idle.max(setting.half_closed);
            let next = self.now.after((longest / 8).min(Duration::from_secs(3)));
            // Nothing but a timer wakes a worker, which does so in time.
            let due = self.workers.iter().filter_map(Seat::next_due).min();
            self.now = due.map_or(next, |due| due.min(next)).max(self.now);
            return;
        }
        // A session that waits for bandwidth does so for longer than all else takes.
        let paced = setting.bandwidth.iter().any(Option::is_some);
        self.now = self.now.after(Duration::from_millis(if paced { 4 } else { 1 }));
        let tarpits = setting.limit.is_some_and(|limit| limit.action == LimitAction::Tarpit);
        let stays = self.plan.stays && tarpits;
        let network = &mut *self.network.borrow_mut();
        let is_held = |index: &usize| network.sockets[self.visits[*index].socket].is_held();
        if stays && open.iter().all(is_held) {
            self.now = self.now.after(Duration::from_millis(500));
        }
        network.now = self.now;
        for index in open {
            let socket = self.visits[*index].socket;
            if !(stays && network.sockets[socket].is_held()) {
                peers::heal(network, socket);
            }
        }
    }

    /// A newer snapshot, or an order, when its time has come.
    fn interfere(&mut self) {
        if is_due(&mut self.plan.change_in)
            && let Some(change) = self.house.setting.change
        {
            self.publisher.publish(self.house.snapshot(Some(change)));
            self.happened.has_changed = true;
            self.workers.iter().for_each(Seat::wake);
            self.reach(format!("change {change:?} with {} sessions", self.sessions_word()));
            if matches!(change, Change::PoolRenamed | Change::BothRenamed) {
                self.note_moved();
            }
            if change == Change::ListenerRemoved {
                self.plan.coming = 0;
            }
        }
        if is_due(&mut self.plan.order_in)
            && let Some(order) = self.house.setting.order
        {
            self.obey(order);
        }
        if self.plan.replaces {
            self.replace();
        }
    }

    /// Whether something takes microseconds: until a worker that has been woken runs, and until
    /// sessions have changed hands.
    fn is_prompt(&self) -> bool {
        self.replacing.is_under_way() || self.workers.iter().any(Seat::is_rung)
    }

    /// Has sessions change hands, every now and then; what has begun goes on at once.
    fn replace(&mut self) {
        let workers = self.workers.len();
        let chance = {
            let network = &mut *self.network.borrow_mut();
            if !self.replacing.is_under_way() && !network.one_in(8) {
                return;
            }
            let random = &mut network.random;
            let (from, to) = (random.usize(..workers), random.usize(..workers));
            Chance { from, to, succeeds: random.u8(..4) > 0 }
        };
        if let Some(reached) = self.replacing.go_on(&self.workers, chance) {
            // Those that were parked run once, whether or not they can move.
            self.visits.iter_mut().for_each(|visit| visit.turns_waited = 0);
            self.reach(reached.to_owned());
        }
    }

    /// Notes which clients wait while the pool that they wait for gets another name.
    fn note_moved(&mut self) {
        let sessions = self.workers.iter().flat_map(|seat| seat.worker.sessions());
        for (_, session) in sessions {
            if let Stage::Waiting { .. } | Stage::Resting { .. } = session.stage() {
                let client = session.client_socket().id;
                let its = self.visits.iter_mut().find(|visit| visit.socket == client);
                its.into_iter().for_each(|visit| visit.was_moved = true);
            }
        }
    }

    fn obey(&mut self, order: Order) {
        self.reach(format!("order {order:?} with {} sessions", self.sessions_word()));
        match order {
            Order::Down => {
                self.house.backends[0].set_up(false, &self.house.pools[0].tally);
                self.tell_to_leave(0, LeaveCause::Down);
            }
            Order::Back => {
                self.house
                    .primaries()
                    .for_each(|primary| primary.set_up(true, &self.house.pools[0].tally));
                self.tell_to_leave(self.house.setting.backends - 1, LeaveCause::PrimaryUp);
            }
            Order::Empty if self.leave_order.is_none() => {
                self.house.backends[0].set_admin(AdminState::Drain, &self.house.pools[0].tally);
                self.tell_to_leave(0, LeaveCause::Drain(self.house.setting.leave));
                self.plan.order_in = Some(self.network.borrow_mut().random.usize(1..40));
            }
            Order::Empty => self.take_back(),
            Order::Kill if self.leave_order.is_none() => {
                self.kill();
                self.plan.order_in = Some(self.network.borrow_mut().random.usize(1..20));
            }
            Order::Kill => self.revoke(),
            Order::Stop | Order::Drain if !self.happened.has_stopped => {
                self.happened.has_stopped = true;
                self.plan.coming = 0;
                self.send_all(|| Command::StopListening);
                if order == Order::Drain {
                    self.plan.order_in = Some(self.network.borrow_mut().random.usize(1..20));
                }
            }
            Order::Stop | Order::Drain => {
                self.happened.has_reset_all = true;
                self.send_all(|| Command::ResetAll);
            }
        }
    }

    fn tell_to_leave(&mut self, backend: u32, cause: LeaveCause) {
        let snapshot = self.publisher.latest();
        let Some(backend) = snapshot.backend(BackendId::new(backend)) else { return };
        let order = Arc::new(LeaveOrder::new(backend, cause, Arc::default()));
        let told = ToldToLeave { reason: order.reason(), since: self.now, until: None };
        self.happened.told_to_leave = Some(told);
        self.send_all(|| Command::Leave(Arc::clone(&order)));
        self.leave_order = Some(order);
    }

    /// An operator asks for the sessions, and kills them once he has seen them.
    fn kill(&mut self) {
        if self.killing.is_new() {
            return self.killing.look(&self.workers);
        }
        let order = Arc::new(LeaveOrder::to_kill(self.house.setting.leave));
        let named = self.killing.name(&self.workers, &order);
        named.problems.into_iter().for_each(|what| self.problem(what));
        for visit in &mut self.visits {
            visit.was_named |= named.clients.contains(&visit.socket);
        }
        let told = ToldToLeave { reason: order.reason(), since: self.now, until: None };
        self.happened.told_to_leave = Some(told);
        self.leave_order = Some(order);
    }

    /// An operator stops the kill: what is left of the sessions stays.
    fn revoke(&mut self) {
        self.leave_order.iter().for_each(|order| order.revoke());
        if let Some(told) = &mut self.happened.told_to_leave {
            told.until = Some(self.now);
        }
    }

    /// An operator keeps what is left of the sessions, or has the backend serve again.
    fn take_back(&mut self) {
        let is_ready = self.network.borrow_mut().random.bool();
        match &self.leave_order {
            Some(order) if !is_ready => order.revoke(),
            _ => self.house.backends[0].set_admin(AdminState::Ready, &self.house.pools[0].tally),
        }
        if let Some(told) = &mut self.happened.told_to_leave {
            told.until = Some(self.now);
        }
    }

    fn sessions_word(&self) -> &'static str {
        if self.workers.iter().any(Seat::has_sessions) { "open" } else { "no" }
    }

    fn reach(&mut self, what: String) {
        self.network.borrow().trace(|| what.clone());
        self.reached.push(what);
    }

    /// A turn of every worker that something wakes, in any order; while peers are wild and no time
    /// has passed, some come later.
    fn turn(&mut self, passed: Duration) {
        let mut order: Vec<usize> = (0..self.workers.len()).collect();
        self.network.borrow_mut().random.shuffle(&mut order);
        for number in order {
            let may_wait = self.workers.len() > 1 && self.plan.wild > 0;
            let is_short = passed <= Duration::from_millis(1);
            if may_wait && is_short && self.network.borrow_mut().one_in(4) {
                continue;
            }
            self.turn_of(number);
        }
        self.look_at_line();
    }

    /// One turn of a worker, if something wakes it, and a look at what came of it.
    fn turn_of(&mut self, number: usize) {
        let seat = &mut self.workers[number];
        let mut events = {
            let mut network = self.network.borrow_mut();
            network.now = self.now;
            network.events(number)
        };
        seat.answer(&mut events);
        if self.plan.sleeps && events.is_empty() && !seat.is_due(self.now) {
            return;
        }
        for socket in &mut self.network.borrow_mut().sockets {
            socket.moved = 0;
        }
        let has_stale = events.iter().any(|(token, _)| seat.is_stale(*token));
        if !seat.turn(events, self.now) {
            self.problem("the worker has left".into());
        }
        if has_stale {
            self.reach("an event for a slot that another session has".into());
        }
        self.look(number);
        self.look_at_gate();
        self.read_log();
    }

    /// What the kernel would refuse by itself is what a worker would refuse.
    fn look_at_gate(&mut self) {
        let now_us = self.now.micros();
        let reached = "a client that the kernel refuses";
        let is_new = !self.reached.iter().any(|known| known == reached);
        if is_new && !self.house.gate.refused(now_us).is_empty() {
            self.reach(reached.into());
        }
        for client in self.house.refused_for_nothing(now_us) {
            self.problem(format!("the kernel refuses {client}, a worker would not"));
        }
    }

    /// Checks every session of the worker that has taken a turn, and the pipes of all.
    fn look(&mut self, number: usize) {
        let network = &mut *self.network.borrow_mut();
        for (_, session) in self.workers[number].worker.sessions() {
            let client = session.client_socket().id;
            let backend = session.backend_socket().map(|backend| backend.id);
            network.pair(client, backend);
            let Some(visit) = self.visits.iter_mut().find(|visit| visit.socket == client) else {
                continue;
            };
            visit.see(session, number, network);
            for id in [Some(client), backend].into_iter().flatten() {
                network.sockets[id].is_in_use = visit.served.is_some();
            }
            let mut problems = Look::check(session, network, &self.house.setting, visit);
            network.problems.append(&mut problems);
            let mut sockets = [Some(client), backend].into_iter().flatten();
            let has_moved = sockets.any(|id| network.sockets[id].moved > 0);
            let is_waiting = session.is_queued() && !has_moved;
            visit.turns_waited = if is_waiting { visit.turns_waited + 1 } else { 0 };
            // One light and one bulk session run in each turn, if not more.
            if visit.turns_waited > self.house.setting.clients + 1 {
                network.problem(format!("never its turn, or busy with nothing: {session:?}"));
            }
        }
        checks::check_pipes(network, self.workers.iter().flat_map(|seat| seat.worker.sessions()));
        checks::check_corks(network);
    }

    /// Takes the lines of the log, each of a client that is gone, and one for each.
    fn read_log(&mut self) {
        while let Ok((_, record)) = self.records.try_recv() {
            let network = self.network.borrow();
            let found = visit::find(&self.visits, &record, &network);
            drop(network);
            let Some(index) = found.filter(|index| self.visits[*index].record.is_none()) else {
                self.problem(format!("a line too many: {record:?}"));
                continue;
            };
            self.check_end(index, &record);
            self.visits[index].record = Some(record);
        }
        let network = &mut *self.network.borrow_mut();
        for visit in &self.visits {
            let socket = &network.sockets[visit.socket];
            if socket.accepted && visit.record.is_some() != socket.closed {
                let what = format!("a line before the end, or none after it: {visit:?}");
                network.problem(what);
                return;
            }
        }
    }

    fn check_end(&mut self, index: usize, record: &evenkeel::shared::SessionRecord) {
        let visit = &self.visits[index];
        let (mut problems, kind, decided) = {
            let network = &*self.network.borrow();
            let (house, happened) = (&self.house, self.happened);
            let end = EndOf { visit, record, network, house, happened };
            (end.check(), end.kind(), end.decided())
        };
        let why = self.leave_order.as_ref().map(|order| Said::Closed(order.reason()));
        if why.is_some() && said(record) == why {
            self.left.push(decided);
        }
        // A session that nothing held up may not be ended by a timer.
        let silence = [CloseReason::Idle, CloseReason::HalfClosed].map(|it| Some(Said::Closed(it)));
        let was_calm = self.plan.calm_since.is_some_and(|since| Some(since) < visit.active);
        if silence.contains(&said(record)) && was_calm && !self.plan.silent {
            problems.push(format!("ended by silence, with nothing in its way: {visit:?}"));
        }
        self.network.borrow_mut().problems.append(&mut problems);
        self.reach(kind);
    }

    /// A client that is first in line does not wait while there is a place for it.
    fn look_at_line(&mut self) {
        if self.house.setting.queue.is_none() {
            return;
        }
        let setting = &self.house.setting;
        let snapshot = self.publisher.latest();
        let sessions = || self.workers.iter().flat_map(|seat| seat.worker.sessions());
        // A backend that failed it is no place for it, nor is one whose accept queue may be full.
        let may_fail = setting.unix_backends && setting.dials_fail;
        let is_choosy = |number: u64| {
            may_fail || sessions().any(|(_, it)| it.number() == number && !it.tried().is_empty())
        };
        let has_place_for = snapshot.pools.iter().flatten().find_map(|pool| {
            let first = pool.state.line.first().map(|first| first.number);
            let first = first.filter(|number| !is_choosy(*number));
            first.filter(|_| pool.backends().any(|backend| backend.is_eligible(false)))
        });
        let Some(number) = has_place_for else {
            self.free_since = None;
            return;
        };
        // One that has just become the first has not seen the place that the last one saw.
        let known = self.free_since.filter(|(first, _)| *first == number);
        let (_, since) = known.unwrap_or((number, self.now));
        self.free_since = Some((number, since));
        if since.after(LINE_LOOK).after(LATE_MAX) < self.now {
            self.problem("a client waits in line although there is a place".into());
        }
    }

    /// At the end nothing is left anywhere, and everything was counted once.
    fn finish(&mut self) {
        let mut problems = self.house.places_left();
        let lent = {
            let network = self.network.borrow();
            let reached = [
                ("a pipe is given back unsent", network.unloaded),
                ("a socket cannot accept", network.accept_errors),
            ];
            let reached = reached.into_iter().filter(|(_, count)| *count > 0);
            self.reached.extend(reached.map(|(what, _)| what.to_owned()));
            network.pipes.lent
        };
        if lent != 0 || self.workers.iter().any(Seat::has_sessions) {
            problems.push(format!("{lent} pipes never came back"));
        }
        let states = || self.workers.iter().map(|seat| &seat.state);
        if states().any(|state| state.refusals_held.value() != 0) {
            problems.push("a client is still held".into());
        }
        if self.workers.iter().any(Seat::is_disobedient) {
            problems.push("a worker says that it has obeyed what it has not".into());
        }
        if states().any(|state| state.arriving.load(Ordering::Relaxed) != 0) {
            problems.push("a session that was handed over is still on its way".into());
        }
        if matches!(self.house.setting.leave, Leave::Pace(_)) {
            self.left.sort_unstable();
            let mut pairs = self.left.windows(2);
            if pairs.any(|pair| pair[1].since(pair[0]) < LEAVE_INTERVAL) {
                problems.push(format!("sessions leave faster than the pace: {:?}", self.left));
            }
            if self.left.len() > 1 {
                self.reached.push("several leave at a pace".into());
            }
        }
        let accepted = self.visits.iter().filter(|visit| visit.record.is_some()).count() as u64;
        let listeners = &self.house.listeners;
        let counted: u64 = listeners.iter().map(|it| it.sum(|counters| &counters.accepted)).sum();
        let closed = |it: &evenkeel::shared::ListenerState| {
            it.blocks().flat_map(|block| &block.closed).map(|counter| counter.value()).sum::<u64>()
        };
        let ended: u64 = listeners.iter().map(|it| it.refused() + closed(it)).sum();
        if (counted, ended) != (accepted, accepted) {
            problems.push(format!("{accepted} lines, {counted} accepted and {ended} ended"));
        }
        self.network.borrow_mut().problems.append(&mut problems);
    }
}

/// Counts down; true once it is time.
fn is_due(steps: &mut Option<usize>) -> bool {
    match steps {
        Some(0) => {
            *steps = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
        None => false,
    }
}
