//! Sessions come from the process before, a window at a time. They are that one's until this one
//! has said that they are its own, which it says before it moves a byte of theirs.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::bounded;

use crate::control::plane::state::Plane;
use crate::control::upgrade::packets::{self, HeirAnswer};
use crate::control::upgrade::session_packet;
use crate::dataplane::{ArrivedSession, Command, Window};
use crate::sys::channel::Channel;

/// How long to listen at once; the process before may be silent for as long as it has sessions.
const LISTEN: Duration = Duration::from_secs(3600);
/// How long an answer may wait for room.
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes sessions in, beside what else the process does, until the process before has none left.
///
/// # Errors
/// When there is no thread for it.
pub(crate) fn start(plane: &Arc<Plane>, channel: Arc<Channel>) -> io::Result<()> {
    let plane = Arc::clone(plane);
    std::thread::Builder::new().name("take-in".into()).spawn(move || {
        if let Err(error) = take_in_all(&plane, &channel) {
            tracing::error!("takes no more sessions from the process before: {error}");
            let refused = HeirAnswer::Refused { reason: error.to_string() };
            // It may be gone itself.
            let _unheard = packets::send(&channel, &refused, &[], Instant::now() + PATIENCE);
        }
    })?;
    Ok(())
}

fn take_in_all(plane: &Plane, channel: &Channel) -> io::Result<()> {
    loop {
        match channel.receive(Instant::now() + LISTEN) {
            Ok(Some(packet)) => take_in(plane, channel, session_packet::sessions(packet)?)?,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
            Err(error) => return Err(error),
        }
    }
}

fn take_in(plane: &Plane, channel: &Channel, arrived: Vec<ArrivedSession>) -> io::Result<()> {
    let windows = parked(plane, arrived)?;
    let refused = windows.iter().flat_map(|(_, window)| window.refused()).copied().collect();
    let taken_in = HeirAnswer::TakenIn { refused };
    let said = packets::send(channel, &taken_in, &[], Instant::now() + PATIENCE);
    for (worker, window) in windows {
        // On an error the process before goes on with them, if there still is one.
        let command = if said.is_ok() { Command::Resume } else { Command::GiveUp };
        if let Some(worker) = plane.workers.handles.get(worker) {
            // A worker that is gone takes its sessions with it.
            let _gone = worker.send(command(window));
        }
    }
    said
}

/// Has workers park sessions, each the worker that would have given it its number.
fn parked(plane: &Plane, arrived: Vec<ArrivedSession>) -> io::Result<Vec<(usize, Box<Window>)>> {
    let workers = plane.workers.handles.len().max(1) as u64;
    let mut by_worker: BTreeMap<usize, Vec<ArrivedSession>> = BTreeMap::new();
    for session in arrived {
        let worker = usize::try_from(session.passed.number % workers).unwrap_or(0);
        by_worker.entry(worker).or_default().push(session);
    }
    let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "a worker has ended");
    let mut windows = Vec::with_capacity(by_worker.len());
    for (number, arrived) in by_worker {
        let (back, answer) = bounded(1);
        let worker = plane.workers.handles.get(number).ok_or_else(gone)?;
        worker.send(Command::TakeIn(arrived, back))?;
        windows.push((number, answer));
    }
    let answered = |(number, answer): (usize, crossbeam::channel::Receiver<_>)| {
        Ok((number, answer.recv().map_err(|_| gone())?))
    };
    windows.into_iter().map(answered).collect()
}
