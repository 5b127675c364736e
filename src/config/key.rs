//! What a row of the table of keys says: name, shape, default, bounds, reload, meaning, and beside
//! what the key counts.

use std::fmt;
use std::time::Duration;

use crate::policy::terms::Word;

use super::units;

/// A table of the file: what messages call it, and its keys.
#[derive(Debug)]
pub struct KeyTable {
    /// What the schema calls it.
    pub name: &'static str,
    /// What messages and the documentation call it.
    pub title: &'static str,
    /// How it may be written as a value; empty where that is never proposed.
    pub sample: &'static str,
    /// Its keys, in the order of the documentation.
    pub keys: &'static [Key],
    /// Tables whose keys may stand in it too.
    pub also: &'static [&'static KeyTable],
}

impl KeyTable {
    /// The keys that may stand in it, in the order of the documentation.
    pub fn keys(&self) -> impl Iterator<Item = &'static Key> {
        self.keys.iter().chain(self.also.iter().flat_map(|table| table.keys))
    }

    /// The key with this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&'static Key> {
        self.keys().find(|key| key.name == name)
    }

    /// Whether `other` is this very table.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl fmt::Display for KeyTable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.title)
    }
}

/// What may be written for a key, with its bounds, both inclusive.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Count(u64, u64),
    /// A whole number, or `"auto"`.
    AutoOrCount(u64, u64),
    /// A float; its bounds in thousandths.
    Factor(u32, u32),
    /// A duration.
    Duration(Duration, Duration),
    /// A duration without parts of a second.
    WholeSeconds(Duration, Duration),
    /// Events per time.
    Rate,
    /// A whole percentage, 0 to 100.
    Percent,
    /// A whole percentage, or this word.
    PercentOr(&'static str),
    /// A size in bytes.
    Size(u32, u32),
    /// A size in bytes per second.
    Bandwidth(u64, u64),
    /// One of these words.
    Word(fn() -> Vec<&'static str>),
    /// One of these words. One that ends in a space has an argument behind it.
    WordWith(fn() -> Vec<&'static str>, Argument),
    /// A string, and what the documentation calls it.
    Text(&'static str),
    /// A string of at least and at most this many bytes.
    TextOf(&'static str, usize, usize),
    /// An array of strings, and what the documentation calls it.
    List(&'static str),
    /// An array of at most this many strings.
    ListUpTo(&'static str, usize),
    /// An array of at most this many whole numbers, each within these bounds.
    Numbers(usize, u64, u64),
    /// An array of strings of at least and at most this many bytes each.
    ListOf(&'static str, usize, usize),
    /// A table.
    Table(&'static KeyTable),
    /// A table, or `false` to have none although `[defaults]` gives one.
    TableOrFalse(&'static KeyTable),
    /// A table, an array of tables, or `false` to have none although `[defaults]` gives one.
    TableOrTables(&'static KeyTable),
    /// An array of tables.
    Tables(&'static KeyTable),
    /// An array of at most this many strings and tables.
    StringsOrTables(&'static KeyTable, usize),
    /// Tables of any names.
    Named(&'static KeyTable),
}

/// What stands behind a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Argument {
    /// A name.
    Name,
    /// A rate.
    Rate,
}

impl Argument {
    /// How the documentation writes it.
    #[must_use]
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Name => "NAME",
            Self::Rate => "N/s",
        }
    }

    /// A regular expression for it, up to the end.
    #[must_use]
    pub fn pattern(self) -> &'static str {
        match self {
            Self::Name => r"\S+$",
            Self::Rate => r"\s*[0-9]+\s*/\s*(s|min|h|d)\s*$",
        }
    }
}

impl Shape {
    /// The table whose keys stand in a value.
    #[must_use]
    pub fn table(self) -> Option<&'static KeyTable> {
        match self {
            Self::Table(table)
            | Self::TableOrFalse(table)
            | Self::TableOrTables(table)
            | Self::Tables(table)
            | Self::StringsOrTables(table, _)
            | Self::Named(table) => Some(table),
            _ => None,
        }
    }

    /// A value to propose, as TOML has it; empty where none is better than another.
    #[must_use]
    pub fn sample(self) -> &'static str {
        match self {
            Self::Rate => "\"100/s\"",
            _ => "",
        }
    }
}

/// The words of a term, for [`Shape::Word`].
pub(super) fn words<T: Word>() -> Vec<&'static str> {
    T::WORDS.iter().map(|(word, _)| *word).collect()
}

/// What counts where the key is not in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Default {
    /// The key has to be there.
    Required,
    /// This value: what stands between the quotes of a string, else what TOML has.
    Is(&'static str),
    /// No value of this key; what happens instead, as the documentation says it.
    Else(&'static str),
}

/// What becomes of a key that does not count beside what it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfIdle {
    /// The file is refused.
    Refused,
    /// `check` warns, unless `[defaults]` gives it.
    Warned,
}

/// Beside what a key counts: another key of its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Companion {
    /// The other key.
    pub key: &'static str,
    /// Its values beside which this key counts.
    pub values: Values,
    /// A third key; where that is given this one counts in any case.
    pub or_beside: Option<&'static str>,
    /// What becomes of the key elsewhere.
    pub if_idle: IfIdle,
}

/// Values of a companion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// One of these.
    Among(&'static [&'static str]),
    /// Any but these.
    Except(&'static [&'static str]),
    /// Any: it has to be given.
    Any,
}

impl Companion {
    pub(super) const fn new(key: &'static str, values: Values, if_idle: IfIdle) -> Self {
        Self { key, values, or_beside: None, if_idle }
    }

    pub(super) const fn or_beside(mut self, key: &'static str) -> Self {
        self.or_beside = Some(key);
        self
    }

    /// Whether the key counts beside this value of its companion.
    #[must_use]
    pub fn admits(&self, value: &str) -> bool {
        match self.values {
            Values::Among(words) => words.contains(&value),
            Values::Except(words) => !words.contains(&value),
            Values::Any => true,
        }
    }
}

/// One key of one table.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What may be written, with the bounds.
    pub shape: Shape,
    /// What counts without it.
    pub default: Default,
    /// More about its bounds, or all where the shape has none; Markdown.
    pub note: &'static str,
    /// When a reload that changes it counts.
    pub reload: &'static str,
    /// What it means, in a sentence; Markdown.
    pub meaning: &'static str,
    /// Beside what it counts: beside all of these at once.
    pub companions: &'static [Companion],
}

impl Key {
    pub(super) const fn new(name: &'static str, shape: Shape) -> Self {
        Self {
            name,
            shape,
            default: Default::Required,
            note: "",
            reload: "new",
            meaning: "",
            companions: &[],
        }
    }

    pub(super) const fn default(mut self, value: &'static str) -> Self {
        self.default = Default::Is(value);
        self
    }

    pub(super) const fn or_else(mut self, what: &'static str) -> Self {
        self.default = Default::Else(what);
        self
    }

    pub(super) const fn note(mut self, note: &'static str) -> Self {
        self.note = note;
        self
    }

    pub(super) const fn reload(mut self, reload: &'static str) -> Self {
        self.reload = reload;
        self
    }

    pub(super) const fn means(mut self, meaning: &'static str) -> Self {
        self.meaning = meaning;
        self
    }

    pub(super) const fn beside(mut self, companions: &'static [Companion]) -> Self {
        self.companions = companions;
        self
    }

    /// The default as it is between quotes or without any; `None` where there is none.
    #[must_use]
    pub fn default_text(&self) -> Option<&'static str> {
        match self.default {
            Default::Is(text) => Some(text),
            Default::Required | Default::Else(_) => None,
        }
    }

    /// Whether `false` can stand for it: there is no such key then, whatever `[defaults]` says. Any
    /// key can be taken back so whose absence no value of its own stands for.
    #[must_use]
    pub fn can_be_off(&self) -> bool {
        let is_else = matches!(self.default, Default::Else(_));
        is_else && !matches!(self.shape, Shape::Boolean | Shape::Table(_))
    }

    /// Whether text means the same as the default.
    #[must_use]
    pub fn is_default(&self, text: &str) -> bool {
        let Some(default) = self.default_text() else { return false };
        match self.shape {
            Shape::Duration(..) => units::duration(text) == units::duration(default),
            _ => text == default,
        }
    }

    /// Whether a value is a string of TOML.
    #[must_use]
    pub fn is_quoted(&self, text: &str) -> bool {
        match self.shape {
            Shape::Boolean
            | Shape::Count(..)
            | Shape::Factor(..)
            | Shape::List(_)
            | Shape::ListUpTo(..)
            | Shape::Numbers(..)
            | Shape::ListOf(..) => false,
            Shape::AutoOrCount(..) => text == "auto",
            _ => true,
        }
    }
}

/// Most events per second that a rate may stand for: up to here a bucket's clock is exact to half a
/// per cent.
pub const RATE_PER_SECOND_MAX: u64 = 1_000_000;
