//! What is legal in one table and hardly meant: keys that do nothing beside each other.

use crate::policy::balance::BalanceAlgorithm;
use crate::policy::health::probe_step::ProbeStep;

use super::backend::Member;
use super::file::{Section, shown};
use super::health::Probe;
use super::leave::LeaveConfig;
use super::listener::ListenerConfig;
use super::payload::escaped;
use super::pool::PoolConfig;
use super::report::{Finding, Report};
use super::route::warn_shadowed;
use super::units::show_duration;

/// The port of HTTP over TLS.
const HTTPS_PORT: u16 = 443;
/// Words of this length are commands of ZooKeeper, which ends none with a line break.
const FOUR_LETTERS: usize = 4;

/// Warns about a listener; `section` is its table.
pub(super) fn lint_listener(
    listener: &ListenerConfig,
    section: &Section<'_>,
    report: &mut Report<'_>,
) {
    warn_shadowed(&listener.routes, section, report);
    let (idle, half_closed) = (listener.terms.idle_timeout, listener.terms.half_closed_timeout);
    if let Some(value) = section.get("half_closed_timeout")
        && half_closed > idle
    {
        let (idle, half_closed) = (show_duration(idle), show_duration(half_closed));
        let finding = Finding::new(format!(
            "`half_closed_timeout` of {half_closed} has no effect beside {idle} of `idle_timeout`"
        ));
        let finding =
            finding.hint("the smaller of the two counts; write one no longer than the other");
        report.warning(&value.place, finding);
    }
}

/// Warns about a pool; `section` is its table.
pub(super) fn lint_pool(
    pool: &PoolConfig,
    section: &Section<'_>,
    members: &[Member],
    report: &mut Report<'_>,
) {
    lint_shares(pool, members, report);
    let is_bounded = members.iter().any(|member| member.backend.max_sessions.is_some());
    if let Some(queue) = section.own("queue")
        && pool.terms.queue.is_some()
        && !is_bounded
    {
        let finding = Finding::new("no client waits in `queue`: no backend is ever full")
            .hint("give backends `max_sessions`, or remove `queue`");
        report.warning(&queue.place, finding);
    }
    if let Some(slow_start) = section.own("slow_start")
        && pool.terms.slow_start.is_some()
        && pool.health.is_none()
    {
        let finding =
            Finding::new("`slow_start` acts on backends that a reload adds, and no others")
                .hint("without `health` no backend comes up again; add probes if that is meant");
        report.warning(&slow_start.place, finding);
    }
    lint_on_up(pool, section, members, report);
    if let Some(health) = section.open("health", report) {
        lint_probe(pool, &health, members, report);
    }
}

/// Warns about an `on_up` for which there is no backup, or no other backend.
fn lint_on_up(
    pool: &PoolConfig,
    section: &Section<'_>,
    members: &[Member],
    report: &mut Report<'_>,
) {
    let Some(on_up) = section.own("on_up").filter(|_| pool.on_up != LeaveConfig::Keep) else {
        return;
    };
    let backups = members.iter().filter(|member| member.backend.backup).count();
    let (what, remedy) = match backups {
        0 => ("is a backup", "write `backup = true` for one"),
        all if all == members.len() => ("is a primary", "leave `backup` out for one"),
        _ => return,
    };
    let finding = Finding::new(format!("`on_up` has no effect: no backend of this pool {what}"));
    report.warning(&on_up.place, finding.hint(format!("{remedy}, or remove `on_up`")));
}

/// Warns about backends that get no session because of their weight.
fn lint_shares(pool: &PoolConfig, members: &[Member], report: &mut Report<'_>) {
    let Some(first) = members.first() else { return };
    if members.iter().all(|member| member.backend.weight == 0) {
        let finding = Finding::new("no backend of this pool takes sessions: every weight is 0")
            .hint("give at least one a `weight` of 1 or more");
        report.warning(&first.place, finding);
    }
    if pool.balance != BalanceAlgorithm::Maglev {
        return;
    }
    for backup in [false, true] {
        let group = || members.iter().filter(|member| member.backend.backup == backup);
        let total: u64 = group().map(|member| u64::from(member.backend.weight)).sum();
        let has_no_slot = |member: &&Member| {
            let weight = u64::from(member.backend.weight);
            weight > 0 && weight * u64::from(pool.table_size) < total
        };
        let Some(member) = group().find(has_no_slot) else { continue };
        let name = shown(&member.backend.name);
        let weight = member.backend.weight.max(1);
        let finding = Finding::new(format!(
            "the share of backend `{name}` is less than one slot of the `maglev` table"
        ));
        let finding = finding.hint(format!(
            "write a `table_size` above {}, or a larger `weight`",
            total / u64::from(weight)
        ));
        report.warning(&member.place, finding);
    }
}

fn lint_probe(
    pool: &PoolConfig,
    section: &Section<'_>,
    members: &[Member],
    report: &mut Report<'_>,
) {
    let Some(health) = &pool.health else { return };
    let has_port = |port: u16| match health.port {
        Some(asked) => asked == port,
        None => {
            members.iter().any(|it| it.backend.address.ip().is_some_and(|ip| ip.port() == port))
        }
    };
    match &health.probe {
        Probe::Http { .. } if health.tls.is_none() && has_port(HTTPS_PORT) => {
            let place = section.get("probe").map_or_else(|| section.header(), |value| value.place);
            let finding = Finding::new("an HTTP probe asks port 443 without TLS")
                .hint("write `tls = true`, or another `port`");
            report.warning(&place, finding);
        }
        Probe::SendExpect { steps } => {
            let Some(value) = section.own("send").or_else(|| section.own("steps")) else { return };
            let mut sent = steps.iter().filter_map(|step| match step {
                ProbeStep::Send(bytes) => Some(bytes),
                ProbeStep::Expect(_) | ProbeStep::Find(_) => None,
            });
            let Some(send) = sent.find(|bytes| is_unended_line(bytes)) else { return };
            let finding = Finding::new(
                "`send` ends without a line break: most servers wait for one",
            )
            .hint(format!("write `send = '{}\\r\\n'` if this protocol has lines", escaped(send)));
            report.warning(&value.place, finding);
        }
        _ => {}
    }
}

/// Whether bytes are text that most servers would wait to see the end of.
fn is_unended_line(send: &[u8]) -> bool {
    let is_text = send.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    is_text && send.len() > FOUR_LETTERS
}
