//! The routes of the admin interface: from a request to a call and back.
//!
//! Failures are answered with `{"error": ...}` and a status code that tells whose fault it is.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::config::units::duration;
use crate::config::{Difference, LeaveConfig, Problem, pace};

use crate::control::admin::context::AdminContext;
use crate::control::admin::verbs::{BackendVerb, VerbError, VerbTarget, obey};
use crate::control::off_thread::off_thread;
use crate::control::plane::state::ProcessPhase;
use crate::control::reload::outcome::{Candidate, RefusalCause, RefusedReload, Reloaded};
use crate::control::reload::services::Services;
use crate::control::tell::explain::{explained, parse_client};
use crate::control::tell::metrics as exposition;
use crate::control::tell::metrics::format::Exposition;
use crate::control::tell::status::gather::why_not_ready;
use crate::control::upgrade::predecessor::{self, UpgradeOrder};
use crate::control::upgrade::report::UpgradeReport;
use crate::dataplane::Question;

/// `GET /v1/status`.
pub(crate) async fn status(State(admin): State<AdminContext>) -> Response {
    off_thread(move || Json(admin.status()).into_response()).await
}

/// `GET /metrics`.
pub(crate) async fn metrics(
    State(admin): State<AdminContext>,
    headers: HeaderMap,
) -> impl IntoResponse {
    let format = Exposition::accepted(headers.get_all(ACCEPT).iter());
    let Services { plane, logging, .. } = admin.services;
    let text = off_thread(move || exposition::text(&plane, &logging, format)).await;
    ([(CONTENT_TYPE, format.content_type())], text)
}

/// `GET /livez`.
pub(crate) async fn livez() -> &'static str {
    "ok\n"
}

/// `GET /readyz`.
pub(crate) async fn readyz(State(admin): State<AdminContext>) -> (StatusCode, String) {
    let plane = &admin.services.plane;
    if plane.is_ready() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", why_not_ready(plane)))
}

/// `GET /v1/config`: the configuration in force, defaults filled in.
pub(crate) async fn config(State(admin): State<AdminContext>) -> impl IntoResponse {
    let config = Arc::clone(&admin.services.plane.current.lock().config);
    let text = off_thread(move || config.to_toml()).await;
    ([(CONTENT_TYPE, "application/toml; charset=utf-8")], text)
}

/// The query of `explain`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExplainQuery {
    listener: String,
    client: String,
    sni: Option<String>,
}

/// `GET /v1/explain`: the decision that a client would get now, and why.
pub(crate) async fn explain(
    State(admin): State<AdminContext>,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Response {
    let ExplainQuery { listener: name, client, sni } = match query {
        Ok(Query(query)) => query,
        Err(rejection) => return failure(StatusCode::BAD_REQUEST, rejection.body_text()),
    };
    let Some(client) = parse_client(&client) else {
        let text = format!("client {client:?} is no address like 192.0.2.7 or 192.0.2.7:4711");
        return failure(StatusCode::BAD_REQUEST, text);
    };
    let plane = &admin.services.plane;
    if plane.phase() == ProcessPhase::Stopping && plane.workers.listening() == 0 {
        let text = "evenkeel is stopping: no listener accepts any more".to_owned();
        return failure(StatusCode::CONFLICT, text);
    }
    let snapshot = plane.publisher.latest();
    let Some(listener) = snapshot.open_listeners().find(|listener| listener.name == name) else {
        let known: Vec<&str> = snapshot.open_listeners().map(|known| known.name.as_str()).collect();
        let text = format!("no listener {name:?}; there are: {}", known.join(", "));
        return failure(StatusCode::NOT_FOUND, text);
    };
    let sni = sni.map(|name| name.trim_end_matches('.').to_ascii_lowercase());
    let now_us = admin.services.plane.now_us();
    let listener = Arc::clone(listener);
    off_thread(move || {
        let question =
            Question { listener: &listener, client, server_name: sni.as_deref(), now_us };
        Json(explained(&snapshot, &question, &admin.status())).into_response()
    })
    .await
}

/// The query of a reload.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReloadQuery {
    #[serde(default)]
    dry_run: bool,
}

/// The query of a candidate.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CandidateQuery {
    /// How problems name it.
    file: PathBuf,
}

/// The answer to a reload.
#[derive(Debug, Serialize)]
struct ReloadAnswer {
    /// `ok`, or `refused`.
    result: &'static str,
    /// What refuses it: `file` or `host`; `null` when it is not refused.
    refused_by: Option<&'static str>,
    dry_run: bool,
    /// The file that was read.
    file: String,
    generation: u64,
    /// What changed, and what operators have set, for people.
    changes: Vec<String>,
    /// Each key that has another value.
    keys: Vec<Difference>,
    problems: Vec<Problem>,
    /// The problems for people.
    text: String,
}

