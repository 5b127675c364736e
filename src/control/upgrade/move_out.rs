//! Sessions go to the process that has taken over, a window at a time, until none is left here.
//!
//! A window is this process's until the other one has said that it is its own: each failure before
//! that has its sessions go on here, and no further one is moved. A session of which no byte moves
//! yet stays until one does; so this looks again and again, as long as the process has sessions.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::control::plane::state::Plane;
use crate::control::upgrade::packets::{self, HeirAnswer};
use crate::control::upgrade::session_packet;
use crate::control::words::count;
use crate::dataplane::{Command, Window, WorkerHandle};
use crate::sys::channel::Channel;

/// How long the other process may take for a window: its sessions pause for that.
const PATIENCE: Duration = Duration::from_secs(5);
/// For how long the answer to the operator waits for sessions that are still being connected.
const FIRST_MOVES: Duration = Duration::from_secs(1);
/// How often to look again: until then, and later.
const LOOK_SOON: Duration = Duration::from_millis(10);
const LOOK_LATER: Duration = Duration::from_millis(250);

/// What has become of sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SessionMoves {
    /// The other process has them.
    pub(crate) moved: u64,
    /// They are here.
    pub(crate) left: u64,
    /// No process has them.
    pub(crate) lost: u64,
    /// The longest time in which neither moved a session's bytes.
    pub(crate) longest_pause: Duration,
}

impl SessionMoves {
    /// When none is to move.
    pub(crate) fn none(plane: &Plane) -> Self {
        Self { left: sessions_left(plane), ..Self::default() }
    }
}

/// Sessions of this process, those that are parked among them.
fn sessions_left(plane: &Plane) -> u64 {
    plane.workers.await_up_to(plane.publisher.latest().generation);
    plane.publisher.latest().sessions.value()
}

/// Begins to move sessions, and goes on with that beside what else the process does. What is
/// received are the first moves, of all sessions whose bytes move by then.
pub(super) fn start(
    plane: &Arc<Plane>,
    channel: Channel,
) -> std::io::Result<Receiver<SessionMoves>> {
    let (tell, told) = bounded(1);
    let mover = Mover { plane: Arc::clone(plane), channel, moves: SessionMoves::default() };
    std::thread::Builder::new().name("move".into()).spawn(move || mover.run(&tell))?;
    Ok(told)
}

struct Mover {
    plane: Arc<Plane>,
    channel: Channel,
    moves: SessionMoves,
}

impl Mover {
    fn run(mut self, tell: &Sender<SessionMoves>) {
        let until = Instant::now() + FIRST_MOVES;
        let mut has_told = false;
        loop {
            let looked = self.look();
            self.moves.left = sessions_left(&self.plane);
            if let Err(reason) = &looked
                && self.moves.left > 0
            {
                tracing::error!("sessions stay with this process: {reason}");
            }
            let is_over = self.moves.left == 0 || looked.is_err();
            let is_first_over = is_over || looked == Ok(0) || Instant::now() >= until;
            if is_first_over && !has_told {
                has_told = true;
                // Its asker may have gone.
                let _unheard = tell.try_send(self.moves);
            }
            if is_over {
                return;
            }
            std::thread::park_timeout(if has_told { LOOK_LATER } else { LOOK_SOON });
        }
    }

    /// Moves what can be moved now; the number of sessions that may be moved later.
    fn look(&mut self) -> Result<usize, String> {
        let (plane, mut not_yet) = (Arc::clone(&self.plane), 0);
        for worker in &plane.workers.handles {
            let mut next = Some(Window::new());
            while let Some(window) = next {
                let parked = Instant::now();
                let window = park(worker, window)?;
                next = window.following();
                not_yet += window.not_yet();
                if !window.is_empty() {
                    self.pass(worker, window, parked)?;
                }
            }
        }
        Ok(not_yet)
    }

    /// Passes a window on that was parked at some moment after `parked`.
    fn pass(
        &mut self,
        worker: &WorkerHandle,
        mut window: Box<Window>,
        parked: Instant,
    ) -> Result<(), String> {
        match self.passed(&window) {
            Ok(refused) => {
                self.moves.longest_pause = self.moves.longest_pause.max(parked.elapsed());
                let stays = window.take_out(&refused);
                self.moves.moved += window.len() as u64;
                // Its sessions are the other one's, whatever becomes of this worker.
                let _gone = worker.send(Command::GiveUp(window));
                if !stays.is_empty() {
                    let number = count(stays.len() as u64, "session");
                    tracing::info!("{number} stay here: their listener or backend is not there");
                    self.resume(worker, Box::new(stays));
                }
                Ok(())
            }
            Err(reason) => {
                self.resume(worker, window);
                Err(reason)
            }
        }
    }

    fn resume(&mut self, worker: &WorkerHandle, window: Box<Window>) {
        let sessions = window.len() as u64;
        if worker.send(Command::Resume(window)).is_err() {
            self.moves.lost += sessions;
        }
    }

    /// Passes sessions on; the numbers of those that the other process does not take. On an error
    /// it has none of them.
    fn passed(&self, window: &Window) -> Result<Vec<u64>, String> {
        let until = Instant::now() + PATIENCE;
        session_packet::send(&self.channel, window, until)
            .map_err(|error| format!("cannot pass them on: {error}"))?;
        let answer = match self.channel.receive(until) {
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                // What it says from now on does not reach this process, and it knows.
                self.channel.shut();
                self.channel.receive(Instant::now() + PATIENCE)
            }
            answer => answer,
        };
        let packet = match answer {
            Ok(Some(packet)) => packet,
            Ok(None) => return Err("the new process has ended, or took too long".to_owned()),
            Err(error) => return Err(format!("cannot hear the new process: {error}")),
        };
        match packets::said(&packet) {
            Ok(HeirAnswer::TakenIn { refused }) => Ok(refused),
            Ok(HeirAnswer::Refused { reason }) => Err(reason),
            Ok(_) => Err("the new process answered out of turn".to_owned()),
            Err(error) => Err(format!("the new process answered nonsense: {error}")),
        }
    }
}

/// Has a worker park its next sessions. Waits for as long as that takes: what it parks is in the
/// answer.
fn park(worker: &WorkerHandle, window: Window) -> Result<Box<Window>, String> {
    let (back, answer) = bounded(1);
    let asked = worker.send(Command::Park(Box::new(window), back));
    let gone = || "a worker has ended".to_owned();
    asked.map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())
}
