//! Verbs about sessions of a running process: `sessions`, `kill`.

use std::io::{IsTerminal, stdout};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use evenkeel::config::units::show_rate;
use evenkeel::control::admin::client;
use evenkeel::control::sessions::document::SessionsPage;
use evenkeel::control::sessions::text;
use serde_json::json;

use crate::cli::remote::{OK, Obeyed, VerbFailure, pretty, socket};
use crate::cli::terminal::{complain, say, stdout_has_colour};
use crate::cli::{KillOptions, SessionList, SessionSort, SessionsMeant};

/// Most sessions of one page.
const PAGE_MAX: usize = 1000;
/// Time between two lists of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// Clears a terminal, and goes to its upper left corner.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

impl SessionsMeant {
    /// What is given, by the names of the API.
    fn named(&self) -> Vec<(&'static str, &str)> {
        let Self { listener, pool, backend, client } = self;
        let all =
            [("listener", listener), ("pool", pool), ("backend", backend), ("client", client)];
        all.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect()
    }
}

impl SessionSort {
    fn word(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Idle => "idle",
            Self::Bytes => "bytes",
            Self::Rate => "rate",
        }
    }

    /// How a list in this order begins.
    fn words(self) -> &'static str {
        match self {
            Self::Age => "the oldest first",
            Self::Idle => "the longest silent first",
            Self::Bytes => "most bytes first",
            Self::Rate => "most bytes in a second first",
        }
    }
}

/// `sessions`.
pub(crate) fn list(options: &SessionList) -> ExitCode {
    try_list(options).unwrap_or_else(VerbFailure::tell)
}

fn try_list(options: &SessionList) -> Result<ExitCode, VerbFailure> {
    let socket = socket(&options.target)?;
    loop {
        let page = pages(&socket, options)?;
        if options.json {
            let document = serde_json::to_string(&page).unwrap_or_default();
            say(format_args!("{}\n", pretty(&document)));
            return Ok(ExitCode::SUCCESS);
        }
        let clear = if options.watch && stdout().is_terminal() { CLEAR } else { "" };
        let (shown, total) = (page.sessions.len(), page.total);
        let (order, table) = (options.sort.words(), text::render(&page, stdout_has_colour()));
        say(format_args!("{clear}{shown} of {total} sessions, {order}\n{table}"));
        if !options.watch {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::park_timeout(WATCH_EVERY);
    }
}

/// As many pages as the list takes, as one.
fn pages(socket: &Path, options: &SessionList) -> Result<SessionsPage, VerbFailure> {
    let SessionList { meant, sort, most, json, .. } = options;
    let most = if *most == 0 { usize::MAX } else { *most };
    let mut list = SessionsPage::default();
    loop {
        let limit = (most - list.sessions.len()).min(PAGE_MAX).to_string();
        let mut query = meant.named();
        query.extend([("sort", sort.word()), ("limit", &limit)]);
        // A script asks for rates by their order: they cost half a second for each page.
        if !json {
            query.push(("rates", "true"));
        }
        if let Some(next) = &list.next {
            query.push(("after", next));
        }
        let path = client::sessions_path(&query);
        let answer = client::request(socket, "GET", &path, String::new())?;
        let page = match serde_json::from_str::<SessionsPage>(&answer.body) {
            Ok(page) if answer.code == OK => page,
            _ => return Err(VerbFailure::Answered(answer)),
        };
        list.sessions.extend(page.sessions);
        (list.total, list.next) = (page.total, page.next);
        if list.next.is_none() || list.sessions.len() >= most {
            return Ok(list);
        }
    }
}

/// `kill`.
pub(crate) fn kill(options: &KillOptions) -> ExitCode {
    try_kill(options).unwrap_or_else(VerbFailure::tell)
}

fn try_kill(options: &KillOptions) -> Result<ExitCode, VerbFailure> {
    let KillOptions { target, ids, meant, pace, stop } = options;
    let socket = socket(target)?;
    if *stop {
        tell(&socket, "POST", "/v1/sessions/kill/stop", String::new())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut code = ExitCode::SUCCESS;
    for id in ids {
        // One that has ended meanwhile keeps no other.
        match tell(&socket, "DELETE", &format!("/v1/sessions/{id}"), String::new()) {
            Ok(()) => {}
            Err(failed @ VerbFailure::Answered(_)) => code = failed.tell(),
            Err(unreached) => return Err(unreached),
        }
    }
    if !ids.is_empty() {
        return Ok(code);
    }
    let mut body = json!({});
    for (name, value) in meant.named() {
        body[name] = value.into();
    }
    if let Some(rate) = pace {
        body["pace"] = show_rate(*rate).into();
        complain("`evenkeel kill --stop` stops it\n");
    }
    tell(&socket, "POST", "/v1/sessions/kill", body.to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn tell(socket: &Path, method: &str, path: &str, body: String) -> Result<(), VerbFailure> {
    Obeyed::of(client::request(socket, method, path, body)?)?.tell();
    Ok(())
}