/// `POST /v1/reload`.
pub(crate) async fn reload(
    State(admin): State<AdminContext>,
    query: Result<Query<ReloadQuery>, QueryRejection>,
) -> Response {
    match query {
        Ok(Query(ReloadQuery { dry_run: true })) => {
            reload_answer(&admin, admin.services.preview(None).await, true).await
        }
        Ok(_) => reload_answer(&admin, admin.services.reload().await, false).await,
        Err(rejection) => failure(StatusCode::BAD_REQUEST, rejection.body_text()),
    }
}

/// `POST /v1/reload/candidate`: what putting the body in force would do.
pub(crate) async fn candidate(
    State(admin): State<AdminContext>,
    query: Result<Query<CandidateQuery>, QueryRejection>,
    body: Bytes,
) -> Response {
    let name = match query {
        Ok(Query(query)) => query.file,
        Err(rejection) => return failure(StatusCode::BAD_REQUEST, rejection.body_text()),
    };
    let Ok(text) = String::from_utf8(body.into()) else {
        return failure(StatusCode::BAD_REQUEST, format!("{} is not UTF-8", name.display()));
    };
    let outcome = admin.services.preview(Some(Candidate { name, text })).await;
    reload_answer(&admin, outcome, true).await
}

async fn reload_answer(
    admin: &AdminContext,
    outcome: Result<Reloaded, RefusedReload>,
    dry_run: bool,
) -> Response {
    let generation = admin.services.plane.publisher.latest().generation.0;
    off_thread(move || reload_document(outcome, generation, dry_run)).await
}

fn reload_document(
    outcome: Result<Reloaded, RefusedReload>,
    generation: u64,
    dry_run: bool,
) -> Response {
    match outcome {
        Ok(reloaded) => {
            let answer = ReloadAnswer {
                result: "ok",
                refused_by: None,
                dry_run,
                generation: reloaded.generation,
                changes: reloaded.lines().collect(),
                keys: reloaded.differences,
                file: reloaded.file,
                problems: reloaded.warnings.problems,
                text: reloaded.warnings.text,
            };
            Json(answer).into_response()
        }
        Err(refused) => {
            let (code, refused_by) = match refused.cause {
                RefusalCause::File => (StatusCode::UNPROCESSABLE_ENTITY, "file"),
                RefusalCause::Host => (StatusCode::UNPROCESSABLE_ENTITY, "host"),
                RefusalCause::Stopping => {
                    let text = "evenkeel is stopping: nothing is reloaded".to_owned();
                    return failure(StatusCode::CONFLICT, text);
                }
            };
            let answer = ReloadAnswer {
                result: "refused",
                refused_by: Some(refused_by),
                dry_run,
                file: refused.file,
                generation,
                changes: Vec::new(),
                keys: Vec::new(),
                problems: refused.problems.problems,
                text: refused.problems.text,
            };
            (code, Json(answer)).into_response()
        }
    }
}

/// The body of an upgrade.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpgradeBody {
    /// The program to start, an absolute path; the file that the process came from by default.
    binary: Option<PathBuf>,
    /// How long it may take until it accepts, such as `"30s"`.
    timeout: Option<String>,
    /// Leave the sessions with the old process.
    #[serde(default)]
    keep_sessions: bool,
}

/// Bounds on what an operator may have an upgrade wait for; a connection to the admin interface
/// lasts no longer.
const UPGRADE_PATIENCE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(240);

fn upgrade_order(body: &[u8]) -> Result<UpgradeOrder, String> {
    let mut order = UpgradeOrder::default();
    if body.is_empty() {
        return Ok(order);
    }
    let Ok(UpgradeBody { binary, timeout, keep_sessions }) = serde_json::from_slice(body) else {
        return Err("the body has to be empty, or like \
                    {\"binary\": \"/usr/bin/evenkeel\", \"timeout\": \"30s\"}"
            .to_owned());
    };
    if let Some(binary) = binary.as_ref().filter(|binary| !binary.is_absolute()) {
        return Err(format!("the binary {} is no absolute path", binary.display()));
    }
    order.program = binary;
    order.keep_sessions = keep_sessions;
    if let Some(text) = timeout {
        let patience = duration(&text).ok().filter(|time| UPGRADE_PATIENCE.contains(time));
        let refused = || format!("the timeout {text:?} is not from 1s to 4m");
        order.patience = patience.ok_or_else(refused)?;
    }
    Ok(order)
}

