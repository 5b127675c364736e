//! What one configuration has that another has not, key by key.
//!
//! Both are compared as the effective configuration shows them, so that every key that it prints
//! is compared, defaults included. Listeners, pools and backends are known by their names, whatever
//! their order; routes, and the backends of a pool that takes them in order, by their order.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::Serialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Config;
use super::file::join;

/// Longest list that is shown whole, in entries.
const LIST_SHOWN_MAX: usize = 8;
/// Entries that are shown of what was added to a longer list, or removed.
const ENTRIES_SHOWN: usize = 4;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What it is about: `global`, `listener web`, `pool back` or `backend back/b1`.
    pub subject: String,
    /// The key within its table, such as `limit.rate`; empty when the table itself came or went.
    pub key: String,
    /// The value before, as a file has it; `None` when it was not set.
    pub old: Option<String>,
    /// The value now; `None` when it is not set.
    pub new: Option<String>,
    #[serde(skip)]
    words: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}", self.subject, self.words)
    }
}

impl Difference {
    /// A table that came or went.
    fn of_table(subject: String, what: &str) -> Self {
        Self { subject, key: String::new(), old: None, new: None, words: format!(" {what}") }
    }

    /// A key with another value; `None` is not set.
    pub(crate) fn of_key(subject: &str, key: &str, values: [Option<String>; 2]) -> Self {
        let [old, new] = values;
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
        let words = match &new {
            Some(value) => format!(": {key} = {value} (was {})", shown(&old)),
            None => format!(": {key} is not set (was {})", shown(&old)),
        };
        Self { subject: subject.to_owned(), key: key.to_owned(), old, new, words }
    }
}

/// What `new` changes of `old`: first what is process-wide, then listeners, pools and backends.
pub fn differences(old: &Config, new: &Config) -> Vec<Difference> {
    if old == new {
        return Vec::new();
    }
    let texts = [old, new].map(Config::to_toml);
    let roots = texts.each_ref().map(|text| DeTable::parse_recoverable(text).0);
    let [old, new] = roots.each_ref().map(Spanned::get_ref);
    let mut comparison =
        Comparison { texts: texts.each_ref().map(String::as_str), found: Vec::new() };
    for name in ["global", "admin"] {
        comparison.keys(name, "", [table(old, name), table(new, name)]);
    }
    comparison.named("listener", [old, new]);
    comparison.named("pool", [old, new]);
    comparison.found
}

fn table<'t>(of: &'t DeTable<'t>, name: &str) -> Option<&'t DeTable<'t>> {
    of.get(name)?.get_ref().as_table()
}

/// The backends of a pool, by name, in the order of the file.
fn members<'t>(pool: &'t DeTable<'t>) -> Vec<(&'t str, &'t DeTable<'t>)> {
    let list = pool.get("backends").and_then(|list| list.get_ref().as_array());
    let tables = list.into_iter().flatten().filter_map(|member| member.get_ref().as_table());
    tables.filter_map(|table| Some((table.get("name")?.get_ref().as_str()?, table))).collect()
}

/// Before and after. Whatever is given for both stands in this order.
struct Comparison<'t> {
    texts: [&'t str; 2],
    found: Vec<Difference>,
}

impl<'t> Comparison<'t> {
    /// Compares the tables `[KIND.NAME]` by their names.
    fn named(&mut self, kind: &str, roots: [&'t DeTable<'t>; 2]) {
        let [old, new] = roots.map(|root| table(root, kind));
        for (name, _) in new.into_iter().flatten() {
            let name: &str = name.get_ref();
            let subject = format!("{kind} {name}");
            match [old, new].map(|tables| tables.and_then(|tables| table(tables, name))) {
                [None, _] => self.found.push(Difference::of_table(subject, "added")),
                [Some(before), Some(after)] if kind == "pool" => {
                    self.pool(name, [before, after]);
                }
                tables => self.keys(&subject, "", tables),
            }
        }
        for (name, _) in old.into_iter().flatten() {
            let name: &str = name.get_ref();
            if new.is_none_or(|new| !new.contains_key(name)) {
                self.found.push(Difference::of_table(format!("{kind} {name}"), "removed"));
            }
        }
    }

