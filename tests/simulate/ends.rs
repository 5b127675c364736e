//! The promises about an end: what both peers see fits what happened, and so does the line in the
//! session log.

use std::time::Duration;

use evenkeel::dataplane::clock::Tick;
use evenkeel::dataplane::stream::wire::Side;
use evenkeel::policy::client::Client;
use evenkeel::policy::terms::OnIdle;
use evenkeel::shared::{
    CloseReason, Detail, EndCode, HeldOutcome, Leave, LimitAction, Protocol, RefuseReason,
    SessionRecord,
};

use super::checks::SIDES;
use super::house::House;
use super::network::Network;
use super::setting::{Change, RETRIES, SAID};
use super::socket::Socket;
use super::visit::Visit;
use super::words::Opening;

/// How long a pace spares sessions that are not at rest.
const GRACE: Duration = Duration::from_secs(10);

/// That sessions were told to leave a backend.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ToldToLeave {
    pub(crate) reason: CloseReason,
    pub(crate) since: Tick,
    /// When it was taken back.
    pub(crate) until: Option<Tick>,
}

/// What has happened to the worker so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Happened {
    pub(crate) has_changed: bool,
    pub(crate) has_stopped: bool,
    pub(crate) has_reset_all: bool,
    pub(crate) told_to_leave: Option<ToldToLeave>,
}

/// The end of one client.
pub(crate) struct EndOf<'a> {
    pub(crate) visit: &'a Visit,
    pub(crate) record: &'a SessionRecord,
    pub(crate) network: &'a Network,
    pub(crate) house: &'a House,
    pub(crate) happened: Happened,
}

/// What a line says, by its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    Closed(CloseReason),
    Refused(RefuseReason),
}

/// What a line says; `None` when its words or its letters are no line's.
pub(crate) fn said(record: &SessionRecord) -> Option<Said> {
    if record.reason == EndCode::NO_PLACE.words {
        return (record.term == EndCode::NO_PLACE.term)
            .then_some(Said::Refused(RefuseReason::NoBackend));
    }
    let closed = CloseReason::ALL.into_iter().find(|reason| reason.words() == record.reason);
    if let Some(reason) = closed {
        return (reason.term() == record.term).then_some(Said::Closed(reason));
    }
    let reason = RefuseReason::ALL.into_iter().find(|reason| reason.words() == record.reason)?;
    let is_late = reason == RefuseReason::NoBackend && record.term == EndCode::CONNECT_TIMEOUT.term;
    let is_held = matches!(record.term, "PT" | "CT") && reason.term() == "PR";
    (reason.term() == record.term || is_late || is_held).then_some(Said::Refused(reason))
}