/// `POST /v1/upgrade`.
pub(crate) async fn upgrade(State(admin): State<AdminContext>, body: Bytes) -> Response {
    let order = match upgrade_order(&body) {
        Ok(order) => order,
        Err(text) => return failure(StatusCode::BAD_REQUEST, text),
    };
    match predecessor::upgrade(&admin.services, order).await {
        Ok(report) => {
            Json(UpgradeAnswer { result: "ok", text: report.text(), report }).into_response()
        }
        Err(reason) => failure(StatusCode::CONFLICT, reason),
    }
}

/// The answer to an upgrade.
#[derive(Debug, Serialize)]
struct UpgradeAnswer {
    result: &'static str,
    text: String,
    report: UpgradeReport,
}

/// The body of `drain`, where it has one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainBody {
    /// Whether sessions are reset.
    #[serde(default)]
    reset: bool,
    /// Reset at this rate, instead of at once.
    pace: Option<String>,
}

/// What happens to the sessions of a backend that is drained; what is wrong with the body.
fn leave_wanted(body: &[u8]) -> Result<LeaveConfig, String> {
    if body.is_empty() {
        return Ok(LeaveConfig::Keep);
    }
    let Ok(DrainBody { reset, pace: rate }) = serde_json::from_slice(body) else {
        let text = r#"the body has to be empty, or like {"reset": true, "pace": "10/s"}"#;
        return Err(text.to_owned());
    };
    match (reset, rate) {
        (false, None) => Ok(LeaveConfig::Keep),
        (false, Some(_)) => {
            Err("`pace` without `reset`: only sessions that are reset have a pace".to_owned())
        }
        (true, None) => Ok(LeaveConfig::Reset),
        (true, Some(text)) => pace(&text)
            .map(LeaveConfig::Pace)
            .map_err(|remedy| format!("the pace {text:?} is no rate such as \"10/s\": {remedy}")),
    }
}

/// The body of `weight`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WeightBody {
    weight: u32,
}

/// The answer to a verb.
#[derive(Debug, Serialize)]
struct VerbAnswer {
    result: &'static str,
    text: String,
    /// What the operator may not have meant.
    warning: Option<String>,
}

/// `POST /v1/backends/{pool}/{backend}/{verb}`.
pub(crate) async fn backend(
    State(admin): State<AdminContext>,
    path: Result<Path<(String, String, String)>, PathRejection>,
    body: Bytes,
) -> Response {
    let (pool, backend, verb) = match path {
        Ok(Path(parts)) => parts,
        Err(rejection) => return failure(StatusCode::BAD_REQUEST, rejection.body_text()),
    };
    let verb = match verb.as_str() {
        "drain" => match leave_wanted(&body) {
            Ok(leave) => BackendVerb::Drain(leave),
            Err(text) => return failure(StatusCode::BAD_REQUEST, text),
        },
        "ready" => BackendVerb::Ready,
        "maint" => BackendVerb::Maint,
        "weight" => match serde_json::from_slice::<WeightBody>(&body) {
            Ok(body) => BackendVerb::Weight(body.weight),
            Err(_) => {
                let text = "the body has to be like {\"weight\": 10}, with 0 to 65535".to_owned();
                return failure(StatusCode::BAD_REQUEST, text);
            }
        },
        "forget" => BackendVerb::Forget,
        other => {
            let text = format!("no verb {other:?}; there are: drain, ready, maint, weight, forget");
            return failure(StatusCode::NOT_FOUND, text);
        }
    };
    let target = VerbTarget { pool: pool.clone(), backend };
    match obey(&admin.services, target, verb).await {
        Ok(text) => {
            let can_serve = admin.services.plane.can_serve(&pool);
            let warning =
                (!can_serve).then(|| format!("pool {pool} has no healthy backend that may serve"));
            Json(VerbAnswer { result: "ok", text, warning }).into_response()
        }
        Err(VerbError::Unknown(text)) => failure(StatusCode::NOT_FOUND, text),
        Err(VerbError::Refused(text)) => failure(StatusCode::BAD_REQUEST, text),
    }
}

/// Any other path.
pub(crate) async fn no_such_route(uri: Uri) -> Response {
    failure(StatusCode::NOT_FOUND, format!("no {} here", uri.path()))
}

/// A path that is there, by another method.
pub(crate) async fn wrong_method(method: Method, uri: Uri) -> Response {
    let text = format!("{} does not take {method}", uri.path());
    failure(StatusCode::METHOD_NOT_ALLOWED, text)
}

/// The answer to a request that failed.
#[derive(Debug, Serialize)]
struct ErrorBody {
    error: String,
}

/// A request that failed: whose fault it is, and what is wrong.
pub(crate) fn failure(code: StatusCode, error: String) -> Response {
    (code, Json(ErrorBody { error })).into_response()
}
