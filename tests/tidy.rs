//! House rules that no compiler and no lint holds: who imports whom, where `unsafe` may be, sizes,
//! names. CONTRIBUTING.md tells the reasons. Each checker is tried on bad snippets as well, so that
//! a rule cannot stop working unnoticed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a source file without its unit tests, and of a `mod.rs`.
const FILE_LINES_MAX: usize = 600;
const MOD_LINES_MAX: usize = 150;
/// Lines of a program in Python.
const PYTHON_LINES_MAX: usize = 400;
const COLUMNS_MAX: usize = 100;

/// What each part of the crate may import of the others.
const IMPORTS: &[(&str, &[&str])] = &[
    ("main", &["cli", "config", "control"]),
    ("cli", &["config", "control"]),
    ("control", &["config", "dataplane", "policy", "shared", "sys"]),
    ("dataplane", &["policy", "shared", "sys"]),
    ("shared", &["policy"]),
    ("config", &["policy"]),
    ("policy", &[]),
    ("sys", &[]),
];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] =
    &["util", "utils", "common", "misc", "helper", "helpers", "manager", "data"];

/// Crates that the data plane must not know: no runtime, no HTTP, no TLS, no configuration.
const NOT_IN_DATAPLANE: &[&str] = &[
    "tokio",
    "toml",
    "serde",
    "serde_json",
    "axum",
    "hyper",
    "hyper_util",
    "rustls",
    "clap",
    "tracing",
];

/// What makes a decision impossible to replay.
const NOT_IN_PURE_CODE: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "fastrand",
    "RandomState::new",
    "RandomState::default",
    "std::env",
    "std::fs",
    "TcpStream",
    "TcpListener",
];

/// A file, by its path from the root of the repository.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap()
    }

    /// `policy` of `src/policy/hash.rs`, `main` of `src/main.rs`.
    fn part(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        Some(inside.split('/').next().unwrap().trim_end_matches(".rs"))
    }

    /// Without the unit tests at its end.
    fn without_tests(&self) -> &str {
        if self.name() == "tests.rs" {
            return "";
        }
        let tests = self.text.find("\nmod tests");
        let attribute = tests.and_then(|end| self.text[..=end].rfind("\n#[cfg(test)]\n"));
        attribute.map_or(&self.text, |start| &self.text[..=start])
    }

    /// What the compiler acts on: no comments, no contents of strings, no unit tests.
    fn code(&self) -> String {
        code(self.without_tests())
    }

    fn says(&self, line: usize, what: &str) -> String {
        format!("{}:{}: {what}", self.path, line + 1)
    }
}

/// Blanks out comments and the contents of strings; keeps lines where they are.
fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = comment(rest).or_else(|| string(rest)).unwrap_or_else(|| {
            out.push(first);
            first.len_utf8()
        });
        if length > first.len_utf8() {
            out.extend(rest[..length].chars().filter(|character| *character == '\n'));
        }
        rest = &rest[length..];
    }
    out
}

/// Length of the comment that `text` begins with.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    let inside = text.strip_prefix("/*")?;
    Some(inside.find("*/").map_or(text.len(), |end| end + 4))
}

/// Length of the string or of the quoted quotation mark that `text` begins with.
fn string(text: &str) -> Option<usize> {
    for quoted in ["'\"'", "'\\\"'"] {
        if text.starts_with(quoted) {
            return Some(quoted.len());
        }
    }
    if let Some(hashes) = text.strip_prefix('r').filter(|rest| rest.starts_with(['#', '"'])) {
        let count = hashes.len() - hashes.trim_start_matches('#').len();
        let inside = hashes[count..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(count));
        return Some(inside.find(&end).map_or(text.len(), |at| 2 + count + at + end.len()));
    }
    let inside = text.strip_prefix('"')?;
    let mut escaped = false;
    for (at, character) in inside.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at + 2),
            _ => {}
        }
    }
    Some(text.len())
}

/// Whether `word` is in `line` with nothing before or after it that would make it another word.
fn has_word(line: &str, word: &str) -> bool {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(is_word)
            && !line[at + word.len()..].chars().next().is_some_and(is_word)
    })
}

/// Paths into the crate that a line of code names, without `crate::` or `evenkeel::`, one for each
/// name of a `{...}` list.
fn crate_paths(code: &str) -> Vec<(usize, String)> {
    let mut paths = Vec::new();
    for root in ["crate::", "evenkeel::"] {
        for (at, _) in code.match_indices(root) {
            let line = code[..at].matches('\n').count();
            expand(&code[at + root.len()..], "", line, &mut paths);
        }
    }
    paths
}

