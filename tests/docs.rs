//! What the documents promise, checked: keys, metrics, examples and links.
//!
//! Reads the Markdown of the repository as text. Knows only as much Markdown as is used there.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use evenkeel::config::{self, keys};
use evenkeel::shared::{CloseReason, EndCode, HeldOutcome, RefuseReason};

/// Bounds a read from the program under test.
const PATIENCE: Duration = Duration::from_secs(20);

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Every Markdown file that is ours.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![root()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && !name.starts_with("target") {
                directories.push(path);
            } else if name.ends_with(".md") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The section below a heading of any depth, up to the next heading.
fn section<'a>(document: &'a str, heading: &str) -> Option<&'a str> {
    let is_heading = |line: &str| line.trim_start_matches('#').trim() == heading;
    let mut start = 0;
    let line = document.lines().find(|line| {
        let found = line.starts_with('#') && is_heading(line);
        start += if found { 0 } else { line.len() + 1 };
        found
    })?;
    let body = document.get(start + line.len()..)?;
    Some(body.find("\n#").map_or(body, |end| body.get(..end).unwrap_or(body)))
}

/// Names in the first column of the tables of a text.
fn rows(text: &str) -> BTreeSet<&str> {
    let cells = text.lines().filter_map(|line| line.strip_prefix("| `"));
    cells.filter_map(|cell| cell.split('`').next()).collect()
}

/// If it fails, an operator looks for a key in vain, or finds one that is refused.
#[test]
fn every_key_is_documented_in_its_table() {
    let document = text("docs/configuration.md");
    for table in keys::tables() {
        let body = section(&document, table.title);
        assert!(body.is_some(), "docs/configuration.md has no section {table}");
        let known: BTreeSet<&str> = table.keys.iter().map(|key| key.name).collect();
        assert_eq!(rows(body.unwrap()), known, "keys of {table}");
    }
}

/// A demonstration on free ports; ends with its value.
struct Demo {
    child: Child,
    page: String,
}

impl Demo {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
            .args(["demo", "--port", "0", "--admin-port", "0", "--for", "60s"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let look = "Look at http://";
        let line = lines.map_while(Result::ok).find(|line| line.starts_with(look)).unwrap();
        let page = line.strip_prefix(look).unwrap().split('/').next().unwrap().to_owned();
        Self { child, page }
    }

    fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(&self.page).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let id = rustix::process::Pid::from_child(&self.child);
        // TERM, so that it removes its directory.
        let _gone = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let _reaped = self.child.wait();
    }
}

/// If it fails, a metric is unexplained, or a dashboard is built on one that is not there.
#[test]
fn every_metric_is_documented() {
    let metrics = Demo::start().metrics();
    let kinds = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let served: BTreeSet<String> = kinds
        .filter_map(|line| line.split_once(' '))
        .map(|(name, kind)| match kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        })
        .collect();
    assert!(served.len() > 20, "{metrics}");
    let document = text("docs/metrics.md");
    let named = rows(&document).into_iter();
    let named: BTreeSet<String> = named
        .filter(|name| name.starts_with("evenkeel_") || name.starts_with("process_"))
        .map(str::to_owned)
        .collect();
    assert_eq!(named, served);
    // Words that look like one of ours elsewhere: alerts, the board, the README.
    let paths = [
        "docs/metrics.md",
        "docs/operating.md",
        "docs/configuration.md",
        "README.md",
        "configs/prometheus/evenkeel.rules.yml",
        "configs/grafana/evenkeel.json",
    ];
    for path in paths {
        for word in text(path).split(|letter: char| !letter.is_alphanumeric() && letter != '_') {
            if word.starts_with("evenkeel_") {
                let family = ["_bucket", "_count", "_sum"]
                    .iter()
                    .fold(word, |word, suffix| word.trim_end_matches(suffix));
                assert!(served.contains(family), "{path} speaks of {word}");
            }
        }
    }
}

/// If it fails, an operator is called by an alert that no document explains, or waits for one that
/// does not exist.
#[test]
fn every_alert_is_documented() {
    let rules = text("configs/prometheus/evenkeel.rules.yml");
    let lines = rules.lines().map(str::trim_start);
    let alerts: BTreeSet<&str> = lines.filter_map(|line| line.strip_prefix("- alert: ")).collect();
    let document = text("docs/metrics.md");
    let cells = document.lines().filter_map(|line| line.strip_prefix("| Evenkeel"));
    let cells = cells.filter_map(|cell| cell.split_once(" |"));
    let explained: BTreeSet<String> = cells.map(|(name, _)| format!("Evenkeel{name}")).collect();
    assert_eq!(explained.iter().map(String::as_str).collect::<BTreeSet<_>>(), alerts);
}

/// If it fails, an example that an operator copies is refused.
#[test]
fn examples_are_valid() {
    let mut checked = 0;
    for path in documents() {
        let document = fs::read_to_string(&path).unwrap();
        for block in document.split("```toml\n").skip(1) {
            let block = block.split("\n```").next().unwrap();
            if !block.contains("[listener") {
                continue;
            }
            let parsed = config::parse(block, Path::new("example.toml"));
            let shown = config::render(&parsed.problems, block, false);
            assert!(parsed.problems.is_empty(), "{}:\n{shown}", path.display());
            checked += 1;
        }
    }
    assert!(checked >= 2, "{checked} examples");
}

