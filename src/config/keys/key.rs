//! What a row of the table of keys says: name, shape, default, bounds, reload, meaning, and beside
//! what the key counts.

use std::fmt;
use std::time::Duration;

use crate::config::units::{self, show_duration};
use crate::policy::terms::Word;

/// A table of the file, as the reader meets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyTable {
    /// The file itself; it holds tables only.
    File,
    /// `[global]`.
    Global,
    /// `log` of `[global]`.
    Log,
    /// `[admin]`.
    Admin,
    /// `[defaults]`: every key of a listener or a pool.
    Defaults,
    /// `[listener.NAME]`.
    Listener,
    /// `accept_proxy` of a listener.
    AcceptProxy,
    /// `[[listener.NAME.route]]`.
    Route,
    /// `[listener.NAME.peek]`.
    Peek,
    /// `keepalive` of a listener.
    Keepalive,
    /// `bandwidth` of a listener.
    Bandwidth,
    /// `[listener.NAME.limit]`.
    Limit,
    /// `key` of a limit.
    LimitKey,
    /// `[pool.NAME]`.
    Pool,
    /// `hash_prefix` of a pool.
    HashPrefix,
    /// `sticky` of a pool.
    Sticky,
    /// `queue` of a pool.
    Queue,
    /// One entry of `backends`.
    Backend,
    /// `[pool.NAME.health]`.
    Health,
    /// `[pool.NAME.outlier]`.
    Outlier,
}

impl fmt::Display for KeyTable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::File => "the file",
            Self::Global => "[global]",
            Self::Log => "`log` of [global]",
            Self::Admin => "[admin]",
            Self::Defaults => "[defaults]",
            Self::Listener => "[listener.NAME]",
            Self::AcceptProxy => "`accept_proxy` of [listener.NAME]",
            Self::Route => "[[listener.NAME.route]]",
            Self::Peek => "[listener.NAME.peek]",
            Self::Keepalive => "`keepalive` of [listener.NAME]",
            Self::Bandwidth => "`bandwidth` of [listener.NAME]",
            Self::Limit => "[listener.NAME.limit]",
            Self::LimitKey => "`key` of [listener.NAME.limit]",
            Self::Pool => "[pool.NAME]",
            Self::HashPrefix => "`hash_prefix` of [pool.NAME]",
            Self::Sticky => "`sticky` of [pool.NAME]",
            Self::Queue => "`queue` of [pool.NAME]",
            Self::Backend => "an entry of `backends`",
            Self::Health => "[pool.NAME.health]",
            Self::Outlier => "[pool.NAME.outlier]",
        })
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
    /// An array of strings, and what the documentation calls it.
    List(&'static str),
    /// Backends: an array of strings and tables.
    Backends,
    /// A table.
    KeyTable(KeyTable),
    /// A table, or `false` to have none although `[defaults]` gives one.
    TableOrFalse(KeyTable),
    /// An array of tables.
    Tables(KeyTable),
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
    /// `check` warns.
    Warned,
    /// Nothing: it may stand there.
    Kept,
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
    /// The table it sits in.
    pub table: KeyTable,
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
    pub(super) const fn new(table: KeyTable, name: &'static str, shape: Shape) -> Self {
        Self {
            table,
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

    /// Whether text means the same as the default.
    #[must_use]
    pub fn is_default(&self, text: &str) -> bool {
        let Some(default) = self.default_text() else { return false };
        match self.shape {
            Shape::Duration(..) => units::duration(text) == units::duration(default),
            _ => text == default,
        }
    }

    /// The column "type" of the documentation.
    #[must_use]
    pub fn type_cell(&self) -> &'static str {
        match self.shape {
            Shape::Boolean => "boolean",
            Shape::Count(..) => "count",
            Shape::AutoOrCount(..) => "count or `\"auto\"`",
            Shape::Factor(..) => "float",
            Shape::Duration(..) | Shape::WholeSeconds(..) => "duration",
            Shape::Rate => "rate",
            Shape::Percent => "percentage",
            Shape::Size(..) => "size",
            Shape::Bandwidth(..) => "bandwidth",
            Shape::Word(_) | Shape::WordWith(..) => "word",
            Shape::Text(what) | Shape::List(what) => what,
            Shape::Backends => "list",
            Shape::KeyTable(_) => "table",
            Shape::TableOrFalse(_) => "table or `false`",
            Shape::Tables(_) => "tables",
        }
    }

    /// The column "default" of the documentation.
    #[must_use]
    pub fn default_cell(&self) -> String {
        match self.default {
            Default::Required => "required".to_owned(),
            Default::Is(text) if self.is_quoted(text) => format!("`\"{text}\"`"),
            Default::Is(text) => format!("`{text}`"),
            Default::Else(what) => what.to_owned(),
        }
    }

    /// Whether a value is a string of TOML.
    #[must_use]
    pub fn is_quoted(&self, text: &str) -> bool {
        match self.shape {
            Shape::Boolean | Shape::Count(..) | Shape::Factor(..) | Shape::List(_) => false,
            Shape::AutoOrCount(..) => text == "auto",
            _ => true,
        }
    }

    /// The column "bounds" of the documentation.
    #[must_use]
    pub fn bounds_cell(&self) -> String {
        let own = match self.shape {
            Shape::Count(from, to) | Shape::AutoOrCount(from, to) => {
                format!("{} to {}", grouped(from), grouped(to))
            }
            Shape::Factor(from, to) => {
                let [from, to] = [from, to].map(units::show_thousandths);
                format!("{from} to {to}, three digits behind the point")
            }
            Shape::Duration(from, to) => {
                format!("{} to {}", show_duration(from), show_duration(to))
            }
            Shape::WholeSeconds(from, to) => {
                let in_whole = ", whole seconds";
                format!("{} to {}{in_whole}", show_duration(from), show_duration(to))
            }
            Shape::Rate => format!("up to {}/s", grouped(RATE_PER_SECOND_MAX)),
            Shape::Size(from, to) => {
                format!("{} to {}", units::show_size(from), units::show_size(to))
            }
            Shape::Bandwidth(from, to) => {
                format!("{}/s to {}/s", units::show_size(from), units::show_size(to))
            }
            Shape::Word(words) => listed(&words(), ""),
            Shape::WordWith(words, argument) => listed(&words(), argument.placeholder()),
            _ => String::new(),
        };
        match (own.is_empty(), self.note.is_empty()) {
            (_, true) => own,
            (true, false) => self.note.to_owned(),
            (false, false) => format!("{own}{}", self.note),
        }
    }
}

/// Words as the documentation lists them.
fn listed(words: &[&str], argument: &str) -> String {
    let shown = words.iter().map(|word| match word.strip_suffix(' ') {
        Some(bare) => format!("`\"{bare} {argument}\"`"),
        None => format!("`\"{word}\"`"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// Most events per second that a rate may stand for.
pub const RATE_PER_SECOND_MAX: u64 = 100_000;

/// A number as the documentation writes it.
fn grouped(number: u64) -> String {
    const WORD_MAX: u64 = u32::MAX as u64;
    const LONG_MAX: u64 = i64::MAX as u64;
    match number {
        WORD_MAX => return "2^32 - 1".to_owned(),
        LONG_MAX => return "2^63 - 1".to_owned(),
        _ => {}
    }
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
