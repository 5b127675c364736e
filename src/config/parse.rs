//! Text to a [`Config`], or to every problem that is in the way.
//!
//! Only TOML's own grammar stops at its first error; from there on each table is read to its end
//! whatever was wrong before, so that one run of `check` shows everything there is to fix.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use crate::policy::terms::Address;

use super::backend::{compare_with_admin, compare_with_binds};
use super::between::{compare_clients, compare_hashes, lint_first_words, warn_unused};
use super::bind::{compare_admin_socket, compare_binds};
use super::file::{Section, Value, shown};
use super::gate::check_gates;
use super::key::KeyTable;
use super::key_path::KeyPath;
use super::keys::{self, DEFAULTS, FILE};
use super::lints::{lint_listener, lint_pool};
use super::listener::{LISTENER, listener};
use super::model::Config;
use super::name::check_name;
use super::pool::{POOL, pool};
use super::problem::{Problem, Severity};
use super::process::{ADMIN, GLOBAL, admin, global};
use super::report::{FilePlace, Finding, Interfaces, Report};
use super::spots::Spots;
use super::suggest::{foreign_key, nearest};
use super::unknown::refuse_unknown;
use super::without_port::{Surroundings, compare_without_port};

/// Names of the tables a file consists of, as messages show them.
const TOP: &[(&str, &str)] = &[
    ("global", "[global]"),
    ("admin", "[admin]"),
    ("defaults", "[defaults]"),
    ("listener", "[listener.NAME]"),
    ("pool", "[pool.NAME]"),
];

/// What became of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The configuration; present exactly when no problem is an error.
    pub config: Option<Config>,
    /// Errors and warnings in the order of the file.
    pub problems: Vec<Problem>,
    pub(super) file: String,
    pub(super) spots: Spots,
}

impl Parsed {
    /// Adds a warning about the host, placed at `key`, in `[defaults]` too, or at the table around
    /// it when the file does not have it.
    pub fn warn(&mut self, key: &KeyPath, message: impl Into<String>, hint: impl Into<String>) {
        self.add(Severity::Warning, key, message.into(), hint.into());
    }

    /// Adds an error that only the host could tell, such as a port in use, placed as by
    /// [`Self::warn`]; the configuration is refused from then on.
    pub fn refuse(&mut self, key: &KeyPath, message: impl Into<String>, hint: impl Into<String>) {
        self.add(Severity::Error, key, message.into(), hint.into());
        self.config = None;
    }

    fn add(&mut self, severity: Severity, key: &KeyPath, message: String, hint: String) {
        let spot = self.spots.find(key.as_str()).cloned();
        self.problems.push(Problem {
            severity,
            file: self.file.clone(),
            line: spot.as_ref().map_or(1, |spot| spot.line),
            column: spot.as_ref().map_or(1, |spot| spot.column),
            key: key.to_string(),
            message,
            expected: String::new(),
            hint,
            span: spot.map(|spot| spot.span),
            related: None,
        });
    }
}

/// Parses a text; `file` only names it in problems. No address in it may name an interface.
pub fn parse(text: &str, file: &Path) -> Parsed {
    parse_on_host(text, file, |_| None)
}

/// Parses a text whose addresses may name the interfaces of this host.
pub(super) fn parse_on_host(text: &str, file: &Path, interfaces: Interfaces) -> Parsed {
    let name = file.display().to_string();
    let mut report = Report::new(text, name.clone()).with_interfaces(interfaces);
    let (root, errors) = DeTable::parse_recoverable(text);
    let first = errors.iter().min_by_key(|error| error.span().map_or(0, |span| span.start));
    let mut spots = Spots::default();
    let config = match first {
        Some(error) => {
            report_syntax(error, &mut report);
            None
        }
        None => {
            let root = root.into_inner();
            spots = Spots::of(&root, &report);
            Some(document(&Section::root(&root, &FILE), &mut report))
        }
    };
    let config = config.filter(|_| !report.has_errors());
    Parsed { config, problems: report.finish(), file: name, spots }
}

