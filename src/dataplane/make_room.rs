//! What gives way when descriptors or kernel memory run out, in this order, whatever they are
//! wanted for: accept(2), socket(2) and connect(2), epoll_ctl(2).
//!
//! Idle pipes go first: they cost no connection. Then refused clients that are held, those that are
//! kept waiting before those that are to be answered. Only where nothing is left is a client
//! turned away.

use std::io;

use super::desk::Desk;
use super::held::room;
use super::kernel::{Kernel, is_exhaustion};

/// Has the next of what may give way do so; false when there is nothing left.
#[cold]
pub(super) fn make_room<K: Kernel>(desk: &mut Desk<K>) -> bool {
    desk.kernel.close_idle_pipes() > 0 || room::give_way(desk)
}

/// Asks the kernel again after `first`, for as long as it lacks descriptors or memory and something
/// gives way.
///
/// # Errors
/// The last answer of the kernel.
#[cold]
pub(super) fn ask_again<K: Kernel, T>(
    desk: &mut Desk<K>,
    first: io::Error,
    mut ask: impl FnMut(&mut K) -> io::Result<T>,
) -> io::Result<T> {
    let mut answer = Err(first);
    while answer.as_ref().is_err_and(is_exhaustion) && make_room(desk) {
        answer = ask(&mut desk.kernel);
    }
    answer
}
