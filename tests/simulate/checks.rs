//! The promises, held against what the scripted kernel and peers know.

use std::time::Duration;

use evenkeel::dataplane::clock::Tick;
use evenkeel::dataplane::session::stage::Stage;
use evenkeel::dataplane::stream::wire::Side;
use evenkeel::dataplane::stream::{End, Reset};
use evenkeel::shared::CloseReason;

use super::sockets::SIDES;
use super::worker::{Attempt, Connection, Ended, RETRIES, Settings, Worker};

/// Two ticks of the wheel: one that rounds up, one in which the turn comes.
const LATE_MAX: Duration = Duration::from_micros(2 << 14);

/// After every turn: nothing lost, nothing stranded, no timer forgotten.
pub(crate) fn check(worker: &mut Worker<'_>) {
    let mut held_pipes = 0;
    for index in 0..worker.keys.len() {
        let (key, now, settings) = (worker.keys[index], worker.now, worker.settings);
        let mut problems = Vec::new();
        if let Some(connection) = worker.connection(key) {
            check_balance(connection, &mut problems);
            check_corks(connection, &mut problems);
            check_progress(connection, &mut problems);
            check_bandwidth(connection, &settings, now, &mut problems);
            check_timer(connection, &settings, now, &mut problems);
            check_handshake(connection, &settings, now, &mut problems);
            held_pipes += SIDES.iter().filter(|side| connection.stream.held(**side) > 0).count();
        }
        worker.kernel.problems.append(&mut problems);
    }
    if worker.kernel.lent > held_pipes {
        let what = format!("{} pipes are out, {held_pipes} sides hold bytes", worker.kernel.lent);
        worker.kernel.problems.push(what);
    }
}

/// Bytes in are bytes out and bytes held, both ways.
fn check_balance(connection: &mut Connection, problems: &mut Vec<String>) {
    for (from, (copied, spliced)) in SIDES.into_iter().zip(connection.stream.delivered()) {
        let held = connection.stream.held(from) as u64;
        let received = connection.pair.socket(from).received;
        let target = connection.pair.socket(from.other());
        let (out, taken) = (copied + spliced, target.taken());
        // What was on its way to a peer that is gone is gone too.
        if out != taken || (out + held != received && !target.reset) {
            problems.push(format!(
                "from {from:?}: {received} received, {out} counted, {taken} sent, {held} held"
            ));
        }
    }
}

/// Last bytes do not wait for their FIN beyond the turn, however much is left for the next one.
fn check_corks(connection: &mut Connection, problems: &mut Vec<String>) {
    for from in SIDES {
        let target = connection.pair.socket(from.other());
        if target.corked && !target.reset {
            problems.push(format!("the last bytes of {from:?} wait for a FIN that does not come"));
        }
    }
}

/// With no event on its way, nothing that could move may be left.
fn check_progress(connection: &mut Connection, problems: &mut Vec<String>) {
    let pair = &mut connection.pair;
    let told = SIDES.iter().any(|side| pair.socket(*side).edge.is_some());
    if connection.queued || !is_moving(&connection.stage) || told {
        return;
    }
    for from in SIDES {
        let held = connection.stream.held(from) as u64;
        let source = pair.socket(from);
        let (waiting, over) = (source.waiting(), source.peer_finished || source.reset);
        let target = pair.socket(from.other());
        let has_room = target.room() > 0 && !target.no_space && !target.reset && !target.shut;
        let is_looked_at = connection.pacing.resumes_at().is_some();
        if connection.waits[from as usize] && is_looked_at && held == 0 {
            continue;
        }
        if has_room && (waiting > 0 || held > 0 || over) {
            problems.push(format!(
                "stalled: {waiting} wait from {from:?}, {held} held, over: {over}, {:?}\n{:?}",
                connection.stream, connection.pair
            ));
            return;
        }
    }
}