/// If it fails, a reader follows a link to nowhere.
#[test]
fn links_lead_somewhere() {
    let mut wrong = Vec::new();
    for path in documents() {
        let document = fs::read_to_string(&path).unwrap();
        for link in document.split("](").skip(1) {
            let Some(target) = link.split(')').next() else { continue };
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let there = if file.is_empty() { path.clone() } else { path.with_file_name(file) };
            let is_there = there.exists()
                && (anchor.is_empty()
                    || fs::read_to_string(&there).unwrap_or_default().lines().any(|line| {
                        line.starts_with('#') && anchor_of(line.trim_start_matches('#')) == anchor
                    }));
            if !is_there {
                wrong.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The anchor that a Markdown renderer gives a heading.
fn anchor_of(heading: &str) -> String {
    let kept = |letter: &char| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_');
    heading.trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

/// Every file below some directories, by its path from the root.
fn files(below: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories: Vec<PathBuf> = below.iter().map(|name| root().join(name)).collect();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                found.push(path.strip_prefix(root()).unwrap().to_path_buf());
            }
        }
    }
    found
}

/// The texts in backticks outside of code blocks.
fn quoted(document: &str) -> Vec<&str> {
    let prose = document.split("\n```").step_by(2);
    prose.flat_map(|part| part.split('`').skip(1).step_by(2)).collect()
}

/// Whether a text in backticks names a file or a folder of the repository.
fn is_path(text: &str) -> bool {
    let is_plain =
        |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.' | '/');
    let below = ["src/", "tests/", "docs/", "benches/", "scripts/", "configs/", "fuzz/"];
    let is_below = below.iter().any(|folder| text.starts_with(folder));
    text.chars().all(is_plain) && (is_below || text.ends_with(".rs"))
}

/// If it fails, a document sends its reader to a file that has moved or is gone.
#[test]
fn files_that_documents_name_exist() {
    let known = files(&["src", "tests", "benches", "fuzz/fuzz_targets"]);
    let mut named = 0;
    let mut wrong = Vec::new();
    for path in documents() {
        let document = fs::read_to_string(&path).unwrap();
        for name in quoted(&document).into_iter().filter(|text| is_path(text)) {
            named += 1;
            // `worker.rs` stands for any file of that name, `policy/client.rs` for one in a folder
            // of that name.
            let is_there = root().join(name).exists()
                || known.iter().any(|file| file.ends_with(name))
                || path.with_file_name(name).exists();
            if !is_there {
                wrong.push(format!("{}: {name}", path.display()));
            }
        }
    }
    assert!(named > 50, "{named} names");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// If it fails, a link called "ADR 0022" opens another decision.
#[test]
fn decisions_are_linked_by_their_numbers() {
    let mut wrong = Vec::new();
    for path in documents() {
        let document = fs::read_to_string(&path).unwrap();
        for (end, _) in document.match_indices("](") {
            let label = document[..end].rsplit('[').next().unwrap();
            let target = document[end + 2..].split(')').next().unwrap();
            let number = label.split_whitespace().last().unwrap_or_default();
            let is_number = number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit());
            let file = target.rsplit('/').next().unwrap();
            if is_number && target.ends_with(".md") && !file.starts_with(number) {
                wrong.push(format!("{}: [{label}]({target})", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// If it fails, an operator finds a code in the log that the README does not explain, or looks for
/// one that is never written.
#[test]
fn the_codes_of_the_log_are_those_of_the_readme() {
    let written = CloseReason::ALL
        .map(CloseReason::term)
        .into_iter()
        .chain(RefuseReason::ALL.map(RefuseReason::term))
        .chain(HeldOutcome::ALL.into_iter().filter_map(HeldOutcome::tarpit_term))
        .chain([EndCode::NO_PLACE.term, EndCode::CONNECT_TIMEOUT.term]);
    let written: BTreeSet<&str> = written.collect();
    let readme = text("README.md");
    let cells = readme.lines().skip_while(|line| !line.starts_with("| `term` |")).skip(2);
    let cells = cells.map_while(|line| line.strip_prefix("| ")?.split_once(" |"));
    let explained: BTreeSet<&str> = cells.flat_map(|(cell, _)| quoted(cell)).collect();
    assert_eq!(explained, written);
}

/// If it fails, an operator does not learn of a verb, or looks for one that is gone.
#[test]
fn every_verb_is_in_the_readme() {
    let output = Command::new(env!("CARGO_BIN_EXE_evenkeel")).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let listed = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    // Lines that are indented further continue a description.
    let entries = listed.lines().filter_map(|line| line.strip_prefix("  "));
    let entries = entries.filter(|entry| !entry.starts_with(' '));
    let verbs: BTreeSet<&str> =
        entries.filter_map(|entry| entry.split_whitespace().next()).collect();
    assert!(verbs.len() > 5, "{help}");
    let readme = text("README.md");
    let commands = section(&readme, "Commands").unwrap();
    let named: BTreeSet<&str> = quoted(commands)
        .into_iter()
        .filter_map(|command| command.strip_prefix("evenkeel "))
        .filter_map(|command| command.split_whitespace().next())
        .collect();
    let missing: Vec<_> = verbs.difference(&named).collect();
    assert!(missing.is_empty(), "not in the README's table of commands: {missing:?}");
    let gone: Vec<_> = named.difference(&verbs).collect();
    assert!(gone.is_empty(), "verbs that do not exist: {gone:?}");
}
