//! Faults that tests put in, to show that they would notice them.
//!
//! Without the feature `defects` nothing can be put in: [`has`] is a constant `false`, and the
//! compiler removes what depends on it. With it, a thread puts one in for itself alone, or the
//! program for all of its threads.

/// A fault of the kind that other proxies have had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// FIN is passed on while bytes are held.
    FinWhileHeld,
    /// A pipe that holds bytes is filled further, and `EAGAIN` taken for an empty socket.
    FullPipeIsEmptySocket,
    /// Bytes wait for a FIN that does not follow.
    CorkEverything,
    /// A turn that is full ends between the last bytes and their FIN.
    LateFin,
    /// A read that is short is the last one, FIN or not.
    ShortReadIsEof,
    /// The same after an error as well as after FIN.
    ShortReadHidesReset,
    /// A session whose peer was reset ends cleanly.
    ForgetReset,
    /// EPIPE right after a splice that was cut short is taken for a reset that followed FIN.
    UnheardReset,
    /// What a short write did not take is gone.
    DropShortWrite,
    /// "Nothing more will come" is not remembered, so nobody reads on after a short read.
    NoOver,
    /// A full target keeps its `writable`.
    SpinOnFullTarget,
    /// A source that was muted while its target was full is not heard again.
    StayMuted,
    /// A session that waits for its bandwidth is not looked at again.
    ForgetBandwidth,
    /// What a session has taken of its bandwidth is not counted.
    FreeBandwidth,
    /// Urgent data is not noticed.
    IgnoreUrgent,
    /// Sockets are closed while their last bytes are not acknowledged and others are unread.
    NoLinger,
    /// The pipe of a session that ends is never given back.
    KeepPipe,
    /// A key finds whoever is in its slot now.
    StaleEvent,
    /// A hang-up reported during the handshake is believed.
    EarlyHangUp,
    /// Any event of a connecting socket is taken for the end of its handshake.
    BelieveAnyEvent,
    /// One backend more is tried than allowed.
    OneRetryMore,
    /// The bound of a handshake is not looked at.
    ForgetConnectTimeout,
}

/// Nobody can put one in.
#[must_use]
#[cfg(not(feature = "defects"))]
#[inline(always)]
pub const fn has(_: Defect) -> bool {
    false
}

#[cfg(feature = "defects")]
mod switch {
    use std::cell::Cell;
    use std::sync::OnceLock;

    use super::Defect;

    static EVERYWHERE: OnceLock<Defect> = OnceLock::new();

    std::thread_local! {
        static PUT_IN: Cell<Option<Defect>> = const { Cell::new(None) };
    }

    /// Whether the calling thread or the program has put this fault in.
    #[must_use]
    pub fn has(defect: Defect) -> bool {
        PUT_IN.get() == Some(defect) || EVERYWHERE.get() == Some(&defect)
    }

    /// Puts a fault in for the calling thread, or takes it out.
    pub fn set(defect: Option<Defect>) {
        PUT_IN.set(defect);
    }

    /// Puts one of the faults that show in a whole program in for all threads, by its name; false
    /// if there is none of that name, or one is put in already.
    #[must_use]
    pub fn set_everywhere(name: &str) -> bool {
        let shown =
            [Defect::FinWhileHeld, Defect::DropShortWrite, Defect::ForgetReset, Defect::KeepPipe];
        let found = shown.into_iter().find(|defect| format!("{defect:?}") == name);
        found.is_some_and(|defect| EVERYWHERE.set(defect).is_ok())
    }
}
#[cfg(feature = "defects")]
pub use switch::{has, set, set_everywhere};
