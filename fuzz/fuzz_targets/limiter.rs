//! Any order of questions to the limiter, by each algorithm, and to the rate of a listener before
//! it, against models that keep a bucket or every admission in a map.

#![no_main]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use arbitrary::Arbitrary;
use evenkeel::policy::admit::admission::{Asked, Over, Rules};
use evenkeel::policy::admit::limiter::{Decision, Entry, LimitKey, Limiter};
use evenkeel::policy::admit::meter::Meter;
use evenkeel::policy::admit::shared_rate::SharedRate;
use evenkeel::policy::balance::hash::Prefix;
use libfuzzer_sys::fuzz_target;

/// Rates whose time per connection is a whole number of µs: the model and GCRA agree exactly.
const RATES: [u64; 5] = [1, 2, 10, 100, 1_000];
/// Few enough that no set of the table overflows under the fixed seeds.
const CLIENTS: u8 = 64;
const TABLE: u32 = 4_096;
const SECOND: Duration = Duration::from_secs(1);
const SECOND_US: u64 = 1_000_000;
const TOKEN: u64 = 1_000_000;
/// A fixed window of a second begins on a multiple of this.
const UNIT_US: u64 = 512;

#[derive(Debug, Arbitrary)]
struct Schedule {
    algorithm: Algorithm,
    rate: u8,
    burst: u8,
    max_concurrent: u8,
    listener: Option<(Algorithm, u8)>,
    steps: Vec<(u8, Step)>,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Algorithm {
    TokenBucket,
    SlidingWindow,
    FixedWindow,
}

#[derive(Debug, Arbitrary)]
enum Step {
    /// Through all limits.
    Arrive,
    Admit,
    GiveBack,
    Peek,
    Enter,
    Leave,
    Sweep,
    /// Less than a token's worth at most rates.
    Wait(u16),
    /// Minutes.
    Sleep(u16),
}

/// One rate kept without a word to save.
#[derive(Clone)]
enum State {
    /// Tokens in millionths, refilled by the time that passed.
    Tokens { millionths: u64, at_us: u64 },
    /// When each one was admitted.
    Times(Vec<u64>),
    /// The start of a window and how many it has.
    Window { start_us: u64, used: u64 },
}

#[derive(Clone, Copy)]
struct Rate {
    algorithm: Algorithm,
    rate: u64,
    burst: u64,
}

impl Rate {
    fn new(algorithm: Algorithm, rate: u8, burst: u8) -> Self {
        let rate = RATES[usize::from(rate) % RATES.len()];
        Self { algorithm, rate, burst: u64::from(burst.max(1)) }
    }

    fn meter(&self) -> Meter {
        match self.algorithm {
            Algorithm::TokenBucket => {
                Meter::token_bucket(self.rate, SECOND, u32::try_from(self.burst).expect("a u32"))
            }
            Algorithm::SlidingWindow => Meter::sliding_window(self.rate, SECOND),
            Algorithm::FixedWindow => Meter::fixed_window(self.rate, SECOND),
        }
        .expect("a meter")
    }

    fn new_state(&self, now_us: u64) -> State {
        match self.algorithm {
            Algorithm::TokenBucket => {
                State::Tokens { millionths: self.burst * TOKEN, at_us: now_us }
            }
            Algorithm::SlidingWindow => State::Times(Vec::new()),
            Algorithm::FixedWindow => State::Window { start_us: now_us, used: 0 },
        }
    }

    /// Whether one more is admitted, and the state if it is. A bucket also says when.
    fn ask(&self, state: &State, now_us: u64) -> Result<State, Option<Decision>> {
        match state {
            State::Tokens { millionths, at_us } => {
                let full = self.burst * TOKEN;
                let millionths = full.min(millionths + (now_us - at_us) * self.rate);
                if millionths >= TOKEN {
                    return Ok(State::Tokens { millionths: millionths - TOKEN, at_us: now_us });
                }
                Err(Some(Decision::Refused {
                    retry_after_us: (TOKEN - millionths).div_ceil(self.rate),
                    full_after_us: (full - millionths).div_ceil(self.rate),
                }))
            }
            State::Times(times) => {
                let of = |window: u64| {
                    times.iter().filter(|time| *time / SECOND_US == window).count() as u64
                };
                let (window, elapsed_us) = (now_us / SECOND_US, now_us % SECOND_US);
                let weight = of(window) * SECOND_US + of(window - 1) * (SECOND_US - elapsed_us - 1);
                if weight >= self.rate * SECOND_US {
                    return Err(None);
                }
                let recent = times.iter().filter(|time| *time / SECOND_US + 1 >= window);
                Ok(State::Times(recent.copied().chain([now_us]).collect()))
            }
            State::Window { start_us, used } => {
                let is_open = *used > 0 && now_us < start_us + SECOND_US;
                match is_open {
                    true if *used >= self.rate => Err(None),
                    true => Ok(State::Window { start_us: *start_us, used: used + 1 }),
                    false => Ok(State::Window { start_us: now_us / UNIT_US * UNIT_US, used: 1 }),
                }
            }
        }
    }
}

/// Compares an answer with the model's.
#[track_caller]
fn agree(found: Decision, expected: &Result<State, Option<Decision>>) {
    match expected {
        Ok(_) => assert_eq!(found, Decision::Allowed),
        Err(Some(refused)) => assert_eq!(found, *refused),
        Err(None) => assert_ne!(found, Decision::Allowed),
    }
}

struct Model {
    own: Rate,
    all: Option<Rate>,
    concurrent_max: u32,
    now_us: u64,
    states: HashMap<u8, State>,
    together: Option<State>,
    sessions: HashMap<u8, u32>,
}

impl Model {
    fn ask(&self, client: u8) -> Result<State, Option<Decision>> {
        let new = self.own.new_state(self.now_us);
        self.own.ask(self.states.get(&client).unwrap_or(&new), self.now_us)
    }

