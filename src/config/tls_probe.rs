//! The keys of `probe = "tls"`: the name to ask for, and whose certificates are good.
//!
//! Purely by what is written: the file of `ca` is read by who makes the probes.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::Address;
use super::file::{Field, Section, Value, quoted, shown};
use super::report::{Finding, Report};
use super::scalar;
use super::{Probe, Trust};

/// Longest name of a host, and longest part of one between dots (RFC 1035, section 2.3.4).
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// Keys that no other probe has.
pub(super) struct Keys {
    verify: Field<bool>,
    ca: Field<PathBuf>,
}

impl Keys {
    /// Reads them, whatever kind of probe they stand beside.
    pub(super) fn read(section: &Section<'_>, report: &mut Report<'_>) -> Self {
        Self { verify: section.boolean("verify", report), ca: section.read("ca", report, file) }
    }

    /// The probe they make, with its `host`; `unix` is a backend that has no address to check.
    pub(super) fn probe(
        self,
        section: &Section<'_>,
        host: Field<String>,
        unix: Option<&Address>,
        report: &mut Report<'_>,
    ) -> Probe {
        if let Field::Given(host, place) = &host
            && !is_server_name(host)
        {
            report.error(place, no_server_name(host));
        }
        if let (Field::Given(true, place), Some(unix)) = (&self.verify, unix)
            && host.is_absent()
        {
            let finding = Finding::new(format!(
                "backend `{}` has no address that a certificate could be for",
                shown(&unix.to_string())
            ));
            let finding = finding
                .expected("`host` beside `verify`")
                .hint("write the name in the certificate: `host = \"www.example.com\"`");
            report.error(place, finding);
        }
        let trust = match (&self.verify, self.ca) {
            (Field::Given(true, _), Field::Given(ca, _)) => Trust::File(ca),
            (Field::Given(true, _), _) => Trust::System,
            (Field::Absent, Field::Given(..)) | (Field::Given(false, _), Field::Given(..)) => {
                warn_unchecked(section, report);
                Trust::Anybody
            }
            _ => Trust::Anybody,
        };
        Probe::Tls { host: host.value(), trust }
    }
}

/// Warns where a table names authorities and has nothing checked by them.
fn warn_unchecked(section: &Section<'_>, report: &mut Report<'_>) {
    // What [defaults] gives to all may be meant for others.
    let own = section.entries().into_iter().find(|(value, _)| value.name == "ca");
    let Some((ca, _)) = own.filter(|_| !section.partial) else { return };
    let finding = Finding::new("`ca` has no effect: without `verify` every certificate passes")
        .hint("write `verify = true` beside it to have certificates checked");
    report.warning(&ca.place, finding);
}

/// An absolute path: relative to what would depend on who starts the process.
fn file(value: &Value<'_>, report: &mut Report<'_>) -> Option<PathBuf> {
    const EXPECTED: &str = "an absolute path such as \"/etc/evenkeel/ca.pem\"";
    let text = scalar::string(value, EXPECTED, report)?;
    let finding = if text == "-" {
        Finding::new("`ca` names no file").hint("leave `ca` out to trust the system's roots")
    } else if !Path::new(&text).is_absolute() {
        Finding::new(format!("`{}` is no absolute path", shown(&text)))
    } else if text.contains(char::is_control) {
        Finding::new(format!("`{}` holds a control character", shown(&text)))
    } else {
        return Some(PathBuf::from(text));
    };
    report.error(&value.place, finding.expected(EXPECTED));
    None
}

/// Whether a certificate can be for it: a host's name, or an IP address.
fn is_server_name(text: &str) -> bool {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.chars().all(is_plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // Else it could be taken for an IPv4 address by who reads it.
    let last = text.rsplit('.').next().unwrap_or_default();
    let ends_in_number = last.chars().all(|letter| letter.is_ascii_digit())
        || last.strip_prefix("0x").or_else(|| last.strip_prefix("0X")).is_some_and(is_hexadecimal);
    text.parse::<IpAddr>().is_ok()
        || (text.len() <= NAME_BYTES_MAX && text.split('.').all(is_label) && !ends_in_number)
}

fn is_hexadecimal(text: &str) -> bool {
    text.chars().all(|letter| letter.is_ascii_hexdigit())
}

fn no_server_name(text: &str) -> Finding {
    let finding =
        Finding::new(format!("`{}` is no name that a certificate can be for", shown(text)))
            .expected("a name such as \"www.example.com\", or an IP address");
    let bare = text.rsplit_once(':').filter(|(host, _)| is_server_name(host));
    match bare {
        Some((host, _)) => {
            finding.hint(format!("write `host = {}`; `port` asks another port", quoted(host)))
        }
        None if text.contains('*') => finding.hint("write one name that the wildcard stands for"),
        None => finding,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, a name is accepted that no probe can ask for, or a good one is refused.
    #[test]
    fn names_are_those_of_hosts_or_addresses() {
        let long = format!("{}.test", "a".repeat(64));
        for good in ["localhost", "www.example.com", "a_b.c-d.test", "10.0.0.1", "::1", "a.1x"] {
            assert!(is_server_name(good), "{good}");
        }
        let bad = ["", ".", "a..b", "a.", "-a.test", "a-.test", "*.test", "a:1", "é.test", &long];
        for bad in bad.into_iter().chain(["a.1", "10.0.0", "10.0.0.256", "a.0x1f"]) {
            assert!(!is_server_name(bad), "{bad}");
        }
    }
}
