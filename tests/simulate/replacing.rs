//! The process is replaced: a worker's sessions are parked, and then resumed from what is told of
//! them, by any worker, or taken back.
//!
//! The two processes are one here: they share the network, the snapshots and the log. What is told
//! of a session, and two descriptors, is all that goes from the one to the other.

use crossbeam::channel::{Receiver, bounded};
use evenkeel::dataplane::{ArrivedSession, Command, Window};

use super::kernel::{Handle, Scripted};
use super::workers::Seat;

type Answer = Receiver<Box<Window<Scripted>>>;

/// How far a replacement has come.
#[derive(Default)]
pub(crate) enum Replacing {
    /// None is under way.
    #[default]
    Nothing,
    /// A worker has been asked to park its sessions.
    Parking { worker: usize, answer: Answer },
    /// Another one, or the same, has been asked to take them in.
    TakingIn { worker: usize, window: Box<Window<Scripted>>, to: usize, answer: Answer },
    /// A worker has been told to give its own up. Then another one resumes them: if it ended one
    /// before, the descriptors of the first would put the end off for moments, which no check
    /// allows for.
    GivingUp { worker: usize, to: usize, window: Box<Window<Scripted>> },
}

/// What is decided by chance.
#[derive(Clone, Copy)]
pub(crate) struct Chance {
    /// The worker that parks, and the one that takes in.
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// Whether this step goes well.
    pub(crate) succeeds: bool,
}

impl Replacing {
    /// Whether one is under way: sessions may be parked.
    pub(crate) fn is_under_way(&self) -> bool {
        !matches!(self, Self::Nothing)
    }

    /// Begins one, or goes on with it once a worker has answered; what was reached by that.
    pub(crate) fn go_on(&mut self, workers: &[Seat], chance: Chance) -> Option<&'static str> {
        match std::mem::take(self) {
            Self::Nothing => {
                let (back, answer) = bounded(1);
                workers[chance.from].send(Command::Park(Box::default(), back));
                *self = Self::Parking { worker: chance.from, answer };
                None
            }
            Self::Parking { worker, answer } => match answer.try_recv() {
                Err(_) => {
                    *self = Self::Parking { worker, answer };
                    None
                }
                Ok(window) if window.is_empty() => None,
                Ok(window) if chance.succeeds => {
                    let (back, answer) = bounded(1);
                    workers[chance.to].send(Command::TakeIn(arrived(&window), back));
                    *self = Self::TakingIn { worker, window, to: chance.to, answer };
                    None
                }
                Ok(window) => {
                    workers[worker].send(Command::Resume(window));
                    Some("parked sessions are taken back")
                }
            },
            Self::TakingIn { worker, mut window, to, answer } => {
                let Ok(taken_in) = answer.try_recv() else {
                    *self = Self::TakingIn { worker, window, to, answer };
                    return None;
                };
                if !chance.succeeds {
                    workers[to].send(Command::GiveUp(taken_in));
                    *self = Self::GivingUp { worker: to, to: worker, window };
                    return Some("sessions that were taken in are given up");
                }
                let stay = window.take_out(taken_in.refused());
                let reached = if stay.is_empty() {
                    "sessions change hands"
                } else {
                    "sessions belong nowhere"
                };
                workers[worker].send(Command::Resume(Box::new(stay)));
                workers[worker].send(Command::GiveUp(window));
                *self = Self::GivingUp { worker, to, window: taken_in };
                Some(reached)
            }
            Self::GivingUp { worker, to, window } if workers[worker].is_rung() => {
                *self = Self::GivingUp { worker, to, window };
                None
            }
            Self::GivingUp { to, window, .. } => {
                workers[to].send(Command::Resume(window));
                None
            }
        }
    }
}

/// The sessions of a window, as another process is told of them.
fn arrived(window: &Window<Scripted>) -> Vec<ArrivedSession<Scripted>> {
    let mut sockets = window.sockets().map(Handle::twin);
    let told = window.passed().iter().zip(window.held());
    let session = |(passed, held): (&evenkeel::dataplane::PassedSession, [&[u8]; 2])| {
        let sockets = [sockets.next().unwrap(), sockets.next().unwrap()];
        ArrivedSession { passed: passed.clone(), sockets, held: held.map(Into::into) }
    };
    told.map(session).collect()
}
