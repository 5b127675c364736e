//! Verbs about backends of a running process: `drain`, `ready`, `maint`, `weight`, `forget`; one,
//! several, or all that a pattern stands for.

use std::io::{IsTerminal, stderr};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use evenkeel::config::units::{show_duration, show_rate};
use evenkeel::control::admin::client;
use evenkeel::control::status::{BackendStatus, Status};

use crate::cli::exit::TIMED_OUT;
use crate::cli::remote::{OK, Obeyed, VerbFailure, socket};
use crate::cli::terminal::{complain, fail, say};
use crate::cli::{BackendName, DrainOptions, SomeBackends, WaitOptions};

/// Time between two looks of `--wait`.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A verb, as the process is asked for it.
#[derive(Debug, Clone)]
pub(crate) struct BackendRequest {
    pub(crate) verb: &'static str,
    pub(crate) body: String,
}

impl BackendRequest {
    /// A verb that needs no more words.
    pub(crate) fn plain(verb: &'static str) -> Self {
        Self { verb, body: String::new() }
    }
}

/// The condition for which `--wait` waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitEnd {
    /// No session is left.
    Empty,
    /// The state is `up`.
    Up,
}

impl WaitEnd {
    /// What a backend still lacks, as a number; 0 once it is so.
    fn lacks(self, backend: &BackendStatus) -> u64 {
        match self {
            Self::Empty => backend.sessions,
            Self::Up => u64::from(backend.state != "up"),
        }
    }

    /// What is waited for, in words, `left` of it being there.
    fn words(self, left: u64) -> String {
        match (self, left) {
            (Self::Empty, 1) => "1 session left".to_owned(),
            (Self::Empty, left) => format!("{left} sessions left"),
            (Self::Up, 1) => "1 backend not up".to_owned(),
            (Self::Up, left) => format!("{left} backends not up"),
        }
    }
}

/// `drain`.
pub(crate) fn drain(options: &DrainOptions) -> ExitCode {
    let DrainOptions { backends, wait, reset, pace } = options;
    let body = match (reset, pace) {
        (false, _) => String::new(),
        (true, None) => r#"{"reset": true}"#.to_owned(),
        (true, Some(rate)) => format!(r#"{{"reset": true, "pace": "{}"}}"#, show_rate(*rate)),
    };
    perform(backends, &BackendRequest { verb: "drain", body }, Some((wait, WaitEnd::Empty)))
}

/// Any of these verbs; then the wait, if there is to be one.
pub(crate) fn perform(
    backends: &SomeBackends,
    request: &BackendRequest,
    wait: Option<(&WaitOptions, WaitEnd)>,
) -> ExitCode {
    try_perform(backends, request, wait).unwrap_or_else(VerbFailure::tell)
}

fn try_perform(
    backends: &SomeBackends,
    request: &BackendRequest,
    wait: Option<(&WaitOptions, WaitEnd)>,
) -> Result<ExitCode, VerbFailure> {
    let socket = socket(&backends.target)?;
    let Some(names) = named(&socket, &backends.backends)? else { return Ok(ExitCode::FAILURE) };
    let mut code = ExitCode::SUCCESS;
    for name in &names {
        let path = client::backend_path(&name.pool, &name.backend, request.verb);
        let answer = client::request(&socket, "POST", &path, request.body.clone())?;
        match Obeyed::of(answer) {
            Ok(obeyed) => obeyed.tell(),
            // One that is refused keeps no other.
            Err(refused) => code = refused.tell(),
        }
    }
    match wait {
        Some((options, awaited)) if options.wait && code == ExitCode::SUCCESS => {
            until(&socket, &names, options.timeout, awaited)
        }
        _ => Ok(code),
    }
}

/// The backends that are meant, each once, in the order of the words. `None`: a pattern stands for
/// none, which has been said.
fn named(socket: &Path, words: &[BackendName]) -> Result<Option<Vec<BackendName>>, VerbFailure> {
    let is_pattern =
        |name: &BackendName| client::is_pattern(&name.pool) || client::is_pattern(&name.backend);
    let status = if words.iter().any(is_pattern) { Some(status(socket)?) } else { None };
    let mut names: Vec<BackendName> = Vec::new();
    for word in words {
        let found = match &status {
            Some(status) if is_pattern(word) => fitting(status, word),
            // The process says what there is instead.
            _ => vec![word.clone()],
        };
        if found.is_empty() {
            let text = format!("no backend fits {}/{}", word.pool, word.backend);
            fail(text, "`evenkeel status` lists all of them");
            return Ok(None);
        }
        for name in found {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Ok(Some(names))
}

fn fitting(status: &Status, pattern: &BackendName) -> Vec<BackendName> {
    let pools = status.pools.iter().filter(|(pool, _)| client::fits(&pattern.pool, pool));
    let of_pool = pools.flat_map(|(pool, it)| it.backends.keys().map(move |name| (pool, name)));
    of_pool
        .filter(|(_, name)| client::fits(&pattern.backend, name))
        .map(|(pool, name)| BackendName { pool: pool.clone(), backend: name.clone() })
        .collect()
}

fn status(socket: &Path) -> Result<Status, VerbFailure> {
    let answer = client::request(socket, "GET", "/v1/status", String::new())?;
    match serde_json::from_str(&answer.body) {
        Ok(status) if answer.code == OK => Ok(status),
        _ => Err(VerbFailure::Answered(answer)),
    }
}

/// Waits until it is so for every backend; one that has left the file is not waited for.
fn until(
    socket: &Path,
    names: &[BackendName],
    timeout: Option<Duration>,
    awaited: WaitEnd,
) -> Result<ExitCode, VerbFailure> {
    let begun = Instant::now();
    let shows = stderr().is_terminal();
    let show = |text: &str| {
        if shows {
            // Over what stood there, which may have been longer.
            complain(format_args!("\r\x1b[K{text}"));
        }
    };
    loop {
        let status = status(socket)?;
        let lacks = |name: &BackendName| {
            let backend = status.pools.get(&name.pool)?.backends.get(&name.backend)?;
            Some(awaited.lacks(backend))
        };
        let left: u64 = names.iter().filter_map(lacks).sum();
        if left == 0 {
            show("");
            let time = show_duration(Duration::from_secs(begun.elapsed().as_secs()));
            say(format_args!("no {} after {time}\n", without_number(awaited)));
            return Ok(ExitCode::SUCCESS);
        }
        if timeout.is_some_and(|timeout| begun.elapsed() >= timeout) {
            show("");
            fail(format_args!("{} at the end of --timeout", awaited.words(left)), "");
            return Ok(ExitCode::from(TIMED_OUT));
        }
        show(&awaited.words(left));
        let rest = timeout.map_or(LOOK_EVERY, |timeout| timeout.saturating_sub(begun.elapsed()));
        std::thread::park_timeout(rest.clamp(Duration::from_millis(1), LOOK_EVERY));
    }
}

/// What is not there any more.
fn without_number(awaited: WaitEnd) -> &'static str {
    match awaited {
        WaitEnd::Empty => "session left",
        WaitEnd::Up => "backend down",
    }
}
