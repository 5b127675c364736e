//! The negative controls, without running them: each of `tests/controls/` applies to this tree,
//! names tests that there are, and stands in the list. `scripts/controls.sh` puts them in.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What stands in the header of a control, in this order, the last two once or more.
const FIELDS: [&str; 3] = ["Fault", "Noticed by", "As"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The names of all controls, with their text.
fn controls() -> Vec<(String, String)> {
    let files = fs::read_dir(root().join("tests/controls")).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let mut patches: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|it| it == "patch")).collect();
    patches.sort();
    let name = |path: &Path| path.file_stem().unwrap().to_string_lossy().into_owned();
    patches.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// The lines before the first `---` as field and value.
fn header(text: &str) -> Vec<(&str, &str)> {
    let lines = text.lines().take_while(|line| !line.starts_with("--- "));
    lines.filter(|line| !line.is_empty()).filter_map(|line| line.split_once(": ")).collect()
}

/// What is wrong with the header of a control.
fn problem(text: &str) -> Option<String> {
    let lines = text.lines().take_while(|line| !line.starts_with("--- "));
    let fields = header(text);
    if lines.filter(|line| !line.is_empty()).count() != fields.len() {
        return Some("a line that is no field".to_owned());
    }
    let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let [fault, rest @ ..] = &names[..] else { return Some("no header".to_owned()) };
    let are_pairs = rest.chunks(2).all(|pair| pair == &FIELDS[1..]);
    if *fault != FIELDS[0] || rest.is_empty() || !are_pairs {
        return Some(format!("{names:?}"));
    }
    let tests = fields.iter().filter(|(name, _)| *name == FIELDS[1]);
    tests.filter(|(_, test)| !is_there(test)).map(|(_, test)| format!("no test {test}")).next()
}

/// Whether there is a test like `loom_shared name` or `VARIABLE=1 netns module::name`.
fn is_there(test: &str) -> bool {
    let mut words = test.split(' ').skip_while(|word| word.contains('='));
    let (Some(target), Some(path), None) = (words.next(), words.next(), words.next()) else {
        return false;
    };
    let directory = if target == "lib" { "src".to_owned() } else { format!("tests/{target}") };
    let mut sources = vec![root().join("tests").join(format!("{target}.rs"))];
    walk(&root().join(directory), &mut sources);
    let name = path.rsplit("::").next().unwrap_or(path);
    // Some are made by a macro, from `name: ...` or `name, ...`.
    let forms = [format!("fn {name}("), format!("    {name}: "), format!("    {name}, ")];
    sources
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .any(|text| forms.iter().any(|form| text.contains(form)))
}

fn walk(directory: &Path, sources: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            walk(&path, sources);
        } else {
            sources.push(path);
        }
    }
}

// If this fails, a fault can no longer be put in: the source has changed, and the control must
// follow.
#[test]
fn every_control_applies_to_the_source() {
    for (name, _) in controls() {
        let file = format!("tests/controls/{name}.patch");
        let git = Command::new("git")
            .args(["apply", "--check", "--verbose", &file])
            // Else git would look for a repository above, and skip what is not in it.
            .env("GIT_CEILING_DIRECTORIES", root().parent().unwrap())
            .current_dir(root())
            .output()
            .unwrap();
        assert!(git.status.success(), "{file}: {}", String::from_utf8_lossy(&git.stderr));
    }
}

// If this fails, scripts/controls.sh cannot read a control, or runs a test that there is not.
#[test]
fn every_control_says_what_must_notice_it() {
    for (name, text) in controls() {
        assert_eq!(problem(&text), None, "tests/controls/{name}.patch");
    }
}

// If this fails, the rule above has stopped working.
#[test]
fn a_bad_header_is_noticed() {
    let good = "Fault: x\nNoticed by: controls a_bad_header_is_noticed\nAs: no\n\n--- a/x\n";
    assert_eq!(problem(good), None);
    for (from, to) in [
        ("Fault: x\n", ""),
        ("As: no\n", ""),
        ("Noticed by", "Seen by"),
        ("As: no\n", "As: no\nfreely\n"),
        ("controls a", "controls the"),
        ("controls a", "no_such_target a"),
    ] {
        assert!(problem(&good.replace(from, to)).is_some(), "{from:?} as {to:?}");
    }
}

// If this fails, a fault has come or gone and the list does not say so.
#[test]
fn every_control_is_in_the_list() {
    let list = fs::read_to_string(root().join("tests/controls/README.md")).unwrap();
    let rows = list.lines().filter_map(|line| line.strip_prefix("| `"));
    let listed: BTreeSet<String> =
        rows.filter_map(|row| row.split('`').next()).map(str::to_owned).collect();
    let there: BTreeSet<String> = controls().into_iter().map(|(name, _)| name).collect();
    assert_eq!(listed, there);
}
