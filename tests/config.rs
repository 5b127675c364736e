//! Configuration files as an operator meets them: what is accepted, and every message in full.
//!
//! Each file of `config/invalid` has the rendered problems beside it in `NAME.expected`, and so
//! has each file of `config/valid` that warns. `UPDATE_EXPECTED=1 cargo test --test config` writes
//! them anew: read the difference as an operator would before committing it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use evenkeel::config::{self, Config, KeyPath, Parsed, keys, render};
use proptest::prelude::*;

/// The `.toml` files of a directory of the repository, sorted.
fn files(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let entries = fs::read_dir(&directory).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    assert!(!files.is_empty(), "no files in {}", directory.display());
    files
}

/// Parses a file under its bare name, so that messages do not depend on where the sources are.
fn parse(file: &Path) -> (Parsed, String) {
    let text = fs::read_to_string(file).unwrap();
    let name = Path::new(file.file_name().unwrap());
    (config::parse(&text, name), text)
}

/// Compares what is shown with the file beside it, or rewrites that file.
fn compare(file: &Path, shown: &str, wrong: &mut Vec<String>) {
    let beside = file.with_extension("expected");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        if shown.is_empty() {
            let _ = fs::remove_file(&beside);
        } else {
            fs::write(&beside, shown).unwrap();
        }
        return;
    }
    let expected = fs::read_to_string(&beside).unwrap_or_default();
    if expected != shown {
        let name = beside.display();
        wrong.push(format!("{name}\n--- expected\n{expected}\n--- shown\n{shown}"));
    }
}

fn parse_text(text: &str) -> Parsed {
    config::parse(text, Path::new("evenkeel.toml"))
}

fn config_of(file: &Path) -> Config {
    let (parsed, text) = parse(file);
    let shown = render(&parsed.problems, &text, false);
    parsed.config.unwrap_or_else(|| panic!("{} is refused:\n{shown}", file.display()))
}

