//! `[listener.NAME.limit]`: from the table to a [`LimitConfig`].

use std::time::Duration;

use crate::policy::terms::Word;

use super::file::{Field, Section};
use super::keys::Table;
use super::network;
use super::report::{Finding, Place, Report};
use super::scalar::{self, Words};
use super::units::{show_duration, show_rate};
use super::{EventRate, LimitAction, LimitAlgorithm, LimitConfig, Prefix, Protocol};

/// Time a spent budget may take to come back: what the limiter's clock can hold.
const HORIZON: Duration = Duration::from_secs(30 * 86_400);
/// Sizes of the table of buckets.
const TABLE_SIZE_MIN: u32 = 8;
const TABLE_SIZE_MAX: u32 = 16_777_216;

/// Most that is counted in one window: what the limiter's word has room for.
const WINDOW_COUNT_MAX: u64 = 100_000;

/// True is "observe".
const MODE: &Words<bool> = &[("enforce", false), ("observe", true)];

/// Reads the limit of a listener, if it has one. Where clients speak HTTP they are told of it
/// unless the file says otherwise.
pub(super) fn limit(
    listener: &Section<'_>,
    protocol: Protocol,
    report: &mut Report<'_>,
) -> Option<LimitConfig> {
    let section = listener.open("limit", Table::Limit, report)?;
    let section = &section;
    let algorithm =
        section.word("algorithm", LimitAlgorithm::WORDS, report).or(LimitAlgorithm::TokenBucket);
    let rate = section.read("rate", report, scalar::rate);
    let listener_rate = section.read("listener_rate", report, scalar::rate);
    let burst = section.count32("burst", 1..=u32::MAX, report);
    let max_concurrent = section.count32("max_concurrent", 1..=u32::MAX, report);
    if !section.partial {
        require_something(section, report);
        compare_burst(section, algorithm, (&rate, &burst), report);
        for rate in [&rate, &listener_rate] {
            check_window(algorithm, rate, report);
        }
    }
    let rate = rate.value();
    let natural = rate.map_or(1, |rate| u32::try_from(rate.count).unwrap_or(u32::MAX));
    Some(LimitConfig {
        algorithm,
        rate,
        burst: burst.or(natural),
        max_concurrent: max_concurrent.value(),
        key: prefixes(section, ("key", Table::LimitKey), Prefix { v4: 32, v6: 64 }, report),
        action: section.word("action", LimitAction::WORDS, report).or(default_action(protocol)),
        observe: section.word("mode", MODE, report).or(false),
        exempt: network::list(section, "exempt", report).or(Vec::new()),
        table_size: section
            .count32("table_size", TABLE_SIZE_MIN..=TABLE_SIZE_MAX, report)
            .or(65_536),
        listener_rate: listener_rate.value(),
    })
}

fn default_action(protocol: Protocol) -> LimitAction {
    match protocol {
        Protocol::Tcp => LimitAction::Reset,
        Protocol::Http => LimitAction::Reply,
    }
}

/// A limit that limits nothing is a mistake.
fn require_something(section: &Section<'_>, report: &mut Report<'_>) {
    let limits = ["rate", "max_concurrent", "listener_rate"];
    if limits.iter().all(|name| section.get(name).is_none()) {
        let finding = Finding::new("this limit limits nothing")
            .expected("`rate`, `max_concurrent` or `listener_rate`")
            .hint("add `rate = \"100/s\"`");
        report.error(&section.header(), finding);
    }
}

/// Checks `burst` against the algorithm and the rate.
fn compare_burst(
    section: &Section<'_>,
    algorithm: LimitAlgorithm,
    (rate, burst): (&Field<EventRate>, &Field<u32>),
    report: &mut Report<'_>,
) {
    let is_bucket = algorithm == LimitAlgorithm::TokenBucket;
    if let Some(value) = section.get("burst") {
        let algorithm = section.get("algorithm").filter(|_| !is_bucket);
        if let Some(algorithm) = algorithm {
            let finding = Finding::new("`burst` has a meaning for \"token-bucket\" only")
                .hint("remove `burst`, or choose `algorithm = \"token-bucket\"`")
                .beside(&algorithm.place, "the algorithm");
            report.error(&value.place, finding);
        } else if rate.is_absent() {
            let finding = Finding::new("`burst` without `rate`")
                .expected("a `rate` beside it")
                .hint("add `rate = \"100/s\"`, or remove `burst`");
            report.error(&value.place, finding);
        }
    }
    if let (Field::Given(rate, place), true) = (rate, is_bucket) {
        let natural = u32::try_from(rate.count).unwrap_or(u32::MAX);
        let (burst, place) = match burst {
            Field::Given(burst, place) => (*burst, place),
            Field::Absent => (natural, place),
            Field::Bad => return,
        };
        check_horizon(*rate, burst, place, report);
    }
}

/// Checks that a window can count as far as its rate.
fn check_window(algorithm: LimitAlgorithm, rate: &Field<EventRate>, report: &mut Report<'_>) {
    let Field::Given(rate, place) = rate else { return };
    if algorithm == LimitAlgorithm::TokenBucket || rate.count <= WINDOW_COUNT_MAX {
        return;
    }
    let finding = Finding::new(format!("a window counts no further than {WINDOW_COUNT_MAX}"))
        .expected(format!("at most {WINDOW_COUNT_MAX} in each period"))
        .hint("use a shorter period, or `algorithm = \"token-bucket\"`");
    report.error(place, finding);
}

/// Checks that a spent burst comes back before the limiter forgets.
fn check_horizon(rate: EventRate, burst: u32, place: &Place, report: &mut Report<'_>) {
    let refill = u128::from(burst) * rate.period.as_nanos() / u128::from(rate.count.max(1));
    if refill <= HORIZON.as_nanos() {
        return;
    }
    let most = HORIZON.as_nanos() * u128::from(rate.count) / rate.period.as_nanos().max(1);
    let (rate, horizon) = (show_rate(rate), show_duration(HORIZON));
    let finding = Finding::new(format!("a burst of {burst} takes too long to come back at {rate}"))
        .expected(format!("at most {most}: the whole burst is back within {horizon}"));
    report.error(place, finding);
}

/// Reads a pair of prefix lengths.
pub(super) fn prefixes(
    section: &Section<'_>,
    (name, table): (&str, Table),
    default: Prefix,
    report: &mut Report<'_>,
) -> Prefix {
    let Some(section) = section.open(name, table, report) else { return default };
    let mut length = |name: &str, most: u32, default: u8| {
        let field = section.count32(name, 0..=most, report);
        field.value().and_then(|length| u8::try_from(length).ok()).unwrap_or(default)
    };
    Prefix { v4: length("v4", 32, default.v4), v6: length("v6", 128, default.v6) }
}