impl EndOf<'_> {
    /// The promises that it breaks.
    pub(crate) fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        match said(self.record) {
            Some(Said::Closed(reason)) => self.closed(reason, &mut problems),
            Some(Said::Refused(reason)) => self.refused(reason, &mut problems),
            None => problems.push("its code does not fit its words".into()),
        }
        let line = (self.record.term, self.record.reason, self.record.detail);
        problems
            .into_iter()
            .map(|problem| format!("{problem}: {line:?}, {:?}", self.visit))
            .collect()
    }

    fn client(&self) -> &Socket {
        &self.network.sockets[self.visit.socket]
    }

    fn backend(&self) -> Option<&Socket> {
        self.client().across.map(|backend| &self.network.sockets[backend])
    }

    fn closed(&self, reason: CloseReason, problems: &mut Vec<String>) {
        let is_served = self.record.connect_ms.is_some();
        if self.house.is_banned(self.record.client) && is_served {
            problems.push("a client that is banned had a session".into());
        }
        if self.house.is_denied(self.record.client) && is_served {
            problems.push("a client that may not connect had a session".into());
        }
        if self.visit.opening == Opening::Malformed && is_served {
            problems.push("a client without its PROXY header had a session".into());
        }
        let Some(backend) = self.backend().filter(|_| is_served) else {
            return self.not_served(reason, problems);
        };
        let counted = [self.record.bytes_to_backend, self.record.bytes_to_client];
        let taken = [backend.taken(), self.client().taken()];
        if counted != taken {
            problems.push(format!("{counted:?} bytes in the log, {taken:?} sent"));
        }
        if backend.wants_greeting {
            problems.push("served before its backend had its PROXY header".into());
        }
        let setting = &self.house.setting;
        let has_happened = match reason {
            CloseReason::Done
            | CloseReason::ClientReset
            | CloseReason::BackendReset
            | CloseReason::ClientTimeout
            | CloseReason::BackendTimeout => return self.told(reason, backend, problems),
            CloseReason::Idle | CloseReason::HalfClosed => true,
            CloseReason::Lifetime => setting.lifetime.is_some(),
            CloseReason::Drain => self.happened.has_reset_all,
            CloseReason::BackendDown
            | CloseReason::PrimaryUp
            | CloseReason::DrainReset
            | CloseReason::Killed => self.has_to_leave(reason),
            CloseReason::ClientGone | CloseReason::Internal => false,
        };
        if !has_happened {
            problems.push("nothing of that kind has happened".into());
        }
        self.cut(reason, backend, problems);
    }

    /// When it was decided that it ends, if that was evenkeel's decision.
    pub(crate) fn decided(&self) -> Tick {
        self.visit.cut.map_or(self.network.now, |cut| cut.since)
    }

    /// Whether its backend was to be left for this reason when that was decided.
    fn has_to_leave(&self, reason: CloseReason) -> bool {
        let Some(told) = self.happened.told_to_leave.filter(|told| told.reason == reason) else {
            return false;
        };
        let index = self.record.backend.as_ref().map(|backend| backend.id.index() as u32);
        let is_that_one = match reason {
            CloseReason::PrimaryUp => index.is_some_and(|index| self.house.is_backup(index)),
            CloseReason::Killed => self.visit.was_named,
            _ => index == Some(0),
        };
        let decided = self.decided();
        let is_told = told.since <= decided && told.until.is_none_or(|until| decided <= until);
        is_that_one && is_told && self.house.setting.leave != Leave::Keep
    }

    /// Whether there was time to wait until a session is at rest that has to end for this reason.
    fn has_time(&self, reason: CloseReason) -> bool {
        let told = self.happened.told_to_leave.filter(|told| told.reason == reason);
        let is_paced = matches!(self.house.setting.leave, Leave::Pace(_));
        reason == CloseReason::Lifetime && !self.is_overdue()
            || is_paced && told.is_some_and(|told| self.decided() < told.since.after(GRACE))
    }

    /// Of a session that never had a backend there is little to say.
    fn not_served(&self, reason: CloseReason, problems: &mut Vec<String>) {
        let client = self.client();
        let is_right = match reason {
            CloseReason::ClientGone => client.reset || client.peer_finished,
            CloseReason::Drain => self.happened.has_reset_all,
            CloseReason::Killed => self.has_to_leave(reason),
            _ => false,
        };
        if !is_right {
            problems.push("nothing of that kind has happened before it was served".into());
        }
        let bytes = (self.record.bytes_to_backend, self.record.bytes_to_client);
        if bytes != (0, 0) {
            problems.push(format!("{bytes:?} bytes without a backend"));
        }
    }

    /// An end that is the worker's own: a peer that was not given the other's FIN sees a reset, and
    /// what the kernel held for it has arrived by then, unless it took too long.
    fn cut(&self, reason: CloseReason, backend: &Socket, problems: &mut Vec<String>) {
        let client = self.client();
        let is_silence = matches!(reason, CloseReason::Idle | CloseReason::HalfClosed);
        let is_mute = is_silence && client.got() == 0 && backend.got() == 0;
        let is_moved = client.got() == backend.taken() && backend.got() == client.taken();
        let closes = reason == CloseReason::Idle
            && self.house.setting.on_idle == OnIdle::Close
            && is_moved
            && self.visit.cut.is_none();
        let has_waited = self.visit.cut.is_some_and(|cut| cut.until <= self.network.now);
        for (to, source, target) in [("client", backend, client), ("backend", client, backend)] {
            if target.reset {
                continue;
            }
            if self.has_time(reason) {
                let is_at_rest = source.got() == target.taken() && self.visit.cut.is_none();
                if !is_at_rest {
                    problems.push(format!("bytes for the {to} are cut off, with time left"));
                }
            }
            let was_told_all = source.peer_finished && target.shut;
            if target.resets_on_close == (was_told_all || is_mute || closes) {
                let (shut, resets) = (target.shut, target.resets_on_close);
                problems.push(format!("{to}: the end of a cut, FIN {shut}, reset {resets}"));
            }
            let is_down = reason == CloseReason::BackendDown && to == "backend";
            if target.resets_on_close && target.buffered > 0 && !has_waited && !is_down {
                let buffered = target.buffered;
                problems.push(format!("reset, with {buffered} bytes for the {to} in the kernel"));
            }
        }
    }

    /// A peer that is told of a clean end got every byte and FIN was meant; one that lost something
    /// is told by a reset; and the close itself loses nothing.
    fn told(&self, reason: CloseReason, backend: &Socket, problems: &mut Vec<String>) {
        let client = self.client();
        let resets_both = client.resets_on_close && backend.resets_on_close;
        for from in SIDES {
            let (source, target) = match from {
                Side::Client => (client, backend),
                Side::Backend => (backend, client),
            };
            let (to, is_told) = (from.other(), target.resets_on_close);
            if target.reset {
                continue;
            }
            if is_told && target.corked {
                problems.push(format!("the last bytes for {to:?} go with the reset of {from:?}"));
            }
            let complete = source.peer_finished && target.taken() == source.meant();
            if !is_told && !complete {
                problems.push(format!("{to:?} sees a clean end, {from:?} meant none"));
            }
            if !is_told && target.taken() != source.got() {
                let held = source.got() - target.taken();
                problems.push(format!("{to:?} sees a clean end, {held} are held"));
            }
            if is_aborted(reason, from) && resets_both && target.taken() != source.meant() {
                problems.push(format!("bytes that {from:?} sent before its reset are lost"));
            }
            if !is_told && target.waiting() > 0 && target.buffered > 0 {
                let buffered = target.buffered;
                problems.push(format!("closed, with {buffered} bytes for {to:?} at risk"));
            }
        }
        let is_blamed = match reason {
            CloseReason::ClientReset => client.reset && !client.unanswered,
            CloseReason::BackendReset => backend.reset && !backend.unanswered,
            CloseReason::ClientTimeout => client.unanswered,
            CloseReason::BackendTimeout => backend.unanswered,
            _ => true,
        };
        if !is_blamed {
            problems.push("the wrong side, or fault, is blamed".into());
        }
        let is_clean = !client.reset && !backend.reset;
        let resets = client.resets_on_close || backend.resets_on_close;
        if is_clean && (reason != CloseReason::Done || resets) {
            problems.push(format!("no peer has reset it, but it ends with {reason:?}"));
        }
    }

    /// Whether there was no time left for the end of a session that is too old.
    fn is_overdue(&self) -> bool {
        let lifetime = self.house.setting.lifetime.unwrap_or_default();
        let opened = self.visit.accepted.unwrap_or(self.network.now);
        opened.after(lifetime * 9 / 10 + lifetime / 4) <= self.network.now
    }

    fn refused(&self, reason: RefuseReason, problems: &mut Vec<String>) {
        let setting = &self.house.setting;
        let limit = setting.limit.filter(|limit| !limit.observe);
        let own = self.client().address.map_or(Client::Unix, Client::At);
        let is_possible = match reason {
            RefuseReason::Ban => self.house.is_banned(self.record.client),
            RefuseReason::Access => self.house.is_denied(self.record.client),
            RefuseReason::Limit => limit.is_some_and(|limit| limit.rate.is_some()),
            RefuseReason::Concurrent => limit.is_some_and(|limit| limit.concurrent_max.is_some()),
            RefuseReason::ListenerRate => limit.is_some_and(|limit| limit.listener_rate.is_some()),
            RefuseReason::MaxSessions => setting.process_max < 100 || setting.listener_max < 100,
            RefuseReason::Descriptors => self.network.shortages > 0,
            RefuseReason::ProxyHeader => setting
                .accept_proxy
                .is_some_and(|is_direct_else| self.house.is_proxy(own) || !is_direct_else),
            RefuseReason::Peek => setting.routing == Some(false),
            RefuseReason::NoBackend => self.has_no_backend(),
        };
        if !is_possible {
            problems.push("there is no reason to refuse it".into());
        }
        if self.record.connect_ms.is_some() {
            problems.push("refused after it was served".into());
        }
        self.farewell(reason, problems);
    }

    /// Whether no backend could be had: as many attempts have failed as may be, or there is none
    /// that could be asked.
    fn has_no_backend(&self) -> bool {
        let setting = &self.house.setting;
        let is_tried_out = match self.record.detail {
            Detail::Attempts(failed, _) => failed == RETRIES as usize + 1,
            _ => false,
        };
        let waited = self.record.reason == EndCode::NO_PLACE.words;
        let is_empty = setting.change == Some(Change::BackendRemoved) && setting.backends == 1;
        is_tried_out
            || waited && setting.queue.is_some()
            || setting.backend_max.is_some()
            || self.happened.told_to_leave.is_some()
            || self.happened.has_changed && is_empty
            || matches!(self.record.detail, Detail::Observed(_))
            || matches!(self.record.detail, Detail::Held(_))
    }

    /// It is turned away in the way that is configured.
    fn farewell(&self, reason: RefuseReason, problems: &mut Vec<String>) {
        let setting = &self.house.setting;
        let is_http = setting.protocol == Protocol::Http;
        let client = self.client();
        let is_limit = matches!(
            reason,
            RefuseReason::Limit | RefuseReason::Concurrent | RefuseReason::ListenerRate
        );
        let action = setting.limit.map(|limit| limit.action).filter(|_| is_limit);
        let may_answer = (is_http || setting.says)
            && match action {
                Some(action) => action == LimitAction::Reply,
                None => {
                    matches!(reason, RefuseReason::MaxSessions | RefuseReason::NoBackend)
                }
            };
        let is_orderly = matches!(action, Some(LimitAction::Close | LimitAction::Reply));
        let Detail::Held(outcome) = self.record.detail else {
            let is_held = may_answer || action == Some(LimitAction::Tarpit);
            if !is_held && is_orderly == client.resets_on_close && !client.reset {
                problems.push("turned away in another way than configured".into());
            }
            return;
        };
        if !may_answer && action != Some(LimitAction::Tarpit) {
            problems.push("held, and need not be".into());
        }
        let answer = &client.answer;
        if self.record.bytes_to_client != answer.len() as u64 {
            problems.push(format!("{} bytes answered", answer.len()));
        }
        let is_right = match outcome {
            HeldOutcome::Answered if is_http => answer.starts_with(b"HTTP/1.1 ") && may_answer,
            HeldOutcome::Answered => answer == SAID && may_answer,
            HeldOutcome::NotHttp => may_answer && is_http && answer.is_empty(),
            HeldOutcome::Tarpitted => self.record.total_ms >= 10_000 && client.resets_on_close,
            HeldOutcome::NoRoom | HeldOutcome::Left | HeldOutcome::GivenUp => true,
        };
        if !is_right {
            problems.push("what came of holding it does not fit".into());
        }
    }

    /// Its kind, for the statistics.
    pub(crate) fn kind(&self) -> String {
        let mut kind = match said(self.record) {
            Some(Said::Closed(reason)) => format!("{reason:?}"),
            Some(Said::Refused(reason)) => format!("refused {reason:?}"),
            None => "unknown".into(),
        };
        if let Detail::Held(outcome) = self.record.detail {
            kind += &format!(" {outcome:?}");
        }
        let is_served = self.record.connect_ms.is_some();
        let was_greeted = self.backend().is_some_and(|it| !it.greeting.is_empty());
        let has_retried = is_served && self.visit.attempts > 1;
        for (is_so, what) in [
            (self.visit.has_lingered, ", lingered"),
            (self.visit.was_looked_into, ", looked into"),
            (self.visit.cut.is_some(), ", flushed"),
            (self.visit.spliced > 0, ", spliced"),
            (self.client().speech.header > 0 && is_served, ", header"),
            (was_greeted && is_served, ", greeted"),
            (self.record.queue_ms.is_some(), ", waited"),
            (has_retried, ", retried"),
            (self.visit.has_rested, ", rested"),
            (self.visit.was_moved && is_served, ", moved to another pool"),
            (self.visit.was_handed_over && is_served, ", handed over"),
        ] {
            if is_so {
                kind += what;
            }
        }
        kind
    }
}

/// Whether a session says that this side was reset before its stream was over.
fn is_aborted(reason: CloseReason, from: Side) -> bool {
    match from {
        Side::Client => matches!(reason, CloseReason::ClientReset | CloseReason::ClientTimeout),
        Side::Backend => matches!(reason, CloseReason::BackendReset | CloseReason::BackendTimeout),
    }
}
