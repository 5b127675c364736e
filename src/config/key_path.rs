//! Where a value stands in the file, for findings that are made after the file was read.

use std::fmt::{self, Display, Formatter};

use super::file::join;

/// The dotted path of a key or table, each name quoted as TOML wants it: `pool."a.b".source[1]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPath(String);

impl KeyPath {
    /// A table at the top of the file, such as `global`.
    #[must_use]
    pub fn table(name: &str) -> Self {
        Self(join("", name))
    }

    /// The table of a listener.
    #[must_use]
    pub fn listener(name: &str) -> Self {
        Self::table("listener").key(name)
    }

    /// The table of a pool.
    #[must_use]
    pub fn pool(name: &str) -> Self {
        Self::table("pool").key(name)
    }

    /// A key of this table.
    #[must_use]
    pub fn key(&self, name: &str) -> Self {
        Self(join(&self.0, name))
    }

    /// An element of this array, counted from 0.
    #[must_use]
    pub fn item(&self, position: usize) -> Self {
        Self(format!("{}[{position}]", self.0))
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for KeyPath {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, a warning about a pool whose name has a dot stands at the wrong line.
    #[test]
    fn names_are_quoted_where_toml_wants_it() {
        let path = KeyPath::pool("a.b").key("source").item(1);
        assert_eq!(path.to_string(), "pool.\"a.b\".source[1]");
        assert_eq!(KeyPath::table("global").key("spin").as_str(), "global.spin");
    }
}
