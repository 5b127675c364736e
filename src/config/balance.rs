//! Keys of a pool that say how sessions are spread and kept: from the value to what it means.

use std::time::Duration;

use toml::de::DeValue;

use super::file::{Section, Value, shown};
use super::keys::Table;
use super::process::LONGEST;
use super::report::{Finding, Report};
use super::scalar::{self, RATE_PER_SECOND_MAX, Words};
use super::units;
use super::{BalanceAlgorithm, EventRate, OnDownConfig, PoolConfig, Queue, StickyConfig};

/// Most clients that wait at one pool.
const QUEUE_MAX: u32 = 65_535;

/// Sizes of the table of remembered choices.
const STICKY_SIZE_MIN: u32 = 8;
const STICKY_SIZE_MAX: u32 = 16_777_216;

/// The pace that messages show as an example.
const SAMPLE: OnDownConfig =
    OnDownConfig::Pace(EventRate { count: 10, period: Duration::from_secs(1) });

/// Whatever begins with `pace` is read before; here it only stands for the list of what may be
/// written.
const ON_DOWN: &Words<OnDownConfig> =
    &[("keep", OnDownConfig::Keep), ("reset", OnDownConfig::Reset), ("pace 10/s", SAMPLE)];

/// Reads `on_down`.
pub(super) fn on_down(value: &Value<'_>, report: &mut Report<'_>) -> Option<OnDownConfig> {
    match value.text().and_then(|text| text.strip_prefix("pace")) {
        Some(rate) => pace(value, rate, report),
        None => scalar::word(value, ON_DOWN, report),
    }
}

/// Reads what follows `pace`.
fn pace(value: &Value<'_>, text: &str, report: &mut Report<'_>) -> Option<OnDownConfig> {
    let wrong = match units::rate_behind("pace ", text, "\"keep\" is the word for none") {
        Ok(rate) if rate.count <= RATE_PER_SECOND_MAX.saturating_mul(rate.period.as_secs()) => {
            return Some(OnDownConfig::Pace(rate));
        }
        Ok(_) => format!("at most {RATE_PER_SECOND_MAX} per second; \"reset\" is all at once"),
        Err(remedy) => remedy,
    };
    let text = value.text().map(shown).unwrap_or_default();
    let finding = Finding::new(format!("`{}` cannot be \"{text}\"", shown(&value.name)))
        .expected("sessions to reset in a time, such as \"pace 10/s\"")
        .hint(wrong);
    report.error(&value.place, finding);
    None
}

/// Reads `queue`; `None` when nobody may wait.
pub(super) fn queue(pool: &Section<'_>, report: &mut Report<'_>) -> Option<Queue> {
    let section = pool.open("queue", Table::Queue, report)?;
    let max = section.count32("max", 0..=QUEUE_MAX, report).or(0);
    let timeout = section.duration("timeout", Duration::ZERO..=LONGEST, report).or(Duration::ZERO);
    if max == 0 || section.partial {
        return None;
    }
    if timeout.is_zero() {
        let place = section.get("max").map_or_else(|| section.header(), |value| value.place);
        let finding = Finding::new("this queue lets nobody wait")
            .expected("a `timeout` above 0s beside `max`")
            .hint("add `timeout = \"10s\"`");
        report.error(&place, finding);
    }
    Some(Queue { max, timeout })
}

/// Reads `sticky`.
pub(super) fn sticky(pool: &Section<'_>, report: &mut Report<'_>) -> Option<StickyConfig> {
    let section = pool.open("sticky", Table::Sticky, report)?;
    let bounds = Duration::from_secs(1)..=LONGEST;
    let time = section.read("for", report, |value, report| {
        let time = scalar::duration(value, bounds, report)?;
        if time.subsec_nanos() == 0 {
            return Some(time);
        }
        let finding = Finding::new("`for` must be whole seconds");
        report.error(&value.place, finding.expected("a duration such as \"1h\""));
        None
    });
    Some(StickyConfig {
        time: time.or(Duration::from_secs(3_600)),
        size: section.count32("size", STICKY_SIZE_MIN..=STICKY_SIZE_MAX, report).or(65_536),
    })
}

/// Reads `load_factor`, in thousandths.
pub(super) fn load_factor(value: &Value<'_>, report: &mut Report<'_>) -> Option<u32> {
    const EXPECTED: &str = "a float from 1.0 to 100.0, with at most three digits behind the point";
    let DeValue::Float(number) = value.data else {
        let text = value.text().map(str::to_owned).or_else(|| scalar::number_text(value.data));
        let read = text.and_then(|text| units::thousandths(&text));
        scalar::wrong_type(value, EXPECTED, read.map(units::show_thousandths), report);
        return None;
    };
    let read = units::thousandths(number.as_str());
    let read = read.filter(|factor| (1_000..=100_000).contains(factor));
    if read.is_none() {
        let text = shown(number.as_str());
        let finding = Finding::new(format!("`load_factor` cannot be {text}")).expected(EXPECTED);
        report.error(&value.place, finding.hint("1.25 is a quarter more than the mean"));
    }
    read
}

/// Checks that keys which only some balances obey stand beside one of those.
pub(super) fn compare_balance(section: &Section<'_>, pool: &PoolConfig, report: &mut Report<'_>) {
    if section.partial {
        return;
    }
    if pool.load_factor.is_some() && pool.balance != BalanceAlgorithm::Maglev {
        let hint = "remove `load_factor`, or choose `balance = \"maglev\"`";
        refuse_beside(section, ("load_factor", "has a meaning for \"maglev\" only", hint), report);
    }
    if pool.slow_start.is_some() && pool.balance == BalanceAlgorithm::First {
        let hint = "write `slow_start = \"0s\"`, or choose another `balance`";
        refuse_beside(section, ("slow_start", "has no meaning for \"first\"", hint), report);
    }
}

/// Reports a key that the pool's balance does not obey.
fn refuse_beside(
    section: &Section<'_>,
    (name, why, hint): (&str, &str, &str),
    report: &mut Report<'_>,
) {
    let Some(value) = section.get(name) else { return };
    let mut finding = Finding::new(format!("`{name}` {why}")).hint(hint);
    if let Some(balance) = section.get("balance") {
        finding = finding.beside(&balance.place, "the balance");
    }
    report.error(&value.place, finding);
}
