//! Where every key of a file stands, for problems that are found after it was read.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::file::join;
use super::report::{Report, Spot};

/// Every path of a file with its spot.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Spots(BTreeMap<String, Spot>);

impl Spots {
    /// Remembers where every key of a file stands.
    pub(super) fn of(root: &DeTable<'_>, report: &Report<'_>) -> Self {
        let mut spots = Self::default();
        spots.add_table(root, "", report);
        spots
    }

    fn add_table(&mut self, table: &DeTable<'_>, path: &str, report: &Report<'_>) {
        for (key, value) in table {
            self.add(value, join(path, key.get_ref()), report);
        }
    }

    fn add(&mut self, value: &toml::Spanned<DeValue<'_>>, path: String, report: &Report<'_>) {
        match value.get_ref() {
            DeValue::Table(table) => self.add_table(table, &path, report),
            DeValue::Array(array) => {
                for (index, element) in array.iter().enumerate() {
                    self.add(element, format!("{path}[{index}]"), report);
                }
            }
            _ => {}
        }
        self.0.insert(path, report.spot(&value.span()));
    }

    /// The place of a key: where it stands, or where `[defaults]` has it, or the nearest table
    /// around it.
    pub(super) fn find(&self, path: &str) -> Option<&Spot> {
        let in_defaults = || self.0.get(&of_defaults(path)?);
        if let Some(spot) = self.0.get(path).or_else(in_defaults) {
            return Some(spot);
        }
        let mut path = path;
        while let Some(around) = around(path) {
            if let Some(spot) = self.0.get(around) {
                return Some(spot);
            }
            path = around;
        }
        None
    }
}

/// The path of the table or array around one; a name may hold dots and brackets in quotes.
fn around(path: &str) -> Option<&str> {
    let mut end = None;
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, letter) in path.char_indices() {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            '.' | '[' if !is_quoted => end = Some(at),
            _ => {}
        }
    }
    path.get(..end?)
}

/// Where `[defaults]` has what a listener or a pool may have.
fn of_defaults(path: &str) -> Option<String> {
    let mut table = path;
    // Up to `listener.NAME` or `pool.NAME`.
    while let Some(outer) = around(table) {
        if matches!(outer, "listener" | "pool") {
            return Some(format!("defaults{}", path.get(table.len()..)?));
        }
        table = outer;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, a problem of a table whose name is quoted stands at the wrong line.
    #[test]
    fn paths_are_cut_outside_of_quotes() {
        assert_eq!(around("pool.\"a.b[0]\".source[1]"), Some("pool.\"a.b[0]\".source"));
        assert_eq!(around("pool.\"a.b[0]\""), Some("pool"));
        assert_eq!(around(r#"pool."a\".b".health"#), Some(r#"pool."a\".b""#));
        assert_eq!(around("pool"), None);
        assert_eq!(of_defaults("pool.\"a.b\".health.ca"), Some("defaults.health.ca".to_owned()));
        assert_eq!(of_defaults("listener.a"), Some("defaults".to_owned()));
        assert_eq!(of_defaults("global.spin"), None);
    }
}