fn expand(rest: &str, before: &str, line: usize, paths: &mut Vec<(usize, String)>) {
    let is_path = |character: char| character.is_alphanumeric() || "_:".contains(character);
    let end = rest.find(|character| !is_path(character)).unwrap_or(rest.len());
    let path = format!("{before}{}", &rest[..end]);
    let Some(list) =
        rest[end..].strip_prefix('{').filter(|_| path.is_empty() || path.ends_with(':'))
    else {
        paths.push((line, path));
        return;
    };
    let mut depth = 0_usize;
    let mut start = 0;
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                let item = list[start..at].trim();
                if !item.is_empty() {
                    expand(item, &path, line, paths);
                }
                start = at + 1;
                if character == '}' {
                    return;
                }
            }
            _ => {}
        }
    }
}

fn imports(source: &Source) -> Vec<String> {
    let Some(part) = source.part().filter(|part| *part != "lib") else { return Vec::new() };
    let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == part) else {
        return vec![source.says(0, &format!("`{part}` has no place in the import direction"))];
    };
    let mut wrong = Vec::new();
    for (line, path) in crate_paths(&source.code()) {
        let mut segments = path.split("::");
        let target = segments.next().unwrap();
        if target != part && !allowed.contains(&target) {
            wrong.push(source.says(line, &format!("{part} must not import {target}")));
        }
        let inner = segments.next().unwrap_or_default();
        if target == "dataplane" && part == "control" && inner.starts_with(char::is_lowercase) {
            let what = "control sees of the data plane only what its mod.rs exports";
            wrong.push(source.says(line, what));
        }
    }
    wrong
}

fn unsafe_code(source: &Source) -> Vec<String> {
    if source.path.starts_with("src/sys/") {
        return Vec::new();
    }
    let found = lines_with(&code(&source.text), &["unsafe"]);
    found.map(|(line, _)| source.says(line, "`unsafe` is only for src/sys")).collect()
}

fn lines_with(code: &str, words: &[&str]) -> impl Iterator<Item = (usize, String)> + use<> {
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        for word in words.iter().filter(|word| has_word(line, word)) {
            found.push((number, (*word).to_owned()));
        }
    }
    found.into_iter()
}

fn sizes(source: &Source) -> Vec<String> {
    if !source.path.starts_with("src/") {
        return Vec::new();
    }
    let max = if source.name() == "mod.rs" { MOD_LINES_MAX } else { FILE_LINES_MAX };
    let lines = source.without_tests().lines().count();
    if lines <= max {
        return Vec::new();
    }
    let what = format!("{lines} lines without tests, {max} allowed: split it along a noun");
    vec![source.says(max, &what)]
}

fn opening(source: &Source) -> Vec<String> {
    let ours = source.path.starts_with("src/") || source.path.starts_with("tests/");
    if !ours || source.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![source.says(0, "begins without `//!`: say in a sentence what the file is about")]
}

/// A program in Python: its size, and a sentence at its beginning.
fn python(source: &Source) -> Vec<String> {
    let mut wrong = Vec::new();
    let lines = source.text.lines().count();
    if lines > PYTHON_LINES_MAX {
        wrong.push(source.says(PYTHON_LINES_MAX, &format!("{lines} lines")));
    }
    if !source.text.lines().take(2).any(|line| line.starts_with("\"\"\"")) {
        wrong.push(source.says(0, "begins without a docstring"));
    }
    wrong
}

fn columns(source: &Source) -> Vec<String> {
    let long = source.text.lines().enumerate();
    let long = long.filter(|(_, line)| line.chars().count() > COLUMNS_MAX);
    long.map(|(line, _)| source.says(line, &format!("more than {COLUMNS_MAX} columns"))).collect()
}

fn names(source: &Source) -> Vec<String> {
    let empty = source.path.split('/').map(|name| name.trim_end_matches(".rs"));
    let empty = empty.filter(|name| EMPTY_NAMES.contains(name));
    empty.map(|name| source.says(0, &format!("`{name}` does not say what is inside"))).collect()
}

fn unfinished(source: &Source) -> Vec<String> {
    let code = code(&source.text);
    let marks = ["todo!", "unimplemented!", "#[ignore"];
    let lines = code.lines().enumerate();
    let found = lines.flat_map(|(number, line)| {
        marks.iter().filter(|mark| line.contains(**mark)).map(move |mark| (number, *mark))
    });
    found.map(|(line, mark)| source.says(line, &format!("`{mark}` is unfinished work"))).collect()
}

