//! The routes about bans: which there are, more of them, fewer of them.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::config::LeaveConfig;
use crate::config::units::{duration, show_duration};
use crate::control::admin::ban_list::{BanList, BanRow};
use crate::control::admin::context::AdminContext;
use crate::control::admin::routes::failure;
use crate::control::off_thread::off_thread;
use crate::control::plane::ban_book::{BANS_MAX, Ban, BanEnd};
use crate::control::plane::clock::seconds_now;
use crate::control::plane::state::Plane;
use crate::control::reload::saved::save;
use crate::control::reload::services::Services;
use crate::control::sessions::kill::kill;
use crate::control::sessions::names::{NamingError, network};
use crate::control::watch::certificate::shown_time;
use crate::control::words::count;
use crate::dataplane::SessionFilter;
use crate::policy::admit::access::NetSet;

/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 256;
/// Longest ban that ends.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// The body of a ban.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BansBody {
    bans: Vec<BanWanted>,
    /// End the sessions of those clients as well.
    #[serde(default)]
    kill: bool,
}

/// One ban that is wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BanWanted {
    network: String,
    /// For how long, such as `10m`; without it, until it is taken back.
    #[serde(rename = "for")]
    time: Option<String>,
    #[serde(default)]
    reason: String,
}

impl BanWanted {
    fn read(self, now_us: u64) -> Result<Ban, String> {
        let Self { network: text, time, reason } = self;
        let network = read_network(&text)?;
        if network.prefix_len() == 0 {
            return Err(format!("{text} is every client: `drain` what is to serve none"));
        }
        if reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control) {
            let most = REASON_BYTES_MAX;
            return Err(format!("a reason has at most {most} bytes, and no control characters"));
        }
        let time = time.as_deref().map(read_time).transpose()?;
        let since = seconds_now();
        let until = time.map(|time| BanEnd {
            us: now_us.saturating_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
            at: since.saturating_add(time.as_secs()),
        });
        Ok(Ban { network, since, until, reason })
    }
}

fn read_network(text: &str) -> Result<IpNet, String> {
    network(text).map_err(|error| match error {
        NamingError::Unknown(text) | NamingError::Malformed(text) => text,
    })
}

fn read_time(text: &str) -> Result<Duration, String> {
    let time = duration(text).map_err(|remedy| format!("{text:?} is no time: {remedy}"))?;
    let is_fit = (Duration::from_secs(1)..=LONGEST).contains(&time);
    let bounds = || format!("a ban lasts from 1s to {}, not {text}", show_duration(LONGEST));
    is_fit.then_some(time).ok_or_else(bounds)
}

/// `GET /v1/bans`.
pub(crate) async fn bans(State(admin): State<AdminContext>) -> Response {
    let plane = admin.services.plane;
    let list = off_thread(move || {
        let bans = plane.bans.list(plane.now_us()).into_iter().map(row).collect();
        BanList { max: BANS_MAX, bans }
    });
    Json(list.await).into_response()
}

fn row(ban: Ban) -> BanRow {
    let Ban { network, since, until, reason } = ban;
    let until = until.map(|end| shown_time(end.at));
    BanRow { network: shown(network), since: shown_time(since), until, reason }
}

/// An address alone without the length of its prefix.
fn shown(network: IpNet) -> String {
    let is_one = network.prefix_len() == network.max_prefix_len();
    if is_one { network.addr().to_string() } else { network.to_string() }
}

/// The answer to a change.
#[derive(Debug, Serialize)]
struct BanAnswer {
    result: &'static str,
    text: String,
    /// Bans that were set or ended.
    count: u64,
    /// What the operator may not have meant.
    warning: Option<String>,
}

