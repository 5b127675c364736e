//! The routes of the admin interface: from a request to a call and back.
//!
//! Failures are answered with `{"error": ...}` and a status code that tells whose fault it is.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::config::Problem;

use crate::control::admin::context::AdminContext;
use crate::control::admin::verbs::{BackendVerb, VerbError, obey};
use crate::control::plane::state::ProcessPhase;
use crate::control::tell::explain::{explained, parse_client};
use crate::control::tell::metrics as exposition;
use crate::control::tell::status::document::Status;
use crate::control::tell::status::gather::why_not_ready;
use crate::dataplane::Question;

/// `GET /v1/status`.
pub(crate) async fn status(State(admin): State<AdminContext>) -> Json<Status> {
    Json(admin.status())
}

/// `GET /metrics`.
pub(crate) async fn metrics(State(admin): State<AdminContext>) -> impl IntoResponse {
    let text = exposition::text(&admin.services.plane, &admin.services.logging);
    ([(CONTENT_TYPE, exposition::CONTENT_TYPE)], text)
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
    let text = admin.services.plane.current.lock().config.to_toml();
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
    let snapshot = admin.services.plane.publisher.latest();
    let Some(listener) = snapshot.open_listeners().find(|listener| listener.name == name) else {
        let known: Vec<&str> = snapshot.open_listeners().map(|known| known.name.as_str()).collect();
        let text = format!("no listener {name:?}; there are: {}", known.join(", "));
        return failure(StatusCode::NOT_FOUND, text);
    };
    let sni = sni.map(|name| name.trim_end_matches('.').to_ascii_lowercase());
    let now_us = admin.services.plane.now_us();
    let question = Question { listener, client, server_name: sni.as_deref(), now_us };
    Json(explained(&snapshot, &question, &admin.status())).into_response()
}

/// The query of a reload.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReloadQuery {
    #[serde(default)]
    dry_run: bool,
}

/// The answer to a reload.
#[derive(Debug, Serialize)]
struct ReloadAnswer {
    result: &'static str,
    dry_run: bool,
    generation: u64,
    changes: Vec<String>,
    problems: Vec<Problem>,
    text: String,
}

/// `POST /v1/reload`.
pub(crate) async fn reload(
    State(admin): State<AdminContext>,
    query: Result<Query<ReloadQuery>, QueryRejection>,
) -> Response {
    let dry_run = match query {
        Ok(Query(query)) => query.dry_run,
        Err(rejection) => return failure(StatusCode::BAD_REQUEST, rejection.body_text()),
    };
    // Listeners would be opened again, and the stop would wait for them.
    if !dry_run && admin.services.plane.phase() == ProcessPhase::Stopping {
        return failure(StatusCode::CONFLICT, "evenkeel is stopping: nothing is reloaded".into());
    }
    match admin.services.reload(dry_run) {
        Ok(reloaded) => {
            let answer = ReloadAnswer {
                result: "ok",
                dry_run,
                generation: reloaded.generation,
                text: describe(&reloaded.changes, &reloaded.warnings),
                changes: reloaded.changes,
                problems: reloaded.warnings,
            };
            Json(answer).into_response()
        }
        Err(refused) => {
            let answer = ReloadAnswer {
                result: "refused",
                dry_run,
                generation: admin.services.plane.publisher.latest().generation.0,
                changes: Vec::new(),
                problems: refused.problems,
                text: refused.text,
            };
            (StatusCode::UNPROCESSABLE_ENTITY, Json(answer)).into_response()
        }
    }
}

fn describe(changes: &[String], warnings: &[Problem]) -> String {
    let mut text = String::new();
    for warning in warnings {
        let Problem { file, line, column, message, .. } = warning;
        text.push_str(&format!("warning: {file}:{line}:{column}: {message}\n"));
    }
    for change in changes {
        text.push_str(change);
        text.push('\n');
    }
    if changes.is_empty() {
        text.push_str("nothing changed\n");
    }
    text
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
        "drain" => BackendVerb::Drain,
        "ready" => BackendVerb::Ready,
        "maint" => BackendVerb::Maint,
        "weight" => match serde_json::from_slice::<WeightBody>(&body) {
            Ok(body) => BackendVerb::Weight(body.weight),
            Err(_) => {
                let text = "the body has to be like {\"weight\": 10}, with 0 to 65535".to_owned();
                return failure(StatusCode::BAD_REQUEST, text);
            }
        },
        other => {
            let text = format!("no verb {other:?}; there are: drain, ready, maint, weight");
            return failure(StatusCode::NOT_FOUND, text);
        }
    };
    match obey(&admin.services.plane, &pool, &backend, verb) {
        Ok(text) => {
            let left = admin.status().pools.get(&pool).map_or(0, |pool| pool.healthy);
            let warning =
                (left == 0).then(|| format!("pool {pool} has no healthy backend that may serve"));
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

fn failure(code: StatusCode, error: String) -> Response {
    (code, Json(ErrorBody { error })).into_response()
}
