//! Keys with their values as `evenkeel config` shows them. What it shows parses again to the same.

use std::fmt::Display;
use std::time::Duration;

use crate::policy::terms::Word;

use super::file::quoted;
use super::units::show_duration;

/// Keys of one table with their values, in the order in which they are shown.
#[derive(Debug, Default)]
pub(super) struct Entries(Vec<String>);

impl Entries {
    /// A value that TOML has without quotes.
    pub(super) fn plain(mut self, name: &str, value: impl Display) -> Self {
        self.0.push(format!("{name} = {value}"));
        self
    }

    /// A string.
    pub(super) fn text(self, name: &str, value: impl Display) -> Self {
        self.plain(name, quoted(&value.to_string()))
    }

    /// A duration.
    pub(super) fn duration(self, name: &str, value: Duration) -> Self {
        self.text(name, show_duration(value))
    }

    /// A word of a term.
    pub(super) fn word(self, name: &str, value: impl Word) -> Self {
        self.text(name, value.word())
    }

    /// An array of strings.
    pub(super) fn list<T: Display>(self, name: &str, values: &[T]) -> Self {
        let list: Vec<String> = values.iter().map(|value| quoted(&value.to_string())).collect();
        self.plain(name, format!("[{}]", list.join(", ")))
    }

    /// A table in one line.
    pub(super) fn table(self, name: &str, entries: &Self) -> Self {
        self.plain(name, entries.in_line())
    }

    /// What is there only for some values.
    pub(super) fn given<T>(self, value: Option<T>, add: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            Some(value) => add(self, value),
            None => self,
        }
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As a table in one line.
    pub(super) fn in_line(&self) -> String {
        format!("{{ {} }}", self.0.join(", "))
    }

    /// As a table of its own, with its header.
    pub(super) fn below(&self, header: &str) -> String {
        self.0.iter().fold(format!("\n{header}\n"), |text, line| text + line + "\n")
    }
}
