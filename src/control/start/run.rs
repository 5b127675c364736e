//! Start order, the main loop, stop order.
//!
//! Start: read everything, open everything, then serve, then say so; what fails before that leaves
//! nothing half-started. Stop: not ready, `shutdown_delay`, empty and close the listeners, drain,
//! reset what is left at `drain_timeout`. A second signal resets at once.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::units::show_duration;
use crate::config::{self, Config, Parsed};
use crate::dataplane::{Command, WorkerHandle, WorkerSetup};
use crate::shared::{Address, Publisher, WorkerState};
use crate::sys::{process, systemd};

use super::host;
use super::listeners::{self, Bound, ListenFailure, Plan};
use super::notify::{self, Watchdog};
use super::run_error::{RunError, failed};
use super::sizing::{self, Sizes};
use crate::control::admin::{self, AdminSockets};
use crate::control::log::Logging;
use crate::control::reload::apply::{hand_over, reload};
use crate::control::reload::compile::{Overrides, nothing};
use crate::control::reload::plane::{Current, Phase, Plane, Workers};
use crate::control::tell::status::AdminAddresses;
use crate::control::tell::words::count;
use crate::control::watch::outlier;
use crate::control::watch::prober::Prober;
use crate::control::watch::source_ports;
use crate::control::watch::trust::TlsProbes;

/// How long workers may take to register the sockets they were given.
const REGISTER_DEADLINE: Duration = Duration::from_secs(10);
/// How often to look whether something that has no event of its own has happened.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// How often `systemctl status` gets a new line.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);
/// How often quiet clients are forgotten: well within what the shortest stored time can tell apart
/// (512 windows of a second).
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// What to run.
#[derive(Debug)]
pub struct RunOptions {
    /// The configuration file.
    pub file: PathBuf,
    /// Stop by itself after this long.
    pub stop_after: Option<Duration>,
    /// Called once everything is served.
    pub on_ready: fn(&Served),
}

/// Where everything is that is now served, real ports.
#[derive(Debug, Clone)]
pub struct Served {
    /// The configuration file.
    pub file: PathBuf,
    /// All listeners, in the order of the file.
    pub listeners: Vec<Address>,
    /// The admin socket and page.
    pub admin: AdminAddresses,
}

/// Runs until asked to stop.
///
/// # Errors
/// When the configuration is refused, or something cannot be opened.
pub fn run(options: &RunOptions) -> Result<(), RunError> {
    let started = Instant::now();
    let (mut parsed, text) = config::load(&options.file);
    let Some(config) = parsed.config.clone() else {
        return Err(RunError::Config(config::render(&parsed.problems, &text, false)));
    };
    let workers = sizing::workers(&config);
    let sizes = Sizes::of_this_process(workers);
    host::warn(&mut parsed, &config, &sizes);
    let Some(tls) = host::tls_probes(&mut parsed, &config, &TlsProbes::default()) else {
        return Err(RunError::Config(config::render(&parsed.problems, &text, false)));
    };
    let mut inherited =
        systemd::take_inherited().map_err(failed("cannot take the sockets systemd passed"))?;
    let plan = listeners::plan(&config, &Bound::new(), &mut inherited, workers)
        .map_err(|failures| not_granted(&mut parsed, &text, failures))?;
    let page = admin::open_http(&config.admin)
        .map_err(|failure| not_granted(&mut parsed, &text, vec![failure]))?;
    let sockets = admin::open(&config.admin, page)?;
    let logging = Logging::start(&config.global.log).map_err(failed("cannot start logging"))?;
    for warning in &parsed.problems {
        tracing::warn!("{}:{}: {}", warning.file, warning.line, warning.message);
    }
    for message in host::met_first(&config, &sizes) {
        tracing::warn!("{message}");
    }
    for socket in inherited {
        let address = Address::from(&socket.address);
        tracing::warn!("systemd passed {} ({address}), no listener wants it", socket.name);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed("cannot start the control runtime"))?;
    let prepared = Prepared { started, config, sizes, tls, plan, sockets };
    runtime.block_on(serve(options, prepared, logging))
}

/// What this host does not let evenkeel listen on, each in its place in the file.
fn not_granted(parsed: &mut Parsed, text: &str, failures: Vec<ListenFailure>) -> RunError {
    let mut first = None;
    for ListenFailure { key, message, hint, cause } in failures {
        parsed.refuse(&key, message, hint);
        first.get_or_insert((key, cause));
    }
    let (key, cause) = first.unwrap_or_else(|| (String::new(), io::ErrorKind::Other.into()));
    RunError::Host { text: config::render(&parsed.problems, text, false), key, cause }
}

