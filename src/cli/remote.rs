//! Verbs that talk to a running process: `reload`, `upgrade`, `status`, `explain`, `drain`,
//! `ready`, `maint`, `weight`, `forget`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use evenkeel::config::units::show_duration;
use evenkeel::control::admin::client::{self, AdminReply, ClientError, Request};
use evenkeel::control::status::Status;
use evenkeel::control::status::text;
use serde::{Deserialize, Serialize};

use crate::cli::exit::BAD_CONFIG;
use crate::cli::terminal::{complain, fail, say, stdout_has_colour};
use crate::cli::{DEFAULT_FILE, Explain, Reload, Target, Upgrade};

/// HTTP: done.
pub(super) const OK: u16 = 200;
/// HTTP: the file is refused.
const REFUSED: u16 = 422;
/// What a process may take beside the time that an upgrade may: a reload is waited for.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// Time between the two looks from which rates are made.
const LOOK_APART: Duration = Duration::from_millis(500);

/// Why a verb came to nothing.
pub(super) enum VerbFailure {
    Unreached(ClientError),
    Answered(AdminReply),
}

impl From<ClientError> for VerbFailure {
    fn from(error: ClientError) -> Self {
        Self::Unreached(error)
    }
}

/// What a refused request tells.
#[derive(Debug, Deserialize)]
struct ErrorReply {
    error: String,
}

impl VerbFailure {
    /// Says why, and what to do.
    pub(super) fn tell(self) -> ExitCode {
        match self {
            Self::Unreached(error) => {
                complain(error.problems());
                fail(&error, error.help());
                if error.is_of_the_file() {
                    return ExitCode::from(BAD_CONFIG);
                }
            }
            Self::Answered(AdminReply { code, body }) => {
                match serde_json::from_str::<ErrorReply>(&body) {
                    Ok(refusal) => fail(refusal.error, ""),
                    Err(_) => fail(
                        format_args!("the process answered {code}: {}", body.trim()),
                        "is it of another version?",
                    ),
                }
            }
        }
        ExitCode::FAILURE
    }
}

/// The socket of the process that is meant.
pub(super) fn socket(target: &Target) -> Result<PathBuf, ClientError> {
    match (&target.socket, &target.file) {
        (Some(socket), _) => Ok(socket.clone()),
        (None, Some(file)) => client::socket_of(file),
        (None, None) => client::socket_by_default(Path::new(DEFAULT_FILE)),
    }
}

/// The answer to a reload.
#[derive(Debug, Deserialize)]
struct ReloadReply {
    generation: u64,
    file: String,
    refused_by: Option<String>,
    changes: Vec<String>,
    /// Problems, for people.
    text: String,
}

/// `reload`.
pub(crate) fn reload(options: &Reload) -> ExitCode {
    try_reload(options).unwrap_or_else(VerbFailure::tell)
}

fn try_reload(options: &Reload) -> Result<ExitCode, VerbFailure> {
    let Reload { target, dry_run, candidate } = options;
    let socket = socket(target)?;
    let answer = match candidate {
        Some(file) => {
            let path = client::candidate_path(file);
            client::request(&socket, "POST", &path, client::read_file(file)?)?
        }
        None if *dry_run => {
            client::request(&socket, "POST", "/v1/reload?dry_run=true", String::new())?
        }
        None => client::request(&socket, "POST", "/v1/reload", String::new())?,
    };
    let Ok(reply) = serde_json::from_str::<ReloadReply>(&answer.body) else {
        return Err(VerbFailure::Answered(answer));
    };
    complain(&reply.text);
    if candidate.is_none() {
        warn_of_another_file(target, &reply.file);
    }
    let ReloadReply { generation, file, changes, .. } = &reply;
    let changes = match changes.is_empty() {
        true => "nothing changed\n".to_owned(),
        false => changes.iter().map(|line| format!("{line}\n")).collect(),
    };
    match (answer.code, dry_run) {
        (OK, true) => {
            say(format_args!("{file} is good; a reload would do this:\n{changes}"));
            Ok(ExitCode::SUCCESS)
        }
        (OK, false) => {
            say(format_args!("reloaded, generation {generation} of {file} is in force\n{changes}"));
            Ok(ExitCode::SUCCESS)
        }
        (REFUSED, _) => {
            fail(format_args!("{file} is refused: generation {generation} goes on unchanged"), "");
            // The file may be right, and the address here or free at the next try.
            let by_host = reply.refused_by.as_deref() == Some("host");
            Ok(if by_host { ExitCode::FAILURE } else { ExitCode::from(BAD_CONFIG) })
        }
        _ => Err(VerbFailure::Answered(answer)),
    }
}

/// A file that an operator names leads to the process, which reads its own.
fn warn_of_another_file(target: &Target, read: &str) {
    let Some(named) = target.file.as_ref().filter(|_| target.socket.is_none()) else { return };
    let is_same = match (named.canonicalize(), Path::new(read).canonicalize()) {
        (Ok(named), Ok(read)) => named == read,
        _ => false,
    };
    if !is_same {
        let named = named.display();
        complain(format_args!(
            "warning: the process reads {read}, not {named}, which only told its socket\n"
        ));
    }
}

