//! The routes about sessions: a list of them, and their end.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::config::{LeaveConfig, pace};
use crate::control::admin::context::AdminContext;
use crate::control::admin::routes::failure;
use crate::control::off_thread::off_thread;
use crate::control::sessions::kill::kill;
use crate::control::sessions::list::{PAGE_DEFAULT, PAGE_MAX, PageWanted, page};
use crate::control::sessions::names::{NamingError, SessionsNamed};
use crate::control::sessions::scan::SilentWorker;
use crate::control::watch::leave::reset_words;
use crate::control::words::count;
use crate::dataplane::SessionFilter;

/// The query of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    listener: Option<String>,
    pool: Option<String>,
    backend: Option<String>,
    client: Option<String>,
    sort: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
    #[serde(default)]
    rates: bool,
}

impl ListQuery {
    fn wanted(self, admin: &AdminContext) -> Result<PageWanted, NamingError> {
        let Self { listener, pool, backend, client, sort, limit, after, rates } = self;
        let snapshot = admin.services.plane.publisher.latest();
        let filter = SessionsNamed { listener, pool, backend, client }.filter(&snapshot)?;
        let most = limit.unwrap_or(PAGE_DEFAULT);
        if !(1..=PAGE_MAX).contains(&most) {
            let text = format!("limit {most} is not in 1..={PAGE_MAX}: pages follow by `after`");
            return Err(NamingError::Malformed(text));
        }
        let order = sort.as_deref().map(str::parse).transpose().map_err(NamingError::Malformed)?;
        let after = after.as_deref().map(str::parse).transpose().map_err(NamingError::Malformed)?;
        let order = order.unwrap_or_default();
        Ok(PageWanted { filter: Arc::new(filter), order, most, after, has_rates: rates })
    }
}

/// `GET /v1/sessions`.
pub(crate) async fn sessions(
    State(admin): State<AdminContext>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Response {
    let wanted = match query {
        Ok(Query(query)) => query.wanted(&admin),
        Err(rejection) => return failure(StatusCode::BAD_REQUEST, rejection.body_text()),
    };
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(error) => return unclear(error),
    };
    let plane = Arc::clone(&admin.services.plane);
    // Workers look for one asker at a time.
    let _alone = admin.services.plane.looking.lock().await;
    off_thread(move || match page(&plane, &wanted) {
        Ok(page) => Json(page).into_response(),
        Err(silent) => unanswered(silent),
    })
    .await
}

/// The body of a kill.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KillBody {
    listener: Option<String>,
    pool: Option<String>,
    backend: Option<String>,
    client: Option<String>,
    pace: Option<String>,
}

/// The answer to a kill.
#[derive(Debug, Serialize)]
struct KillAnswer {
    result: &'static str,
    text: String,
    /// Sessions that end, or kills that are stopped.
    count: u64,
}

/// `POST /v1/sessions/kill`.
pub(crate) async fn kill_many(State(admin): State<AdminContext>, body: Bytes) -> Response {
    let Ok(KillBody { listener, pool, backend, client, pace: rate }) =
        serde_json::from_slice(&body)
    else {
        let text = r#"the body has to be like {"client": "192.0.2.0/24", "pace": "10/s"}, with "#;
        let text = format!("{text}client, backend, pool or listener, or several of them");
        return failure(StatusCode::BAD_REQUEST, text);
    };
    let named = SessionsNamed { listener, pool, backend, client };
    if named.is_empty() {
        let text = "name a client, backend, pool or listener; `*` is any of them".to_owned();
        return failure(StatusCode::BAD_REQUEST, text);
    }
    let wanted = match rate.as_deref().map(pace).transpose() {
        Ok(rate) => rate.map_or(LeaveConfig::Reset, LeaveConfig::Pace),
        Err(remedy) => {
            let text = format!("the pace is no rate such as \"10/s\": {remedy}");
            return failure(StatusCode::BAD_REQUEST, text);
        }
    };
    match named.filter(&admin.services.plane.publisher.latest()) {
        Ok(filter) => end(&admin, filter, wanted, named.words()).await,
        Err(error) => unclear(error),
    }
}

/// `DELETE /v1/sessions/{id}`.
pub(crate) async fn kill_one(
    State(admin): State<AdminContext>,
    path: Result<Path<u64>, PathRejection>,
) -> Response {
    let number = match path {
        Ok(Path(number)) => number,
        Err(rejection) => return failure(StatusCode::BAD_REQUEST, rejection.body_text()),
    };
    let filter = SessionFilter { number: Some(number), ..SessionFilter::default() };
    end(&admin, filter, LeaveConfig::Reset, format!("id {number}")).await
}

/// Has sessions reset, and says so.
async fn end(
    admin: &AdminContext,
    filter: SessionFilter,
    wanted: LeaveConfig,
    whose: String,
) -> Response {
    let plane = Arc::clone(&admin.services.plane);
    let _alone = admin.services.plane.looking.lock().await;
    let is_one = filter.number.is_some();
    let ended = off_thread(move || kill(&plane, &Arc::new(filter), wanted)).await;
    match ended {
        Ok(0) if is_one => failure(StatusCode::NOT_FOUND, format!("no session has {whose}")),
        Ok(number) => {
            let how = reset_words(wanted).unwrap_or_default();
            let text = format!("killing {} {how}: {whose}", count(number, "session"));
            tracing::warn!("{text}");
            Json(KillAnswer { result: "ok", text, count: number }).into_response()
        }
        Err(silent) => unanswered(silent),
    }
}

/// `POST /v1/sessions/kill/stop`.
pub(crate) async fn stop_kills(State(admin): State<AdminContext>) -> Response {
    let stopped = admin.services.plane.kills.revoke_all();
    let text = format!("{} stopped", count(stopped, "kill"));
    tracing::warn!("{text}");
    Json(KillAnswer { result: "ok", text, count: stopped }).into_response()
}

fn unclear(error: NamingError) -> Response {
    match error {
        NamingError::Unknown(text) => failure(StatusCode::NOT_FOUND, text),
        NamingError::Malformed(text) => failure(StatusCode::BAD_REQUEST, text),
    }
}

fn unanswered(silent: SilentWorker) -> Response {
    failure(StatusCode::SERVICE_UNAVAILABLE, silent.to_string())
}