/// If it fails, a broken file is accepted, or its message is not the one that was agreed on.
#[test]
fn invalid_files_show_the_expected_message() {
    let files = files("tests/config/invalid");
    assert!(files.len() >= 40, "only {} cases", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let (parsed, text) = parse(&file);
        if parsed.config.is_some() {
            wrong.push(format!("{} is accepted", file.display()));
        }
        compare(&file, &render(&parsed.problems, &text, false), &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// If it fails, a good file is refused, or its warnings are not those that were agreed on.
#[test]
fn valid_files_are_accepted_with_the_expected_warnings() {
    let mut wrong = Vec::new();
    for file in files("tests/config/valid") {
        let (parsed, text) = parse(&file);
        let shown = render(&parsed.problems, &text, false);
        let name = file.file_name().unwrap().to_string_lossy();
        if parsed.config.is_none() || name.starts_with("warns_") == shown.is_empty() {
            wrong.push(format!("{name} shows:\n{shown}"));
        }
        compare(&file, &shown, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// If it fails, an editor jumps to another place than the one a person is shown.
#[test]
fn line_and_column_agree_with_what_is_shown() {
    for file in files("tests/config/invalid") {
        let (parsed, text) = parse(&file);
        for problem in &parsed.problems {
            let shown = render(std::slice::from_ref(problem), &text, false);
            let place = format!("{}:{}:{}", problem.file, problem.line, problem.column);
            let unplaced = problem.key == "listener" && problem.line == 1;
            assert!(shown.contains(&place) || unplaced, "no {place} in\n{shown}");
        }
    }
}

/// If it fails, an operator is told what is wrong but not what would be right.
#[test]
fn every_problem_says_what_to_do() {
    for file in files("tests/config/invalid") {
        let (parsed, text) = parse(&file);
        for problem in &parsed.problems {
            let shown = render(std::slice::from_ref(problem), &text, false);
            assert!(!(problem.expected.is_empty() && problem.hint.is_empty()), "{shown}");
        }
    }
}

/// If it fails, a file that is shipped as an example does not work as it stands.
#[test]
fn shipped_files_have_no_problem() {
    for file in files("configs") {
        let (parsed, text) = parse(&file);
        let shown = render(&parsed.problems, &text, false);
        assert!(parsed.problems.is_empty(), "{}:\n{shown}", file.display());
    }
}

/// If it fails, `full.toml` hides a key from the operator, or shows one that does not work.
#[test]
fn full_toml_names_every_key() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/full.toml"));
    let text = text.unwrap();
    let mut named = BTreeSet::new();
    let mut inside = String::new();
    for line in text.lines() {
        let line = line.trim_start_matches(['#', ' ', '{']);
        if let Some(table) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            inside =
                table.trim_start_matches('[').split('.').step_by(2).collect::<Vec<_>>().join(".");
        }
        for part in line.split(['{', ',']) {
            if let Some((key, _)) = part.split_once('=') {
                named.insert((inside.clone(), key.trim().to_owned()));
            }
        }
    }
    for (table, key) in keys::all() {
        // The table with a header of its own in which it stands.
        let inside = match table.title.rsplit_once('[') {
            Some((_, header)) => header.trim_end_matches(']'),
            None => "pool.NAME",
        };
        let inside = inside.split('.').step_by(2).collect::<Vec<_>>().join(".");
        let has_header = key.shape.table().is_some_and(|table| table.title.starts_with('['));
        let wanted = (inside, key.name.to_owned());
        assert!(has_header || named.contains(&wanted), "full.toml lacks {} of {table}", key.name);
    }
}

/// The cells of a row of a table of Markdown.
fn cells(line: &str) -> Option<Vec<&str>> {
    let row = line.strip_prefix("| `")?.strip_suffix('|')?;
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    (cells.len() == 6).then_some(cells)
}

/// If it fails, the documentation says another type, default, bound or meaning than the one that
/// counts. `UPDATE_EXPECTED=1` writes every column but the meaning.
#[test]
fn the_documentation_agrees_with_the_table_of_keys() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = fs::read_to_string(&file).unwrap();
    let (mut written, mut wrong, mut seen) = (String::new(), Vec::new(), 0);
    let mut heading = "";
    for line in text.lines() {
        if line.starts_with('#') {
            heading = line.trim_start_matches('#').trim();
        }
        let row = cells(line).and_then(|cells| {
            let name = cells[0].trim_end_matches('`');
            let table = keys::tables().into_iter().find(|table| table.title == heading)?;
            Some((cells, table.keys.iter().find(|key| key.name == name)?))
        });
        let Some((cells, key)) = row else {
            written.push_str(line);
            written.push('\n');
            continue;
        };
        seen += 1;
        let [kind, default, bounds] = [key.type_cell(), key.default_cell(), key.bounds_cell()];
        let expected = [kind.as_str(), &default, &bounds, cells[4], key.reload];
        if cells[1..] != expected || !cells[4].starts_with(key.meaning) {
            let (name, meaning) = (key.name, key.meaning);
            wrong.push(format!("{name} of {heading}: {expected:?}, {meaning}\n{cells:?}"));
        }
        let row = format!("| `{}` | {} |\n", key.name, expected.join(" | "));
        written.push_str(&row.replace("|  |", "| |"));
    }
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&file, written).unwrap();
        return;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(seen, keys::all().count());
}

/// If it fails, a key depends on others and its documentation does not say on which.
#[test]
fn the_documentation_says_beside_what_a_key_counts() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = fs::read_to_string(file).unwrap();
    for (_, key) in keys::all() {
        let row = format!("| `{}` | {} |", key.name, key.type_cell());
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(&row)).collect();
        for companion in key.companions {
            let named: &[&str] = match companion.values {
                keys::Values::Among(["true"]) | keys::Values::Any => &[companion.key],
                keys::Values::Among(words) | keys::Values::Except(words) => words,
            };
            let says = |line: &&&str| named.iter().all(|word| line.contains(word));
            assert!(lines.iter().any(|line| says(&line)), "{} beside {named:?}", key.name);
        }
    }
}

/// If it fails, the defaults of `full.toml` are not the defaults.
#[test]
fn full_toml_shows_the_defaults() {
    let mut full = config_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/full.toml"));
    let small = "[listener.db]\nbind = [\"0.0.0.0:5432\"]\npool = \"pg\"\n\
                 limit = { rate = \"100/s\" }\n\
                 [pool.pg]\nbackends = [\"10.0.0.11:5432\", \"10.0.0.12:5432\"]\nhealth = {}\n\
                 outlier = {}\n";
    let small = parse_text(small).config.unwrap();
    full.admin.socket_required = false;
    for (pool, other) in full.pools.iter_mut().zip(&small.pools) {
        pool.backends.clone_from(&other.backends);
    }
    assert_eq!(full, small);
}

/// If it fails, `evenkeel config` prints another configuration than the one that runs.
#[test]
fn the_effective_configuration_parses_to_itself() {
    for file in files("tests/config/valid").into_iter().chain(files("configs")) {
        let config = config_of(&file);
        let text = config.to_toml();
        let again = parse_text(&text);
        let shown = render(&again.problems, &text, false);
        assert_eq!(again.config.as_ref(), Some(&config), "{}:\n{text}\n{shown}", file.display());
    }
}

