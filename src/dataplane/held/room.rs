//! Refused clients that are held for a while: to be answered in HTTP, or kept waiting.
//!
//! None of them is a session: they cost no backend, take no place of `max_sessions` and are no
//! business of the session loop. Their number, time and bytes are bounded; where descriptors run
//! out they go first. What one of them does is in [`super::client`].

use crate::dataplane::desk::Desk;
use crate::dataplane::kernel::Kernel;
use crate::dataplane::slots::{Addressed, SlotKey};
use crate::dataplane::stream::Readiness;
use crate::shared::{Detail, HeldOutcome};

use super::client::{HeldClient, Step};
use super::table::HeldClients;

/// Neither those to be answered nor those kept waiting are more than this part of the sessions that
/// there may be.
const SESSIONS_SHARE: u64 = 8;

/// Holds a refused client, of which these bytes have been read already.
#[cold]
pub(crate) fn hold<K: Kernel>(desk: &mut Desk<K>, mut client: HeldClient<K>, early: &[u8]) {
    let share = desk.snapshot().sessions_max / SESSIONS_SHARE / desk.books.workers;
    let now = desk.now;
    let held = desk.held.get_or_insert_with(|| Box::new(HeldClients::new(now)));
    let is_tarpit = client.is_tarpitted();
    if !held.has_room(is_tarpit, share) {
        return turn_away(desk, client);
    }
    client.take_in(&mut desk.kernel, early);
    let deadline = client.deadline;
    let key = match held.clients.insert(client) {
        Ok(key) => key,
        Err(client) => return turn_away(desk, client),
    };
    held.tarpits += u64::from(is_tarpit);
    held.timers.arm(key.index, deadline);
    let Some(client) = held.clients.get_mut(key) else { return };
    let token = Addressed::Held(key).token();
    let registered = desk.kernel.register_held(&client.socket, token);
    let first = match registered {
        Err(_) => Step::Over(HeldOutcome::GivenUp, true),
        Ok(()) if is_tarpit => Step::Wait,
        Ok(()) => client.head_came(&mut desk.kernel, now),
    };
    report(desk);
    if first == Step::Next { run_one(desk, key) } else { act(desk, key, first) }
}

/// Something happened to a held client.
#[cold]
pub(crate) fn event<K: Kernel>(desk: &mut Desk<K>, key: SlotKey, readiness: Readiness) {
    let Some(held) = &mut desk.held else { return };
    let Some(client) = held.clients.get_mut(key) else { return };
    if !client.is_tarpitted() {
        held.queue(key);
    } else if readiness.error || readiness.read_closed {
        // What it sends is not read, but when it leaves its place is free.
        act(desk, key, Step::Over(HeldOutcome::Left, true));
    }
}

/// Runs what was ready when this turn began, then looks at timers.
#[cold]
pub(crate) fn run<K: Kernel>(desk: &mut Desk<K>) {
    let count = desk.held.as_ref().map_or(0, |held| held.ready.len());
    for _ in 0..count {
        let Some(held) = &mut desk.held else { break };
        let Some(key) = held.ready.pop_front() else { break };
        if let Some(client) = held.clients.get_mut(key) {
            client.queued = false;
            run_one(desk, key);
        }
    }
    let mut due = Vec::new();
    let Some(held) = &mut desk.held else { return };
    held.timers.expire(desk.now, &mut due);
    for slot in due {
        timer_fired(desk, slot);
    }
}

/// Ends what waits for a listener that is gone, or keeps no client waiting any more.
pub(crate) fn release_tarpits<K: Kernel>(desk: &mut Desk<K>) {
    if desk.held.as_ref().is_some_and(|held| held.tarpits > 0) {
        let latest = desk.snapshot.latest();
        give_up(desk, |client| client.is_tarpitted() && !client.is_to_wait(&latest));
    }
}

/// The process stops: no client is kept waiting, and one that has not asked yet is closed or
/// answered.
pub(crate) fn hurry<K: Kernel>(desk: &mut Desk<K>) {
    give_up(desk, HeldClient::is_tarpitted);
    let keys = desk.held.as_ref().map(|held| held.clients.keys()).unwrap_or_default();
    for key in keys {
        let Some(held) = &mut desk.held else { continue };
        let Some(client) = held.clients.get_mut(key) else { continue };
        if client.is_asking() {
            let step = client.time_over(&mut desk.kernel, desk.now);
            act(desk, key, step);
        }
    }
}

