//! A row of the table of keys as `docs/configuration.md` shows it: its columns but the name and the
//! meaning.

use super::key::{Default, Key, RATE_PER_SECOND_MAX, Shape};
use super::units::{self, show_duration};

impl Key {
    /// The column "type" of the documentation.
    #[must_use]
    pub fn type_cell(&self) -> String {
        let of_value = self.shape_cell();
        if self.can_be_off() { format!("{of_value} or `false`") } else { of_value.to_owned() }
    }

    fn shape_cell(&self) -> &'static str {
        match self.shape {
            Shape::Boolean => "boolean",
            Shape::Count(..) => "count",
            Shape::AutoOrCount(..) => "count or `\"auto\"`",
            Shape::Factor(..) => "number",
            Shape::Duration(..) | Shape::WholeSeconds(..) => "duration",
            Shape::Rate => "rate",
            Shape::Percent => "percentage",
            Shape::PercentOr(_) => "percentage or word",
            Shape::Size(..) => "size",
            Shape::Bandwidth(..) => "bandwidth",
            Shape::Word(_) | Shape::WordWith(..) => "word",
            Shape::Text(what) | Shape::TextOf(what, ..) => what,
            Shape::List(what) | Shape::ListUpTo(what, _) | Shape::ListOf(what, ..) => what,
            Shape::Numbers(..) | Shape::StringsOrTables(..) => "list",
            Shape::Table(_) | Shape::TableOrFalse(_) => "table",
            Shape::TableOrTables(_) => "table, tables",
            Shape::Tables(_) | Shape::Named(_) => "tables",
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
            Shape::TextOf(_, from, to) => format!("{} bytes", lengths(from, to)),
            Shape::ListOf(_, from, to) => format!("{} bytes each", lengths(from, to)),
            Shape::Numbers(most, from, to) => {
                format!("at most {most} of {} to {}", grouped(from), grouped(to))
            }
            Shape::ListUpTo(_, most) | Shape::StringsOrTables(_, most) => {
                format!("at most {}", grouped(most as u64))
            }
            Shape::PercentOr(word) => format!("0% to 100%, `\"{word}\"`"),
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

/// Lengths as the documentation writes them.
fn lengths(from: usize, to: usize) -> String {
    let to = grouped(to as u64);
    if from == 0 { format!("at most {to}") } else { format!("{from} to {to}") }
}

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
