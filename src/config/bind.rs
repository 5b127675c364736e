//! `bind` of a listener: where it accepts.

use std::path::Path;

use crate::policy::address_range::AddressRange;
use crate::policy::terms::Address;

use super::address::{accepted, overlaps};
use super::file::{Section, shown};
use super::report::{FilePlace, Finding, Report};
use super::scalar;

/// An entry of `bind`.
#[derive(Debug, Clone)]
pub(super) struct Bind {
    pub(super) addresses: AddressRange,
    pub(super) place: FilePlace,
    pub(super) listener: String,
}

/// Reads `bind`, which is required.
pub(super) fn bind(name: &str, section: &Section<'_>, report: &mut Report<'_>) -> Vec<Bind> {
    const SAMPLE: &str = "[\"0.0.0.0:5432\"]";
    let field = section.read("bind", report, |value, report| {
        if value.elements().is_some_and(|elements| elements.is_empty()) {
            let finding = Finding::new("`bind` is empty");
            report.error(&value.place, finding.expected("at least one address to accept on"));
            return None;
        }
        scalar::list(value, SAMPLE, report, |value, report| {
            let addresses = accepted(value, report)?;
            Some(Bind { addresses, place: value.place.clone(), listener: name.to_owned() })
        })
    });
    if field.is_absent() && !section.partial {
        let finding = Finding::new(format!("listener `{}` has no `bind`", shown(name)))
            .expected("the addresses to accept on")
            .hint(format!("add `bind = {SAMPLE}`"));
        report.error(&section.header(), finding);
    }
    field.or(Vec::new())
}

/// Checks that no two sockets ask for the same address.
pub(super) fn compare_binds(
    binds: &[Bind],
    http: Option<(AddressRange, &FilePlace)>,
    report: &mut Report<'_>,
) {
    for (index, bind) in binds.iter().enumerate() {
        let earlier = binds.iter().take(index);
        if let Some(first) = earlier
            .filter(|first| overlaps(&first.addresses, &bind.addresses))
            .min_by_key(|first| first.place.span.start)
        {
            let owner = shown(&first.listener);
            let line = report.line(&first.place);
            let message = if first.addresses != bind.addresses {
                format!("`{}` overlaps with `{}`", bind.addresses, first.addresses)
            } else if first.listener == bind.listener {
                format!("`{}` is bound twice", bind.addresses)
            } else {
                format!("`{}` is already bound by listener `{owner}`", bind.addresses)
            };
            let finding = Finding::new(message)
                .hint(format!("the first is in line {line}; keep one of them"))
                .beside(&first.place, "first bound here");
            report.error(&bind.place, finding);
        }
    }
    let Some((address, place)) = http else { return };
    if let Some(bind) = binds.iter().find(|bind| overlaps(&bind.addresses, &address)) {
        let owner = shown(&bind.listener);
        let finding = Finding::new(format!("`{address}` is already bound by listener `{owner}`"))
            .hint("give the admin page a port of its own")
            .beside(&bind.place, "first bound here");
        report.error(place, finding);
    }
}

/// Checks that the control socket is not a listener's.
pub(super) fn compare_admin_socket(binds: &[Bind], socket: &Path, report: &mut Report<'_>) {
    let is_it =
        |bind: &&Bind| matches!(bind.addresses.first(), Address::Unix(path) if **path == *socket);
    for bind in binds.iter().filter(is_it) {
        let address = shown(&bind.addresses.to_string());
        let finding = Finding::new(format!("`{address}` is the admin socket"))
            .expected("a path of its own")
            .hint("choose another path for the listener, or for `socket` of [admin]");
        report.error(&bind.place, finding);
    }
}