fn dataplane_crates(source: &Source) -> Vec<String> {
    if source.part() != Some("dataplane") {
        return Vec::new();
    }
    let found = lines_with(&source.code(), NOT_IN_DATAPLANE);
    found.map(|(line, name)| source.says(line, &format!("no {name} in the data plane"))).collect()
}

fn pure_code(source: &Source) -> Vec<String> {
    let pure = matches!(source.part(), Some("policy" | "shared" | "config"));
    // `config::load` is the one place of these that reads a file, and says so.
    let reads_files = source.path == "src/config/load.rs";
    if !(pure || source.path.starts_with("src/control/reload/compile")) || reads_files {
        return Vec::new();
    }
    let found = lines_with(&source.code(), NOT_IN_PURE_CODE);
    found.map(|(line, name)| source.says(line, &format!("no {name} in pure code"))).collect()
}

fn machine_paths(source: &Source) -> Vec<String> {
    let homes = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];
    let lines = source.text.lines().enumerate();
    let found = lines.filter(|(_, line)| homes.iter().any(|home| line.contains(home)));
    found.map(|(line, _)| source.says(line, "a path of one particular machine")).collect()
}

/// The files of the repository below `directory`, of those that have `extension`.
fn walk(directory: &Path, extensions: &[&str], sources: &mut Vec<Source>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut entries: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            let skipped = ["target", ".git", "corpus", "found", "artifacts"];
            if !skipped.contains(&name.as_str()) {
                walk(&path, extensions, sources);
            }
        } else if extensions.iter().any(|extension| name.ends_with(extension)) {
            let inside = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            sources.push(Source { path: inside, text: fs::read_to_string(&path).unwrap() });
        }
    }
}

fn sources_of(extensions: &[&str]) -> Vec<Source> {
    let mut sources = Vec::new();
    walk(Path::new(env!("CARGO_MANIFEST_DIR")), extensions, &mut sources);
    sources
}

fn sources(extensions: &[&str]) -> Vec<Source> {
    let sources = sources_of(extensions);
    assert!(sources.len() > 20, "only {} files found", sources.len());
    sources
}