struct Prepared {
    started: Instant,
    config: Config,
    sizes: Sizes,
    tls: TlsProbes,
    plan: Plan,
    sockets: AdminSockets,
}

async fn serve(options: &RunOptions, prepared: Prepared, logging: Logging) -> Result<(), RunError> {
    let mut signals = Signals::new().map_err(failed("cannot listen to signals"))?;
    let logging = Arc::new(logging);
    let plane = Arc::new(start_plane(options, &prepared, &logging)?);
    let addresses: Vec<_> = prepared.plan.addresses.iter().flatten().cloned().collect();
    let served = Served {
        file: options.file.clone(),
        listeners: addresses,
        admin: prepared.sockets.addresses().clone(),
    };
    let snapshot = {
        let current = plane.current.lock();
        plane.publish(&prepared.config, &prepared.plan.addresses, &current.overrides)
    };
    snapshot.map_err(RunError::Config)?;
    let prober = Arc::new(Prober::new(Arc::clone(&plane)));
    prober.take_up(&prepared.config);
    tokio::spawn(outlier::watch(Arc::clone(&plane)));
    tokio::spawn(source_ports::watch(Arc::clone(&plane)));
    hand_over(&plane, prepared.plan);
    wait_until_served(&plane, served.listeners.len()).await?;
    plane.set_phase(Phase::Serving);
    let context = admin::Context {
        plane: Arc::clone(&plane),
        prober: Arc::clone(&prober),
        logging: Arc::clone(&logging),
    };
    admin::serve(prepared.sockets, context.clone());
    announce(&plane, &prepared.config, &served.listeners);
    (options.on_ready)(&served);
    main_loop(&context, &mut signals, options.stop_after).await;
    stop(&plane, &mut signals).await;
    logging.finish();
    Ok(())
}

fn start_plane(
    options: &RunOptions,
    prepared: &Prepared,
    logging: &Logging,
) -> Result<Plane, RunError> {
    let publisher = Publisher::new(Arc::new(nothing()));
    let workers = start_workers(prepared, &publisher, logging)
        .map_err(failed("cannot start a worker thread"))?;
    let current = Current {
        config: prepared.config.clone(),
        bound: prepared.plan.bound.clone(),
        overrides: Overrides::new(),
        tls: prepared.tls.clone(),
    };
    Ok(Plane::new(
        options.file.clone(),
        prepared.started,
        prepared.sizes,
        workers,
        (publisher, current),
    ))
}

fn start_workers(
    prepared: &Prepared,
    publisher: &Publisher,
    logging: &Logging,
) -> io::Result<Workers> {
    let count = prepared.sizes.workers;
    let cpus =
        if prepared.config.global.pin_workers { process::usable_cpus()? } else { Vec::new() };
    let pipes = prepared.sizes.pipe_share();
    let mut workers = Workers { handles: Vec::new(), states: Vec::new() };
    for number in 0..count {
        let state = Arc::new(WorkerState::default());
        workers.handles.push(WorkerHandle::start(WorkerSetup {
            number,
            workers: count,
            cpu: cpus.get(number % cpus.len().max(1)).copied(),
            spin: prepared.config.global.spin,
            pipes,
            start: prepared.started,
            snapshot: publisher.subscribe(),
            state: Arc::clone(&state),
            log: logging.session_log(),
        })?);
        workers.states.push(state);
    }
    workers.introduce()?;
    Ok(workers)
}

