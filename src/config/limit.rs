//! `[listener.NAME.limit]`: from the table to a [`LimitConfig`].

use std::time::Duration;

use super::companions::refuse_idle;
use super::file::{Field, Section};
use super::keys::Shape;
use super::network;
use super::report::{FilePlace, Finding, Report};
use super::units::{show_duration, show_rate};
use super::words::LimitMode;
use super::{EventRate, LimitAction, LimitAlgorithm, LimitConfig, Prefix, Protocol};

/// Time a spent budget may take to come back: what the limiter's clock can hold.
const HORIZON: Duration = Duration::from_secs(30 * 86_400);

/// Most that is counted in one window: what the limiter's word has room for.
const WINDOW_COUNT_MAX: u64 = 100_000;

/// Reads the limit of a listener, if it has one. Where clients speak HTTP they are told of it
/// unless the file says otherwise.
pub(super) fn limit(
    listener: &Section<'_>,
    protocol: Protocol,
    report: &mut Report<'_>,
) -> Option<LimitConfig> {
    let section = listener.open("limit", report)?;
    let section = &section;
    let algorithm = section.word_or_default("algorithm", report);
    let rate = section.rate("rate", report);
    let listener_rate = section.rate("listener_rate", report);
    let burst = section.count32("burst", report);
    let max_concurrent = section.count32("max_concurrent", report);
    if !section.partial {
        require_something(section, report);
        refuse_idle(section, report);
        if algorithm == LimitAlgorithm::TokenBucket {
            check_burst(&rate, &burst, report);
        }
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
        key: prefix(section, "key", report),
        action: section.word("action", report).or(default_action(protocol)),
        observe: section.word_or_default::<LimitMode>("mode", report) == LimitMode::Observe,
        exempt: network::list(section, "exempt", report).or(Vec::new()),
        table_size: section.count32_or_default("table_size", report),
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

/// Checks that a burst comes back in time.
fn check_burst(rate: &Field<EventRate>, burst: &Field<u32>, report: &mut Report<'_>) {
    let Field::Given(rate, place) = rate else { return };
    let natural = u32::try_from(rate.count).unwrap_or(u32::MAX);
    let (burst, place) = match burst {
        Field::Given(burst, place) => (*burst, place),
        Field::Absent => (natural, place),
        Field::Bad => return,
    };
    check_horizon(*rate, burst, place, report);
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
fn check_horizon(rate: EventRate, burst: u32, place: &FilePlace, report: &mut Report<'_>) {
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

/// Reads a table of prefix lengths.
pub(super) fn prefix(section: &Section<'_>, name: &str, report: &mut Report<'_>) -> Prefix {
    let shape = section.key(name).map(|key| key.shape);
    let Some(Shape::KeyTable(table)) = shape else { return Prefix::WHOLE };
    let section = section.open(name, report).unwrap_or(Section::absent(table));
    Prefix {
        v4: section.length_or_default("v4", report),
        v6: section.length_or_default("v6", report),
    }
}
