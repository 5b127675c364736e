//! What of a client a pool hashes, and the table in which `maglev` looks it up.

use std::fmt;
use std::ops::RangeInclusive;

use crate::policy::balance::maglev::{TABLE_SIZE_MAX, is_prime};
use crate::policy::first_bytes::request_head::is_token;
use crate::policy::terms::Word;

use super::file::{Section, Value, shown};
use super::key::Shape;
use super::report::{Finding, Report};
use super::scalar;
use super::units;

/// What `maglev` hashes, and by what `sticky` knows a client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    #[default]
    ClientIp,
    /// The client's address and port.
    ClientIpPort,
    /// Nothing: all clients are one.
    None,
    /// The server name in the client's TLS hello.
    Sni,
    /// The value of this header of the first request.
    HttpHeader(String),
    /// The value of this cookie of the first request.
    HttpCookie(String),
    /// The client identifier in an MQTT CONNECT.
    MqttClientId,
    /// The user in the cookie of an RDP connection request.
    RdpCookie,
}

/// `hash_key` up to the name of the header or the cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HashKeyForm {
    /// The client's address.
    ClientIp,
    /// The client's address and port.
    ClientIpPort,
    /// Nothing of the client.
    None,
    /// The server name in the client's TLS hello.
    Sni,
    /// A header of the first request, whose name follows.
    Header,
    /// A cookie of the first request, whose name follows.
    Cookie,
    /// The client identifier in an MQTT CONNECT.
    MqttClientId,
    /// The user in the cookie of an RDP connection request.
    RdpCookie,
}

impl Word for HashKeyForm {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("client-ip", Self::ClientIp),
        ("client-ip-port", Self::ClientIpPort),
        ("none", Self::None),
        ("sni", Self::Sni),
        ("http-header ", Self::Header),
        ("http-cookie ", Self::Cookie),
        ("mqtt-client-id", Self::MqttClientId),
        ("rdp-cookie", Self::RdpCookie),
    ];
}

/// Reads `hash_key`.
pub(super) fn hash_key(section: &Section<'_>, report: &mut Report<'_>) -> HashKey {
    section.read_or_default("hash_key", report, |value, report| {
        if let Some(text @ ("http-header" | "http-cookie")) = value.text().map(str::trim) {
            let finding = Finding::new(format!("`hash_key = \"{text}\"` does not say which one"))
                .expected(format!("\"{text} NAME\""));
            report.error(&value.place, finding);
            return None;
        }
        let form = scalar::word(value, HashKeyForm::WORDS, report)?;
        let name = value.text().and_then(|text| text.split_once(' ')).map_or("", |(_, name)| name);
        Some(match form {
            HashKeyForm::ClientIp => HashKey::ClientIp,
            HashKeyForm::ClientIpPort => HashKey::ClientIpPort,
            HashKeyForm::None => HashKey::None,
            HashKeyForm::Sni => HashKey::Sni,
            HashKeyForm::Header => HashKey::HttpHeader(token(name, value, report)?),
            HashKeyForm::Cookie => HashKey::HttpCookie(token(name, value, report)?),
            HashKeyForm::MqttClientId => HashKey::MqttClientId,
            HashKeyForm::RdpCookie => HashKey::RdpCookie,
        })
    })
}

/// The name of a header or a cookie (RFC 9110, section 5.6.2).
fn token(name: &str, value: &Value<'_>, report: &mut Report<'_>) -> Option<String> {
    if !name.is_empty() && name.bytes().all(is_token) {
        return Some(name.to_owned());
    }
    let message = format!("`{}` is no name of a header or a cookie", shown(name));
    let finding = Finding::new(message).expected("one name, as in \"http-header X-User\"");
    report.error(&value.place, finding);
    None
}

impl fmt::Display for HashKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::ClientIp => "client-ip",
            Self::ClientIpPort => "client-ip-port",
            Self::None => "none",
            Self::Sni => "sni",
            Self::MqttClientId => "mqtt-client-id",
            Self::RdpCookie => "rdp-cookie",
            Self::HttpHeader(name) => return write!(out, "http-header {name}"),
            Self::HttpCookie(name) => return write!(out, "http-cookie {name}"),
        })
    }
}

/// Reads `table_size`: prime and larger than the number of backends.
pub(super) fn table_size(section: &Section<'_>, backends: usize, report: &mut Report<'_>) -> u32 {
    let size = section.count32_or_default("table_size", report);
    let place = section.get("table_size").map(|value| value.place);
    if place.as_ref().is_some_and(|place| report.has_error_at(place)) {
        return size;
    }
    let place = place.or_else(|| section.get("backends").map(|value| value.place));
    let Some(place) = place else { return size };
    if !is_prime(size) {
        let finding = Finding::new(format!("`table_size` {size} is no prime number"))
            .expected("a prime number")
            .hint(format!("the nearest are {}", nearest_primes(size)));
        report.error(&place, finding);
    } else if usize::try_from(size).is_ok_and(|size| size <= backends) {
        let finding =
            Finding::new(format!("a `table_size` of {size} is too small for {backends} backends"))
                .expected("a prime number larger than the number of backends")
                .hint("about a hundred slots per backend keep the shares within 1 %");
        report.error(&place, finding);
    }
    size
}

/// The primes below and above a number, within what is allowed.
fn nearest_primes(number: u32) -> String {
    let below = (2..number).rev().find(|number| is_prime(*number));
    let above = (number..=TABLE_SIZE_MAX).find(|number| is_prime(*number));
    let both: Vec<String> = below.iter().chain(&above).map(u32::to_string).collect();
    both.join(" and ")
}

/// Reads `load_factor`, in thousandths.
pub(super) fn load_factor(section: &Section<'_>, report: &mut Report<'_>) -> Option<u32> {
    let Shape::Factor(from, to) = section.key("load_factor")?.shape else { return None };
    section.read("load_factor", report, |value, report| factor(value, from..=to, report)).value()
}

fn factor(value: &Value<'_>, bounds: RangeInclusive<u32>, report: &mut Report<'_>) -> Option<u32> {
    const EXPECTED: &str = "a number from 1 to 100, with at most three digits behind the point";
    // An integer too: programs with one kind of number write 2 for 2.0.
    let Some(number) = scalar::number_text(value.data) else {
        let read = value.text().and_then(units::thousandths);
        scalar::wrong_type(value, EXPECTED, read.map(units::show_thousandths), report);
        return None;
    };
    let read = units::thousandths(&number).filter(|factor| bounds.contains(factor));
    if read.is_none() {
        let text = shown(&number);
        let finding = Finding::new(format!("`load_factor` cannot be {text}")).expected(EXPECTED);
        report.error(&value.place, finding.hint("1.25 is a quarter more than the mean"));
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it fails, good table sizes are refused or bad ones accepted.
    #[test]
    fn primes_are_told_apart() {
        for prime in [2, 3, 251, 65_537, 655_373, TABLE_SIZE_MAX] {
            assert!(is_prime(prime), "{prime}");
        }
        for composite in [0, 1, 4, 65_536, 65_535, 5_000_009] {
            assert!(!is_prime(composite), "{composite}");
        }
        assert_eq!(nearest_primes(65_536), "65521 and 65537");
        assert_eq!(nearest_primes(4), "3 and 5");
    }
}