/// The answer to an upgrade.
#[derive(Debug, Deserialize)]
struct UpgradeReply {
    text: String,
}

/// What is asked of an upgrade.
#[derive(Debug, Serialize)]
struct UpgradeRequest {
    binary: Option<PathBuf>,
    timeout: String,
    /// Left out where it says nothing: an older process would refuse what it does not know.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    keep_sessions: bool,
}

/// `upgrade`.
pub(crate) fn upgrade(options: &Upgrade) -> ExitCode {
    try_upgrade(options).unwrap_or_else(VerbFailure::tell)
}

fn try_upgrade(options: &Upgrade) -> Result<ExitCode, VerbFailure> {
    let Upgrade { target, binary, timeout, keep_sessions } = options;
    // The running process may be in another directory. A name without a path is looked for in
    // this one.
    let binary = binary.as_ref().map(|path| std::path::absolute(path).unwrap_or(path.clone()));
    let (timeout_shown, keep_sessions) = (show_duration(*timeout), *keep_sessions);
    let request = UpgradeRequest { binary, timeout: timeout_shown, keep_sessions };
    let Ok(body) = serde_json::to_string(&request) else {
        fail("the path of the binary is not UTF-8", "");
        return Ok(ExitCode::FAILURE);
    };
    let path = Request { method: "POST", path: "/v1/upgrade", body };
    let answer = client::request_within(*timeout + ANSWER_TIME, &socket(target)?, path)?;
    match serde_json::from_str::<UpgradeReply>(&answer.body) {
        Ok(reply) if answer.code == OK => {
            say(reply.text);
            Ok(ExitCode::SUCCESS)
        }
        _ => Err(VerbFailure::Answered(answer)),
    }
}

/// How `status` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Tables.
    Text,
    /// The document.
    Json,
    /// The exit code only.
    Quiet,
}

/// `status`.
pub(crate) fn status(target: &Target, manner: Manner) -> ExitCode {
    match try_status(target, manner) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(_) if manner == Manner::Quiet => ExitCode::FAILURE,
        Err(failed) => failed.tell(),
    }
}

fn try_status(target: &Target, manner: Manner) -> Result<bool, VerbFailure> {
    let socket = socket(target)?;
    let look = || -> Result<(Status, String), VerbFailure> {
        let answer = client::request(&socket, "GET", "/v1/status", String::new())?;
        match serde_json::from_str(&answer.body) {
            Ok(status) if answer.code == OK => Ok((status, answer.body)),
            _ => Err(VerbFailure::Answered(answer)),
        }
    };
    let (first, document) = look()?;
    match manner {
        Manner::Quiet => Ok(first.ready),
        Manner::Json => {
            say(format_args!("{}\n", pretty(&document)));
            Ok(first.ready)
        }
        Manner::Text => {
            // Waking early only makes the rates a little coarser.
            std::thread::park_timeout(LOOK_APART);
            let (second, _) = look()?;
            say(text::render(&second, Some(&first), stdout_has_colour()));
            Ok(second.ready)
        }
    }
}

/// The decision that a client would get, for people.
#[derive(Debug, Deserialize)]
struct ExplainReply {
    text: String,
}

/// `explain`.
pub(crate) fn explain(question: &Explain) -> ExitCode {
    try_explain(question).unwrap_or_else(VerbFailure::tell)
}

fn try_explain(question: &Explain) -> Result<ExitCode, VerbFailure> {
    let Explain { target, listener, client, sni, json } = question;
    let path = client::explain_path(listener, client, sni.as_deref());
    let answer = client::request(&socket(target)?, "GET", &path, String::new())?;
    match serde_json::from_str::<ExplainReply>(&answer.body) {
        Ok(explained) if answer.code == OK => {
            if *json {
                say(format_args!("{}\n", pretty(&answer.body)));
            } else {
                say(explained.text);
            }
            Ok(ExitCode::SUCCESS)
        }
        _ => Err(VerbFailure::Answered(answer)),
    }
}

/// A document as it came: fields that this version does not know stay.
pub(super) fn pretty(document: &str) -> String {
    let value: Result<serde_json::Value, _> = serde_json::from_str(document);
    let pretty = value.and_then(|value| serde_json::to_string_pretty(&value));
    pretty.unwrap_or_else(|_| document.to_owned())
}

/// What came of a verb.
#[derive(Debug, Deserialize)]
pub(super) struct Obeyed {
    text: String,
    warning: Option<String>,
}

impl Obeyed {
    /// Reads it.
    pub(super) fn of(answer: AdminReply) -> Result<Self, VerbFailure> {
        match serde_json::from_str(&answer.body) {
            Ok(obeyed) if answer.code == OK => Ok(obeyed),
            _ => Err(VerbFailure::Answered(answer)),
        }
    }

    /// Says it.
    pub(super) fn tell(self) {
        say(format_args!("{}\n", self.text));
        if let Some(warning) = self.warning {
            complain(format_args!("warning: {warning}\n"));
        }
    }
}