/// The control socket that a text names, whatever is wrong with the rest of it: `reload` of a
/// broken file has to reach the process that would say what is broken. `None` is the default.
///
/// # Errors
/// In words, when the text may mean a socket and does not tell which. The default cannot take its
/// place: another process may answer there.
pub fn admin_socket(text: &str) -> Result<Option<PathBuf>, String> {
    let (root, broken) = DeTable::parse_recoverable(text);
    let Some(admin) = root.get_ref().get("admin") else {
        // What is broken may be the line that opens [admin].
        return if broken.is_empty() { Ok(None) } else { Err("it is no TOML".to_owned()) };
    };
    let Some(admin) = admin.get_ref().as_table() else {
        return Err("[admin] is no table".to_owned());
    };
    if let Some(socket) = admin.get("socket") {
        let path = socket.get_ref().as_str().map(PathBuf::from);
        return path.map(Some).ok_or_else(|| "`socket` of [admin] is no string".to_owned());
    }
    if let Some(name) = admin.keys().find(|name| ADMIN.find(name.get_ref()).is_none()) {
        return Err(format!(
            "[admin] has no `socket`, but an unknown key `{}`",
            shown(name.get_ref())
        ));
    }
    if broken.is_empty() { Ok(None) } else { Err("its [admin] may be broken".to_owned()) }
}

/// Reports what TOML itself does not accept.
fn report_syntax(error: &toml::de::Error, report: &mut Report<'_>) {
    let span = error.span().unwrap_or(0..0);
    let (message, expected) = match error.message().split_once(", expected ") {
        Some((message, expected)) => (message, expected),
        None => (error.message(), ""),
    };
    let written = report.source(&span);
    let finding = match message {
        "duplicate key" => Finding::new(format!("`{}` is given twice", shown(written)))
            .hint("keep one of them; a table may be opened only once"),
        "string values must be quoted" => {
            Finding::new(format!("`{}` needs quotes", shown(written)))
                .expected("a string in quotes, a number, true or false")
                .hint(format!("write \"{}\"", shown(written)))
        }
        "missing comma between array elements" => {
            Finding::new("a comma or the end of the array is missing")
                .expected("`,` or `]`")
                .hint("put `,` between entries and `]` after the last")
        }
        "recursion limit" => Finding::new("this is nested too deeply")
            .hint("the deepest key of a file is `listener.NAME.limit.key.v4`"),
        _ => Finding::new(message).expected(if expected == "nothing" { "" } else { expected }),
    };
    report.error(&FilePlace { span, path: String::new() }, finding);
}

/// The named tables of one kind.
type Named<'t> = Vec<(String, Section<'t>)>;

/// The tables of a file, opened but not read.
#[derive(Default)]
struct Tables<'t> {
    global: Option<Section<'t>>,
    admin: Option<Section<'t>>,
    defaults: Option<Section<'t>>,
    listeners: Named<'t>,
    pools: Named<'t>,
    has_strangers: bool,
}

impl<'t> Tables<'t> {
    fn all(&self) -> impl Iterator<Item = &Section<'t>> {
        let single = [&self.global, &self.admin, &self.defaults];
        let named = self.listeners.iter().chain(&self.pools);
        single.into_iter().flatten().chain(named.map(|(_, section)| section))
    }
}

