//! The state of the process for a person: what is wrong first, then tables.
//!
//! Rates come from two states taken a moment apart. Colour only supports the words, and only the
//! caller knows whether there is a terminal.

use std::fmt::Write;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use bytesize::ByteSize;

use crate::config::units::show_duration;

use crate::control::tell::status::document::{
    BackendStatus, LimitStatus, ListenerStatus, OffenderStatus, Status,
};
use crate::control::tell::status::table::{Cell, StatusTable, painted};
use crate::control::words::{count, too_few_healthy};

const RED: Style = AnsiColor::Red.on_default();
const GREEN: Style = AnsiColor::Green.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();

/// Shows the state; `earlier` is the state some time before, for rates.
#[must_use]
pub fn render(status: &Status, earlier: Option<&Status>, colour: bool) -> String {
    let page = Page { status, earlier: earlier.filter(|old| old.pid == status.pid), colour };
    let mut out = String::new();
    for complaint in page.complaints() {
        out.push_str(&complaint);
        out.push('\n');
    }
    if !out.is_empty() {
        out.push('\n');
    }
    out.push_str(&page.summary());
    for table in [page.listeners(), page.backends(), page.workers()] {
        out.push('\n');
        out.push_str(&table.show(colour));
    }
    let tables = [page.access(), page.limits(), page.offenders(), page.offenders_in_kernel()];
    for table in tables {
        if !table.is_empty() {
            out.push('\n');
            out.push_str(&table.show(colour));
        }
    }
    out
}

struct Page<'a> {
    status: &'a Status,
    earlier: Option<&'a Status>,
    colour: bool,
}

