//! The read-only page: one HTML document, made from the status document, without any asset.
//!
//! Whatever comes from the configuration is escaped, and a content security policy forbids the
//! browser to load or run anything.

use std::fmt::{Display, Write};
use std::time::Duration;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::IntoResponse;
use bytesize::ByteSize;

use crate::config::units::show_duration;

use crate::control::admin::context::AdminContext;
use crate::control::off_thread::off_thread;
use crate::control::tell::status::document::Status;
use crate::control::words::count;

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:14px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.3rem}h2{font-size:1rem;margin:1.6rem 0 .4rem}\
table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.25rem .7rem;border-bottom:1px solid #8884}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}\
tr.up td.s{color:#1a7f37}tr.down,tr.ejected{background:#cf222e33}\
tr.drain,tr.maint{background:#d4a72c33}\
.ready{color:#1a7f37}.not{color:#cf222e}p.alarm{background:#cf222e33;padding:.5rem .7rem}\
small{color:#888}";

/// `GET /` over TCP.
pub(crate) async fn page(State(admin): State<AdminContext>) -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
    ];
    (headers, off_thread(move || html(&admin.status())).await)
}

fn html(status: &Status) -> String {
    let mut out = String::with_capacity(8 * 1024);
    let (class, word) = if status.ready { ("ready", "ready") } else { ("not", "not ready") };
    let up = Duration::try_from_secs_f64(status.uptime_seconds.floor()).unwrap_or_default();
    // Writing to a `String` cannot fail.
    let _ = write!(
        out,
        "<!doctype html><html lang=en><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width\">\
         <meta http-equiv=refresh content=2><title>evenkeel: {word}</title>\
         <style>{STYLE}</style><h1>evenkeel: <span class={class}>{word}</span></h1>\
         <p>{} of {} sessions, generation {}, up {}<br><small>{}, version {}, pid {}</small></p>",
        status.sessions,
        status.sessions_max,
        status.generation,
        show_duration(up),
        escaped(&status.config.file),
        escaped(&status.version),
        status.pid,
    );
    alarms(status, &mut out);
    listeners(status, &mut out);
    pools(status, &mut out);
    workers(status, &mut out);
    out.push_str("<p><small>/metrics /v1/status /livez /readyz</small></p></html>\n");
    out
}

fn alarms(status: &Status, out: &mut String) {
    let mut alarm = |text: &dyn Display| {
        let _ = write!(out, "<p class=alarm>{}</p>", escaped(text));
    };
    if !status.ready {
        alarm(&status.reason);
    }
    if !status.config.last_reload_ok {
        alarm(&"the last reload was refused: the file is not what runs");
    }
    if status.log_dropped > 0 {
        alarm(&format_args!("{} lost", count(status.log_dropped, "log line")));
    }
}

fn listeners(status: &Status, out: &mut String) {
    out.push_str(
        "<h2>Listeners</h2><table><tr><th>name<th>address<th>pool<th class=n>sessions\
         <th class=n>accepted<th class=n>refused<th class=n>to backends<th class=n>to clients",
    );
    for (name, listener) in &status.listeners {
        let _ = write!(
            out,
            "<tr><td>{}{}<td>{}<td>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}\
             <td class=n>{}",
            escaped(name),
            if listener.retired { " (retired)" } else { "" },
            escaped(listener.addresses.join(" ")),
            escaped(&listener.pool),
            listener.sessions,
            listener.accepted,
            listener.refused,
            ByteSize::b(listener.bytes_to_backend).display().iec(),
            ByteSize::b(listener.bytes_to_client).display().iec(),
        );
    }
    out.push_str("</table>");
}

fn pools(status: &Status, out: &mut String) {
    for (name, pool) in &status.pools {
        let _ = write!(
            out,
            "<h2>Pool {} <small>{}{}</small></h2><table><tr><th>backend<th>address<th>state\
             <th class=n>weight<th class=n>sessions<th class=n>total<th class=n>failed<th>reason",
            escaped(name),
            escaped(&pool.balance),
            match (pool.panic, pool.backends.len()) {
                (false, _) => "",
                (true, 1) => ", not healthy: trying it anyway",
                (true, _) => ", too few healthy backends: trying all",
            },
        );
        for (name, backend) in &pool.backends {
            let _ = write!(
                out,
                "<tr class=\"{}\"><td>{}{}<td>{}<td class=s>{}<td class=n>{}<td class=n>{}\
                 <td class=n>{}<td class=n>{}<td>{}",
                escaped(&backend.state),
                escaped(name),
                if backend.backup { " (backup)" } else { "" },
                escaped(&backend.address),
                escaped(&backend.state),
                backend.weight,
                backend.sessions,
                backend.sessions_total,
                backend.connect_failures,
                escaped(&backend.reason),
            );
        }
        out.push_str("</table>");
    }
}

fn workers(status: &Status, out: &mut String) {
    out.push_str(
        "<h2>Workers</h2><table><tr><th>number<th class=n>sessions<th class=n>busy since start\
         <th class=n>pipes",
    );
    for (number, worker) in status.workers.iter().enumerate() {
        let _ = write!(
            out,
            "<tr><td>{number}<td class=n>{}<td class=n>{:.1}%<td class=n>{}",
            worker.sessions,
            worker.busy_share * 100.0,
            worker.pipes_in_use,
        );
    }
    out.push_str("</table>");
}

/// Text that is nothing but text in HTML, in quoted attributes too.
fn escaped(text: impl Display) -> String {
    let mut out = String::new();
    for letter in text.to_string().chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::control::tell::status::document::{BackendStatus, ListenerStatus, PoolStatus};

    // If this fails, a name in the configuration runs as a script in an operator's browser.
    #[test]
    fn everything_from_outside_is_escaped() {
        let evil = "\"><script>alert('x')</script>";
        let backend = BackendStatus {
            state: evil.into(),
            reason: evil.into(),
            address: evil.into(),
            ..BackendStatus::default()
        };
        let backends = [(evil.to_owned(), backend)].into_iter().collect();
        let pool = PoolStatus { balance: evil.into(), backends, ..PoolStatus::default() };
        let listener = ListenerStatus { pool: evil.into(), ..ListenerStatus::default() };
        let mut status = Status { reason: evil.into(), version: evil.into(), ..Status::default() };
        status.config.file = evil.into();
        status.pools.insert(evil.into(), pool);
        status.listeners.insert(evil.into(), listener);
        let page = html(&status);
        assert!(!page.contains("<script") && !page.contains("\">&lt;script\">"), "{page}");
        assert!(page.contains("&quot;&gt;&lt;script&gt;"));
    }
}