/// Reads a whole document.
fn document(root: &Section<'_>, report: &mut Report<'_>) -> Config {
    let mut tables = open_tables(root, report);
    let names: Vec<String> = tables.pools.iter().map(|(name, _)| name.clone()).collect();
    if let Some(defaults) = &mut tables.defaults {
        defaults.partial = true;
    }
    for section in tables.all() {
        refuse_unknown(section, report);
    }
    if let Some(defaults) = &tables.defaults {
        listener("", &defaults.as_partial(&LISTENER), &names, report);
        pool("", &defaults.as_partial(&POOL), report);
    }
    let (admin, http_place) = admin(tables.admin.as_ref(), report);
    let absent = Section::absent(&GLOBAL);
    let mut config = Config {
        global: global(tables.global.as_ref().unwrap_or(&absent), report),
        admin,
        listeners: Vec::new(),
        pools: Vec::new(),
    };
    let mut binds = Vec::new();
    for (name, section) in &tables.listeners {
        let section = section.clone().over(tables.defaults.as_ref());
        let (read, bound) = listener(name, &section, &names, report);
        lint_listener(&read, &section, report);
        check_gates(&read, &section, report);
        config.listeners.push(read);
        binds.extend(bound);
    }
    let http = config.admin.http.map(|it| Address::Ip(it).into()).zip(http_place.as_ref());
    compare_binds(&binds, http, report);
    compare_admin_socket(&binds, &config.admin.socket, report);
    for (index, (name, section)) in tables.pools.iter().enumerate() {
        let section = section.clone().over(tables.defaults.as_ref());
        let (mut read, members) = pool(name, &section, report);
        lint_pool(&read, &section, &members, report);
        compare_with_binds(&members, &binds, report);
        compare_with_admin(&members, &config.admin, report);
        if members.iter().any(|member| member.backend.address.is_without_port()) {
            let Config { listeners, admin, .. } = &config;
            let around = Surroundings::of_pool(index, listeners, &binds, admin.http);
            compare_without_port(&mut read, &section, &members, &around, report);
        }
        config.pools.push(read);
    }
    if config.listeners.is_empty() && !(tables.has_strangers && report.has_errors()) {
        let finding = Finding::new("there is no listener, so there is nothing to do")
            .expected("at least one [listener.NAME] and one [pool.NAME]");
        report.error_in_file("listener", finding);
    }
    compare_hashes(&config.listeners, &config.pools, &binds, report);
    compare_clients(&config.listeners, &config.pools, &binds, report);
    for (listener, (_, section)) in config.listeners.iter().zip(&tables.listeners) {
        let section = section.clone().over(tables.defaults.as_ref());
        lint_first_words(listener, &section, &config.pools, report);
    }
    let headers: Vec<FilePlace> = tables.pools.iter().map(|(_, pool)| pool.header()).collect();
    warn_unused(&config.listeners, &config.pools, &headers, report);
    config
}

/// Sorts the top of the file into tables; reports what does not belong there.
fn open_tables<'t>(root: &Section<'t>, report: &mut Report<'_>) -> Tables<'t> {
    let mut tables = Tables::default();
    for (value, key) in root.entries() {
        let place = FilePlace { span: key, path: value.place.path.clone() };
        let section = |table| Section::of(&value, table);
        match (value.name.as_str(), section(&FILE)) {
            ("global", Some(_)) => tables.global = section(&GLOBAL),
            ("admin", Some(_)) => tables.admin = section(&ADMIN),
            ("defaults", Some(_)) => tables.defaults = section(&DEFAULTS),
            ("listener", Some(parent)) => {
                tables.listeners = named(&LISTENER, &parent, report);
                tables.has_strangers |= tables.listeners.is_empty();
            }
            ("pool", Some(parent)) => tables.pools = named(&POOL, &parent, report),
            _ => {
                tables.has_strangers = true;
                report.error(&place, stranger(&value));
            }
        }
    }
    tables
}

/// The tables `[KIND.NAME]`, in the order of the file.
fn named<'t>(table: &'static KeyTable, parent: &Section<'t>, report: &mut Report<'_>) -> Named<'t> {
    let kind = if table.is(&LISTENER) { "listener" } else { "pool" };
    let mut tables = Vec::new();
    let mut has_nameless = false;
    for (value, key) in parent.entries() {
        let place = FilePlace { span: key, path: value.place.path.clone() };
        let Some(section) = Section::of(&value, table) else {
            let name = shown(&value.name);
            let finding = Finding::new(format!("`{name}` is in a {kind} without a name"))
                .expected(format!("a table [{kind}.NAME] around it"))
                .hint(format!(
                    "write `[{kind}.main]` above it (any name will do), or `[defaults]` if it \
                     concerns every {kind}"
                ));
            if !has_nameless {
                report.error(&place, finding);
            }
            has_nameless = true;
            continue;
        };
        if check_name(&value.name, &place, report) {
            tables.push((value.name, section));
        }
    }
    tables
}