impl Page<'_> {
    fn paint(&self, style: Style, text: &str) -> String {
        painted(if self.colour { style } else { Style::new() }, text)
    }

    /// What an operator should see before anything else.
    fn complaints(&self) -> Vec<String> {
        let status = self.status;
        let mut lines = Vec::new();
        if !status.ready {
            let text = format!("NOT READY: {}", status.reason);
            lines.push(self.paint(RED, &text));
        }
        for (pool_name, pool) in &status.pools {
            if pool.panic {
                let words = too_few_healthy(pool.healthy, pool.wanted);
                lines.push(self.paint(RED, &format!("pool {pool_name}: {words}")));
            }
            for (name, backend) in &pool.backends {
                if backend.state != "up" {
                    let BackendStatus { state, reason, .. } = backend;
                    let since = backend.since.as_ref().map(|since| format!(" (since {since})"));
                    let since = since.unwrap_or_default();
                    let text = format!("backend {pool_name}/{name} {state}: {reason}{since}");
                    lines.push(self.paint(state_colour(state), &text));
                }
            }
        }
        if !status.config.last_reload_ok {
            let text = format!(
                "the last reload was refused: {} is not what runs; `evenkeel check -c` tells why",
                status.config.file
            );
            lines.push(self.paint(RED, &text));
        }
        if status.log_dropped > 0 {
            let text = format!("{} lost", count(status.log_dropped, "log line"));
            lines.push(self.paint(YELLOW, &text));
        }
        lines
    }

    fn summary(&self) -> String {
        let status = self.status;
        let word = if status.ready {
            self.paint(GREEN, "ready")
        } else {
            self.paint(RED, &format!("not ready ({})", status.phase))
        };
        let up = Duration::try_from_secs_f64(status.uptime_seconds.floor()).unwrap_or_default();
        let mut line = format!(
            "{word}: evenkeel {}, pid {}, up {}, generation {}, {} of {} sessions\n",
            status.version,
            status.pid,
            show_duration(up),
            status.generation,
            status.sessions,
            status.sessions_max,
        );
        let _ = write!(line, "config {}", status.config.file);
        if let Some(socket) = &status.admin.socket {
            let _ = write!(line, ", socket {socket}");
        }
        if let Some(http) = status.admin.http {
            let _ = write!(line, ", http://{http}/");
        }
        line.push('\n');
        line
    }

    /// How fast a number grows, per second; empty without an earlier state.
    fn rate(&self, now: u64, before: impl Fn(&Status) -> Option<u64>) -> Option<f64> {
        let earlier = self.earlier?;
        let elapsed = self.status.uptime_seconds - earlier.uptime_seconds;
        let grown = now.saturating_sub(before(earlier)?);
        (elapsed > 0.0).then(|| as_float(grown) / elapsed)
    }

    fn listeners(&self) -> StatusTable {
        let mut table = StatusTable::new(&[
            "LISTENER",
            "ADDRESS",
            "POOL",
            ">SESSIONS",
            ">NEW/S",
            ">ACCEPTED",
            ">REFUSED",
            ">REFUSED/S",
            ">TO BACKEND/S",
            ">TO CLIENT/S",
        ]);
        for (name, listener) in &self.status.listeners {
            let old = |select: fn(&ListenerStatus) -> u64| {
                move |status: &Status| status.listeners.get(name).map(select)
            };
            let bytes = |rate: Option<f64>| rate.map_or("-".to_owned(), show_bytes);
            table.add(vec![
                Cell::plain(format!("{name}{}", if listener.retired { " (retired)" } else { "" })),
                Cell::plain(listener.addresses.join(" ")),
                Cell::plain(&listener.pool),
                Cell::plain(of_most(listener.sessions, listener.sessions_max)),
                Cell::plain(show_rate(self.rate(listener.accepted, old(|l| l.accepted)))),
                Cell::plain(listener.accepted),
                Cell::styled(listener.refused, trouble_colour(listener.refused)),
                Cell::plain(show_rate(self.rate(listener.refused, old(|l| l.refused)))),
                Cell::plain(bytes(
                    self.rate(listener.bytes_to_backend, old(|l| l.bytes_to_backend)),
                )),
                Cell::plain(bytes(self.rate(listener.bytes_to_client, old(|l| l.bytes_to_client)))),
            ]);
        }
        table
    }

    fn backends(&self) -> StatusTable {
        let mut table = StatusTable::new(&[
            "BACKEND",
            "ADDRESS",
            "STATE",
            ">WEIGHT",
            ">SESSIONS",
            ">NEW/S",
            ">TOTAL",
            ">FAILED",
            "REASON",
        ]);
        for (pool_name, pool) in &self.status.pools {
            for (name, backend) in &pool.backends {
                let old = |status: &Status| {
                    Some(status.pools.get(pool_name)?.backends.get(name)?.sessions_total)
                };
                let role = if backend.backup { " (backup)" } else { "" };
                let failed = backend.connect_failures;
                let address = if *name == backend.address { "" } else { backend.address.as_str() };
                table.add(vec![
                    Cell::plain(format!("{pool_name}/{name}{role}")),
                    Cell::plain(address),
                    Cell::styled(&backend.state, state_colour(&backend.state)),
                    Cell::plain(backend.weight),
                    Cell::plain(of_most(backend.sessions, backend.sessions_max)),
                    Cell::plain(show_rate(self.rate(backend.sessions_total, old))),
                    Cell::plain(backend.sessions_total),
                    Cell::styled(failed, trouble_colour(failed)),
                    Cell::plain(&backend.reason),
                ]);
            }
        }
        table
    }

    /// How often lists and bans refuse, and who does it.
    fn access(&self) -> StatusTable {
        let mut table = StatusTable::new(&[
            "NOT ADMITTED TO",
            ">REFUSED",
            ">REFUSED/S",
            "REFUSED BY",
            ">BY THE KERNEL",
            "WHY",
        ]);
        let listeners = self.status.listeners.iter();
        let shown = listeners.filter(|(_, it)| it.access.has_lists || it.access.refused > 0);
        for (name, ListenerStatus { access, .. }) in shown {
            let before = |old: &Status| Some(old.listeners.get(name)?.access.refused);
            table.add(vec![
                Cell::plain(name),
                Cell::styled(access.refused, trouble_colour(access.refused)),
                Cell::plain(show_rate(self.rate(access.refused, before))),
                Cell::plain(&access.refused_by),
                Cell::plain(access.refused_in_kernel),
                Cell::plain(&access.why),
            ]);
        }
        table
    }

    /// How often limits refuse, beside what they do to clients: a client that is told nothing comes
    /// back at once. And who refuses them.
    fn limits(&self) -> StatusTable {
        let mut table = StatusTable::new(&[
            "LIMIT",
            "LISTENER",
            "ACTION",
            ">REFUSED",
            ">REFUSED/S",
            "REFUSED BY",
            ">BY THE KERNEL",
            "WHY",
        ]);
        for (name, listener) in &self.status.listeners {
            for (limit, said) in &listener.limits {
                table.add(self.limit(name, limit, said));
            }
        }
        table
    }

    /// Clients that the kernel refuses most often.
    fn offenders_in_kernel(&self) -> StatusTable {
        let mut table = StatusTable::new(&["REFUSED BY THE KERNEL", "LISTENER", "LIMIT", ">TIMES"]);
        for (name, listener) in &self.status.listeners {
            for (limit, said) in &listener.limits {
                for offender in &said.offenders {
                    let times = show_times(offender.at_least, offender.refused);
                    let cells = [&offender.client, name, limit, &times];
                    table.add(cells.map(Cell::plain).into());
                }
            }
        }
        table
    }

    fn limit(&self, listener: &str, name: &str, limit: &LimitStatus) -> Vec<Cell> {
        let refused = |limit: &LimitStatus| match limit.observes {
            true => limit.would_refuse,
            false => limit.refused,
        };
        let before = |old: &Status| Some(refused(old.listeners.get(listener)?.limits.get(name)?));
        let (count, action) =
            (refused(limit), if limit.observes { "observe" } else { &limit.action });
        vec![
            Cell::plain(name),
            Cell::plain(listener),
            Cell::plain(action),
            Cell::styled(count, trouble_colour(count)),
            Cell::plain(show_rate(self.rate(count, before))),
            Cell::plain(&limit.refused_by),
            Cell::plain(limit.refused_in_kernel),
            Cell::plain(&limit.why),
        ]
    }

    /// Whom limits that only observe would refuse.
    fn offenders(&self) -> StatusTable {
        let mut table = StatusTable::new(&["WOULD BE REFUSED", "LISTENER", "LIMIT", ">TIMES"]);
        for (name, listener) in &self.status.listeners {
            for offender in &listener.offenders {
                let OffenderStatus { limit, client, would_refuse, at_least } = offender;
                let times = show_times(*at_least, *would_refuse);
                let cells = [client, name, limit, &times];
                table.add(cells.map(Cell::plain).into());
            }
        }
        table
    }

    fn workers(&self) -> StatusTable {
        let mut table = StatusTable::new(&["WORKER", ">SESSIONS", ">BUSY", ">PIPES"]);
        for (number, worker) in self.status.workers.iter().enumerate() {
            let share = self.earlier.and_then(|earlier| {
                let elapsed = self.status.uptime_seconds - earlier.uptime_seconds;
                let before = earlier.workers.get(number)?;
                (elapsed > 0.0)
                    .then(|| ((worker.busy_seconds - before.busy_seconds) / elapsed).min(1.0))
            });
            let share = share.unwrap_or(worker.busy_share);
            table.add(vec![
                Cell::plain(number),
                Cell::plain(worker.sessions),
                Cell::plain(format!("{:.0}%", share * 100.0)),
                Cell::plain(worker.pipes_in_use),
            ]);
        }
        table
    }
}

