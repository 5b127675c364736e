//! The side of the process that runs: it starts the next one, passes on what it has, and lets go
//! of it once the next one accepts. Until then nothing of it changes, whatever the next one does.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::control::host::listeners;
use crate::control::off_thread::off_thread;
use crate::control::plane::state::{Plane, ProcessPhase};
use crate::control::plane::upgrade_book::UnderWay;
use crate::control::reload::services::Services;
use crate::control::tell::notify;
use crate::control::upgrade::latest::LatestState;
use crate::control::upgrade::manifest::Offer;
use crate::control::upgrade::move_out::{self, SessionMoves};
use crate::control::upgrade::packets::{self, Call, HeirAnswer, Opening, PROTOCOL, SESSIONS_FORM};
use crate::control::upgrade::program;
use crate::control::upgrade::report::UpgradeReport;
use crate::dataplane::Command;
use crate::shared::Address;
use crate::sys::channel::{Channel, PACKET_DESCRIPTORS_MAX};
use crate::sys::handshake::queue_length;
use crate::sys::{process, sealed, socket};

/// How long the next process may take until it accepts, unless an operator says otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How often to look whether a stop has been asked for meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long a process that has closed its channel may take to end.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// What an operator asks for.
#[derive(Debug, Clone)]
pub(crate) struct UpgradeOrder {
    /// The program to start; `None` is the file that this one came from.
    pub(crate) program: Option<PathBuf>,
    /// How long it may take until it accepts.
    pub(crate) patience: Duration,
    /// Leave the sessions with this process.
    pub(crate) keep_sessions: bool,
}

impl Default for UpgradeOrder {
    fn default() -> Self {
        Self { program: None, patience: PATIENCE, keep_sessions: false }
    }
}

/// Has another process take over, after any reload that is under way, and to its end even if its
/// asker no longer waits. Says in the log what came of it.
///
/// # Errors
/// In words; this process goes on then as if nothing had been asked.
pub(crate) async fn upgrade(
    services: &Services,
    order: UpgradeOrder,
) -> Result<UpgradeReport, String> {
    let Some(under_way) = services.plane.upgrades.begin() else {
        return Err("an upgrade is under way already".to_owned());
    };
    let started = Instant::now();
    services
        .change(move |services| async move {
            let outcome = upgraded(&services.plane, order, started).await;
            match &outcome {
                Ok(report) => tracing::info!("{}", report.text().trim_end().replace('\n', "; ")),
                Err(reason) => {
                    tracing::error!("the upgrade failed, this process goes on: {reason}");
                    // The other may have put its own gates there.
                    services.plane.workers.tell(|| Command::PutGates);
                }
            }
            end(under_way, &services.plane, outcome.is_ok());
            outcome
        })
        .await
}

fn end(under_way: UnderWay, plane: &Plane, is_done: bool) {
    drop(under_way);
    if is_done {
        plane.upgrades.handed_over.notify_one();
    }
}

async fn upgraded(
    plane: &Arc<Plane>,
    order: UpgradeOrder,
    started: Instant,
) -> Result<UpgradeReport, String> {
    let UpgradeOrder { program, patience, keep_sessions } = order;
    let program = allowed(plane, program)?;
    let drops = process::listen_drops();
    let (its, until) = (Arc::clone(plane), started + patience);
    let mut agreed = off_thread(move || agree(&its, &program, until)).await?;
    agreed.takes_sessions &= !keep_sessions;
    let accepting = Instant::now();
    let heir = let_go(plane, agreed).await?;
    let both_accepted = accepting.elapsed();
    let dropped = |before| Some(process::listen_drops()?.saturating_sub(before));
    Ok(UpgradeReport {
        version: heir.version,
        pid: heir.pid,
        predecessor: std::process::id(),
        adopted: heir.adopted,
        offered: heir.offered,
        opened: heir.opened,
        queued: heir.queued,
        listen_drops: drops.and_then(dropped),
        sessions_moved: heir.moves.moved,
        sessions_left: heir.moves.left,
        sessions_lost: heir.moves.lost,
        longest_pause_us: microseconds(heir.moves.longest_pause),
        both_accepted_ms: milliseconds(both_accepted),
        took_ms: milliseconds(started.elapsed()),
    })
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The program to start, if this process may hand over at all.
fn allowed(plane: &Plane, wanted: Option<PathBuf>) -> Result<PathBuf, String> {
    if plane.phase() == ProcessPhase::Stopping {
        return Err("evenkeel is stopping: no process can take over".to_owned());
    }
    let Some(own) = &plane.program else {
        return Err("the demonstration cannot be upgraded: its backends end with its process; \
                    use `evenkeel run`"
            .to_owned());
    };
    if std::process::id() == 1 {
        return Err("evenkeel is process 1 here, and the container ends with it: start another \
                    container instead"
            .to_owned());
    }
    Ok(wanted.unwrap_or_else(|| own.clone()))
}

/// The next process, once it accepts.
struct Agreed {
    channel: Channel,
    child: Child,
    version: String,
    /// Addresses that it has taken.
    passed: HashSet<Address>,
    has_control: bool,
    takes_sessions: bool,
    adopted: u64,
    offered: u64,
    opened: u64,
    queued: u64,
}

/// What is known of the next process once it leads.
struct Heir {
    pid: u32,
    version: String,
    adopted: u64,
    offered: u64,
    opened: u64,
    queued: u64,
    moves: SessionMoves,
}

/// Starts the next process and brings it to accept. Blocks.
fn agree(plane: &Plane, program: &Path, until: Instant) -> Result<Agreed, String> {
    let offer = Offer::of(plane);
    let (channel, theirs) =
        Channel::pair().map_err(|error| format!("cannot make a channel: {error}"))?;
    let child = program::start(program, &plane.file, theirs)
        .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
    let mut talk = Talk { plane, channel, child, until };
    match talk.agree(&offer) {
        Ok(accepted) => Ok(accepted.agreed(talk.channel, talk.child, &offer)),
        Err(reason) => {
            end_child(&mut talk.child);
            Err(reason)
        }
    }
}

fn end_child(child: &mut Child) {
    // Fails only for one that has ended.
    let _ended = child.kill();
    let _reaped = child.wait();
}

/// The conversation with a process that does not lead yet.
struct Talk<'a> {
    plane: &'a Plane,
    channel: Channel,
    child: Child,
    until: Instant,
}

