//! What of a limit the kernel may refuse by itself, before a connection is accepted: the gate.
//!
//! A client over its rate stays over it until a time that is known when it is refused, whatever it
//! does meanwhile: a refusal counts nothing. Until then the kernel may answer for the worker. A
//! client over another bound is asked about anew each time.

use ipnet::IpNet;

use super::admission::{Over, Refused};
use crate::policy::balance::hash::Prefix;

/// Until when, in microseconds of the same clock, a client that a worker refused at `now_us` would
/// be refused again; `None` when that is not known.
#[must_use]
pub fn refused_until(now_us: u64, refused: &Refused) -> Option<u64> {
    let wait = refused.wait.filter(|_| refused.over == Over::Rate)?;
    Some(now_us.saturating_add(wait.retry_after_us))
}

/// Whether each network holds either all of what counts as one client or nothing of it. Else what
/// is true of one client of a key may be wrong of another.
#[must_use]
pub fn holds_whole_keys(networks: &[IpNet], key: Prefix) -> bool {
    networks.iter().all(|network| match network {
        IpNet::V4(v4) => v4.prefix_len() <= key.v4,
        IpNet::V6(v6) => v6.prefix_len() <= key.v6,
    })
}

#[cfg(test)]
#[cfg(not(evenkeel_loom))]
mod tests {
    use std::collections::HashMap;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::policy::admit::admission::{Asked, Rules};
    use crate::policy::admit::limiter::{Decision, Limiter};
    use crate::policy::admit::meter::Meter;
    use crate::policy::admit::shared_rate::SharedRate;

    fn any_meter() -> impl Strategy<Value = Meter> {
        let periods = prop::sample::select(vec![1_u64, 7, 60, 3_600, 86_400]);
        (0..3, 1_u64..400, periods, 1_u32..50).prop_map(|(algorithm, count, period, burst)| {
            let period = Duration::from_secs(period);
            match algorithm {
                0 => Meter::token_bucket(count, period, burst),
                1 => Meter::sliding_window(count, period),
                _ => Meter::fixed_window(count, period),
            }
            .unwrap()
        })
    }

    /// The entries of a gate, by client.
    #[derive(Default)]
    struct ModelGate(HashMap<u32, u64>);

    impl ModelGate {
        fn refuses(&self, client: u32, now_us: u64) -> bool {
            self.0.get(&client).is_some_and(|until| now_us < *until)
        }
    }

    proptest! {
        #[test]
        fn the_gate_and_the_meter_give_one_verdict(
            meter in any_meter(),
            start_us in 0_u64..1 << 45,
            visits in prop::collection::vec((0_u32..4, 0_u64..100, 0_u64..50_000), 1..400),
        ) {
            // If this fails, the kernel refuses a client that a worker would let in, or lets a
            // flood through for longer than one connection.
            let rules = Rules { rate: Some(meter), ..Rules::default() };
            let limiter = Limiter::new(4_096, None, [1, 2, 3, 4]);
            let listener_rate = &SharedRate::default();
            let mut gate = ModelGate::default();
            let mut now_us = start_us + 1_000_000;
            for (client, pace, lag_us) in visits {
                let key = limiter.key(Ipv4Addr::from_bits(client).into(), Prefix::WHOLE);
                let (rules, limiter) = (&rules, &limiter);
                let asked = Asked { rules, limiter, listener_rate, key };
                // From a flood to hours of silence.
                now_us += match pace {
                    0..80 => pace * 10,
                    80..95 => (pace - 79) * 150_000,
                    _ => (pace - 94) * 5_000_000_000,
                };
                // A worker has read its clock at the beginning of its turn.
                let worker_us = now_us - lag_us;
                if gate.refuses(client, now_us) {
                    for seen_us in [worker_us, now_us] {
                        let is_refused = limiter.peek(key, seen_us, &meter) != Decision::Allowed;
                        prop_assert!(is_refused, "{meter:?} at {seen_us}");
                    }
                } else if let Err(refused) = asked.admit(worker_us) {
                    let until = refused_until(worker_us, &refused).unwrap();
                    let peek = |at_us| limiter.peek(key, at_us, &meter);
                    prop_assert!(until > worker_us);
                    let (before, then) = (peek(until - 1), peek(until));
                    prop_assert_ne!(before, Decision::Allowed, "shut for longer than needed");
                    prop_assert_eq!(then, Decision::Allowed, "open too early");
                    gate.0.insert(client, until);
                }
            }
        }
    }

    #[test]
    fn only_a_rate_says_until_when() {
        // If this fails, the kernel goes on to refuse a client whose sessions have ended, or for
        // what others have used.
        let wait = Some(crate::policy::admit::bucket::Wait { retry_after_us: 5, full_after_us: 9 });
        let until = |over, wait| refused_until(100, &Refused { over, wait });
        assert_eq!(until(Over::Rate, wait), Some(105));
        assert_eq!(until(Over::ListenerRate, wait), None);
        assert_eq!(until(Over::Concurrent, None), None);
    }

    #[test]
    fn a_network_must_not_cut_a_client() {
        // If this fails, an exempt client is refused for what its neighbours do.
        let holds = |network: &str, v4, v6| {
            holds_whole_keys(&[network.parse().unwrap()], Prefix { v4, v6 })
        };
        assert!(holds("10.0.0.0/8", 24, 64) && holds("10.1.2.0/24", 24, 64));
        assert!(!holds("10.1.2.0/25", 24, 64) && !holds("10.1.2.3/32", 24, 64));
        assert!(holds("10.1.2.3/32", 32, 64) && holds("2001:db8::/32", 32, 64));
        assert!(!holds("2001:db8::1/128", 32, 64) && holds("2001:db8::1/128", 32, 128));
    }
}
