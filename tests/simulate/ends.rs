//! The promises about an end: what both peers see fits what happened, and so does the line in the
//! session log.

use evenkeel::dataplane::stream::wire::Side;
use evenkeel::policy::client::Client;
use evenkeel::shared::{
    CloseReason, Detail, EndCode, HeldOutcome, LimitAction, OnDown, Protocol, RefuseReason,
    SessionRecord,
};

use super::checks::SIDES;
use super::house::House;
use super::network::Network;
use super::setting::{Change, RETRIES, SAID};
use super::socket::Socket;
use super::visit::Visit;
use super::words::Opening;

/// What has happened to the worker so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Happened {
    pub(crate) has_changed: bool,
    pub(crate) has_stopped: bool,
    pub(crate) has_reset_all: bool,
    pub(crate) was_down: bool,
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
    /// What is wrong with it.
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
        match reason {
            CloseReason::Done
            | CloseReason::ClientReset
            | CloseReason::BackendReset
            | CloseReason::Idle
            | CloseReason::HalfClosed => self.told(reason, backend, problems),
            CloseReason::Lifetime if self.house.setting.lifetime.is_some() => self.cut(problems),
            CloseReason::Drain if self.happened.has_reset_all => self.cut(problems),
            CloseReason::BackendDown
                if self.happened.was_down && self.house.setting.on_down != OnDown::Keep =>
            {
                self.cut(problems);
            }
            _ => problems.push("nothing of that kind has happened".into()),
        }
    }

    /// Of a session that never had a backend there is little to say.
    fn not_served(&self, reason: CloseReason, problems: &mut Vec<String>) {
        let client = self.client();
        let is_right = match reason {
            CloseReason::ClientGone => client.reset || client.peer_finished,
            CloseReason::Drain => self.happened.has_reset_all,
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

    /// An end that is the worker's own: both peers see that it is none of theirs.
    fn cut(&self, problems: &mut Vec<String>) {
        for socket in [Some(self.client()), self.backend()].into_iter().flatten() {
            if !socket.resets_on_close && !socket.reset {
                problems.push("cut off, and looks like a clean end".into());
            }
        }
    }

    /// A peer that is told of a clean end got every byte and FIN was meant; one that lost something
    /// is told by a reset; and the close itself loses nothing.
    fn told(&self, reason: CloseReason, backend: &Socket, problems: &mut Vec<String>) {
        let client = self.client();
        let is_silence = matches!(reason, CloseReason::Idle | CloseReason::HalfClosed);
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
            if !is_told && !complete && !is_silence {
                problems.push(format!("{to:?} sees a clean end, {from:?} meant none"));
            }
            if !is_told && target.taken() != source.got() {
                let held = source.got() - target.taken();
                problems.push(format!("{to:?} sees a clean end, {held} are held"));
            }
            if is_aborted(reason, from) && resets_both && target.taken() != source.meant() {
                problems.push(format!("bytes that {from:?} sent before its reset are lost"));
            }
            if !is_silence && !is_told && target.waiting() > 0 && target.buffered > 0 {
                let buffered = target.buffered;
                problems.push(format!("closed, with {buffered} bytes for {to:?} at risk"));
            }
        }
        let is_clean = !client.reset && !backend.reset && !is_silence;
        let resets = client.resets_on_close || backend.resets_on_close;
        if is_clean && (reason != CloseReason::Done || resets) {
            problems.push(format!("no peer has reset it, but it ends with {reason:?}"));
        }
    }

    fn refused(&self, reason: RefuseReason, problems: &mut Vec<String>) {
        let setting = &self.house.setting;
        let limit = setting.limit.filter(|limit| !limit.observe);
        let own = self.client().address.map_or(Client::Unix, Client::At);
        let is_possible = match reason {
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
        // A reload that takes a pool away turns clients away that have no backend yet: a session
        // that is being opened keeps the id of its pool. (It ought to follow its listener.)
        let has_lost_its_pool = setting.change == Some(Change::PoolRenamed)
            || setting.change == Some(Change::BackendRemoved);
        is_tried_out
            || waited && setting.queue.is_some()
            || setting.backend_max.is_some()
            || self.happened.was_down
            || self.happened.has_changed && has_lost_its_pool
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

    /// What is special about it, for the statistics.
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
            (self.visit.spliced > 0, ", spliced"),
            (self.client().speech.header > 0 && is_served, ", header"),
            (was_greeted && is_served, ", greeted"),
            (self.record.queue_ms.is_some(), ", waited"),
            (has_retried, ", retried"),
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
        Side::Client => reason == CloseReason::ClientReset,
        Side::Backend => reason == CloseReason::BackendReset,
    }
}