/// What to say about a key at the top of the file that is none of its tables.
fn stranger(value: &Value<'_>) -> Finding {
    let name = value.name.as_str();
    let word = shown(name);
    let is_table = matches!(value.data, DeValue::Table(_));
    let is_array_of_tables = matches!(value.data, DeValue::Array(array)
        if array.iter().any(|element| matches!(element.get_ref(), DeValue::Table(_))));
    let expected = "one of [global], [admin], [defaults], [listener.NAME], [pool.NAME]";
    if let Some((_, table)) = TOP.iter().find(|(known, _)| *known == name) {
        let finding = Finding::new(format!("`{word}` must be a table"));
        let finding = finding.expected(format!("a table {table}"));
        return if is_array_of_tables && table.ends_with("NAME]") {
            finding.hint(format!("write `[{name}.main]` instead of `[[{name}]]`; any name will do"))
        } else {
            finding
        };
    }
    let homes: Vec<String> = keys::tables_with(name).map(|table| table.to_string()).collect();
    let known = || TOP.iter().map(|(known, _)| *known);
    let foreign = foreign_key(name).iter().copied().find(|ours| known().any(|it| it == *ours));
    let near = foreign.or_else(|| nearest(name, known()));
    let near = near.and_then(|near| TOP.iter().find(|(known, _)| *known == near));
    let finding = if is_table || is_array_of_tables {
        Finding::new(format!("unknown table `{word}`")).expected(expected)
    } else {
        Finding::new(format!("`{word}` is outside of any table")).expected(format!(
            "a table such as {} above it",
            homes.first().map_or("[global]", |home| home)
        ))
    };
    if is_table && homes.iter().any(|home| home.starts_with('[')) {
        let homes: Vec<String> =
            homes.iter().map(|home| format!("{}.{word}]", home.trim_end_matches(']'))).collect();
        finding.hint(format!("did you mean {}?", super::file::join_or(&homes)))
    } else if !homes.is_empty() {
        finding.hint(format!("`{word}` belongs in {}", super::file::join_or(&homes)))
    } else if let Some((_, table)) = near {
        finding.hint(format!("did you mean {table}?"))
    } else {
        finding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it fails, `reload` of a broken file does not reach the process that would say what is
    /// broken.
    #[test]
    fn a_broken_text_still_names_its_socket() {
        let broken = "[admin]\nsocket = \"/a.sock\"\n[pool.x]\nbackends = [oops\n";
        assert_eq!(admin_socket(broken), Ok(Some(PathBuf::from("/a.sock"))));
        assert_eq!(admin_socket("[pool.x]\nnonsense = 1\n"), Ok(None));
        assert_eq!(admin_socket("[admin]\nhttp = \"127.0.0.1:9\"\n"), Ok(None));
    }

    /// If it fails, a verb for a process whose file has a slip reaches another one, and it obeys.
    #[test]
    fn a_text_that_does_not_tell_its_socket_is_not_taken_for_the_default() {
        let unclear = [
            "[pool.x]\nbackends = [oops\n",
            "[admin\nsocket = \"/a.sock\"\n",
            "[admin]\nsocket = 1\n",
            "[admin]\nsockte = \"/a.sock\"\n",
            "[admin]\nsocket \"/a.sock\"\n",
            "admin = 1\n",
        ];
        for text in unclear {
            assert!(admin_socket(text).is_err(), "{text}");
        }
    }
}
