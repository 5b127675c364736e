//! The text of the two HTTP answers that turn a client away: 429 (RFC 6585, section 4) and 503
//! (RFC 9110, section 15.6.4), with what it may do about it.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use httpdate::fmt_http_date;

use super::bucket::Wait;

/// After how many seconds a client that found no backend may come again. When one will be back is
/// not known; short enough to be useful, long enough to be no load.
pub const UNAVAILABLE_RETRY_S: u64 = 5;
const MICROS: u64 = 1_000_000;

/// What a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpAnswer {
    /// 429: over a limit, with the times until it is not.
    TooMany {
        /// The burst, the number of the window, or the sessions allowed at once.
        limit: u64,
        /// `None` when it is not known: the answer says one second then.
        wait: Option<Wait>,
    },
    /// 503: no backend can serve now.
    Unavailable,
}

/// When an answer is written, from which its times count.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Microseconds since the decision.
    pub waited_us: u64,
    /// Microseconds since 1970, UTC.
    pub unix_us: u64,
}

impl HttpAnswer {
    /// The status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::TooMany { .. } => 429,
            Self::Unavailable => 503,
        }
    }

    /// The whole answer; with `head_only` the body is only told of, as RFC 9110, section 9.3.2,
    /// wants it. `more` are further fields, each with its CRLF.
    #[must_use]
    pub fn text(&self, head_only: bool, at: Moment, more: &str) -> String {
        let (line, retry_s) = match self {
            Self::TooMany { wait, .. } => {
                let left = wait.map_or(0, |wait| wait.retry_after_us.saturating_sub(at.waited_us));
                ("429 Too Many Requests", left.div_ceil(MICROS).max(1))
            }
            Self::Unavailable => ("503 Service Unavailable", UNAVAILABLE_RETRY_S),
        };
        let unit = if retry_s == 1 { "second" } else { "seconds" };
        let body = format!("{line}\nPlease try again in {retry_s} {unit}.\n");
        let mut out = format!("HTTP/1.1 {line}\r\nDate: {}\r\n", http_date(at.unix_us / MICROS));
        // Writing to a `String` cannot fail.
        let _ = write!(out, "Retry-After: {retry_s}\r\n");
        if let Self::TooMany { limit, wait } = self {
            let full = wait.map_or(0, |wait| wait.full_after_us.saturating_sub(at.waited_us));
            let reset_s = full.div_ceil(MICROS).max(retry_s);
            let reset_at = (at.unix_us.saturating_add(full)).div_ceil(MICROS);
            let reset_at = reset_at.max(at.unix_us / MICROS + retry_s);
            for (prefix, reset) in [("X-RateLimit", reset_at), ("RateLimit", reset_s)] {
                let _ = write!(
                    out,
                    "{prefix}-Limit: {limit}\r\n{prefix}-Remaining: 0\r\n\
                     {prefix}-Reset: {reset}\r\n"
                );
            }
        }
        let _ = write!(
            out,
            "{more}Cache-Control: no-store\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{}",
            body.len(),
            if head_only { "" } else { &body },
        );
        out
    }
}

/// RFC 9110, section 5.6.7; later than the year 9999 is not written.
fn http_date(unix_s: u64) -> String {
    const LAST_S: u64 = 253_402_300_799;
    fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix_s.min(LAST_S)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        let mut fields = head.lines().skip(1).map(|line| line.split_once(": ").unwrap());
        fields.find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    fn number(text: &str, name: &str) -> u64 {
        field(text, name).unwrap_or_else(|| panic!("no {name}: {text}")).parse().unwrap()
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        // If this fails, caches and people read a wrong day. The dates are those of date(1).
        let cases = [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 GMT"),
            (1_767_225_599, "Wed, 31 Dec 2025 23:59:59 GMT"),
            (1_767_225_600, "Thu, 01 Jan 2026 00:00:00 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ];
        for (seconds, date) in cases {
            assert_eq!(http_date(seconds), date);
        }
    }

    #[test]
    fn the_fields_tell_limit_and_times() {
        // If this fails, a client comes again too early, or long after it could.
        let wait = Some(Wait { retry_after_us: 1_200_000, full_after_us: 59_000_001 });
        let answer = HttpAnswer::TooMany { limit: 50, wait };
        let text = answer.text(false, Moment { waited_us: 0, unix_us: 1_000_500_000 }, "");
        assert!(text.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{text}");
        for (name, value) in [
            ("Retry-After", 2),
            ("X-RateLimit-Limit", 50),
            ("X-RateLimit-Remaining", 0),
            ("X-RateLimit-Reset", 1_060),
            ("RateLimit-Limit", 50),
            ("RateLimit-Remaining", 0),
            ("RateLimit-Reset", 60),
        ] {
            assert_eq!(number(&text, name), value, "{name} in {text}");
        }
        // The time that the head took counts.
        let late = answer.text(false, Moment { waited_us: 600_000, unix_us: 1_001_100_000 }, "");
        assert_eq!(number(&late, "Retry-After"), 1);
        assert_eq!(number(&late, "RateLimit-Reset"), 59);
        assert_eq!(number(&late, "X-RateLimit-Reset"), 1_060);
    }

    #[test]
    fn a_client_that_cannot_be_served_is_told_no_limit() {
        // If this fails, a client takes an outage for its own fault.
        let text = HttpAnswer::Unavailable.text(false, Moment { waited_us: 0, unix_us: 0 }, "");
        assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{text}");
        assert_eq!(number(&text, "Retry-After"), UNAVAILABLE_RETRY_S);
        assert!(!text.contains("RateLimit"), "{text}");
    }

    proptest! {
        #[test]
        fn any_answer_is_well_formed(
            limit in any::<u64>(),
            retry_after_us in 1_u64..3_000_000_000_000,
            more_us in 0_u64..3_000_000_000_000,
            waited_us in 0_u64..10_000_000,
            unix_us in 0_u64..7_000_000_000_000_000,
            known in any::<bool>(),
        ) {
            // If this fails, some refusal is one that clients cannot read or obey.
            let wait = Wait { retry_after_us, full_after_us: retry_after_us + more_us };
            let answer = HttpAnswer::TooMany { limit, wait: known.then_some(wait) };
            let at = Moment { waited_us, unix_us };
            let more = if known { "Access-Control-Allow-Origin: *\r\n" } else { "" };
            let text = answer.text(false, at, more);
            prop_assert_eq!(field(&text, "Access-Control-Allow-Origin").is_some(), known);
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            prop_assert_eq!(number(&text, "Content-Length"), body.len() as u64);
            prop_assert_eq!(answer.text(true, at, more), format!("{head}\r\n\r\n"));
            prop_assert_eq!(field(&text, "Connection"), Some("close"));
            prop_assert!(head.split("\r\n").all(|line| !line.contains(['\r', '\n'])));
            let retry = number(&text, "Retry-After");
            prop_assert!(retry >= 1 && number(&text, "RateLimit-Reset") >= retry);
            prop_assert!(number(&text, "X-RateLimit-Reset") >= unix_us / MICROS + retry);
        }
    }
}
