//! Limits whose clients the kernel cannot refuse, by what the file says.

use crate::policy::admit::gate::holds_whole_keys;
use crate::policy::terms::{KernelRefusal, LimitAction, Word};

use super::file::{Section, shown};
use super::limit::LimitConfig;
use super::listener::ListenerConfig;
use super::report::{Finding, Report};

/// Why workers refuse the clients of a limit themselves, in words; `None`: the file has nothing
/// against it.
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
    if listener.accept_proxy.is_some() {
        return says("`accept_proxy` names clients only after they are accepted");
    }
    if let Some(words) = listener.has_no_place_for_a_gate() {
        return says(words);
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
            .hint("write `kernel_refusal = \"auto\"`, or change the other");
            report.error(&value.place, finding);
        }
    }
}
