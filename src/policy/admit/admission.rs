//! All limits of a listener asked for one connection: the client's rate, its sessions, and the rate
//! of all clients together.
//!
//! The order: a client over a limit of its own is told so and costs the others nothing. While the
//! listener is over its rate nothing is counted for any client, and nothing is written. One that
//! only meets the end of the listener's rate when it was counted already (another worker was
//! faster) is taken out of its client's counts again.
//!
//! **Synchronization.** None of its own: each count is exact by itself, and what was taken is given
//! back. Between the two, another connection of the same client may be refused for a place that
//! comes back.

use super::bucket::Wait;
use super::limiter::{Decision, Entry, LimitKey, Limiter};
use super::meter::Meter;
use super::shared_rate::SharedRate;

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

/// Why there is not one more connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// The limit.
    pub over: Over,
    /// When to come again; `None` for sessions, whose end is not known.
    pub wait: Option<Wait>,
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
        listener_rate: &SharedRate,
        key: LimitKey,
        now_us: u64,
    ) -> Result<Entry, Refused> {
        if let Some(meter) = &self.listener_rate
            && let Some(wait) = wait(listener_rate.peek(now_us, meter))
        {
            let own = self.own_limit(limiter, key, now_us);
            return Err(own.unwrap_or(Refused { over: Over::ListenerRate, wait: Some(wait) }));
        }
        if let Some(meter) = &self.rate
            && let Some(wait) = wait(limiter.admit(key, now_us, meter))
        {
            return Err(Refused { over: Over::Rate, wait: Some(wait) });
        }
        let entry = match self.concurrent_max {
            Some(max) => limiter.enter(key, max),
            None => Entry::Uncounted,
        };
        if entry == Entry::Refused {
            return Err(Refused { over: Over::Concurrent, wait: None });
        }
        if let Some(meter) = &self.listener_rate
            && let Some(wait) = wait(listener_rate.admit(now_us, meter))
        {
            self.undo(limiter, key, now_us, entry);
            return Err(Refused { over: Over::ListenerRate, wait: Some(wait) });
        }
        Ok(entry)
    }

    /// What [`Rules::admit`] would answer, without counting anything.
    ///
    /// # Errors
    /// The limit that it is over.
    pub fn look(
        &self,
        limiter: &Limiter,
        listener_rate: &SharedRate,
        key: LimitKey,
        now_us: u64,
    ) -> Result<(), Refused> {
        if let Some(refused) = self.own_limit(limiter, key, now_us) {
            return Err(refused);
        }
        match self.listener_rate.and_then(|meter| wait(listener_rate.peek(now_us, &meter))) {
            Some(wait) => Err(Refused { over: Over::ListenerRate, wait: Some(wait) }),
            None => Ok(()),
        }
    }

    /// How many connections, or sessions, the limit that a client is over would allow.
    #[must_use]
    pub fn allowance(&self, over: Over) -> u64 {
        let budget = |meter: Option<Meter>| meter.map_or(0, |meter| meter.budget());
        match over {
            Over::Rate => budget(self.rate),
            Over::Concurrent => self.concurrent_max.map_or(0, u64::from),
            Over::ListenerRate => budget(self.listener_rate),
        }
    }

    /// The limit of its own that a client is over.
    fn own_limit(&self, limiter: &Limiter, key: LimitKey, now_us: u64) -> Option<Refused> {
        if let Some(meter) = &self.rate
            && let Some(wait) = wait(limiter.peek(key, now_us, meter))
        {
            return Some(Refused { over: Over::Rate, wait: Some(wait) });
        }
        let is_full = |max: u32| limiter.sessions(key) >= u64::from(max);
        let refused = Refused { over: Over::Concurrent, wait: None };
        self.concurrent_max.is_some_and(is_full).then_some(refused)
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

/// What a refusal says of the time to wait.
#[inline]
fn wait(decision: Decision) -> Option<Wait> {
    match decision {
        Decision::Allowed => None,
        Decision::Refused { retry_after_us, full_after_us } => {
            Some(Wait { retry_after_us, full_after_us })
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
    use crate::policy::balance::hash::Prefix;

    const AT: u64 = 5_000_000;

    /// Token buckets of a day: nothing comes back meanwhile.
    fn per_day(count: u32) -> Option<Meter> {
        Meter::token_bucket(count.into(), Duration::from_secs(86_400), count)
    }

    struct Listener {
        limiter: Limiter,
        listener_rate: SharedRate,
        rules: Rules,
    }

    impl Listener {
        fn new(rules: Rules) -> Self {
            let limiter = Limiter::new(4_096, Some(4_096), [1, 2, 3, 4]);
            Self { limiter, listener_rate: SharedRate::default(), rules }
        }

        fn key(&self, client: u32) -> LimitKey {
            self.limiter.key(Ipv4Addr::from_bits(client).into(), Prefix::WHOLE)
        }

        fn admit(&self, client: u32) -> Result<Entry, Over> {
            let answer = self.rules.admit(&self.limiter, &self.listener_rate, self.key(client), AT);
            answer.map_err(|refused| refused.over)
        }
    }

    #[test]
    fn a_refusal_tells_the_wait_of_the_limit_it_names() {
        // If this fails, a client is told to come again at a time when it is refused once more.
        let per_minute =
            |count: u32| Meter::token_bucket(count.into(), Duration::from_secs(60), count);
        let rules =
            Rules { rate: per_minute(6), concurrent_max: Some(100), listener_rate: per_minute(60) };
        let listener = Listener::new(rules);
        for _ in 0..6 {
            assert!(listener.admit(1).is_ok());
        }
        let ask = |client, at_us| {
            rules.admit(&listener.limiter, &listener.listener_rate, listener.key(client), at_us)
        };
        let refused = ask(1, AT).unwrap_err();
        let wait = refused.wait.unwrap();
        assert_eq!((refused.over, rules.allowance(refused.over)), (Over::Rate, 6));
        // One in ten seconds; six in a minute.
        assert!((9_990_000..=10_010_000).contains(&wait.retry_after_us), "{wait:?}");
        assert!((59_990_000..=60_010_000).contains(&wait.full_after_us), "{wait:?}");
        assert!(ask(1, AT + wait.retry_after_us - 10_000).is_err());
        assert!(ask(1, AT + wait.retry_after_us).is_ok());
        for client in 100.. {
            let Err(refused) = ask(client, AT) else { continue };
            assert_eq!((refused.over, rules.allowance(refused.over)), (Over::ListenerRate, 60));
            assert!(refused.wait.unwrap().retry_after_us <= 1_010_000, "{refused:?}");
            break;
        }
        let narrow = Rules { concurrent_max: Some(0), ..Rules::default() };
        let refused = narrow.admit(&listener.limiter, &listener.listener_rate, listener.key(9), AT);
        assert_eq!(refused, Err(Refused { over: Over::Concurrent, wait: None }));
    }

    #[test]
    fn a_look_says_what_comes_and_counts_nothing() {
        // If this fails, an operator is told something else than what happens, or has made it
        // happen by asking.
        let rules = Rules { rate: per_day(3), concurrent_max: Some(4), listener_rate: per_day(7) };
        let listener = Listener::new(rules);
        let mut overs = std::collections::HashSet::new();
        for round in 0..30 {
            let client = round % 3;
            // Sessions that are not in its rate, so that both of its own limits are met.
            if client == 2 {
                let _entry = listener.limiter.enter(listener.key(2), 4);
            }
            let look =
                || rules.look(&listener.limiter, &listener.listener_rate, listener.key(client), AT);
            let expected = look().map_err(|refused| refused.over);
            assert_eq!(look().map_err(|refused| refused.over), expected, "asking has changed it");
            assert_eq!(listener.admit(client).map(|_| ()), expected, "round {round}");
            overs.extend(expected.err().map(|over| format!("{over:?}")));
        }
        assert_eq!(overs.len(), 3, "{overs:?}");
    }

    #[test]
    fn a_client_over_a_limit_of_its_own_costs_the_others_nothing() {
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
    fn a_client_refused_for_the_others_keeps_its_own_budget() {
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
        listener.listener_rate = SharedRate::default();
        assert_eq!(listener.admit(2), Ok(Entry::Counted));
    }

    #[test]
    fn racing_workers_leave_no_trace_of_refused_clients() {
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
