//! All limits of a listener asked for one connection: the client's rate, its sessions, and the rate
//! of all clients together.
//!
//! The order: who is over a limit of its own is told so and costs the others nothing. While the
//! listener is over its rate nothing is counted for anybody, and nothing is written. A connection
//! that only meets the end of the listener's rate when it was counted already (another worker was
//! faster) is taken out of its client's counts again.
//!
//! **Synchronization.** None of its own: each count is exact by itself, and what was taken is given
//! back. Between the two, another connection of the same client may be refused for a place that
//! comes back.

use super::gate::Gate;
use super::limiter::{Decision, Entry, LimitKey, Limiter};
use super::meter::Meter;

/// What a listener allows; `None` is no bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// Connections per time of one client.
    pub rate: Option<Meter>,
    /// Open sessions of one client.
    pub concurrent_max: Option<u32>,
    /// Connections per time of all clients together.
    pub listener_rate: Option<Meter>,
}

/// The limit that a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The client's rate.
    Rate,
    /// The client's sessions.
    Concurrent,
    /// The rate of all clients together.
    ListenerRate,
}

impl Rules {
    /// Asks for one more connection of a client. `Ok(Entry::Counted)` must be followed by
    /// [`Limiter::leave`] when the session ends.
    ///
    /// # Errors
    /// The first limit that it is over; then nothing is counted, except that a client over its
    /// sessions has used up one of its rate.
    #[inline]
    pub fn admit(
        &self,
        limiter: &Limiter,
        gate: &Gate,
        key: LimitKey,
        now_us: u64,
    ) -> Result<Entry, Over> {
        if let Some(meter) = &self.listener_rate
            && gate.peek(now_us, meter) != Decision::Allowed
        {
            return Err(self.own_limit(limiter, key, now_us).unwrap_or(Over::ListenerRate));
        }
        if let Some(meter) = &self.rate
            && limiter.admit(key, now_us, meter) != Decision::Allowed
        {
            return Err(Over::Rate);
        }
        let entry = match self.concurrent_max {
            Some(max) => limiter.enter(key, max),
            None => Entry::Uncounted,
        };
        if entry == Entry::Refused {
            return Err(Over::Concurrent);
        }
        if let Some(meter) = &self.listener_rate
            && gate.admit(now_us, meter) != Decision::Allowed
        {
            self.undo(limiter, key, now_us, entry);
            return Err(Over::ListenerRate);
        }
        Ok(entry)
    }

    /// The limit of its own that a client is over.
    fn own_limit(&self, limiter: &Limiter, key: LimitKey, now_us: u64) -> Option<Over> {
        if let Some(meter) = &self.rate
            && limiter.peek(key, now_us, meter) != Decision::Allowed
        {
            return Some(Over::Rate);
        }
        let is_full = |max: u32| limiter.sessions(key) >= u64::from(max);
        self.concurrent_max.is_some_and(is_full).then_some(Over::Concurrent)
    }

    fn undo(&self, limiter: &Limiter, key: LimitKey, now_us: u64, entry: Entry) {
        if entry == Entry::Counted {
            limiter.leave(key);
        }
        if let Some(meter) = &self.rate {
            limiter.give_back(key, now_us, meter);
        }
    }
}

#[cfg(test)]
#[cfg(not(evenkeel_loom))]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Barrier;
    use std::time::Duration;

    use super::*;
    use crate::policy::hash::Prefix;

    const AT: u64 = 5_000_000;

    /// Token buckets of a day: nothing comes back meanwhile.
    fn per_day(count: u32) -> Option<Meter> {
        Meter::token_bucket(count.into(), Duration::from_secs(86_400), count)
    }

    struct Listener {
        limiter: Limiter,
        gate: Gate,
        rules: Rules,
    }

    impl Listener {
        fn new(rules: Rules) -> Self {
            let limiter = Limiter::new(4_096, Some(4_096), [1, 2, 3, 4]);
            Self { limiter, gate: Gate::default(), rules }
        }

        fn key(&self, client: u32) -> LimitKey {
            self.limiter.key(Ipv4Addr::from_bits(client).into(), Prefix::WHOLE)
        }

        fn admit(&self, client: u32) -> Result<Entry, Over> {
            self.rules.admit(&self.limiter, &self.gate, self.key(client), AT)
        }
    }

    #[test]
    fn who_is_over_a_limit_of_its_own_costs_the_others_nothing() {
        // If this fails, one client that floods uses up the rate of the whole listener.
        for (rate, concurrent_max, over) in
            [(per_day(2), None, Over::Rate), (None, Some(2), Over::Concurrent)]
        {
            let rules = Rules { rate, concurrent_max, listener_rate: per_day(5) };
            let listener = Listener::new(rules);
            assert!(listener.admit(1).is_ok() && listener.admit(1).is_ok());
            for _ in 0..100 {
                assert_eq!(listener.admit(1), Err(over));
            }
            for client in 2..5 {
                assert!(listener.admit(client).is_ok());
            }
            // Its own limit is named even now.
            assert_eq!(listener.admit(1), Err(over));
            assert_eq!(listener.admit(5), Err(Over::ListenerRate));
        }
    }

    #[test]
    fn who_is_refused_for_the_others_keeps_its_own_budget() {
        // If this fails, a client pays for connections that others have kept it from.
        let mut listener = Listener::new(Rules {
            rate: per_day(1),
            concurrent_max: Some(1),
            listener_rate: per_day(1),
        });
        assert!(listener.admit(1).is_ok());
        for _ in 0..100 {
            assert_eq!(listener.admit(2), Err(Over::ListenerRate));
        }
        assert_eq!(listener.limiter.sessions(listener.key(2)), 0);
        listener.gate = Gate::default();
        assert_eq!(listener.admit(2), Ok(Entry::Counted));
    }

    #[test]
    fn racing_workers_leave_no_trace_of_who_was_refused() {
        // If this fails, a client that met the end of the listener's rate lost budget or a place.
        for _ in 0..200 {
            let listener = Listener::new(Rules {
                rate: per_day(10),
                concurrent_max: Some(10),
                listener_rate: per_day(25),
            });
            let barrier = Barrier::new(3);
            let work = |worker: u32| {
                barrier.wait();
                let admitted = |_: &u32| listener.admit(worker).is_ok();
                (0..10).filter(admitted).count()
            };
            let work = &work;
            let admitted: Vec<usize> = std::thread::scope(|scope| {
                let workers: Vec<_> = (0..3).map(|one| scope.spawn(move || work(one))).collect();
                workers.into_iter().map(|worker| worker.join().unwrap()).collect()
            });
            assert_eq!(admitted.iter().sum::<usize>(), 25);
            for (client, admitted) in (0..).zip(admitted) {
                let key = listener.key(client);
                assert_eq!(listener.limiter.sessions(key), admitted as u64);
                let own = per_day(10).unwrap();
                let left = (0..20)
                    .filter(|_| listener.limiter.admit(key, AT, &own) == Decision::Allowed)
                    .count();
                assert_eq!(left, 10 - admitted);
            }
        }
    }
}