/// `POST /v1/bans`.
pub(crate) async fn ban(State(admin): State<AdminContext>, body: Bytes) -> Response {
    let Ok(BansBody { bans, kill: kills }) = serde_json::from_slice(&body) else {
        let one = r#"{"network": "192.0.2.0/24", "for": "10m", "reason": "text"}"#;
        let text = format!(r#"the body has to be like {{"bans": [{one}], "kill": false}}"#);
        return failure(StatusCode::BAD_REQUEST, text);
    };
    let _alone = admin.services.plane.looking.lock().await;
    changed(&admin.services, move |plane| set(plane, bans, kills)).await
}

/// Makes a change of bans, after an upgrade that is under way, and writes it to the state file. A
/// process that has handed over has nothing to change.
async fn changed(
    services: &Services,
    change: impl FnOnce(&Plane) -> Response + Send + 'static,
) -> Response {
    services
        .change(move |services| async move {
            let plane = services.plane;
            if plane.upgrades.has_handed_over() {
                let text = "another process has taken over: ask again, it answers now";
                return failure(StatusCode::CONFLICT, text.to_owned());
            }
            let its = Arc::clone(&plane);
            let answer = off_thread(move || change(&its)).await;
            save(&plane).await;
            answer
        })
        .await
}

fn set(plane: &Plane, wanted: Vec<BanWanted>, kills: bool) -> Response {
    let now_us = plane.now_us();
    let read: Result<Vec<Ban>, String> = wanted.into_iter().map(|ban| ban.read(now_us)).collect();
    let bans = match read {
        Ok(bans) if !bans.is_empty() => bans,
        Ok(_) => return failure(StatusCode::BAD_REQUEST, "`bans` is empty".to_owned()),
        Err(text) => return failure(StatusCode::BAD_REQUEST, text),
    };
    let networks: Vec<IpNet> = bans.iter().map(|ban| ban.network).collect();
    let mut text = words(&bans);
    if plane.bans.put(bans, now_us).is_err() {
        let text = format!("no more than {BANS_MAX} bans may be in force: `unban` some first");
        return failure(StatusCode::CONFLICT, text);
    }
    if kills {
        let clients = Some(NetSet::new(&networks));
        let filter = Arc::new(SessionFilter { clients, ..SessionFilter::default() });
        match kill(plane, &filter, LeaveConfig::Reset) {
            Ok(number) => text += &format!("; killing {}", count(number, "session")),
            Err(silent) => text += &format!("; their sessions stay: {silent}"),
        }
    }
    tracing::warn!("{text}");
    let count = networks.len() as u64;
    Json(BanAnswer { result: "ok", text, count, warning: None }).into_response()
}

/// What is banned, in words: the first of them where there are several.
fn words(bans: &[Ban]) -> String {
    let Some(first) = bans.first() else { return String::new() };
    let more = match bans.len() - 1 {
        0 => String::new(),
        more => format!(" and {}", count(more as u64, "other")),
    };
    let until = match first.until {
        Some(end) => format!("until {}", shown_time(end.at)),
        None => "until unbanned".to_owned(),
    };
    let reason = match first.reason.as_str() {
        "" => String::new(),
        reason => format!(": {reason}"),
    };
    format!("banned {}{more} {until}{reason}", shown(first.network))
}

/// `DELETE /v1/bans/{network}`.
pub(crate) async fn unban(
    State(admin): State<AdminContext>,
    path: Result<Path<String>, PathRejection>,
) -> Response {
    let read = match path {
        Ok(Path(text)) => read_network(&text),
        Err(rejection) => Err(rejection.body_text()),
    };
    let network = match read {
        Ok(network) => network,
        Err(text) => return failure(StatusCode::BAD_REQUEST, text),
    };
    changed(&admin.services, move |plane| {
        let was_there = plane.bans.remove(network, plane.now_us());
        let wider = plane.bans.covering(network, plane.now_us());
        let wider = wider.map(|ban| format!("banned still, by {}", shown(ban.network)));
        let text = match was_there {
            true => format!("unbanned {}", shown(network)),
            false => format!("{} was not banned", shown(network)),
        };
        if was_there {
            tracing::warn!("{text}");
        }
        let count = u64::from(was_there);
        Json(BanAnswer { result: "ok", text, count, warning: wider }).into_response()
    })
    .await
}

/// `DELETE /v1/bans`.
pub(crate) async fn unban_all(State(admin): State<AdminContext>) -> Response {
    changed(&admin.services, move |plane| {
        let ended = plane.bans.clear(plane.now_us());
        let text = format!("{} ended", count(ended, "ban"));
        tracing::warn!("{text}");
        Json(BanAnswer { result: "ok", text, count: ended, warning: None }).into_response()
    })
    .await
}