/// Nobody goes faster than its bandwidth, or waits for it for longer than until a timer comes.
fn check_bandwidth(
    connection: &Connection,
    settings: &Settings,
    now: Tick,
    problems: &mut Vec<String>,
) {
    let age = now.since(connection.opened).as_secs_f64();
    let sides = SIDES.into_iter().zip(settings.bandwidth).zip(connection.stream.delivered());
    for ((from, rate), (copied, spliced)) in sides {
        let Some(rate) = rate else { continue };
        let rate = rate.get() as f64;
        // A client may have spoken before there was a session that counts: at most 200 bytes.
        let most = rate * age + 3.0 * (rate / 50.0).max(512.0) + 200.0;
        // What nobody is there to hear is thrown away as fast as it comes.
        let taken = copied + spliced + connection.stream.held(from) as u64;
        if taken as f64 > most {
            problems.push(format!("too fast: {taken} from {from:?} in {age} s"));
        }
    }
    let due = connection.pacing.resumes_at().map(|resumes| resumes.after(LATE_MAX));
    if let Some(due) = due.filter(|due| *due < now && is_moving(&connection.stage)) {
        problems.push(format!("waits for bandwidth {:?} too long", now.since(due)));
    }
}

fn is_moving(stage: &Stage) -> bool {
    matches!(stage, Stage::Moving(_))
}

fn check_timer(
    connection: &Connection,
    settings: &Settings,
    now: Tick,
    problems: &mut Vec<String>,
) {
    let (Stage::Moving(moving) | Stage::Lingering(moving)) = &connection.stage else { return };
    let bounds = settings.bounds();
    let due = bounds.silence_deadline(&connection.stream, moving.active).after(LATE_MAX);
    if due < now {
        let late = now.since(due);
        problems.push(format!("silent {late:?} too long: {:?}", connection.stream));
    }
}

/// Nothing moves before the handshake is done; it takes no longer and no more tries than allowed.
fn check_handshake(
    connection: &Connection,
    settings: &Settings,
    now: Tick,
    problems: &mut Vec<String>,
) {
    let Some(since) = connection.stage.since() else {
        if connection.attempt != Attempt::Established {
            problems.push(format!("in use before its handshake is done: {connection:?}"));
        }
        return;
    };
    let due = since.after(settings.bounds().connect).after(LATE_MAX);
    if due < now {
        problems.push(format!("a handshake waited for {:?} too long", now.since(due)));
    }
    if connection.failed > RETRIES as usize {
        problems.push(format!("too many backends tried: {}", connection.failed));
    }
}

/// At its end: who is told of a clean end got every byte and FIN was meant; who lost something is
/// told by a reset; and the close itself loses nothing.
pub(crate) fn check_end(
    connection: &Connection,
    held: [usize; 2],
    ended: Ended,
    problems: &mut Vec<String>,
) {
    let (end, is_silence) = match ended {
        Ended::Over(end) => (end, false),
        Ended::Silent(end) => (end, true),
        Ended::GivenUp => {
            if !connection.pair.client.reset && connection.failed <= RETRIES as usize {
                problems.push(format!("given up after {} backends", connection.failed));
            }
            return;
        }
    };
    let pair = &connection.pair;
    for from in SIDES {
        let (source, target) = match from {
            Side::Client => (&pair.client, &pair.backend),
            Side::Backend => (&pair.backend, &pair.client),
        };
        let to = from.other();
        if target.reset {
            continue;
        }
        if is_told(end, to) && target.corked {
            problems.push(format!("the last bytes for {to:?} go with the reset of {end:?}"));
        }
        let complete = source.peer_finished && target.taken() == source.sent;
        if !is_told(end, to) && !complete && !is_silence {
            problems.push(format!("{to:?} sees a clean end, {from:?} meant none: {end:?}"));
        }
        if !is_told(end, to) && target.taken() != source.received {
            problems.push(format!("{to:?} sees a clean end, {} are held", held[from as usize]));
        }
        if is_aborted(end, from) && target.taken() != source.sent {
            problems.push(format!("bytes that {from:?} sent before its reset are lost"));
        }
        if !is_silence && !is_told(end, to) && target.waiting() > 0 && target.buffered > 0 {
            problems.push(format!("closed, with {} bytes for {to:?} at risk", target.buffered));
        }
    }
    let clean = !pair.client.reset && !pair.backend.reset && !is_silence;
    if clean && (end.reason, end.reset) != (CloseReason::Done, Reset::None) {
        problems.push(format!("nobody was reset, but it ends with {end:?}"));
    }
}

fn is_told(end: End, side: Side) -> bool {
    end.reset == Reset::Both || end.reset == Reset::One(side)
}

/// Whether the session says that this side was reset before its stream was over.
fn is_aborted(end: End, from: Side) -> bool {
    let reason = match from {
        Side::Client => CloseReason::ClientReset,
        Side::Backend => CloseReason::BackendReset,
    };
    end.reset == Reset::Both && end.reason == reason
}