    /// One connection through all limits.
    fn arrive(&mut self, client: u8) -> Result<(), Over> {
        let own = self.ask(client);
        let open = self.sessions.get(&client).copied().unwrap_or(0);
        let all = self.all.map(|rate| {
            let new = rate.new_state(self.now_us);
            rate.ask(self.together.as_ref().unwrap_or(&new), self.now_us)
        });
        let own = own.map_err(|_| Over::Rate)?;
        if open >= self.concurrent_max {
            return Err(Over::Concurrent);
        }
        if let Some(all) = all {
            self.together = Some(all.map_err(|_| Over::ListenerRate)?);
        }
        self.states.insert(client, own);
        self.sessions.insert(client, open + 1);
        Ok(())
    }
}

fuzz_target!(|schedule: Schedule| {
    let own = Rate::new(schedule.algorithm, schedule.rate, schedule.burst);
    let all = schedule.listener.map(|(algorithm, rate)| Rate::new(algorithm, rate, 5));
    let max = u32::from(schedule.max_concurrent % 8);
    let meter = own.meter();
    let rules = Rules {
        rate: Some(meter),
        concurrent_max: Some(max),
        listener_rate: all.map(|all| all.meter()),
    };
    let limiter = Limiter::new(TABLE, Some(TABLE), [1, 2, 3, 4]);
    let listener_rate = SharedRate::default();
    let key = |client: u8| -> LimitKey {
        limiter.key(IpAddr::V4(Ipv4Addr::new(192, 0, 2, client)), Prefix::WHOLE)
    };
    let mut model = Model {
        own,
        all,
        concurrent_max: max,
        now_us: 10_000_000,
        states: HashMap::new(),
        together: None,
        sessions: HashMap::new(),
    };
    for (client, step) in schedule.steps {
        let client = client % CLIENTS;
        let open = model.sessions.get(&client).copied().unwrap_or(0);
        let now_us = model.now_us;
        match step {
            Step::Arrive => {
                let (limiter, listener_rate, key) = (&limiter, &listener_rate, key(client));
                let asked = Asked { rules: &rules, limiter, listener_rate, key };
                let answer = asked.admit(now_us).map_err(|refused| refused.over);
                let expected = model.arrive(client).map(|()| Entry::Counted);
                assert_eq!(answer, expected);
            }
            Step::Enter => {
                let expected = if open < max { Entry::Counted } else { Entry::Refused };
                assert_eq!(limiter.enter(key(client), max), expected);
                model.sessions.insert(client, open + u32::from(expected == Entry::Counted));
            }
            Step::Leave if open > 0 => {
                limiter.leave(key(client));
                model.sessions.insert(client, open - 1);
            }
            Step::Leave => {}
            Step::Admit => {
                let expected = model.ask(client);
                agree(limiter.admit(key(client), now_us, &meter), &expected);
                if let Ok(state) = expected {
                    model.states.insert(client, state);
                }
            }
            Step::GiveBack => {
                // Taken and given back at once: the model stays as it is.
                if limiter.admit(key(client), now_us, &meter) == Decision::Allowed {
                    assert!(model.ask(client).is_ok());
                    limiter.give_back(key(client), now_us, &meter);
                }
            }
            Step::Peek => agree(limiter.peek(key(client), now_us, &meter), &model.ask(client)),
            Step::Sweep => {
                limiter.sweep(now_us, &meter);
            }
            Step::Wait(us) => model.now_us += u64::from(us),
            Step::Sleep(ms) => model.now_us += u64::from(ms) * 1_000,
        }
        let open = u64::from(model.sessions.get(&client).copied().unwrap_or(0));
        assert_eq!(limiter.sessions(key(client)), open);
    }
    assert_eq!((limiter.live_evictions(), limiter.overflows()), (0, 0));
});
