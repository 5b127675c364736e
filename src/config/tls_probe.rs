//! The keys of `probe = "tls"`: the name to ask for, and whose certificates are good.
//!
//! Purely by what is written: `control` reads the file of `ca`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use toml::de::DeValue;

use crate::policy::terms::Address;

use super::file::{Field, Section, Value, quoted, shown};
use super::report::{Finding, Report};
use super::scalar;

/// Longest name of a host, and longest part of one between dots (RFC 1035, section 2.3.4).
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// Whose certificates a TLS probe takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Any: certificates are not checked.
    Unchecked,
    /// Those of the system's roots.
    System,
    /// Those of the certificates in this file; an absolute path.
    File(PathBuf),
}

impl Trust {
    /// Reads `verify` and `ca`.
    pub(super) fn read(section: &Section<'_>, report: &mut Report<'_>) -> Self {
        let verify = section.boolean_or_default("verify", report);
        match section.read("ca", report, file).value() {
            _ if !verify => Self::Unchecked,
            Some(ca) => Self::File(ca),
            None => Self::System,
        }
    }

    /// The file of certificates.
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Unchecked | Self::System => None,
        }
    }
}

/// Checks the name that a TLS probe asks for and checks; `unix` is a backend that has no address
/// to check instead.
pub(super) fn compare_name(
    section: &Section<'_>,
    host: &Field<String>,
    unix: Option<&Address>,
    report: &mut Report<'_>,
) {
    if let Field::Given(host, place) = host
        && !is_server_name(host)
    {
        report.error(place, no_server_name(host));
    }
    let verify = section.get("verify").filter(|value| matches!(value.data, DeValue::Boolean(true)));
    if let (Some(verify), Some(unix), true) = (verify, unix, host.is_absent()) {
        let finding = Finding::new(format!(
            "backend `{}` has no address that a certificate could be for",
            shown(&unix.to_string())
        ));
        let finding = finding
            .expected("`host` beside `verify`")
            .hint("write the name in the certificate: `host = \"www.example.com\"`");
        report.error(&verify.place, finding);
    }
}

/// An absolute path: a relative one would depend on where the process starts.
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
    // Else its reader could take it for an IPv4 address.
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