/// Ends them all.
pub(crate) fn end_all<K: Kernel>(desk: &mut Desk<K>) {
    give_up(desk, |_| true);
}

/// Makes descriptors free: by the clients that are kept waiting, else by those still to be
/// answered. False when there are none.
#[cold]
pub(crate) fn give_way<K: Kernel>(desk: &mut Desk<K>) -> bool {
    give_up(desk, HeldClient::is_tarpitted) > 0 || give_up(desk, |_| true) > 0
}

/// Gives up the held clients that satisfy a condition; how many that were.
fn give_up<K: Kernel>(desk: &mut Desk<K>, wanted: impl Fn(&HeldClient<K>) -> bool) -> usize {
    let Some(held) = &desk.held else { return 0 };
    let is_wanted = |key: &SlotKey| held.clients.get(*key).is_some_and(&wanted);
    let keys: Vec<SlotKey> = held.clients.keys().into_iter().filter(is_wanted).collect();
    for key in &keys {
        let Some(held) = &mut desk.held else { continue };
        if let Some(client) = held.clients.get_mut(*key) {
            let outcome = client.give_up(&mut desk.kernel);
            act(desk, *key, Step::Over(outcome, false));
        }
    }
    keys.len()
}

fn timer_fired<K: Kernel>(desk: &mut Desk<K>, slot: u32) {
    let Some(held) = &mut desk.held else { return };
    let Some(key) = held.clients.key_at(slot) else { return };
    let Some(client) = held.clients.get_mut(key) else { return };
    if client.deadline > desk.now {
        let deadline = client.deadline;
        return held.timers.arm(slot, deadline);
    }
    let step = client.time_over(&mut desk.kernel, desk.now);
    act(desk, key, step);
}

fn run_one<K: Kernel>(desk: &mut Desk<K>, key: SlotKey) {
    let Some(held) = &mut desk.held else { return };
    let Some(client) = held.clients.get_mut(key) else { return };
    let step = client.advance(&mut desk.kernel, &mut desk.scratch, desk.now);
    act(desk, key, step);
}

/// Does what a step has come to.
fn act<K: Kernel>(desk: &mut Desk<K>, key: SlotKey, step: Step) {
    let Some(held) = &mut desk.held else { return };
    match step {
        Step::Over(outcome, reset) => {
            held.timers.cancel(key.index);
            let Some(client) = held.clients.remove(key) else { return };
            held.tarpits -= u64::from(client.is_tarpitted());
            if reset {
                desk.kernel.reset_on_close(&client.socket);
            }
            record(desk, client, outcome);
            report(desk);
        }
        Step::Next | Step::Later => {
            rearm(held, key);
            held.queue(key);
        }
        Step::Wait => rearm(held, key),
    }
}

fn rearm<K: Kernel>(held: &mut HeldClients<K>, key: SlotKey) {
    if let Some(client) = held.clients.get(key) {
        let deadline = client.deadline;
        held.timers.arm(key.index, deadline);
    }
}

/// There is no room to hold it.
fn turn_away<K: Kernel>(desk: &mut Desk<K>, client: HeldClient<K>) {
    desk.kernel.reset_on_close(&client.socket);
    record(desk, client, HeldOutcome::NoRoom);
}

/// Counts and logs what came of holding a client, whose socket is closed with that.
fn record<K: Kernel>(desk: &Desk<K>, mut client: HeldClient<K>, outcome: HeldOutcome) {
    client.listener.state.counters(desk.books.number).held_until(outcome).add(1);
    let Some(mut record) = client.record.take() else { return };
    record.bytes_to_client = client.sent;
    let held_for = desk.now.since(client.since).as_millis();
    record.total_ms += u64::try_from(held_for).unwrap_or(u64::MAX);
    if record.detail == Detail::None {
        record.detail = Detail::Held(outcome);
    }
    if let Some(term) = outcome.tarpit_term().filter(|_| client.is_tarpitted()) {
        record.term = term;
    }
    desk.books.log.write(desk.kernel.time_of_day(), *record);
}

fn report<K: Kernel>(desk: &Desk<K>) {
    let count = desk.held.as_ref().map_or(0, |held| held.clients.len());
    desk.books.state.refusals_held.set(count as u64);
}
