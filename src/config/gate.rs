//! Clients that the kernel cannot refuse, by what the file says.

use crate::policy::admit::gate::holds_whole_keys;
use crate::policy::terms::{KernelRefusal, LimitAction, Word};

use super::file::{Section, shown};
use super::limit::LimitConfig;
use super::listener::ListenerConfig;
use super::report::{Finding, Report};

const REMEDY: &str = "write `kernel_refusal = \"auto\"`, or change the other";

/// Why workers themselves refuse the clients that lists and bans do not admit to a listener, in
/// words; `None`: the file has nothing against the kernel.
#[must_use]
pub fn access_obstacle(listener: &ListenerConfig) -> Option<String> {
    let words = if listener.kernel_refusal == KernelRefusal::Off {
        "`kernel_refusal` of the listener is \"off\""
    } else if listener.accept_proxy.is_some() {
        "`accept_proxy` names clients only after they are accepted"
    } else {
        listener.has_no_place_for_a_gate()?
    };
    Some(words.to_owned())
}

/// The same of the clients of a limit.
#[must_use]
pub fn gate_obstacle(listener: &ListenerConfig, limit: &LimitConfig) -> Option<String> {
    let says = |words: &str| Some(words.to_owned());
    if limit.kernel_refusal == KernelRefusal::Off {
        return says("`kernel_refusal` is \"off\"");
    }
    if limit.rate.is_none() {
        return says("it has no `rate`, and other bounds do not say until when");
    }
    if limit.observe {
        return says("it only observes");
    }
    if limit.action != LimitAction::Reset {
        return Some(format!("its `action` is \"{}\"", limit.action.word()));
    }
    let answers = |other: &&LimitConfig| !other.observe && other.action != LimitAction::Reset;
    if let Some(other) = listener.limits.iter().find(answers) {
        let (name, action) = (shown(&other.name), other.action.word());
        return Some(format!("`action` of the limit `{name}` beside it is \"{action}\""));
    }
    // They are asked first, so that each client is counted for what refuses it.
    if let Some(obstacle) = access_obstacle(listener) {
        return Some(obstacle);
    }
    for (name, networks) in [("clients", &limit.clients), ("exempt", &limit.exempt)] {
        if !holds_whole_keys(networks, limit.key) {
            return Some(format!("`{name}` has a network longer than `key`"));
        }
    }
    None
}

/// Refuses what is required and cannot be; `section` is the listener's table.
pub(super) fn check_gates(
    listener: &ListenerConfig,
    section: &Section<'_>,
    report: &mut Report<'_>,
) {
    if let Some(value) = section.get("kernel_refusal")
        && listener.kernel_refusal == KernelRefusal::Require
        && let Some(obstacle) = access_obstacle(listener)
    {
        let name = shown(&listener.name);
        let finding = Finding::new(format!(
            "the kernel cannot refuse clients of the listener `{name}`: {obstacle}"
        ));
        report.error(&value.place, finding.hint(REMEDY));
    }
    let sections = section.open_each("limit", report);
    for (limit, section) in listener.limits.iter().zip(&sections) {
        let Some(value) = section.get("kernel_refusal") else { continue };
        if limit.kernel_refusal == KernelRefusal::Require
            && let Some(obstacle) = gate_obstacle(listener, limit)
        {
            let name = shown(&limit.name);
            let finding = Finding::new(format!(
                "the kernel cannot refuse for the limit `{name}`: {obstacle}"
            ))
            .hint(REMEDY);
            report.error(&value.place, finding);
        }
    }
}