/// Ready means that every worker accepts on every address.
async fn wait_until_served(plane: &Plane, addresses: usize) -> Result<(), RunError> {
    let wanted = (addresses * plane.workers.states.len()) as u64;
    let deadline = Instant::now() + REGISTER_DEADLINE;
    while plane.workers.listening() < wanted {
        if Instant::now() > deadline {
            let source = io::Error::from(io::ErrorKind::TimedOut);
            return Err(failed("cannot register the listening sockets")(source));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

fn announce(plane: &Plane, config: &Config, addresses: &[Address]) {
    tracing::info!(
        "evenkeel {} serves {} with {}, up to {} ({}, {})",
        env!("CARGO_PKG_VERSION"),
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        count(plane.workers.states.len() as u64, "worker"),
        count(plane.sizes.sessions(config), "session"),
        count(plane.sizes.descriptors, "descriptor"),
        count(plane.sizes.pipes(), "pipe"),
    );
    notify::ready(&status_line(plane));
}

fn status_line(plane: &Plane) -> String {
    let snapshot = plane.publisher.latest();
    format!(
        "{}, generation {}, {}",
        count(plane.workers.sessions(), "session"),
        snapshot.generation,
        if plane.is_ready() { "ready" } else { "not ready" }
    )
}

struct Signals {
    stop: [Signal; 3],
    reload: Signal,
    reopen: Signal,
    upgrade: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            stop: [
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::quit())?,
            ],
            reload: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    async fn stop(&mut self) {
        stop_signal(&mut self.stop).await;
    }
}

/// Until asked to stop.
async fn main_loop(context: &admin::Context, signals: &mut Signals, limit: Option<Duration>) {
    let plane = &context.plane;
    let mut watchdog = Watchdog::new(&plane.workers);
    let mut look = tokio::time::interval(Watchdog::interval());
    let mut status = tokio::time::interval(STATUS_INTERVAL);
    let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
    let end = tokio::time::sleep(limit.unwrap_or(Duration::MAX / 4));
    tokio::pin!(end);
    loop {
        let Signals { stop, reload: hangup, reopen, upgrade } = &mut *signals;
        let asked = tokio::select! {
            _ = hangup.recv() => Asked::Reload,
            _ = reopen.recv() => Asked::Reopen,
            _ = upgrade.recv() => Asked::Upgrade,
            _ = look.tick() => Asked::Look,
            _ = status.tick() => Asked::Status,
            _ = sweep.tick() => Asked::Sweep,
            () = &mut end => return,
            () = stop_signal(stop) => return,
        };
        match asked {
            Asked::Reload => {
                // Who sent HUP gets no answer; the log has the whole of it.
                let _logged = reload_now(context, false);
            }
            Asked::Reopen => tracing::info!("USR1: no log file to reopen, logging goes to stderr"),
            Asked::Upgrade => tracing::warn!("USR2: upgrade is not supported yet"),
            Asked::Look => watchdog.look(&plane.workers),
            Asked::Status => notify::status(&status_line(plane)),
            Asked::Sweep => plane.forget_quiet_clients(),
        }
    }
}

enum Asked {
    Reload,
    Reopen,
    Upgrade,
    Look,
    Status,
    Sweep,
}

async fn stop_signal([terminate, interrupt, quit]: &mut [Signal; 3]) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = quit.recv() => {}
    }
}

/// Reloads and tells everybody concerned.
///
/// # Errors
/// As [`reload`].
pub(crate) fn reload_now(
    context: &admin::Context,
    dry_run: bool,
) -> Result<crate::control::reload::apply::Reloaded, crate::control::reload::apply::Refused> {
    if !dry_run {
        notify::reloading();
    }
    let outcome = reload(&context.plane, dry_run);
    if !dry_run {
        if outcome.is_ok() {
            let config = context.plane.current.lock().config.clone();
            context.prober.take_up(&config);
            context.logging.apply(&config.global.log);
        }
        notify::ready(&status_line(&context.plane));
    }
    outcome
}

/// Stops in order; a second signal cuts it short.
async fn stop(plane: &Plane, signals: &mut Signals) {
    plane.set_phase(Phase::Stopping);
    notify::stopping("stopping");
    let (delay, drain) = {
        let current = plane.current.lock();
        (current.config.global.shutdown_delay, current.config.global.drain_timeout)
    };
    let sessions = count(plane.workers.sessions(), "session");
    let drains = format!("waiting up to {}", show_duration(drain));
    if delay.is_zero() {
        tracing::info!("stopping: {sessions}, {drains}");
    } else {
        let delay = show_duration(delay);
        tracing::info!(
            "stopping: {sessions}, accepting for {delay} (shutdown_delay), then {drains}"
        );
    }
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        () = signals.stop() => return reset_and_exit(plane).await,
    }
    stop_listening(plane);
    tokio::select! {
        () = drained(plane) => {}
        () = tokio::time::sleep(drain) => tracing::warn!("drain_timeout: sessions are reset"),
        () = signals.stop() => tracing::warn!("second signal: sessions are reset"),
    }
    reset_and_exit(plane).await;
}

/// Files of Unix sockets first: who finds one is served, who comes later is told at once that there
/// is nothing.
fn stop_listening(plane: &Plane) {
    listeners::remove_files(&plane.current.lock().bound);
    plane.workers.tell(|| Command::StopListening);
}

async fn drained(plane: &Plane) {
    while plane.workers.listening() > 0
        || active_sessions(plane) > 0
        || plane.workers.refusals_held() > 0
    {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn active_sessions(plane: &Plane) -> u64 {
    plane.publisher.latest().sessions.value()
}

async fn reset_and_exit(plane: &Plane) {
    stop_listening(plane);
    plane.workers.tell(|| Command::ResetAll);
    let deadline = Instant::now() + REGISTER_DEADLINE;
    while Instant::now() < deadline && (active_sessions(plane) > 0 || plane.workers.listening() > 0)
    {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    plane.workers.tell(|| Command::Exit);
    tracing::info!("stopped");
}
