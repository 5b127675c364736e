//! Verbs that need no running process: `check`, `config`, `schema`, `version`, `completions`,
//! `man`.

use std::process::ExitCode;

use clap::CommandFactory;
use evenkeel::config::{self, Problem, Severity};
use evenkeel::control;
use serde::Serialize;

use crate::cli::exit::{BAD_CONFIG, USAGE, WARNINGS};
use crate::cli::terminal::{complain, fail, say, stderr_has_colour};
use crate::cli::{Check, Cli, ConfigFile, Format};

/// The document of `check --format json`.
#[derive(Debug, Serialize)]
struct Checked<'a> {
    valid: bool,
    problems: &'a [Problem],
    /// What is worth knowing and no problem.
    notes: &'a [String],
}

/// `check`.
pub(crate) fn check(options: &Check) -> ExitCode {
    let (mut parsed, text) = config::load_once(&options.config.file);
    let notes = control::check(&mut parsed);
    let valid = parsed.config.is_some();
    let problems = &parsed.problems;
    match options.format {
        Format::Json => {
            let document =
                serde_json::to_string_pretty(&Checked { valid, problems, notes: &notes });
            say(format_args!("{}\n", document.unwrap_or_default()));
        }
        Format::Text => {
            complain(config::render(problems, &text, stderr_has_colour()));
            let file = options.config.file.display();
            let counts = counts(problems);
            if valid {
                let with = if counts.is_empty() { String::new() } else { format!(", {counts}") };
                say(format_args!("{file} is valid{with}\n"));
                notes.iter().for_each(|note| say(format_args!("{note}\n")));
            } else {
                fail(format_args!("{file} is not valid: {counts}"), "");
            }
        }
    }
    match (valid, problems.is_empty()) {
        (false, _) => ExitCode::from(BAD_CONFIG),
        (true, false) if options.strict => ExitCode::from(WARNINGS),
        (true, _) => ExitCode::SUCCESS,
    }
}

/// How many errors and warnings, in words.
fn counts(problems: &[Problem]) -> String {
    let count = |severity: Severity, word: &str| {
        let number = problems.iter().filter(|problem| problem.severity == severity).count();
        let plural = if number == 1 { "" } else { "s" };
        (number > 0).then(|| format!("{number} {word}{plural}"))
    };
    let parts = [count(Severity::Error, "error"), count(Severity::Warning, "warning")];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// `config`.
pub(crate) fn effective(options: &ConfigFile) -> ExitCode {
    let (parsed, text) = config::load_once(&options.file);
    complain(config::render(&parsed.problems, &text, stderr_has_colour()));
    match parsed.config {
        Some(config) => {
            say(config.to_toml());
            ExitCode::SUCCESS
        }
        None => {
            let counts = counts(&parsed.problems);
            fail(format_args!("{} is not valid: {counts}", options.file.display()), "");
            ExitCode::from(BAD_CONFIG)
        }
    }
}

/// `schema`.
pub(crate) fn schema() -> ExitCode {
    say(format_args!("{:#}\n", config::schema()));
    ExitCode::SUCCESS
}

/// The document of `version --json`.
#[derive(Debug, Serialize)]
struct VersionDocument {
    name: &'static str,
    version: &'static str,
    arch: &'static str,
    os: &'static str,
    debug: bool,
}

/// `version`.
pub(crate) fn version(json: bool) -> ExitCode {
    let version = VersionDocument {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        arch: std::env::consts::ARCH,
        os: std::env::consts::OS,
        debug: cfg!(debug_assertions),
    };
    if json {
        say(format_args!("{}\n", serde_json::to_string(&version).unwrap_or_default()));
    } else {
        say(format_args!("{} {}\n", version.name, version.version));
    }
    ExitCode::SUCCESS
}

/// `completions`.
pub(crate) fn completions(shell: clap_complete::Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "evenkeel", &mut script);
    say(String::from_utf8_lossy(&script));
    ExitCode::SUCCESS
}

/// `man`.
pub(crate) fn man(verb: Option<&str>) -> ExitCode {
    let mut program = Cli::command();
    program.build();
    let command = match verb {
        None => program,
        Some(verb) => {
            let Some(found) = program.find_subcommand(verb) else {
                fail(format_args!("no verb {verb:?}"), "`evenkeel --help` lists all verbs");
                return ExitCode::from(USAGE);
            };
            found.clone()
        }
    };
    let mut page = Vec::new();
    // Writing to a `Vec` cannot fail.
    let _ = clap_mangen::Man::new(command).render(&mut page);
    say(String::from_utf8_lossy(&page));
    ExitCode::SUCCESS
}
