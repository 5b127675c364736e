//! From a command line to a process that serves, and to its end.
//!
//! Start: read everything, open everything, then serve, then say so; what fails before that leaves
//! nothing half-started. Stop: not ready, `shutdown_delay`, empty and close the listeners, drain,
//! reset what is left at `drain_timeout`. A second signal resets at once.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{self, Config, Parsed};
use crate::control::admin::{self, AdminSockets};
use crate::control::host::gates::{Gates, InForce, ListenerGate, Wanted};
use crate::control::host::listeners::{self, BoundAddresses, ListenFailure, OpenedSockets, Plan};
use crate::control::host::passed::{GivenSockets, PassedSockets};
use crate::control::host::sizing::{self, Sizes};
use crate::control::host::trust::TlsProbes;
use crate::control::host::warnings;
use crate::control::log::{Logging, sink};
use crate::control::off_thread::off_thread;
use crate::control::plane::ban_book::BANS_MAX;
use crate::control::plane::clock::seconds_now;
use crate::control::plane::overrides::Overrides;
use crate::control::plane::set_backends::{self, SetBackend};
use crate::control::plane::set_bans::{self, ReadAt, SetBan};
use crate::control::plane::state::{Current, Plane, PlaneSetup, ProcessPhase};
use crate::control::plane::state_file::SavedState;
use crate::control::reload::apply::{hand_over, retune};
use crate::control::reload::kept::kept;
use crate::control::reload::publish::{compiled, publish};
use crate::control::reload::saved::save;
use crate::control::reload::services::Services;
use crate::control::run_error::{RunError, failed};
use crate::control::start::main_loop::{LoopEnd, main_loop};
use crate::control::start::signals::Signals;
use crate::control::start::stop::{drain_beside, stop};
use crate::control::start::workers::{CountFrom, start_workers, wait_until_served};
use crate::control::tell::notify;
use crate::control::tell::status::document::AdminAddresses;
use crate::control::upgrade::latest::LatestState;
use crate::control::upgrade::manifest::PassedState;
use crate::control::upgrade::move_in;
use crate::control::upgrade::packets::HeirAnswer;
use crate::control::upgrade::program;
use crate::control::upgrade::successor::{PassedDoors, Successor};
use crate::control::upgrade::{tables, verdicts};
use crate::control::watch::prober::roster::Prober;
use crate::control::watch::{outlier, refused_in_kernel, source_ports};
use crate::control::words::count;
use crate::shared::{Address, AddressRange, Publisher, Snapshot};
use crate::sys::systemd;

