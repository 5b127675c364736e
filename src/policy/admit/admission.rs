//! The limits of a listener asked for one connection: of each limit the client's rate, its
//! sessions, and the rate of all its clients together; of several limits all that concern the
//! client.
//!
//! Nothing is taken unless all admit. The order within a limit: a client over a limit of its own is
//! told so and costs the others nothing. While all clients together are over their rate nothing is
//! counted for any of them, and nothing is written. Of several limits each is looked at before one
//! is asked. A connection that is refused when it was counted already (another worker was faster)
//! is taken out of every count again.
//!
//! **Synchronization.** None of its own: each count is exact by itself, and what was taken is given
//! back. Between the two, another connection of the same client may be refused for a place that
//! comes back.

use super::bucket::Wait;
use super::limiter::{Decision, Entry, LimitKey, Limiter};
use super::meter::Meter;
use super::shared_rate::SharedRate;

/// What a limit allows; `None` is no bound.
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

/// One limit asked for one client.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// What it allows.
    pub rules: &'a Rules,
    /// What its clients have used.
    pub limiter: &'a Limiter,
    /// What they have used together.
    pub listener_rate: &'a SharedRate,
    /// The client.
    pub key: LimitKey,
}

/// The one of several limits that refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusedByOne {
    /// Its place among those that were asked.
    pub place: usize,
    /// Why it does.
    pub refused: Refused,
}

impl Rules {
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
}

impl Asked<'_> {
    /// Asks for one more connection at `now_us`. `Ok(Entry::Counted)` must be followed by
    /// [`Limiter::leave`] when the session ends.
    ///
    /// # Errors
    /// The first bound that it is over; then nothing is counted.
    #[inline]
    pub fn admit(&self, now_us: u64) -> Result<Entry, Refused> {
        let Self { rules, limiter, listener_rate, key } = *self;
        if let Some(meter) = &rules.listener_rate
            && let Some(wait) = wait(listener_rate.peek(now_us, meter))
        {
            let own = self.own_limit(now_us);
            return Err(own.unwrap_or(Refused { over: Over::ListenerRate, wait: Some(wait) }));
        }
        if let Some(meter) = &rules.rate
            && let Some(wait) = wait(limiter.admit(key, now_us, meter))
        {
            return Err(Refused { over: Over::Rate, wait: Some(wait) });
        }
        let entry = match rules.concurrent_max {
            Some(max) => limiter.enter(key, max),
            None => Entry::Uncounted,
        };
        if entry == Entry::Refused {
            self.undo_own(now_us, entry);
            return Err(Refused { over: Over::Concurrent, wait: None });
        }
        if let Some(meter) = &rules.listener_rate
            && let Some(wait) = wait(listener_rate.admit(now_us, meter))
        {
            self.undo_own(now_us, entry);
            return Err(Refused { over: Over::ListenerRate, wait: Some(wait) });
        }
        Ok(entry)
    }

    /// What [`Asked::admit`] would answer, without counting anything.
    ///
    /// # Errors
    /// The bound that it is over.
    pub fn look(&self, now_us: u64) -> Result<(), Refused> {
        if let Some(refused) = self.own_limit(now_us) {
            return Err(refused);
        }
        let Self { rules, listener_rate, .. } = *self;
        match rules.listener_rate.and_then(|meter| wait(listener_rate.peek(now_us, &meter))) {
            Some(wait) => Err(Refused { over: Over::ListenerRate, wait: Some(wait) }),
            None => Ok(()),
        }
    }

    /// Takes back what was admitted at `now_us` with this entry.
    pub fn undo(&self, now_us: u64, entry: Entry) {
        self.undo_own(now_us, entry);
        if let Some(meter) = &self.rules.listener_rate {
            self.listener_rate.give_back(now_us, meter);
        }
    }

    /// The limit of its own that a client is over.
    fn own_limit(&self, now_us: u64) -> Option<Refused> {
        let Self { rules, limiter, key, .. } = *self;
        if let Some(meter) = &rules.rate
            && let Some(wait) = wait(limiter.peek(key, now_us, meter))
        {
            return Some(Refused { over: Over::Rate, wait: Some(wait) });
        }
        let is_full = |max: u32| limiter.sessions(key) >= u64::from(max);
        let refused = Refused { over: Over::Concurrent, wait: None };
        rules.concurrent_max.is_some_and(is_full).then_some(refused)
    }

    fn undo_own(&self, now_us: u64, entry: Entry) {
        if entry == Entry::Counted {
            self.limiter.leave(self.key);
        }
        if let Some(meter) = &self.rules.rate {
            self.limiter.give_back(self.key, now_us, meter);
        }
    }
}

