//! Verbs that talk to a running process: `reload`, `status`, `explain`, `drain`, `ready`, `maint`,
//! `weight`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use evenkeel::control::admin::client::{self, AdminReply, ClientError};
use evenkeel::control::status::Status;
use evenkeel::control::status::text;
use serde::Deserialize;

use crate::cli::exit::BAD_CONFIG;
use crate::cli::terminal::{complain, fail, say, stdout_has_colour};
use crate::cli::{DEFAULT_FILE, Explain, OneBackend, Target};

/// HTTP: done.
const OK: u16 = 200;
/// HTTP: the file is refused.
const REFUSED: u16 = 422;
/// Time between the two looks from which rates are made.
const LOOK_APART: Duration = Duration::from_millis(500);

/// Why a verb came to nothing.
enum VerbFailure {
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
    fn tell(self) -> ExitCode {
        match self {
            Self::Unreached(error) => fail(&error, error.help()),
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

fn socket(target: &Target) -> Result<PathBuf, ClientError> {
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
    text: String,
}

/// `reload`.
pub(crate) fn reload(target: &Target, dry_run: bool) -> ExitCode {
    try_reload(target, dry_run).unwrap_or_else(VerbFailure::tell)
}

fn try_reload(target: &Target, dry_run: bool) -> Result<ExitCode, VerbFailure> {
    let path = if dry_run { "/v1/reload?dry_run=true" } else { "/v1/reload" };
    let answer = client::request(&socket(target)?, "POST", path, String::new())?;
    let Ok(reloaded) = serde_json::from_str::<ReloadReply>(&answer.body) else {
        return Err(VerbFailure::Answered(answer));
    };
    let ReloadReply { generation, text } = reloaded;
    match (answer.code, dry_run) {
        (OK, true) => {
            say(format_args!("the file is good; a reload would do this:\n{text}"));
            Ok(ExitCode::SUCCESS)
        }
        (OK, false) => {
            say(format_args!("reloaded, generation {generation} is in force\n{text}"));
            Ok(ExitCode::SUCCESS)
        }
        (REFUSED, _) => {
            complain(&text);
            let what = format!("reload refused: generation {generation} goes on unchanged");
            fail(what, "");
            Ok(ExitCode::from(BAD_CONFIG))
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
fn pretty(document: &str) -> String {
    let value: Result<serde_json::Value, _> = serde_json::from_str(document);
    let pretty = value.and_then(|value| serde_json::to_string_pretty(&value));
    pretty.unwrap_or_else(|_| document.to_owned())
}

/// What came of a verb.
#[derive(Debug, Deserialize)]
struct Obeyed {
    text: String,
    warning: Option<String>,
}

/// `drain`, `ready`, `maint`; `weight` with a body.
pub(crate) fn backend(target: &OneBackend, verb: &str, body: String) -> ExitCode {
    try_backend(target, verb, body).unwrap_or_else(VerbFailure::tell)
}

fn try_backend(target: &OneBackend, verb: &str, body: String) -> Result<ExitCode, VerbFailure> {
    let name = &target.backend;
    let path = client::backend_path(&name.pool, &name.backend, verb);
    let answer = client::request(&socket(&target.target)?, "POST", &path, body)?;
    match serde_json::from_str::<Obeyed>(&answer.body) {
        Ok(obeyed) if answer.code == OK => {
            say(format_args!("{}\n", obeyed.text));
            if let Some(warning) = obeyed.warning {
                complain(format_args!("warning: {warning}\n"));
            }
            Ok(ExitCode::SUCCESS)
        }
        _ => Err(VerbFailure::Answered(answer)),
    }
}