/// What to run.
#[derive(Debug)]
pub struct RunOptions {
    /// The configuration file.
    pub file: PathBuf,
    /// Whether another process of the same program may take over.
    pub can_be_replaced: bool,
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

/// Runs until asked to stop, or until another process has taken over and the last session has
/// ended. Takes over from another process when that has started this one for it.
///
/// # Errors
/// When the configuration is refused, or something cannot be opened.
pub fn run(options: &RunOptions) -> Result<(), RunError> {
    let mut successor = Successor::called()?;
    let outcome = run_after(options, &mut successor);
    if let (Some(successor), Err(error)) = (&successor, &outcome) {
        successor.refuse(error);
    }
    outcome
}

fn run_after(options: &RunOptions, successor: &mut Option<Successor>) -> Result<(), RunError> {
    let began = Instant::now();
    let (mut parsed, text) = config::load(&options.file);
    let Some(config) = parsed.config.clone() else {
        return Err(RunError::Config(config::render(&parsed.problems, &text, false)));
    };
    let workers = sizing::workers(&config);
    let sizes = Sizes::of_this_process(workers);
    warnings::warn(&mut parsed, &config, &sizes);
    let Some(tls) = warnings::tls_probes(&mut parsed, &config, &TlsProbes::default()) else {
        return Err(RunError::Config(config::render(&parsed.problems, &text, false)));
    };
    let mut doors = PassedDoors::default();
    let mut given = GivenSockets {
        inherited: systemd::take_inherited()
            .map_err(failed("cannot take the sockets systemd passed"))?,
        passed: PassedSockets::default(),
    };
    let mut origin = Origin { began, clock_start: began, numbers_from: 0 };
    if let Some(successor) = successor {
        given.passed = std::mem::take(&mut successor.sockets);
        doors = std::mem::take(&mut successor.doors);
        origin.count_on(successor);
    }
    let plan = listeners::plan(&config, &BoundAddresses::new(), &mut given, workers)
        .map_err(|failures| not_granted(&mut parsed, &text, failures))?;
    let (gates, listener_gates) = make_gates(&config, &plan, origin.clock_start)
        .map_err(|refusals| not_granted(&mut parsed, &text, refusals))?;
    let page = admin::open_http(&config.admin, &mut doors)
        .map_err(|failure| not_granted(&mut parsed, &text, vec![failure]))?;
    let sockets = admin::open(&config.admin, page, &mut doors)?;
    let sink = sink::open(&config.global.log.to)
        .map_err(|failure| not_granted(&mut parsed, &text, vec![failure.into()]))?;
    let logging =
        Logging::start(&config.global.log, sink).map_err(failed("cannot start logging"))?;
    for warning in &parsed.problems {
        tracing::warn!("{}:{}: {}", warning.file, warning.line, warning.message);
    }
    for message in warnings::met_first(&config, &sizes) {
        tracing::warn!("{message}");
    }
    for socket in given.inherited {
        let address = Address::from(&socket.address);
        tracing::warn!("systemd passed {} ({address}), no listener wants it", socket.name);
    }
    let program = options.can_be_replaced.then(program::of_this_process);
    let program = program.transpose().map_err(failed("cannot tell which program this is"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed("cannot start the control runtime"))?;
    let left = given.passed.leave();
    let prepared = Prepared {
        origin,
        program,
        config,
        sizes,
        tls,
        plan,
        gates,
        listener_gates,
        sockets,
        left,
    };
    runtime.block_on(serve(options, prepared, Arc::new(logging), successor))
}

/// What this host does not let evenkeel listen on, each in its place in the file.
fn not_granted(parsed: &mut Parsed, text: &str, failures: Vec<ListenFailure>) -> RunError {
    let mut first = None;
    for ListenFailure { key, message, hint, cause } in failures {
        parsed.refuse(&key, message, hint);
        first.get_or_insert((key, cause));
    }
    let (key, cause) = first.unzip();
    let cause = cause.unwrap_or_else(|| io::ErrorKind::Other.into());
    RunError::Host { text: config::render(&parsed.problems, text, false), key, cause }
}

/// From where this process counts.
#[derive(Debug, Clone, Copy)]
struct Origin {
    /// When it began.
    began: Instant,
    /// When the clock of its workers did: in the first process whose sessions it may have.
    clock_start: Instant,
    /// Above the numbers of the sessions of those.
    numbers_from: u64,
}

impl Origin {
    /// Counts on from where the process before does, or takes no sessions from it.
    fn count_on(&mut self, successor: &mut Successor) {
        let passed = successor.count.and_then(|count| Some((count, count.clock_start()?)));
        match passed {
            Some((count, clock_start)) => {
                self.clock_start = clock_start;
                self.numbers_from = count.numbers_from;
            }
            None => successor.count = None,
        }
    }
}

struct Prepared {
    origin: Origin,
    program: Option<PathBuf>,
    config: Config,
    sizes: Sizes,
    tls: TlsProbes,
    plan: Plan,
    gates: Arc<Gates>,
    listener_gates: Vec<ListenerGate>,
    sockets: AdminSockets,
    /// What the process before has passed on and the file does not have, by index.
    left: Vec<u32>,
}

/// Makes the gates of the first configuration.
fn make_gates(
    config: &Config,
    plan: &Plan,
    clock_start: Instant,
) -> Result<(Arc<Gates>, Vec<ListenerGate>), Vec<ListenFailure>> {
    let gates = Arc::new(Gates::new(clock_start));
    let shared = listeners::shared_sockets(config, &plan.bound);
    let now = InForce { config, snapshot: &Snapshot::nothing() };
    match gates.of(Wanted { config, shared: &shared }, now) {
        Ok(made) => Ok((gates, made)),
        Err(refusals) => Err(refusals.into_iter().map(ListenFailure::from).collect()),
    }
}

async fn serve(
    options: &RunOptions,
    prepared: Prepared,
    logging: Arc<Logging>,
    successor: &mut Option<Successor>,
) -> Result<(), RunError> {
    let mut signals = Signals::new().map_err(failed("cannot listen to signals"))?;
    let plane = Arc::new(start_plane(options, &prepared, &logging)?);
    let ranges: Vec<_> = prepared.plan.addresses.iter().flatten().cloned().collect();
    let addresses: Vec<_> = ranges.iter().flat_map(AddressRange::addresses).collect();
    let served = Served {
        file: options.file.clone(),
        listeners: addresses,
        admin: prepared.sockets.addresses().clone(),
    };
    let state = successor.as_mut().map(|successor| std::mem::take(&mut successor.state));
    let latest = match &successor {
        Some(successor) => {
            off_thread(successor.ready()).await.map_err(failed("cannot take over"))?
        }
        None => LatestState::default(),
    };
    publish_first(&plane, &prepared, Before { state, latest }).await?;
    let prober = Arc::new(Prober::new(Arc::clone(&plane)));
    let snapshot = plane.publisher.latest();
    prober.take_up(prober.changes(&prepared.config, &snapshot, &prepared.tls)).await;
    tokio::spawn(outlier::watch(Arc::clone(&plane)));
    tokio::spawn(source_ports::watch(Arc::clone(&plane)));
    let session_log = logging.session_log();
    tokio::spawn(refused_in_kernel::watch(Arc::clone(&plane), session_log.clone()));
    let services = Services { plane: Arc::clone(&plane), prober, logging: Arc::clone(&logging) };
    let config = prepared.config.clone();
    accept(&services, prepared, successor).await?;
    announce(&plane, &config, &ranges);
    (options.on_ready)(&served);
    match main_loop(&services, &mut signals, options.stop_after).await {
        LoopEnd::Stop => stop(&plane, &mut signals).await,
        LoopEnd::HandedOver => drain_beside(&services, &mut signals).await,
    }
    plane.doors.let_go(false);
    refused_in_kernel::tell(&plane, &session_log);
    logging.finish();
    Ok(())
}

/// What the process before has said.
struct Before {
    /// `None`: there was none.
    state: Option<PassedState>,
    latest: LatestState,
}

/// Puts the file in force, with what operators have set and what was known of backends: before an
/// upgrade, or, of the former, before a crash or restart.
async fn publish_first(
    plane: &Arc<Plane>,
    prepared: &Prepared,
    before: Before,
) -> Result<(), RunError> {
    let Before { state, latest: LatestState { tables, words, bans } } = before;
    let rebuilt = tables::rebuilt(plane, tables, &words);
    let (inherited, choices) = rebuilt.unwrap_or_else(|error| {
        tracing::warn!("limits and remembered choices begin anew: {error}");
        Default::default()
    });
    *plane.inherited.lock() = inherited;
    let now = ReadAt { us: plane.now_us(), at: seconds_now() };
    let (set, verdicts) = match state {
        Some(PassedState { set, verdicts }) => (passed_on(set, bans, now), verdicts),
        None => (Ok(plane.state_file.read(now)), Vec::new()),
    };
    let SavedState { overrides: set, bans } =
        set.map_err(failed("cannot take over what operators have set"))?;
    if plane.bans.put(bans, now.us).is_err() {
        tracing::warn!("there were more than {BANS_MAX} bans: all are forgotten");
    }
    let kept = kept(&set, &prepared.config);
    for note in kept.notes {
        tracing::info!("{note}");
    }
    let Prepared { config, plan, listener_gates, .. } = prepared;
    let first = compiled(plane, config, &plan.addresses, &kept.overrides, listener_gates);
    plane.current.lock().overrides = kept.overrides;
    let first = first.map_err(RunError::Config)?;
    choices.fill(&first.snapshot);
    publish(plane, first).await;
    verdicts::take_up(plane, &verdicts);
    Ok(())
}

/// What operators had set in the process before.
fn passed_on(set: Vec<SetBackend>, bans: Vec<SetBan>, now: ReadAt) -> io::Result<SavedState> {
    Ok(SavedState { overrides: set_backends::read(set)?, bans: set_bans::read(bans, now)? })
}

/// Accepts, from clients and from operators; waits until the process before has let go, where there
/// is one.
async fn accept(
    services: &Services,
    prepared: Prepared,
    successor: &mut Option<Successor>,
) -> Result<(), RunError> {
    let plane = &services.plane;
    let Plan { opened, retuned, .. } = prepared.plan;
    let wanted = opened.iter().map(|opened| opened.sockets.len() as u64).sum();
    let made = opened.iter().map(OpenedSockets::made).sum();
    hand_over(plane, opened);
    wait_until_served(plane, wanted).await?;
    plane.set_phase(ProcessPhase::Serving);
    let control = prepared.sockets.passed_file();
    admin::serve(prepared.sockets, services.clone());
    if let Some(successor) = successor.take() {
        let answer = HeirAnswer::Accepting { has_control: control.is_some(), opened: made };
        let led = off_thread(successor.accepting(prepared.left, answer)).await;
        if let Err(error) = &led {
            tracing::warn!("going on alone: {error}");
        }
        let bound = plane.current.lock().bound.clone();
        let files = bound.values().filter_map(|bound| bound.file.as_ref()).chain(&control);
        files.for_each(|file| file.own());
        retune(plane, &retuned);
        if let Ok(channel) = led {
            move_in::start(plane, channel).map_err(failed("cannot take sessions over"))?;
        }
    }
    save(plane).await;
    Ok(())
}

fn start_plane(
    options: &RunOptions,
    prepared: &Prepared,
    logging: &Logging,
) -> Result<Plane, RunError> {
    let Prepared { origin, program, config, sizes, tls, plan, gates, .. } = prepared;
    let publisher = Publisher::new(Arc::new(Snapshot::nothing()));
    let Origin { began, clock_start, numbers_from } = *origin;
    let count = CountFrom { clock_start, numbers_from };
    let workers = start_workers(config, sizes, count, &publisher, logging)
        .map_err(failed("cannot start a worker thread"))?;
    let current = Current {
        config: Arc::new(config.clone()),
        bound: plan.bound.clone(),
        overrides: Overrides::new(),
        tls: tls.clone(),
    };
    Ok(Plane::new(PlaneSetup {
        file: options.file.clone(),
        program: program.clone(),
        began,
        started: clock_start,
        sizes: *sizes,
        workers,
        publisher,
        current,
        gates: Arc::clone(gates),
    }))
}

fn announce(plane: &Plane, config: &Config, addresses: &[AddressRange]) {
    tracing::info!(
        "evenkeel {} serves {} with {}, up to {} ({}, {})",
        env!("CARGO_PKG_VERSION"),
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        count(plane.workers.states.len() as u64, "worker"),
        count(plane.sizes.sessions(config), "session"),
        count(plane.sizes.descriptors, "descriptor"),
        count(plane.sizes.pipes(), "pipe"),
    );
    notify::ready(plane);
}