/// What the next process has said of itself.
struct HeirSays {
    version: String,
    takes_sessions: bool,
    left: HashSet<usize>,
    has_control: bool,
    opened: u64,
}

impl HeirSays {
    fn agreed(self, channel: Channel, child: Child, offer: &Offer) -> Agreed {
        let addresses = offer.manifest.addresses.iter().zip(&offer.real).enumerate();
        let taken = addresses.filter(|(index, _)| !self.left.contains(index));
        let (mut passed, mut adopted) = (HashSet::new(), 0);
        for (_, (described, real)) in taken {
            passed.insert(real.clone());
            adopted += described.sockets as u64;
        }
        let listening = offer.descriptors.iter().take(offer.listening);
        Agreed {
            channel,
            child,
            version: self.version,
            passed,
            has_control: self.has_control,
            takes_sessions: self.takes_sessions,
            adopted,
            offered: offer.listening as u64,
            opened: self.opened,
            queued: listening.filter_map(|one| queue_length(one.as_fd())).map(u64::from).sum(),
        }
    }
}

impl Talk<'_> {
    fn agree(&mut self, offer: &Offer) -> Result<HeirSays, String> {
        self.pass(offer)?;
        let HeirAnswer::Ready { version, sessions } = self.answer()? else {
            return Err(out_of_turn());
        };
        let takes_sessions = sessions == SESSIONS_FORM;
        // Now, so that the other begins from as late as can be.
        let latest = LatestState::of(self.plane).sealed();
        let latest = latest.map_err(|error| format!("cannot copy the tables: {error}"))?;
        let sent = packets::send(&self.channel, &Call::Begin, &latest.files(), self.until);
        self.sent(sent)?;
        let mut left = HashSet::new();
        loop {
            match self.answer()? {
                HeirAnswer::Left { addresses } => {
                    left.extend(addresses.into_iter().map(|index| index as usize));
                }
                HeirAnswer::Accepting { has_control, opened } => {
                    return Ok(HeirSays { version, takes_sessions, left, has_control, opened });
                }
                _ => return Err(out_of_turn()),
            }
        }
    }

    /// Passes on the manifest and every descriptor, and sees that they have arrived.
    fn pass(&mut self, offer: &Offer) -> Result<(), String> {
        let described = serde_json::to_vec(&offer.manifest)
            .map_err(io::Error::from)
            .and_then(|bytes| sealed::sealed(&bytes))
            .map_err(|error| format!("cannot write the manifest: {error}"))?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let opening = Opening { protocol: PROTOCOL, version };
        let sent = packets::send(&self.channel, &opening, &[described.as_fd()], self.until);
        self.sent(sent)?;
        for some in offer.descriptors.chunks(PACKET_DESCRIPTORS_MAX) {
            let some: Vec<_> = some.iter().map(AsFd::as_fd).collect();
            let own = some.iter().map(|one| socket::cookie(*one)).collect::<io::Result<Vec<_>>>();
            let own = own.map_err(|error| format!("cannot ask for a cookie: {error}"))?;
            let sent = packets::send(&self.channel, &Call::Sockets, &some, self.until);
            self.sent(sent)?;
            match self.answer()? {
                HeirAnswer::Taken { cookies } if cookies == own => {}
                HeirAnswer::Taken { .. } => {
                    return Err("the new process names other sockets than those passed".to_owned());
                }
                _ => return Err(out_of_turn()),
            }
        }
        Ok(())
    }

    fn sent(&mut self, sent: io::Result<()>) -> Result<(), String> {
        sent.map_err(|error| match error.kind() {
            // It may have said why before it ended.
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => match self.answer() {
                Err(reason) => reason,
                Ok(_) => out_of_turn(),
            },
            io::ErrorKind::TimedOut => too_late(),
            _ => format!("cannot pass on to the new process: {error}"),
        })
    }

    /// What it says next, unless it refuses, ends, takes too long, or a stop is asked for.
    fn answer(&mut self) -> Result<HeirAnswer, String> {
        loop {
            let look = self.until.min(Instant::now() + LOOK_INTERVAL);
            match self.channel.receive(look) {
                Ok(Some(packet)) => {
                    return match packets::said(&packet) {
                        Ok(HeirAnswer::Refused { reason }) => Err(reason),
                        Ok(answer) => Ok(answer),
                        Err(error) => Err(format!("the new process answered nonsense: {error}")),
                    };
                }
                Ok(None) => return Err(self.how_it_ended()),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                Err(error) => return Err(format!("cannot hear the new process: {error}")),
            }
            if self.plane.phase() == ProcessPhase::Stopping {
                return Err("evenkeel was asked to stop meanwhile".to_owned());
            }
            if Instant::now() >= self.until {
                return Err(too_late());
            }
        }
    }

    fn how_it_ended(&mut self) -> String {
        let until = Instant::now() + END_PATIENCE;
        while Instant::now() < until {
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    return format!("the new process ended before it served: {status}");
                }
                Ok(None) => std::thread::park_timeout(Duration::from_millis(5)),
                Err(error) => return format!("cannot wait for the new process: {error}"),
            }
        }
        "the new process closed its channel before it served".to_owned()
    }
}