/// If it fails, a file is accepted whose probes can never be sent, or a good path is refused.
#[test]
fn probe_paths_are_those_that_can_be_requested() {
    use axum::http::uri::PathAndQuery;
    let mut paths: Vec<String> = vec!["/".into(), "/a?".into(), "/é".into(), "/a b".into()];
    for letter in (b' '..=b'~').map(char::from) {
        paths.extend([format!("/a{letter}b"), format!("/a?b{letter}c"), format!("/a?b?{letter}")]);
    }
    for path in paths {
        let text = format!(
            "[listener.l]\nbind = [\"127.0.0.1:1\"]\npool = \"p\"\n[pool.p]\n\
             backends = [\"127.0.0.1:2\"]\nhealth = {{ probe = \"http\", path = '''{path}''' }}\n"
        );
        let is_accepted = parse_text(&text).config.is_some();
        // A fragment would be cut off, and what is not ASCII sent raw.
        let sent = PathAndQuery::try_from(path.as_str());
        let is_sent = path.is_ascii() && sent.is_ok_and(|sent| sent.as_str() == path);
        assert_eq!(is_accepted, is_sent, "{path}");
    }
}

/// If it fails, a table does not inherit what `[defaults]` gives, key by key.
#[test]
fn defaults_are_inherited_and_overridden() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/valid/defaults.toml");
    let config = config_of(&file);
    let [first, second] = config.listeners.as_slice() else { panic!("two listeners") };
    assert_eq!(first.terms.idle_timeout.as_secs(), 3600);
    assert_eq!(second.terms.idle_timeout.as_secs(), 300);
    assert_eq!((first.terms.keepalive.idle.as_secs(), first.terms.keepalive.count), (30, 9));
    assert_eq!(first.limits.first().map(|limit| limit.burst), Some(50));
    assert_eq!(second.limits.first().map(|limit| limit.burst), Some(10));
    let path = |index: usize| match &config.pools[index].health.as_ref().unwrap().probe {
        config::Probe::Http { path, .. } => path.clone(),
        _ => panic!("an HTTP probe"),
    };
    assert_eq!((path(0).as_str(), path(1).as_str()), ("/healthz", "/ready"));
}

/// If it fails, a listener or a pool cannot be taken out of what `[defaults]` gives to all.
#[test]
fn defaults_can_be_switched_off() {
    let valid = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/valid");
    let config = config_of(&valid.join("defaults_switched_off.toml"));
    let limits: Vec<bool> = config.listeners.iter().map(|one| !one.limits.is_empty()).collect();
    let probes: Vec<bool> = config.pools.iter().map(|pool| pool.health.is_some()).collect();
    assert_eq!((limits, probes), (vec![true, false], vec![true, false]));
}

/// If it fails, something that `[defaults]` gives to all cannot be taken back in one place.
#[test]
fn every_key_that_defaults_give_can_be_taken_back() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = file.join("tests/config/valid/defaults_taken_back.toml");
    let config = config_of(&file);
    let bare = "[listener.none]\nbind = [\"0.0.0.0:2\"]\npool = \"none\"\n\
                limit = { rate = \"10/s\" }\nbandwidth = { down = \"2MiB/s\" }\n\
                [pool.none]\nhealth = { probe = \"http\" }\n\
                backends = [{ address = \"10.0.0.11:5432\", max_sessions = 1 }]\n";
    let bare = parse_text(bare).config.unwrap();
    let mut listener = config.listeners[1].clone();
    listener.pool = 0;
    assert_eq!((&listener, &config.pools[1]), (&bare.listeners[0], &bare.pools[0]));
    assert!(config.listeners[0] != listener && config.pools[0] != bare.pools[0]);
    // The file above has each of them once.
    let text = fs::read_to_string(file).unwrap();
    for key in [keys::FILE.find("listener"), keys::FILE.find("pool")] {
        let table = key.and_then(|key| key.shape.table()).unwrap();
        for key in table.keys.iter().filter(|key| key.can_be_off()) {
            let is_list_or_table = matches!(key.name, "route" | "health" | "limit" | "bandwidth");
            let line = format!("\n{} = false\n", key.name);
            assert!(is_list_or_table || text.contains(&line), "{}", key.name);
        }
    }
}