/// A number that is only known to lie between two.
fn show_times(at_least: u64, most: u64) -> String {
    if at_least == most { most.to_string() } else { format!("{at_least} to {most}") }
}

/// The colour of a number that should be 0.
fn trouble_colour(number: u64) -> Style {
    if number > 0 { YELLOW } else { Style::new() }
}

fn state_colour(state: &str) -> Style {
    match state {
        "up" => GREEN,
        "drain" | "maint" => YELLOW,
        _ => RED,
    }
}

#[allow(clippy::cast_precision_loss, reason = "a display of 15 digits is enough")]
fn as_float(number: u64) -> f64 {
    number as f64
}

fn show_rate(rate: Option<f64>) -> String {
    match rate {
        None => "-".to_owned(),
        Some(rate) if rate > 0.0 && rate < 9.95 => format!("{rate:.1}"),
        Some(rate) => format!("{rate:.0}"),
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is positive; beyond 2^64 bytes a second it saturates"
)]
fn show_bytes(rate: f64) -> String {
    ByteSize::b(rate as u64).display().iec().to_string()
}

fn of_most(number: u64, most: Option<u64>) -> String {
    most.map_or(number.to_string(), |most| format!("{number}/{most}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::control::tell::status::document::{PoolStatus, WorkerStatus};

    fn sample() -> Status {
        let mut status =
            Status { version: "1.2.3".into(), uptime_seconds: 10.0, ..Status::default() };
        let down = BackendStatus {
            state: "down".into(),
            reason: "connect refused (3 of 3 probes failed)".into(),
            address: "10.0.0.1:80".into(),
            ..BackendStatus::default()
        };
        let pool = PoolStatus {
            backends: [("b1".to_owned(), down)].into_iter().collect(),
            ..PoolStatus::default()
        };
        let listener = ListenerStatus { accepted: 100, pool: "web".into(), ..Default::default() };
        status.pools.insert("web".into(), pool);
        status.listeners.insert("front".into(), listener);
        status.workers.push(WorkerStatus::default());
        status.config.last_reload_ok = true;
        status
    }

    // If this fails, an operator has to search for what is wrong.
    #[test]
    fn what_is_wrong_comes_first() {
        let shown = render(&sample(), None, false);
        let mut lines = shown.lines();
        assert!(lines.next().unwrap().starts_with("NOT READY"), "{shown}");
        let expected = "backend web/b1 down: connect refused (3 of 3 probes failed)";
        assert_eq!(lines.next().unwrap(), expected);
        assert!(!shown.contains('\u{1b}'), "{shown}");
        assert!(render(&sample(), None, true).contains(&RED.to_string()));
    }

    // If this fails, an operator does not see whom a limit would refuse, or sees an empty table.
    #[test]
    fn offenders_are_shown_with_how_sure_their_number_is() {
        let mut status = sample();
        assert!(!render(&status, None, false).contains("WOULD BE REFUSED"));
        let offender = |client: &str, would_refuse, at_least| OffenderStatus {
            limit: "default".into(),
            client: client.into(),
            would_refuse,
            at_least,
        };
        let listener = status.listeners.get_mut("front").unwrap();
        listener.offenders =
            vec![offender("192.0.2.7", 300, 300), offender("2001:db8::/64", 12, 5)];
        let shown = render(&status, None, false);
        let last: Vec<Vec<&str>> =
            shown.lines().rev().take(2).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(last[1], ["192.0.2.7", "front", "default", "300"], "{shown}");
        assert_eq!(last[0], ["2001:db8::/64", "front", "default", "5", "to", "12"], "{shown}");
    }

    // If this fails, an operator sees that clients are refused, and neither how fast they come back
    // nor what brings them back.
    #[test]
    fn a_limit_shows_how_often_it_refuses_beside_its_action() {
        let with = |refused, would_refuse| {
            let limit = |observes| LimitStatus {
                action: "close".into(),
                observes,
                refused,
                would_refuse,
                refused_by: "workers".into(),
                ..LimitStatus::default()
            };
            let mut status = sample();
            let listener = status.listeners.get_mut("front").unwrap();
            let limits = [("default", false), ("strict", true)];
            listener.limits =
                limits.map(|(name, observes)| (name.to_owned(), limit(observes))).into();
            status
        };
        let mut later = with(30, 8);
        later.uptime_seconds = 12.0;
        let shown = render(&later, Some(&with(10, 4)), false);
        let row = |name: &str| -> Vec<String> {
            let line = shown.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().map(str::to_owned).collect()
        };
        assert_eq!(row("default")[2..5], ["close", "30", "10"], "{shown}");
        assert_eq!(row("strict")[2..5], ["observe", "8", "2.0"], "{shown}");
    }

    // If this fails, rates are off by the time between the two looks.
    #[test]
    fn rates_are_per_second() {
        let mut later = sample();
        later.uptime_seconds = 12.0;
        later.listeners.get_mut("front").unwrap().accepted = 300;
        let shown = render(&later, Some(&sample()), false);
        let line = shown.lines().find(|line| line.starts_with("front")).unwrap();
        assert_eq!(line.split_whitespace().nth(3), Some("100"), "{shown}");
    }
}
