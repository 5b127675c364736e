//! The atomics of this module: std's, or loom's when a model explores every interleaving.
//!
//! Models are built with `RUSTFLAGS="--cfg evenkeel_loom"`. The cfg is not called `loom`, because
//! other crates change their interface under that name.

#[cfg(evenkeel_loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(evenkeel_loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};

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
