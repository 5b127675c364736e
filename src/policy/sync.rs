//! The atomics and the mutex of code that threads share: std's and parking_lot's, or loom's when a
//! model explores every interleaving.
//!
//! Models are built with `RUSTFLAGS="--cfg evenkeel_loom"`. The cfg is not called `loom`, because
//! other crates change their interface under that name.

#[cfg(evenkeel_loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(evenkeel_loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};

#[cfg(not(evenkeel_loom))]
pub(crate) use parking_lot::Mutex;

/// loom's mutex with the interface of parking_lot's.
#[cfg(evenkeel_loom)]
#[derive(Debug)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

#[cfg(evenkeel_loom)]
impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Lets the thread that is waited for go on.
#[cfg(evenkeel_loom)]
pub(crate) fn relax() {
    loom::thread::yield_now();
}

/// Lets the thread that is waited for go on.
#[cfg(not(evenkeel_loom))]
pub(crate) fn relax() {
    std::hint::spin_loop();
}