fn too_late() -> String {
    "the new process did not serve in time".to_owned()
}

fn out_of_turn() -> String {
    "the new process answered out of turn".to_owned()
}

/// Leaves everything to the next process. On the thread `control`.
async fn let_go(plane: &Arc<Plane>, agreed: Agreed) -> Result<Heir, String> {
    let Agreed { channel, mut child, version, passed, has_control, takes_sessions, .. } = agreed;
    let is_gone = !matches!(child.try_wait(), Ok(None));
    if is_gone || plane.phase() == ProcessPhase::Stopping {
        end_child(&mut child);
        return Err(match is_gone {
            true => "the new process ended as soon as it served".to_owned(),
            false => "evenkeel was asked to stop meanwhile".to_owned(),
        });
    }
    plane.set_phase(ProcessPhase::Stopping);
    plane.upgrades.hand_over();
    let bound = plane.current.lock().bound.clone();
    let changed_hands = bound.values().filter(|bound| passed.contains(&bound.real));
    for file in changed_hands.filter_map(|bound| bound.file.as_ref()) {
        file.disown();
    }
    listeners::remove_files(&bound);
    plane.doors.let_go(has_control);
    let passed = Arc::new(passed);
    plane.workers.tell(|| Command::LetGo { passed: Arc::clone(&passed) });
    let pid = child.id();
    // From the process that systemd takes for the main one, and before the next one says anything.
    notify::main_process(pid);
    let its = Arc::clone(plane);
    let moves = off_thread(move || {
        its.workers.await_up_to(its.publisher.latest().generation);
        let until = Instant::now() + PATIENCE;
        let led = packets::send(&channel, &Call::Lead, &[], until);
        if let Err(error) = &led {
            tracing::error!("the process that has taken over has ended: {error}");
        }
        // Its end is noted when this process has not ended before, so that it leaves no zombie.
        std::thread::spawn(move || child.wait());
        if led.is_ok() && takes_sessions {
            moves_of(&its, channel)
        } else {
            SessionMoves::none(&its)
        }
    })
    .await;
    let Agreed { adopted, offered, opened, queued, .. } = agreed;
    Ok(Heir { pid, version, adopted, offered, opened, queued, moves })
}

/// Has the sessions move, and waits for the first moves.
fn moves_of(plane: &Arc<Plane>, channel: Channel) -> SessionMoves {
    let moving = move_out::start(plane, channel);
    let moving = moving.inspect_err(|error| tracing::error!("no session moves: {error}"));
    let moves = moving.ok().and_then(|moves| moves.recv_timeout(PATIENCE).ok());
    moves.unwrap_or_else(|| SessionMoves::none(plane))
}
