//! The gate of a listener, as the planes know it: what the kernel refuses before a connection is
//! accepted.
//!
//! The control plane makes it, one worker puts it before the addresses, every worker that refuses a
//! client for its rate enters that client. A gate belongs to the lists and limits it was made for:
//! when one changes there is a new one, whose entries are others.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::reasons::RefuseReason;

/// What the kernel does for a gate.
pub trait GateKernel: fmt::Debug + Send + Sync {
    /// Puts it before the address of a listening socket, in place of what stands there.
    ///
    /// # Errors
    /// In the words of the kernel.
    fn put_before(&self, socket: BorrowedFd<'_>) -> io::Result<()>;

    /// Has a client, as the limit with this mark sees it, refused until `until_us` of the workers'
    /// clock. Where there is no room workers go on to refuse it.
    fn enter(&self, mark: u32, client: IpAddr, until_us: u64);

    /// Has it refused no more.
    fn forget(&self, mark: u32, client: IpAddr);
}

/// How many clients a gate has refused for one limit or list.
pub trait GateCount: fmt::Debug + Send + Sync {
    /// So far.
    fn value(&self) -> u64;

    /// Whether the gate is gone, so that it does not change any more.
    fn is_final(&self) -> bool;
}

/// The gate of one listener.
#[derive(Debug)]
pub struct Gate {
    /// What the kernel does for it.
    pub kernel: Box<dyn GateKernel>,
    trouble: OnceLock<String>,
}

impl Gate {
    /// Stands nowhere yet.
    #[must_use]
    pub fn new(kernel: Box<dyn GateKernel>) -> Self {
        Self { kernel, trouble: OnceLock::new() }
    }

    /// It could not be put before an address.
    #[cold]
    pub fn note_trouble(&self, error: &io::Error) {
        let _first = self.trouble.set(error.to_string());
    }

    /// Why it could not be put before an address, if so.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.get().map(String::as_str)
    }
}

/// Where clients are refused: those over the rate of a limit, whose entries have a mark, or those
/// that are not admitted ([`AccessMarks`]).
#[derive(Debug, Clone)]
pub enum Refusing<M = u32> {
    /// By the kernel; of a limit from the first refusal on.
    InKernel {
        /// The gate of the listener.
        gate: Arc<Gate>,
        /// What the clients that it refuses are marked with.
        mark: M,
    },
    /// By workers; why, in words.
    InWorkers(Arc<str>),
}

/// What the clients are marked with that a gate refuses because they are not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessMarks {
    /// By a ban.
    pub ban: u32,
    /// By the lists of the listener.
    pub lists: u32,
}

impl<M> Refusing<M> {
    /// Why the kernel does not refuse, if so.
    #[must_use]
    pub fn why_not(&self) -> Option<String> {
        match self {
            Self::InWorkers(why) => Some(why.to_string()),
            Self::InKernel { gate, .. } => {
                gate.trouble().map(|error| format!("the kernel takes no gate here: {error}"))
            }
        }
    }
}

/// The clients that the gates of a listener have refused, by reason.
#[derive(Debug, Default)]
pub struct KernelRefusals {
    /// Over the rate of a limit.
    pub limit: GateTotal,
    /// By its lists.
    pub access: GateTotal,
    /// By a ban.
    pub ban: GateTotal,
}

impl KernelRefusals {
    /// Those refused for one reason.
    #[must_use]
    pub fn of(&self, reason: RefuseReason) -> u64 {
        match reason {
            RefuseReason::Limit => self.limit.value(),
            RefuseReason::Access => self.access.value(),
            RefuseReason::Ban => self.ban.value(),
            _ => 0,
        }
    }

    /// All of them.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.limit.value() + self.access.value() + self.ban.value()
    }
}

/// The clients that gates have refused, for a limit or a listener, those that are gone too.
#[derive(Debug, Default)]
pub struct GateTotal(Mutex<GateCounts>);

#[derive(Debug, Default)]
struct GateCounts {
    /// Of gates that are gone.
    past: u64,
    now: Vec<Arc<dyn GateCount>>,
}

impl GateTotal {
    /// Adds what another gate counts; one that is known is counted once.
    pub fn add(&self, count: &Arc<dyn GateCount>) {
        let mut counts = self.0.lock();
        let GateCounts { past, now } = &mut *counts;
        now.retain(|known| {
            if known.is_final() {
                *past += known.value();
            }
            !known.is_final()
        });
        if !now.iter().any(|known| Arc::ptr_eq(known, count)) {
            now.push(Arc::clone(count));
        }
    }

    /// All of them.
    #[must_use]
    pub fn value(&self) -> u64 {
        let counts = self.0.lock();
        counts.past + counts.now.iter().map(|count| count.value()).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[derive(Debug)]
    struct Fixed(u64, AtomicBool);

    impl GateCount for Fixed {
        fn value(&self) -> u64 {
            self.0
        }

        fn is_final(&self) -> bool {
            self.1.load(Ordering::Relaxed)
        }
    }

    // If this fails, a counter falls when a gate is replaced, or counts one gate twice.
    #[test]
    fn what_a_gate_has_refused_outlives_it() {
        let total = GateTotal::default();
        let [one, other] = [5, 7].map(|value| Arc::new(Fixed(value, AtomicBool::new(false))));
        let add = |count: &Arc<Fixed>| {
            let count: Arc<dyn GateCount> = Arc::<Fixed>::clone(count);
            total.add(&count);
        };
        add(&one);
        add(&one);
        assert_eq!(total.value(), 5);
        one.1.store(true, Ordering::Relaxed);
        assert_eq!(total.value(), 5);
        add(&other);
        assert_eq!((total.value(), total.0.lock().past), (12, 5));
        assert_eq!(Arc::strong_count(&one), 1, "nothing is kept of a gate that is gone");
    }
}
