//! Which of the sessions that have ended get a line in the log, and how much it says.
//!
//! The whole choice is one word of 64 bits, so that an operator changes it while workers ask.

use super::terms::Word;

/// Sessions that are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoggedSessions {
    /// None.
    #[default]
    None,
    /// Those that did not end in order, and refused clients.
    Failed,
    /// Every one.
    All,
}

impl Word for LoggedSessions {
    const WORDS: &'static [(&'static str, Self)] =
        &[("all", Self::All), ("failed", Self::Failed), ("none", Self::None)];
}

/// What an operator wants of the session log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogChoice {
    /// Which sessions.
    pub sessions: LoggedSessions,
    /// Of those that end in order, one in this many; 0 is as 1.
    pub sample: u32,
    /// Whether those are logged that moved no byte.
    pub silent: bool,
    /// Whether the addresses of this host in both connections are asked of the kernel.
    pub local_addresses: bool,
}

/// How a session ended, as far as the choice depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoggedEnd {
    /// Its number.
    pub session: u64,
    /// Not in order: its code is not `--`.
    pub is_failed: bool,
    /// Its client, or both sides, ended it, and no byte was delivered either way.
    pub is_silent: bool,
}

impl Default for LogChoice {
    fn default() -> Self {
        Self { sessions: LoggedSessions::All, sample: 1, silent: true, local_addresses: false }
    }
}

const SESSIONS_MASK: u64 = 0b11;
const ALL_BITS: u64 = 0b10;
const FAILED_BITS: u64 = 0b01;
const SILENT_BIT: u64 = 1 << 2;
const LOCAL_ADDRESSES_BIT: u64 = 1 << 3;
const SAMPLE_SHIFT: u32 = 32;

impl LogChoice {
    /// Whether a session gets a line. The sample is drawn from the session's number by a hash
    /// (Fibonacci hashing, Knuth, The Art of Computer Programming, volume 3, section 6.4), so that
    /// it follows no pattern of workers or clients.
    #[must_use]
    pub fn wants(self, end: LoggedEnd) -> bool {
        match self.sessions {
            LoggedSessions::None => return false,
            _ if end.is_silent && !self.silent => return false,
            _ if end.is_failed => return true,
            LoggedSessions::Failed => return false,
            LoggedSessions::All => {}
        }
        let drawn = end.session.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        self.sample <= 1 || drawn.is_multiple_of(u64::from(self.sample))
    }

    /// As one word.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        let sessions = match self.sessions {
            LoggedSessions::None => 0,
            LoggedSessions::Failed => FAILED_BITS,
            LoggedSessions::All => ALL_BITS,
        };
        let flag = |is_set: bool, bit: u64| if is_set { bit } else { 0 };
        sessions
            | flag(self.silent, SILENT_BIT)
            | flag(self.local_addresses, LOCAL_ADDRESSES_BIT)
            | u64::from(self.sample) << SAMPLE_SHIFT
    }

    /// The inverse of [`Self::to_bits`]; 0 is a choice of no session.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        let sessions = match bits & SESSIONS_MASK {
            0 => LoggedSessions::None,
            FAILED_BITS => LoggedSessions::Failed,
            _ => LoggedSessions::All,
        };
        Self {
            sessions,
            sample: (bits >> SAMPLE_SHIFT) as u32,
            silent: bits & SILENT_BIT != 0,
            local_addresses: bits & LOCAL_ADDRESSES_BIT != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_choice() -> impl Strategy<Value = LogChoice> {
        use LoggedSessions::{All, Failed, None};
        let sessions = prop_oneof![Just(All), Just(Failed), Just(None)];
        (sessions, any::<u32>(), any::<bool>(), any::<bool>()).prop_map(
            |(sessions, sample, silent, local_addresses)| LogChoice {
                sessions,
                sample,
                silent,
                local_addresses,
            },
        )
    }

    fn end(session: u64, is_failed: bool, is_silent: bool) -> LoggedEnd {
        LoggedEnd { session, is_failed, is_silent }
    }

    proptest! {
        // If this fails, workers obey another choice than the operator made.
        #[test]
        fn a_choice_is_the_same_as_one_word(choice in any_choice()) {
            prop_assert_eq!(LogChoice::from_bits(choice.to_bits()), choice);
        }

        // If this fails, a sample hides failures, or "none" writes lines.
        #[test]
        fn failures_are_never_left_to_chance(choice in any_choice(), session in any::<u64>()) {
            let is_on = choice.sessions != LoggedSessions::None;
            prop_assert_eq!(choice.wants(end(session, true, false)), is_on);
            prop_assert_eq!(choice.wants(end(session, true, true)), is_on && choice.silent);
        }
    }

    // If this fails, one in a hundred is another share, or one worker's sessions are never drawn.
    #[test]
    fn a_sample_is_its_share_of_any_run_of_numbers() {
        let choice = LogChoice { sample: 100, ..LogChoice::default() };
        for (first, step) in [(0_u64, 1_u64), (1, 2), (7, 100), (1 << 40, 64), (u64::MAX / 2, 10)] {
            let numbers = (0..100_000_u64).map(|turn| first.wrapping_add(turn * step));
            let drawn = numbers.filter(|number| choice.wants(end(*number, false, false))).count();
            assert!((500..2_000).contains(&drawn), "{drawn} of 100,000 from {first} by {step}");
        }
    }

    // If this fails, health checks of a balancer in front fill the log, or lines are missing.
    #[test]
    fn silence_is_left_out_on_request_only() {
        let choice = LogChoice::default();
        assert!(choice.wants(end(1, false, true)));
        assert!(!LogChoice { silent: false, ..choice }.wants(end(1, false, true)));
        assert!(LogChoice { silent: false, ..choice }.wants(end(1, false, false)));
    }
}
