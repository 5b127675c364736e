//! House rules that no compiler and no lint checks: imports, where `unsafe` may be, sizes,
//! names. CONTRIBUTING.md tells the reasons. Each checker is tried on bad snippets as well, so that
//! a rule cannot stop working unnoticed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

#[path = "tidy/names.rs"]
mod names;
#[path = "tidy/plainest.rs"]
mod plainest;
#[path = "tidy/reach.rs"]
mod reach;
#[path = "tidy/reading.rs"]
mod reading;
#[path = "tidy/structure.rs"]
mod structure;

use std::path::Path;

use reading::{Source, code, crate_paths, has_word, sources, sources_of};

/// Files that a reader of the plainest session needs, and lines of each without its unit tests.
const PLAINEST_FILES_MAX: usize = 16;
const PLAINEST_LINES_MAX: usize = 450;
/// Lines of a source file without its unit tests, and of a `mod.rs`.
const FILE_LINES_MAX: usize = 600;
const MOD_LINES_MAX: usize = 150;
/// Lines of a program in Python.
const PYTHON_LINES_MAX: usize = 400;
const COLUMNS_MAX: usize = 100;

/// What each part of the crate may import of the others.
const IMPORTS: &[(&str, &[&str])] = &[
    ("main", &["cli", "config", "control"]),
    ("cli", &["config", "control", "import"]),
    ("import", &["config", "policy"]),
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

fn hold(rule: fn(&Source) -> Vec<String>) {
    let wrong: Vec<String> = sources(&[".rs"]).iter().flat_map(rule).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// If it fails, the planes meet somewhere else than in `shared`.
#[test]
fn modules_import_in_one_direction() {
    hold(imports);
}

/// If it fails, a file of a room cannot be read, tested or moved without others that need it.
#[test]
fn no_files_of_a_room_use_one_another_in_a_circle() {
    let wrong = structure::circles(&sources(&[".rs"]), |_| true);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// What is wrong with the list of files of the plainest session.
fn plainest(said: &plainest::Plainest, sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    let count = said.list.len();
    if !(1..=PLAINEST_FILES_MAX).contains(&count) {
        wrong.push(format!("{count} files to read, {PLAINEST_FILES_MAX} may be"));
    }
    for path in said.all() {
        match sources.iter().find(|source| source.path == path) {
            None => wrong.push(format!("{path}: there is no such file")),
            Some(source) => {
                let lines = source.without_tests().lines().count();
                if lines > PLAINEST_LINES_MAX && said.list.contains(&path) {
                    wrong.push(format!("{path}: {lines} lines, {PLAINEST_LINES_MAX} may be"));
                }
            }
        }
    }
    for (tool, used) in structure::files_used(sources) {
        if said.tools.contains(&tool)
            && let Some(listed) = used.iter().find(|path| said.list.contains(path))
        {
            wrong.push(format!(
                "{tool} is a tool, and uses {listed}: a reader of it has to come back"
            ));
        }
    }
    wrong
}

/// If it fails, a session cannot be followed from accept to its line in the log without searching.
#[test]
fn the_plainest_session_is_readable_in_few_files() {
    let wrong = plainest(&plainest::Plainest::read(), &sources(&[".rs"]));
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// If it fails, a reader has to ask which of two types is meant.
#[test]
fn a_type_name_is_one_type() {
    let wrong = names::types_named_twice(&sources(&[".rs"]));
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// If it fails, a function has more parameters than it admits.
#[test]
fn no_parameter_is_several() {
    hold(names::parameters_in_disguise);
}

/// Most files of `src/` that a new balance algorithm, a new kind of probe and a new key touch.
const BALANCE_FILES_MAX: usize = 5;
const PROBE_FILES_MAX: usize = 6;
const KEY_FILES_MAX: usize = 3;
/// Keys that act in one place and whose name means nothing else.
const KEYS_SAMPLED: &[&str] = &[
    "drain_timeout",
    "shutdown_delay",
    "hash_seed",
    "fast_open",
    "pin_workers",
    "mptcp",
    "max_bytes",
    "hash_prefix",
    "fast_interval",
    "rise",
    "fall",
    "down_backoff",
    "consecutive_failures",
    "max_ejected",
];

/// If it fails, a key, a kind of probe or a balance algorithm stands in more places than the
/// recipes of CONTRIBUTING.md say, and the next one is forgotten in one of them.
#[test]
fn one_addition_touches_few_files() {
    let sources = sources(&[".rs"]);
    let files = reach::naming_files(&sources);
    let mut wrong = Vec::new();
    let mut hold = |names: &[&str], most: usize| {
        let files = reach::that_name(&files, names);
        assert!(files.len() >= 2, "{names:?} is named in {files:?} only");
        if files.len() > most {
            wrong.push(format!("{names:?}: {most} files allowed, named in {files:?}"));
        }
    };
    for names in [
        ["LeastLatency", "least-latency", "least_latency"],
        ["LeastConnections", "least-connections", "least_connections"],
        ["RandomTwo", "random-two", "random_two"],
    ] {
        hold(&names, BALANCE_FILES_MAX);
    }
    hold(&["SendExpect", "send-expect", "send_expect"], PROBE_FILES_MAX);
    for key in KEYS_SAMPLED {
        hold(&[key], KEY_FILES_MAX);
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// If it fails, a value of a key cannot be written, and is shown as an empty word.
#[test]
fn every_term_has_a_word() {
    let terms: Vec<Source> = sources(&[".rs"]);
    let terms = terms.iter().filter(|source| source.path.starts_with("src/"));
    let wrong: Vec<String> = terms.flat_map(reach::terms_without_a_word).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// If it fails, what serves knows of faults that only tests need.
#[test]
fn no_fault_of_a_test_is_in_what_serves() {
    hold(names::test_hooks);
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

/// If it fails, a reader has to go through a file to learn what it is about.
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

/// If it fails, a file has a name under which anything fits.
#[test]
fn files_have_telling_names() {
    hold(names);
}

/// If it fails, the tree promises what it does not have.
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

/// If it fails, a circle of files goes unseen, or a re-export is taken for a use.
#[test]
fn circles_are_seen_through_every_form() {
    let files = |texts: &[(&str, &str)]| -> Vec<Source> {
        texts.iter().map(|(path, text)| Source::new(path, text)).collect()
    };
    let circle = files(&[
        ("src/policy/mod.rs", "pub mod a;\npub mod b;\npub mod c;"),
        ("src/policy/a.rs", "use super::b::{self, B};"),
        ("src/policy/b.rs", "struct B;\nfn f() { crate::policy::c::g() }"),
        ("src/policy/c.rs", "fn g() {}\nuse crate::{policy::a::A};"),
    ]);
    let found = structure::circles(&circle, |_| true);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].ends_with("policy::a, policy::b, policy::c"), "{found:?}");

    // Through what a parent re-exports, and by the name of a child.
    let circle = files(&[
        ("src/policy/mod.rs", "mod a;\nmod b;\npub use a::A;\npub use b::*;"),
        ("src/policy/a.rs", "use super::B;\npub struct A;"),
        ("src/policy/b.rs", "mod inner;\nuse inner::C;\npub struct B;"),
        ("src/policy/b/inner.rs", "use super::super::A;\npub struct C;"),
    ]);
    let found = structure::circles(&circle, |_| true);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].ends_with("policy::a, policy::b, policy::b::inner"), "{found:?}");

    let sound = files(&[
        ("src/policy/mod.rs", "mod a;\nmod b;\npub use a::A;"),
        ("src/policy/a.rs", "use super::b::B;\nstruct A;"),
        ("src/policy/b.rs", "struct B;\n#[cfg(test)]\nmod tests {\n    use crate::policy::A;\n}"),
    ]);
    assert_eq!(structure::circles(&sound, |_| true), Vec::<String>::new());
    assert_eq!(structure::circles(&circle, |room| room != "policy"), Vec::<String>::new());
}

/// If it fails, the list of the plainest session may say anything.
#[test]
fn a_wrong_list_of_the_plainest_session_is_seen() {
    let text = "### What to read\n1. `policy/a.rs`: x\n2. `policy/b.rs`\n\n- `policy/`: `c.rs`,\n\
        \x20 `d/e.rs`\n\nAround them, `policy/f.rs`.\n\n### Step by step\n3. `policy/g.rs`\n";
    let said = plainest::Plainest::of(text);
    assert_eq!(said.list, ["src/policy/a.rs", "src/policy/b.rs"]);
    assert_eq!(said.tools.iter().collect::<Vec<_>>(), ["src/policy/c.rs", "src/policy/d/e.rs"]);
    let files = |tool: &str| {
        let around = ("f", "use super::b::B;");
        let texts = [("a", ""), ("b", ""), ("c", tool), ("d/e", "struct E;"), around];
        texts.map(|(name, text)| Source::new(&format!("src/policy/{name}.rs"), text))
    };
    assert_eq!(plainest(&said, &files("struct C;")), Vec::<String>::new());
    let wrong = plainest(&said, &files("use super::a::A;"));
    assert!(wrong.len() == 1 && wrong[0].contains("c.rs is a tool, and uses"), "{wrong:?}");
    assert_eq!(
        plainest(&said, &files("struct C;")[1..]),
        ["src/policy/a.rs: there is no such file"]
    );
    let many = (0..17).map(|number| format!("{number}. `policy/a.rs`\n"));
    let many = plainest::Plainest::of(&format!("### What to read\n{}", many.collect::<String>()));
    assert!(plainest(&many, &files(""))[0].starts_with("17 files to read"));
}

/// If it fails, a file that names a key, or a term without a word, goes unseen.
#[test]
fn names_and_words_are_seen() {
    let files = [
        Source::new("src/a.rs", "const A: &str = \"some_key\";"),
        Source::new("src/b.rs", "fn f(it: It) { it.some_key }"),
        Source::new("src/some_key.rs", ""),
        Source::new(
            "src/c.rs",
            "// some_key\nfn some_key_max() {}\n#[cfg(test)]\nmod tests {\n    some_key\n}",
        ),
        Source::new("tests/d.rs", "some_key"),
    ];
    let files = reach::naming_files(&files);
    let named = reach::that_name(&files, &["some_key"]);
    assert_eq!(named, ["src/a.rs", "src/b.rs", "src/some_key.rs"]);
    let term = |words: &str| {
        format!(
            "enum T {{\n    /// One.\n    One,\n    Two,\n}}\nimpl Word for T {{ {words} }}\n}}"
        )
    };
    let (bad, good) = (term("(\"one\", Self::One)"), term("Self::One, Self::Two"));
    tried(reach::terms_without_a_word, "src/a.rs", &bad, &good, &["no word for T::Two"]);
}

/// If it fails, names and parameters are not looked at.
#[test]
fn the_rules_about_names_see_types_and_parameters() {
    let files = [
        Source::new("src/a.rs", "pub struct Same;\ntrait T {\n    type Inner;\n}"),
        Source::new(
            "src/b.rs",
            "// struct T\nenum Same {}\nimpl T for X {\n    type Inner = u8;\n}",
        ),
    ];
    let wrong = names::types_named_twice(&files);
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(wrong[0].contains("Same is more than one type: src/a.rs, src/b.rs"), "{wrong:?}");
    tried(
        names::parameters_in_disguise,
        "src/a.rs",
        "fn f<A>(\n    one: u8,\n    (two, three): (u8, u8),\n) {}\nfn g([a, b]: [u8; 2]) {}",
        "fn f(one: (u8, u8), two: impl Fn((u8, u8))) {}\nfn g() { h(|(a, b)| a) }",
        &[":1: ", ":5: "],
    );
    tried(
        names::test_hooks,
        "src/a.rs",
        "fn f() { if has(Defect::X) {} }",
        "// has(Defect::X)",
        &[":1: "],
    );
}