/// Asks several limits for one more connection; each entry is that of [`Asked::admit`].
///
/// # Errors
/// Of those that refuse the one with the longest wait, so that a client that waits for it is
/// admitted by the others as well; then nothing is counted in any.
pub fn admit_all(asked: &[Asked<'_>], now_us: u64) -> Result<Vec<Entry>, RefusedByOne> {
    let looks = asked.iter().enumerate();
    let refusals = looks.filter_map(|(place, one)| {
        one.look(now_us).err().map(|refused| RefusedByOne { place, refused })
    });
    // The first of equals.
    let longest = refusals
        .reduce(|longest, other| if other.wait_us() > longest.wait_us() { other } else { longest });
    if let Some(longest) = longest {
        return Err(longest);
    }
    let mut entries = Vec::with_capacity(asked.len());
    for (place, one) in asked.iter().enumerate() {
        match one.admit(now_us) {
            Ok(entry) => entries.push(entry),
            Err(refused) => {
                for (earlier, entry) in asked.iter().zip(entries) {
                    earlier.undo(now_us, entry);
                }
                return Err(RefusedByOne { place, refused });
            }
        }
    }
    Ok(entries)
}

impl RefusedByOne {
    fn wait_us(&self) -> u64 {
        self.refused.wait.map_or(0, |wait| wait.retry_after_us)
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

        fn asked(&self, client: u32) -> Asked<'_> {
            let Self { limiter, listener_rate, rules } = self;
            Asked { rules, limiter, listener_rate, key: self.key(client) }
        }

        fn admit(&self, client: u32) -> Result<Entry, Over> {
            self.asked(client).admit(AT).map_err(|refused| refused.over)
        }

        /// What is left of the client's rate.
        fn left(&self, client: u32) -> u64 {
            self.limiter.left(self.key(client), AT, &self.rules.rate.unwrap())
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
        let ask = |client, at_us| listener.asked(client).admit(at_us);
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
        let refused = Asked { rules: &narrow, ..listener.asked(9) }.admit(AT);
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
            let look = || listener.asked(client).look(AT);
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

    #[test]
    fn a_client_over_its_sessions_keeps_its_rate() {
        // If this fails, a client whose sessions are all open is refused when they have ended.
        let rules = Rules { rate: per_day(3), concurrent_max: Some(1), ..Rules::default() };
        let listener = Listener::new(rules);
        assert!(listener.admit(1).is_ok());
        for _ in 0..10 {
            assert_eq!(listener.admit(1), Err(Over::Concurrent));
        }
        assert_eq!(listener.left(1), 2);
    }

    #[test]
    fn nothing_is_taken_unless_all_admit() {
        // If this fails, a client loses budget of one limit to the refusals of another.
        let per_client = Rules { rate: per_day(5), concurrent_max: Some(9), listener_rate: None };
        let tiers = [
            Listener::new(per_client),
            Listener::new(Rules { rate: per_day(7), ..Rules::default() }),
            Listener::new(Rules { rate: per_day(3), listener_rate: per_day(30), ..per_client }),
        ];
        let asked = tiers.each_ref().map(|tier| tier.asked(1));
        let admitted = (0..10).filter(|_| admit_all(&asked, AT).is_ok()).count();
        assert_eq!(admitted, 3);
        assert_eq!(tiers.each_ref().map(|tier| tier.left(1)), [2, 4, 0]);
        assert_eq!([&tiers[0], &tiers[2]].map(|tier| tier.limiter.sessions(tier.key(1))), [3, 3]);
        let refused = admit_all(&asked, AT).unwrap_err();
        assert_eq!((refused.place, refused.refused.over), (2, Over::Rate));
        // Of what all of its clients have together no more was taken either.
        let third = &tiers[2];
        let others = (2..100).filter(|client| third.admit(*client).is_ok()).count();
        assert_eq!(others, 27);
    }

    #[test]
    fn the_limit_with_the_longest_wait_is_named() {
        // If this fails, a client that comes again when it was told to is refused by another limit.
        let per = |seconds| Rules {
            rate: Meter::token_bucket(1, Duration::from_secs(seconds), 1),
            ..Rules::default()
        };
        let tiers = [per(10), per(3_600), per(60)].map(Listener::new);
        let asked = tiers.each_ref().map(|tier| tier.asked(1));
        assert!(admit_all(&asked, AT).is_ok());
        let refused = admit_all(&asked, AT).unwrap_err();
        assert_eq!(refused.place, 1);
        let wait_us = refused.refused.wait.unwrap().retry_after_us;
        assert!(admit_all(&asked, AT + wait_us - 1).is_err());
        assert!(admit_all(&asked, AT + wait_us).is_ok());
    }

    #[test]
    fn racing_workers_take_from_all_limits_or_from_none() {
        // If this fails, a connection that one limit refused has used up another.
        for round in 0..200 {
            let tight = if round % 2 == 0 { [11, 20] } else { [20, 11] };
            let tiers = tight.map(|count| {
                Listener::new(Rules {
                    rate: per_day(count),
                    concurrent_max: Some(count),
                    listener_rate: per_day(2 * count),
                })
            });
            let barrier = Barrier::new(3);
            let work = || {
                barrier.wait();
                let asked = tiers.each_ref().map(|tier| tier.asked(1));
                (0..10).filter(|_| admit_all(&asked, AT).is_ok()).count() as u64
            };
            let admitted: u64 = std::thread::scope(|scope| {
                let workers: Vec<_> = (0..3).map(|_| scope.spawn(work)).collect();
                workers.into_iter().map(|worker| worker.join().unwrap()).sum()
            });
            // One that meets another that is being undone may be refused too many, never too few.
            assert!(admitted <= 11, "{admitted}");
            for (tier, count) in tiers.iter().zip(tight) {
                assert_eq!(tier.limiter.sessions(tier.key(1)), admitted);
                assert_eq!(tier.left(1), u64::from(count) - admitted);
                let others = (2..100).filter(|client| tier.admit(*client).is_ok()).count() as u64;
                assert_eq!(others, 2 * u64::from(count) - admitted);
            }
        }
    }
}