fn hold(rule: fn(&Source) -> Vec<String>) {
    let wrong: Vec<String> = sources(&[".rs"]).iter().flat_map(rule).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// If it fails, the planes meet somewhere else than in `shared`.
#[test]
fn modules_import_in_one_direction() {
    hold(imports);
}

/// If it fails, memory safety depends on more than one directory.
#[test]
fn unsafe_is_only_in_sys() {
    hold(unsafe_code);
}

/// If it fails, a file has taken on a second subject.
#[test]
fn files_are_small() {
    hold(sizes);
}

/// If it fails, somebody has to read a file to learn what it is about.
#[test]
fn every_file_says_what_it_is_about() {
    hold(opening);
}

/// If it fails, rustfmt has given up on a line, or Python has lines that only some can read.
#[test]
fn lines_are_short() {
    hold(columns);
    let wrong: Vec<String> = sources_of(&[".py", ".lua"]).iter().flat_map(columns).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// If it fails, a program in Python has grown out of being read at once.
#[test]
fn programs_in_python_are_small_and_say_what_they_are() {
    let wrong: Vec<String> = sources_of(&[".py"]).iter().flat_map(python).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// If it fails, there is a place where anything fits.
#[test]
fn files_have_telling_names() {
    hold(names);
}

/// If it fails, something is promised and not there.
#[test]
fn nothing_is_unfinished() {
    hold(unfinished);
}

/// If it fails, workers depend on what only the control plane may use.
#[test]
fn the_data_plane_knows_no_runtime_and_no_config() {
    hold(dataplane_crates);
}

/// If it fails, a decision cannot be replayed.
#[test]
fn decisions_read_no_clock_and_no_random_source() {
    hold(pure_code);
}

/// If it fails, the repository works on one machine only.
#[test]
fn no_machine_is_named() {
    let kinds =
        [".rs", ".py", ".toml", ".md", ".sh", ".yml", ".service", ".socket", "Makefile", "run"];
    let wrong: Vec<String> = sources(&kinds).iter().flat_map(machine_paths).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// If it fails, the file that shows every key is not even accepted.
#[test]
fn the_full_example_parses() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/full.toml");
    let (parsed, text) = evenkeel::config::load(&file);
    let shown = evenkeel::config::render(&parsed.problems, &text, false);
    assert!(parsed.config.is_some() && parsed.problems.is_empty(), "{shown}");
}

/// Asserts what a rule says of a file that breaks it, and that it is silent on one that does not.
#[track_caller]
fn tried(rule: fn(&Source) -> Vec<String>, path: &str, bad: &str, good: &str, said: &[&str]) {
    let wrong = rule(&Source::new(path, bad));
    assert_eq!(wrong.len(), said.len(), "{wrong:?}");
    for (wrong, said) in wrong.iter().zip(said) {
        assert!(wrong.starts_with(path) && wrong.contains(said), "{wrong}");
    }
    let silent = rule(&Source::new(path, good));
    assert!(silent.is_empty(), "{silent:?}");
}

/// If it fails, the import rule sees nothing any more.
#[test]
fn the_import_rule_sees_every_form() {
    tried(
        imports,
        "src/policy/x.rs",
        "use crate::{sys, policy::hash};\nfn f() { crate::control::run() }",
        "// crate::control\nuse crate::policy::balance::hash;\nconst S: &str = \"crate::sys\";",
        &[":1: policy must not import sys", ":2: policy must not import control"],
    );
    tried(
        imports,
        "src/control/x.rs",
        "use crate::dataplane::{\n    Command,\n    relay::Relay,\n};\nuse crate::dataplane::wire;",
        "use crate::dataplane::{Command, WorkerHandle};\nuse crate::sys::socket;",
        &["only what its mod.rs exports", "only what its mod.rs exports"],
    );
    tried(imports, "src/main.rs", "use evenkeel::sys;", "use evenkeel::control::run;", &["sys"]);
    assert_eq!(imports(&Source::new("src/surprise.rs", "")).len(), 1);
}

/// If it fails, a rule about words is fooled by comments, strings or longer words.
#[test]
fn the_rules_about_words_see_code_only() {
    tried(
        unsafe_code,
        "src/policy/x.rs",
        "fn f() {\n    unsafe { g() }\n}",
        "#![allow(unsafe_code)]\n// unsafe\nconst S: &str = \"unsafe \\\" unsafe\"; /* unsafe */\n",
        &[":2: "],
    );
    tried(unsafe_code, "src/a.rs", "let c = '\"'; unsafe {}", "let r = r#\"unsafe\"#;", &[":1: "]);
    tried(
        unfinished,
        "tests/x.rs",
        "#[ignore = \"x\"]\nfn f() { todo!() }",
        "// todo!()",
        &[":1: ", ":2: "],
    );
    tried(
        dataplane_crates,
        "src/dataplane/x.rs",
        "use tokio::time;",
        "use mio::Poll;\n#[cfg(test)]\nmod tests {\n    use tokio::time;\n}",
        &["no tokio"],
    );
    tried(
        pure_code,
        "src/policy/x.rs",
        "let now = Instant::now();\nlet n = fastrand::u64(..);",
        "fn f(now: Instant) {}\n#[cfg(test)]\nmod tests {\n    fn g() { Instant::now(); }\n}",
        &["no Instant::now", "no fastrand"],
    );
    assert!(pure_code(&Source::new("src/control/run.rs", "Instant::now()")).is_empty());
}

/// If it fails, sizes, openings or names are not looked at.
#[test]
fn the_rules_about_files_see_files() {
    let (long, tests) = ("\n".repeat(601), format!("#[cfg(test)]\nmod tests {}", "\n".repeat(601)));
    tried(sizes, "src/policy/x.rs", &long, &format!("\n\n{tests}"), &["601 lines"]);
    tried(sizes, "src/policy/mod.rs", &"\n".repeat(151), &"\n".repeat(150), &["151 lines"]);
    tried(opening, "src/a.rs", "use std::io;", "//! What it is.", &["begins without"]);
    tried(columns, "src/a.rs", &"x".repeat(101), &"µ".repeat(100), &["100 columns"]);
    assert_eq!(names(&Source::new("src/common/utils.rs", "")).len(), 2);
    assert!(names(&Source::new("src/policy/hash.rs", "")).is_empty());
    tried(python, "a.py", &"\n".repeat(401), "#!x\n\"\"\"What it is.", &["401 lines", "docstring"]);
    let home = concat!("let home = \"/ro", "ot/x\";");
    tried(machine_paths, "Makefile", home, "/etc/evenkeel", &[":1: "]);
}
