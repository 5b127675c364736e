//! Any order of questions to the limiter, against exact token buckets and counters in a map.

#![no_main]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use arbitrary::Arbitrary;
use evenkeel::policy::bucket::Quota;
use evenkeel::policy::hash::Prefix;
use evenkeel::policy::limiter::{Decision, Entry, LimitKey, Limiter};
use libfuzzer_sys::fuzz_target;

/// Rates whose time per connection is a whole number of µs: the model and GCRA agree exactly.
const RATES: [u64; 5] = [1, 2, 10, 100, 1_000];
/// Few enough that no set of the table overflows under the fixed seeds.
const CLIENTS: u8 = 64;
const TABLE: u32 = 4_096;
const TOKEN: u64 = 1_000_000;

#[derive(Debug, Arbitrary)]
struct Schedule {
    rate: u8,
    burst: u8,
    max_concurrent: u8,
    steps: Vec<(u8, Step)>,
}

#[derive(Debug, Arbitrary)]
enum Step {
    Admit,
    Peek,
    Enter,
    Leave,
    Sweep,
    /// Less than a token's worth at most rates.
    Wait(u16),
    /// Minutes.
    Sleep(u16),
}

/// A token bucket kept the usual way: tokens in millionths, refilled by the time that passed.
struct Bucket {
    millionths: u64,
    at_us: u64,
}

struct Model {
    rate: u64,
    full: u64,
    now_us: u64,
    buckets: HashMap<u8, Bucket>,
    sessions: HashMap<u8, u32>,
}

impl Model {
    fn ask(&mut self, client: u8, take: bool) -> Decision {
        let new = Bucket { millionths: self.full, at_us: self.now_us };
        let bucket = self.buckets.entry(client).or_insert(new);
        let refill = (self.now_us - bucket.at_us) * self.rate;
        bucket.millionths = self.full.min(bucket.millionths + refill);
        bucket.at_us = self.now_us;
        if bucket.millionths >= TOKEN {
            bucket.millionths -= if take { TOKEN } else { 0 };
            return Decision::Allowed;
        }
        Decision::Refused {
            retry_after_us: (TOKEN - bucket.millionths).div_ceil(self.rate),
            full_after_us: (self.full - bucket.millionths).div_ceil(self.rate),
        }
    }
}

fuzz_target!(|schedule: Schedule| {
    let burst = u32::from(schedule.burst.max(1));
    let rate = RATES[usize::from(schedule.rate) % RATES.len()];
    let max = u32::from(schedule.max_concurrent % 8);
    let quota = Quota::new(rate, Duration::from_secs(1), burst).expect("a quota");
    let limiter = Limiter::new(TABLE, Some(TABLE), [1, 2, 3, 4]);
    let key = |client: u8| -> LimitKey {
        limiter.key(IpAddr::V4(Ipv4Addr::new(192, 0, 2, client)), Prefix::WHOLE)
    };
    let mut model = Model {
        rate,
        full: u64::from(burst) * TOKEN,
        now_us: 10_000_000,
        buckets: HashMap::new(),
        sessions: HashMap::new(),
    };
    for (client, step) in schedule.steps {
        let client = client % CLIENTS;
        let open = model.sessions.entry(client).or_insert(0);
        match step {
            Step::Enter => {
                let expected = if *open < max { Entry::Counted } else { Entry::Refused };
                assert_eq!(limiter.enter(key(client), max), expected);
                *open += u32::from(expected == Entry::Counted);
            }
            Step::Leave if *open > 0 => {
                limiter.leave(key(client));
                *open -= 1;
            }
            Step::Leave => {}
            Step::Admit => {
                let answer = limiter.admit(key(client), model.now_us, &quota);
                assert_eq!(answer, model.ask(client, true));
            }
            Step::Peek => {
                let answer = limiter.peek(key(client), model.now_us, &quota);
                assert_eq!(answer, model.ask(client, false));
            }
            Step::Sweep => {
                limiter.sweep(model.now_us, &quota);
            }
            Step::Wait(us) => model.now_us += u64::from(us),
            Step::Sleep(ms) => model.now_us += u64::from(ms) * 1_000,
        }
        let open = u64::from(model.sessions[&client]);
        assert_eq!(limiter.sessions(key(client)), open);
    }
    assert_eq!((limiter.live_evictions(), limiter.overflows()), (0, 0));
});
