//! `pass_tlvs` of a pool: what of a client's own PROXY header its backends get.

use crate::policy::first_bytes::proxy_header::ProxyVersion;
use crate::policy::first_bytes::proxy_header::tlv::{self, KINDS_MAX, TlvKinds};

use super::file::{Section, Value};
use super::report::{Finding, Report};
use super::scalar;

const SAMPLE: &str = "[0xEA, 0xEE]";

/// Reads `pass_tlvs`.
pub(super) fn pass_tlvs(section: &Section<'_>, report: &mut Report<'_>) -> TlvKinds {
    let field = section.read("pass_tlvs", report, |value, report| {
        let list = scalar::list(value, SAMPLE, report, kind)?;
        let kinds = TlvKinds::new(&list);
        if kinds.is_none() {
            let finding = Finding::new(format!("`pass_tlvs` has {} entries", list.len()));
            report.error(&value.place, finding.expected(format!("at most {KINDS_MAX}")));
        }
        kinds
    });
    field.or(TlvKinds::AUTHORITY)
}

fn kind(value: &Value<'_>, report: &mut Report<'_>) -> Option<u8> {
    let kind = u8::try_from(scalar::count(value, 1..=255, report)?).ok()?;
    let why = match kind {
        tlv::CRC32C => "a checksum is of the header that it came with",
        tlv::NOOP => "it only fills room",
        _ => return Some(kind),
    };
    let finding = Finding::new(format!("a TLV of type {kind:#04x} cannot be passed on")).hint(why);
    report.error(&value.place, finding);
    None
}

/// Reports keys of a pool's own table that speak of TLVs where its headers have none.
pub(super) fn compare_version(
    section: &Section<'_>,
    version: Option<ProxyVersion>,
    report: &mut Report<'_>,
) {
    if section.partial || version == Some(ProxyVersion::V2) {
        return;
    }
    for (value, _) in section.entries() {
        if matches!(&*value.name, "pass_tlvs" | "send_proxy_max") {
            let finding = Finding::new(format!("`{}` without `send_proxy = \"v2\"`", value.name))
                .expected("`send_proxy = \"v2\"` beside it")
                .hint("only a header of version 2 has TLVs");
            report.error(&value.place, finding);
        }
    }
}

/// As `evenkeel config` shows them.
pub(super) fn shown(kinds: TlvKinds) -> String {
    let list: Vec<String> = kinds.list().iter().map(|kind| format!("{kind:#04x}")).collect();
    format!("[{}]", list.join(", "))
}
