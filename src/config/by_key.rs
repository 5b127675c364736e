//! Reading a key of a table: bounds and default are those of its row in the table of keys.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use crate::policy::balance::panic_mode::PanicThreshold;
use crate::policy::terms::Word;

use super::file::{Field, Section, Value};
use super::key::{Key, Shape};
use super::report::{FilePlace, Finding, Report};
use super::scalar;
use super::units::{self, EventRate};

/// The default of a key as the file would have it.
fn default_value(key: &Key) -> Option<DeValue<'static>> {
    let text = key.default_text()?;
    if key.is_quoted(text) {
        return Some(DeValue::String(text.into()));
    }
    DeValue::parse(text).ok().map(toml::Spanned::into_inner)
}

impl<'t> Section<'t> {
    /// The default of a key that has one.
    fn default_of<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        parse(self.key(name)?.default_text()?)
    }

    /// Reads a key that stands for one value, or its default in the same way.
    pub(super) fn read_or_default<T: Default>(
        &self,
        name: &str,
        report: &mut Report<'_>,
        convert: impl Fn(&Value<'_>, &mut Report<'_>) -> Option<T>,
    ) -> T {
        if let Some(read) = self.read(name, report, &convert).value() {
            return read;
        }
        let Some(data) = self.key(name).and_then(default_value) else { return T::default() };
        let place = FilePlace { span: 0..0, path: String::new() };
        convert(&Value { data: &data, place, name: name.to_owned() }, report).unwrap_or_default()
    }

    /// A duration within bounds.
    pub(super) fn duration(&self, name: &str, report: &mut Report<'_>) -> Field<Duration> {
        let bounds = match self.key(name).map(|key| key.shape) {
            Some(Shape::Duration(from, to) | Shape::WholeSeconds(from, to)) => from..=to,
            _ => Duration::ZERO..=Duration::MAX,
        };
        self.read(name, report, |value, report| scalar::duration(value, bounds, report))
    }

    /// The value of the key, or its default where the file has none that is valid.
    pub(super) fn duration_or_default(&self, name: &str, report: &mut Report<'_>) -> Duration {
        let default = || self.default_of(name, |text| units::duration(text).ok());
        self.duration(name, report).value().or_else(default).unwrap_or_default()
    }

    /// A duration of whole seconds within bounds, or its default; `hint` says why there are no
    /// parts of a second.
    pub(super) fn whole_seconds(
        &self,
        name: &str,
        hint: &str,
        report: &mut Report<'_>,
    ) -> Duration {
        let default = self.default_of(name, |text| units::duration(text).ok()).unwrap_or_default();
        let Field::Given(read, place) = self.duration(name, report) else { return default };
        if read.subsec_nanos() == 0 {
            return read;
        }
        let finding = Finding::new(format!("`{name}` must be whole seconds"))
            .expected(format!("a duration such as \"{}\"", units::show_duration(default)));
        report.error(&place, finding.hint(hint));
        default
    }

    fn count_bounds(&self, name: &str) -> RangeInclusive<u64> {
        match self.key(name).map(|key| key.shape) {
            Some(Shape::Count(from, to) | Shape::AutoOrCount(from, to)) => from..=to,
            _ => 0..=u64::MAX,
        }
    }

    /// A whole number within bounds.
    pub(super) fn count(&self, name: &str, report: &mut Report<'_>) -> Field<u64> {
        let bounds = self.count_bounds(name);
        self.read(name, report, |value, report| scalar::count(value, bounds, report))
    }

    /// The value of the key, or its default where the file has none that is valid.
    pub(super) fn count_or_default(&self, name: &str, report: &mut Report<'_>) -> u64 {
        let default = || self.default_of(name, |text| text.parse().ok());
        self.count(name, report).value().or_else(default).unwrap_or_default()
    }

    /// A whole number within bounds of 32 bits.
    pub(super) fn count32(&self, name: &str, report: &mut Report<'_>) -> Field<u32> {
        self.count(name, report).map(|read| u32::try_from(read).unwrap_or(u32::MAX))
    }

    /// The value of the key, or its default where the file has none that is valid.
    pub(super) fn count32_or_default(&self, name: &str, report: &mut Report<'_>) -> u32 {
        u32::try_from(self.count_or_default(name, report)).unwrap_or(u32::MAX)
    }

    /// The length of a prefix, or its default.
    pub(super) fn length_or_default(&self, name: &str, report: &mut Report<'_>) -> u8 {
        u8::try_from(self.count_or_default(name, report)).unwrap_or(u8::MAX)
    }

    /// A whole number within bounds; `None` is "auto", which is the default.
    pub(super) fn auto_or_count(&self, name: &str, report: &mut Report<'_>) -> Option<u64> {
        let bounds = self.count_bounds(name);
        self.read(name, report, |value, report| scalar::auto_or_count(value, bounds, report))
            .or(None)
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, name: &str, report: &mut Report<'_>) -> Field<bool> {
        self.read(name, report, scalar::boolean)
    }

    /// The value of the key, or its default where the file has none that is valid.
    pub(super) fn boolean_or_default(&self, name: &str, report: &mut Report<'_>) -> bool {
        let default = || self.default_of(name, |text| text.parse().ok());
        self.boolean(name, report).value().or_else(default).unwrap_or_default()
    }

    /// A rate.
    pub(super) fn rate(&self, name: &str, report: &mut Report<'_>) -> Field<EventRate> {
        self.read(name, report, scalar::rate)
    }

    /// When a pool panics, or its default.
    pub(super) fn panic_threshold(&self, name: &str, report: &mut Report<'_>) -> PanicThreshold {
        let default =
            || self.default_of(name, |text| units::percent(text).ok()).map(PanicThreshold::AtMost);
        let read = self.read(name, report, scalar::panic_threshold).value();
        read.or_else(default).unwrap_or(PanicThreshold::AtMost(0))
    }

    /// A percentage, or its default.
    pub(super) fn percent_or_default(&self, name: &str, report: &mut Report<'_>) -> u8 {
        let default = || self.default_of(name, |text| units::percent(text).ok());
        self.read(name, report, scalar::percent).value().or_else(default).unwrap_or_default()
    }

    /// One word of those that a term has.
    pub(super) fn word<T: Word>(&self, name: &str, report: &mut Report<'_>) -> Field<T> {
        self.read(name, report, |value, report| scalar::word(value, T::WORDS, report))
    }

    /// The value of the key, or its default where the file has none that is valid.
    pub(super) fn word_or_default<T: Word>(&self, name: &str, report: &mut Report<'_>) -> T {
        let default = || self.default_of(name, T::of_word);
        self.word(name, report).value().or_else(default).unwrap_or(T::WORDS[0].1)
    }

    /// The default of a key whose value is text.
    pub(super) fn default_text(&self, name: &str) -> String {
        self.default_of(name, |text| Some(text.to_owned())).unwrap_or_default()
    }
}
