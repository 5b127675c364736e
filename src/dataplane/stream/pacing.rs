//! The bandwidth of one session: what each direction may take in a turn, and when to look again.
//!
//! The relays know only [`Allowances`] in bytes; time and rates stay here. What is not taken
//! stays in the kernel, so that the sender is slowed down by TCP itself. Sessions of listeners
//! without `bandwidth` have none of this.

use crate::policy::pace::pacer::{Pacer, Rate, Rates};

use super::wire::Side;
use crate::dataplane::clock::Tick;

/// Bytes that a turn may take of each side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowances {
    from_client: usize,
    from_backend: usize,
}

impl Allowances {
    /// No bound.
    pub const UNLIMITED: Self = Self { from_client: usize::MAX, from_backend: usize::MAX };

    /// What may be taken of one side.
    pub const fn of(&mut self, side: Side) -> &mut usize {
        match side {
            Side::Client => &mut self.from_client,
            Side::Backend => &mut self.from_backend,
        }
    }
}

/// What has become of the allowances of a turn.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    /// As they were when it began.
    pub granted: Allowances,
    /// What is left of them.
    pub left: Allowances,
    /// Whether there is more to take, of the client and of the backend.
    pub more: [bool; 2],
}

impl Spent {
    /// This many bytes of the client, which is all there was.
    #[must_use]
    pub const fn on_client(bytes: usize) -> Self {
        let granted = Allowances { from_client: bytes, ..Allowances::UNLIMITED };
        let left = Allowances { from_client: 0, ..Allowances::UNLIMITED };
        Self { granted, left, more: [false; 2] }
    }
}

/// What a session with a bandwidth has taken, and what it waits for.
#[derive(Debug)]
pub struct Pacing {
    from_client: Pacer,
    from_backend: Pacer,
    resumes: Option<Tick>,
}

/// The pacing of a session that changes hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassedPacing {
    /// What was taken from the client, as [`Pacer::parts`].
    pub from_client: [u64; 2],
    /// What was taken from the backend.
    pub from_backend: [u64; 2],
    /// When a direction that waits may go on, in microseconds of the workers' clock.
    pub resumes_us: Option<u64>,
}

impl Pacing {
    /// Nothing taken yet.
    #[must_use]
    pub const fn new(now: Tick) -> Self {
        let pacer = Pacer::new(nanos(now));
        Self { from_client: pacer, from_backend: pacer, resumes: None }
    }

    /// What it has taken and waits for, for another process with the same clock.
    #[must_use]
    pub const fn passed(&self) -> PassedPacing {
        let resumes_us = match self.resumes {
            Some(resumes) => Some(resumes.micros()),
            None => None,
        };
        PassedPacing {
            from_client: self.from_client.parts(),
            from_backend: self.from_backend.parts(),
            resumes_us,
        }
    }

    /// The pacing that was described.
    #[must_use]
    pub fn resumed(passed: &PassedPacing) -> Self {
        Self {
            from_client: Pacer::of_parts(passed.from_client),
            from_backend: Pacer::of_parts(passed.from_backend),
            resumes: passed.resumes_us.map(Tick::from_micros),
        }
    }

    /// What may be taken in a turn that begins now.
    #[must_use]
    pub fn allowances(&self, rates: Rates, now: Tick) -> Allowances {
        let [up, down] = rates;
        Allowances {
            from_client: allowance(&self.from_client, up, now),
            from_backend: allowance(&self.from_backend, down, now),
        }
    }

    /// Counts what a turn has taken. Says which directions have to wait, if any do: the session
    /// then has to be run at [`Self::resumes_at`].
    pub fn charge(&mut self, rates: Rates, spent: &Spent, now: Tick) -> [bool; 2] {
        let [up, down] = rates;
        let Spent { granted, left, more } = spent;
        let [more_up, more_down] = *more;
        let client = Share { granted: granted.from_client, left: left.from_client, more: more_up };
        let backend =
            Share { granted: granted.from_backend, left: left.from_backend, more: more_down };
        let waits = [
            charge(&mut self.from_client, up, client, now),
            charge(&mut self.from_backend, down, backend, now),
        ];
        let resumes = waits.into_iter().flatten().min();
        self.resumes = resumes;
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

fn allowance(pacer: &Pacer, rate: Option<Rate>, now: Tick) -> usize {
    rate.map_or(usize::MAX, |rate| {
        usize::try_from(pacer.allowance(rate, nanos(now))).unwrap_or(usize::MAX)
    })
}

/// One direction's part of [`Spent`].
struct Share {
    granted: usize,
    left: usize,
    more: bool,
}

/// Counts what was taken; when to go on, if it was all there was and there is more.
fn charge(pacer: &mut Pacer, rate: Option<Rate>, share: Share, now: Tick) -> Option<Tick> {
    let rate = rate?;
    pacer.charge(rate, nanos(now), (share.granted - share.left) as u64);
    let waits = share.left == 0 && share.more;
    waits.then(|| Tick::from_micros(pacer.wait().div_ceil(1000)))
}

const fn nanos(tick: Tick) -> u64 {
    tick.micros().saturating_mul(1000)
}