    fn pool(&mut self, name: &str, pools: [&'t DeTable<'t>; 2]) {
        self.keys(&format!("pool {name}"), "", pools.map(Some));
        let [old, new] = pools.map(members);
        let [was, is] = [&old, &new].map(|list| list.iter().copied().collect::<HashMap<_, _>>());
        for (member, after) in &new {
            let subject = format!("backend {name}/{member}");
            match was.get(member) {
                None => self.found.push(Difference::of_table(subject, "added")),
                Some(before) => self.keys(&subject, "", [Some(*before), Some(*after)]),
            }
        }
        for (member, _) in old.iter().filter(|(member, _)| !is.contains_key(member)) {
            let subject = format!("backend {name}/{member}");
            self.found.push(Difference::of_table(subject, "removed"));
        }
        let takes_the_first = |pool: &DeTable<'_>| {
            pool.get("balance").and_then(|word| word.get_ref().as_str()) == Some("first")
        };
        if takes_the_first(pools[1]) {
            let [before, after] = [(&old, &is), (&new, &was)].map(|(list, others)| {
                let stay = list.iter().map(|(member, _)| *member);
                stay.filter(|member| others.contains_key(member)).collect::<Vec<_>>().join(", ")
            });
            if before != after {
                let subject = format!("pool {name}");
                let orders = [Some(before), Some(after)];
                self.found.push(Difference::of_key(&subject, "order of backends", orders));
            }
        }
    }

    /// Compares the keys of two tables, and of the tables in them; `path` leads to them.
    fn keys(&mut self, subject: &str, path: &str, tables: [Option<&'t DeTable<'t>>; 2]) {
        let names = tables.into_iter().flatten().flatten();
        let mut seen = HashSet::new();
        for (name, _) in names {
            let name: &str = name.get_ref();
            // Backends are compared by their names.
            let is_member_list = path.is_empty() && name == "backends";
            if is_member_list || !seen.insert(name) {
                continue;
            }
            let values = tables.map(|table| table.and_then(|table| table.get(name)));
            self.values(subject, &join(path, name), values);
        }
    }

    fn values(&mut self, subject: &str, path: &str, values: [Option<&'t Spanned<DeValue<'t>>>; 2]) {
        let known = values.map(|value| value.map(Spanned::get_ref));
        let tables = known.map(|value| value.and_then(DeValue::as_table));
        if tables.iter().any(Option::is_some) {
            return self.keys(subject, path, tables);
        }
        let lists = known.map(|value| value.and_then(DeValue::as_array));
        let longest = lists.iter().flatten().map(|list| list.len()).max().unwrap_or(0);
        let mut entries = lists.iter().flatten().flat_map(|list| list.iter());
        if entries.any(|entry| entry.get_ref().as_table().is_some()) {
            for position in 0..longest {
                let items = lists.map(|list| list.and_then(|list| list.get(position)));
                self.values(subject, &format!("{path}[{position}]"), items);
            }
            return;
        }
        let [old, new] = [0, 1].map(|side| self.written(values, side));
        if old == new {
            return;
        }
        if longest > LIST_SHOWN_MAX {
            let entries = [0, 1].map(|side| {
                let list = lists.get(side).copied().flatten().into_iter().flatten();
                list.map(|one| self.written([Some(one), Some(one)], side).unwrap_or("")).collect()
            });
            return self.long_lists(subject, path, entries);
        }
        let values = [old, new].map(|text| text.map(str::to_owned));
        self.found.push(Difference::of_key(subject, path, values));
    }

    /// A list of which only the changes are shown; `lists` are its entries.
    fn long_lists(&mut self, subject: &str, path: &str, lists: [Vec<&'t str>; 2]) {
        let [old, new] = &lists;
        let only_in = |list: &[&'t str], other: &[&'t str]| {
            let known: HashSet<&str> = other.iter().copied().collect();
            let own: Vec<&str> = list.iter().copied().filter(|one| !known.contains(one)).collect();
            match own.get(..ENTRIES_SHOWN) {
                Some(shown) if own.len() > ENTRIES_SHOWN => {
                    format!("{} ({}, ...)", own.len(), shown.join(", "))
                }
                _ if own.is_empty() => "0".to_owned(),
                _ => format!("{} ({})", own.len(), own.join(", ")),
            }
        };
        let words = format!(
            ": {path} has {} entries (was {}): added {}, removed {}",
            new.len(),
            old.len(),
            only_in(new, old),
            only_in(old, new),
        );
        let [old, new] = lists.map(|list| Some(format!("{} entries", list.len())));
        let (subject, key) = (subject.to_owned(), path.to_owned());
        self.found.push(Difference { subject, key, old, new, words });
    }

    /// How a value stands in the text of its side.
    fn written(&self, values: [Option<&Spanned<DeValue<'_>>>; 2], side: usize) -> Option<&'t str> {
        let value = values.get(side).copied().flatten()?;
        self.texts.get(side)?.get(value.span())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::path::Path;

    fn config(text: &str) -> Config {
        let parsed = crate::config::parse(text, Path::new("a.toml"));
        parsed.config.unwrap_or_else(|| panic!("{:?}", parsed.problems))
    }

    /// What is said of a change from one text to another.
    fn said(old: &str, new: &str) -> Vec<String> {
        let found = differences(&config(old), &config(new));
        found.iter().map(ToString::to_string).collect()
    }

    const LISTENERS: &str = "[listener.a]\nbind = [\"127.0.0.1:1\"]\npool = \"p\"\n\
                             [[listener.a.route]]\nsni = [\"x.test\"]\npool = \"q\"\n\
                             [listener.b]\nbind = [\"127.0.0.1:2\"]\npool = \"q\"\n";
    const P: &str = "[pool.p]\nbackends = [\"127.0.0.1:3\", \"127.0.0.1:4\"]\n";
    const Q: &str = "[pool.q]\nbackends = [\"127.0.0.1:5\"]\n";

    // If this fails, a file that was only sorted anew is said to change something.
    #[test]
    fn order_changes_nothing() {
        let backwards = "[pool.p]\nbackends = [\"127.0.0.1:4\", \"127.0.0.1:3\"]\n";
        let old = format!("{LISTENERS}{P}{Q}");
        assert_eq!(said(&old, &format!("{Q}{LISTENERS}{P}")), [""; 0]);
        assert_eq!(said(&old, &format!("{Q}{LISTENERS}{backwards}")), [""; 0]);
        let first = "balance = \"first\"\n";
        assert_eq!(
            said(
                &format!("{LISTENERS}{Q}{P}{first}"),
                &format!("{LISTENERS}{Q}{backwards}{first}")
            ),
            ["pool p: order of backends = 127.0.0.1:4, 127.0.0.1:3 (was 127.0.0.1:3, 127.0.0.1:4)"]
        );
    }

    // If this fails, traffic moves to other servers and the operator reads that nothing changed.
    #[test]
    fn a_route_to_another_pool_is_a_change_whatever_the_positions() {
        let old = format!("{LISTENERS}{P}{Q}");
        let new = format!("{LISTENERS}{P}{Q}")
            .replace("[\"x.test\"]\npool = \"q\"", "[\"x.test\"]\npool = \"p\"");
        // The pools change places, so that each position means the other one.
        let (before, pools) = new.split_at(LISTENERS.len());
        assert_eq!(pools, format!("{P}{Q}"));
        let swapped = format!("{before}{Q}{P}");
        let expected = ["listener a: route[0].pool = \"p\" (was \"q\")"];
        assert_eq!(said(&old, &new), expected);
        assert_eq!(said(&old, &swapped), expected);
    }

    // If this fails, a change in a table with a header of its own is not seen.
    #[test]
    fn tables_are_looked_into() {
        let old = format!("{LISTENERS}{P}{Q}[listener.a.limit]\nmax_concurrent = 3\n");
        let new = old.replace("max_concurrent = 3", "max_concurrent = 4");
        assert_eq!(said(&old, &new), ["listener a: limit.max_concurrent = 4 (was 3)"]);
        let gone = said(&new, &format!("{LISTENERS}{P}{Q}"));
        let words = "listener a: limit.max_concurrent is not set (was 4)".to_owned();
        assert!(gone.contains(&words), "{gone:?}");
    }

    // If this fails, an operator is told that something changed and not what.
    #[test]
    fn keys_are_shown_with_both_values() {
        let old = format!("{LISTENERS}{P}{Q}");
        let changed = old
            .replace(
                "[listener.b]\n",
                "[listener.b]\nidle_timeout = \"5m\"\nkeepalive = { idle = \"9s\" }\n",
            )
            .replace(
                "\"127.0.0.1:4\"",
                "{ address = \"127.0.0.1:4\", weight = 7 }, \"127.0.0.1:6\"",
            );
        assert_eq!(
            said(
                &old,
                &format!(
                    "[global]\nspin = \"20us\"\n{changed}[listener.b.limit]\nmax_concurrent = 3\n"
                )
            )
            .iter()
            .filter(|line| !line.contains("limit") || line.contains("max_concurrent"))
            .collect::<Vec<_>>(),
            [
                "global: spin = \"20us\" (was \"0s\")",
                "listener b: idle_timeout = \"5m\" (was \"10m\")",
                "listener b: keepalive.idle = \"9s\" (was \"1m\")",
                "listener b: limit.max_concurrent = 3 (was not set)",
                "backend p/127.0.0.1:4: weight = 7 (was 1)",
                "backend p/127.0.0.1:6 added",
            ]
        );
        let gone = said(&changed, &old);
        assert!(gone.contains(&"backend p/127.0.0.1:6 removed".to_owned()), "{gone:?}");
        let renamed = said(&old, &old.replace("[listener.b]", "[listener.c]"));
        assert_eq!(renamed, ["listener c added", "listener b removed"]);
    }

    // If this fails, one more entry of a long list fills the log with all of them.
    #[test]
    fn of_a_long_list_the_changes_are_shown() {
        let list = |numbers: std::ops::Range<u8>| {
            let entries: Vec<String> =
                numbers.map(|last| format!("\"10.0.0.{last}/32\"")).collect();
            format!("{LISTENERS}{P}{Q}").replace(
                "[listener.b]\n",
                &format!("[listener.b]\nallow = [{}]\n", entries.join(", ")),
            )
        };
        assert_eq!(
            said(&list(1..20), &list(2..21)),
            ["listener b: allow has 19 entries (was 19): added 1 (\"10.0.0.20/32\"), removed 1 \
              (\"10.0.0.1/32\")"]
        );
        let said = said(&list(1..2), &list(1..20));
        assert!(said[0].contains("added 18 (\"10.0.0.2/32\", "), "{said:?}");
        assert!(said[0].ends_with(", ...), removed 0"), "{said:?}");
    }
}