/// If it fails, a file that cannot be read gives no useful message.
#[test]
fn unreadable_files_are_one_problem() {
    let directory = tempfile::tempdir().unwrap();
    let (parsed, text) = config::load(&directory.path().join("missing.toml"));
    let shown = render(&parsed.problems, &text, false);
    assert!(shown.contains("missing.toml: No such file"), "{shown}");
    assert!(shown.contains("-c FILE"), "{shown}");
    let file = directory.path().join("latin1.toml");
    fs::write(&file, b"# one\n# caf\xe9\n").unwrap();
    let (parsed, text) = config::load(&file);
    let shown = render(&parsed.problems, &text, false);
    assert!(parsed.config.is_none());
    assert!(shown.contains("not UTF-8 (line 2)"), "{shown}");
}

/// If it fails, a warning about the host points at the wrong line.
#[test]
fn warnings_of_the_caller_are_placed() {
    let text = "[global]\nmax_sessions = 5\n\n[listener.db]\nbind = [\"0.0.0.0:1\"]\npool = \"p\"\n\
                [pool.p]\nbackends = [\"10.0.0.1:1\"]\n";
    let mut parsed = parse_text(text);
    let global = KeyPath::table("global");
    parsed.warn(&global.key("max_sessions"), "too many", "raise LimitNOFILE");
    parsed.warn(&global.key("workers"), "too many", "fewer");
    parsed.warn(&KeyPath::listener("db").key("bind").item(7), "odd", "");
    parsed.warn(&KeyPath::table("admin").key("socket"), "odd", "");
    let places: Vec<(u32, u32)> =
        parsed.problems.iter().map(|problem| (problem.line, problem.column)).collect();
    assert_eq!(places, [(2, 16), (1, 1), (5, 8), (1, 1)]);
    assert!(parsed.config.is_some());
    assert!(render(&parsed.problems, text, false).contains("warning: too many"));
}

/// If it fails, a problem of a listener or pool with an odd name, or of what `[defaults]` gives it,
/// points at the wrong line.
#[test]
fn problems_of_quoted_names_are_placed() {
    let text = "[defaults.health]\nca = \"/x.pem\"\n\n\
                [listener.\"a.b[0]\"]\nbind = [\"0.0.0.0:1\"]\npool = \"p.q\"\nbacklog = 0\n\n\
                [pool.\"p.q\"]\nbackends = [\"10.0.0.1:1\", \"10.0.0.2:1\"]\n";
    let mut parsed = parse_text(text);
    let [backlog] = parsed.problems.as_slice() else { panic!("{:?}", parsed.problems) };
    assert_eq!((backlog.line, backlog.key.as_str()), (7, "listener.\"a.b[0]\".backlog"));
    parsed.problems.clear();
    let (listener, pool) = (KeyPath::listener("a.b[0]"), KeyPath::pool("p.q"));
    for key in [
        listener.key("bind").item(0),
        listener.key("max_sessions"),
        pool.key("backends").item(1),
        pool.key("source").item(3),
        pool.key("health").key("ca"),
    ] {
        parsed.warn(&key, "odd", "");
    }
    let places: Vec<(u32, u32)> =
        parsed.problems.iter().map(|problem| (problem.line, problem.column)).collect();
    assert_eq!(places, [(5, 9), (4, 1), (10, 27), (9, 1), (2, 6)]);
}

/// Replaces, removes or inserts a few bytes of a text, on character borders.
fn mutate(text: &str, edits: &[(usize, usize, String)]) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    for (at, length, insert) in edits {
        let start = at % (letters.len() + 1);
        let end = (start + length).min(letters.len());
        letters.splice(start..end, insert.chars());
    }
    letters.into_iter().collect()
}

/// Parses and shows a text; both must survive anything.
fn survive(text: &str) {
    let parsed = parse_text(text);
    let shown = render(&parsed.problems, text, false);
    assert_eq!(parsed.config.is_none(), shown.contains("error: "), "{shown}");
    if let Some(config) = parsed.config {
        assert_eq!(parse_text(&config.to_toml()).config, Some(config));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// If it fails, a text can crash the program that reads it.
    #[test]
    fn arbitrary_text_never_panics(text in "[\\PC\\r\\n\\t\\x00\\u{feff}\\[\\]={}\"'.,#]{0,80}") {
        survive(&text);
    }

    /// If it fails, a slip in a good file can crash the program that reads it.
    #[test]
    fn mutated_files_never_panic(
        index in 0_usize..1000,
        edits in prop::collection::vec(
            (0_usize..5000, 0_usize..12, "[a-z0-9\\[\\]={}\"'.,#\\n é\\-/:%]{0,6}"),
            1..4,
        ),
    ) {
        let mut all = files("tests/config/valid");
        all.extend(files("tests/config/invalid"));
        let text = fs::read_to_string(&all[index % all.len()]).unwrap();
        survive(&mutate(&text, &edits));
    }
}
