//! The bandwidth of one session: what each direction may take in a turn, and when to look again.
//!
//! The relays know only an [`Allowance`] in bytes; time and rates stay here. What is not taken
//! stays in the kernel, so that the sender is slowed down by TCP itself. Sessions of listeners
//! without `bandwidth` have none of this.

use crate::policy::defects::{Defect, has};
use crate::policy::pacer::{Pacer, Rate, Rates};

use super::clock::Tick;
use super::wire::Side;

/// Bytes that one direction may take in this turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    granted: usize,
    left: usize,
    /// It is used up, and there was more to take.
    is_short: bool,
}

impl Allowance {
    /// No bound.
    pub const UNLIMITED: Self = Self::of(usize::MAX);

    /// So many bytes.
    #[must_use]
    pub const fn of(granted: usize) -> Self {
        Self { granted, left: granted, is_short: false }
    }

    /// Bytes that may still be taken; when there are none that is remembered as too few.
    pub const fn ask(&mut self) -> Option<usize> {
        self.is_short |= self.left == 0;
        if self.left == 0 { None } else { Some(self.left) }
    }

    /// Bytes have been taken, no more than may be.
    pub const fn take(&mut self, bytes: usize) {
        self.left -= bytes;
    }

    const fn taken(&self) -> u64 {
        (self.granted - self.left) as u64
    }
}

/// What both directions may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowances {
    from_client: Allowance,
    from_backend: Allowance,
}

impl Allowances {
    /// No bound.
    pub const UNLIMITED: Self =
        Self { from_client: Allowance::UNLIMITED, from_backend: Allowance::UNLIMITED };

    /// So many bytes of the client, all of which have been taken.
    #[must_use]
    pub const fn used_by_client(bytes: usize) -> Self {
        let mut from_client = Allowance::of(bytes);
        from_client.take(bytes);
        Self { from_client, ..Self::UNLIMITED }
    }

    /// What may be taken from one side.
    pub const fn from(&mut self, side: Side) -> &mut Allowance {
        match side {
            Side::Client => &mut self.from_client,
            Side::Backend => &mut self.from_backend,
        }
    }
}

/// What a session with a bandwidth has taken, and what it waits for.
#[derive(Debug)]
pub struct Pacing {
    from_client: Pacer,
    from_backend: Pacer,
    resumes: Option<Tick>,
}

impl Pacing {
    /// Nothing taken yet.
    #[must_use]
    pub const fn new(now: Tick) -> Self {
        let pacer = Pacer::new(nanos(now));
        Self { from_client: pacer, from_backend: pacer, resumes: None }
    }

    /// What may be taken in a turn that begins now.
    #[must_use]
    pub fn allowances(&self, [up, down]: Rates, now: Tick) -> Allowances {
        Allowances {
            from_client: allowance(&self.from_client, up, now),
            from_backend: allowance(&self.from_backend, down, now),
        }
    }

    /// Counts what was taken of what was granted for a turn. Says which directions have to wait, if
    /// any do: the session then has to be run at [`Self::resumes_at`].
    pub fn settle(&mut self, [up, down]: Rates, turn: &Allowances, now: Tick) -> [bool; 2] {
        let waits = [
            settle(&mut self.from_client, up, turn.from_client, now),
            settle(&mut self.from_backend, down, turn.from_backend, now),
        ];
        self.resumes = waits.into_iter().flatten().min().filter(|_| !has(Defect::ForgetBandwidth));
        waits.map(|wait| wait.is_some())
    }

    /// When a direction that waits may go on; `None` when none waits.
    #[must_use]
    pub const fn resumes_at(&self) -> Option<Tick> {
        self.resumes
    }

    /// Whether it has waited for long enough; then it waits no more.
    pub fn resume(&mut self, now: Tick) -> bool {
        self.resumes.take_if(|resumes| *resumes <= now).is_some()
    }
}

fn allowance(pacer: &Pacer, rate: Option<Rate>, now: Tick) -> Allowance {
    rate.map_or(Allowance::UNLIMITED, |rate| {
        let bytes = pacer.allowance(rate, nanos(now));
        Allowance::of(usize::try_from(bytes).unwrap_or(usize::MAX))
    })
}

/// Counts what was taken; when to go on, if there was more.
fn settle(pacer: &mut Pacer, rate: Option<Rate>, turn: Allowance, now: Tick) -> Option<Tick> {
    let rate = rate?;
    if !has(Defect::FreeBandwidth) {
        pacer.charge(rate, nanos(now), turn.taken());
    }
    turn.is_short.then(|| Tick::from_micros(pacer.wait().div_ceil(1000)))
}

const fn nanos(tick: Tick) -> u64 {
    tick.micros().saturating_mul(1000)
}
