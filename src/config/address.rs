//! Socket addresses as they are written, and what to say when they are not.
//!
//! Only literal addresses: nothing here asks a resolver, so the same file always means the same.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use toml::de::DeValue;

use crate::policy::address_range::{AddressRange, RANGE_PORTS_MAX};
use crate::policy::terms::{Address, HostAddress};

use super::file::{Value, quoted, shown};
use super::report::{Finding, Report};
use super::scalar;
use super::unix::{self, PREFIX};

/// What an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To accept on.
    Accept,
    /// To show the admin page on.
    Show,
    /// To connect to.
    Connect,
}

impl Purpose {
    fn expected(self) -> &'static str {
        match self {
            Self::Accept => "an address such as \"0.0.0.0:5432\" or \"[::]:5432\"",
            Self::Show => "an address such as \"127.0.0.1:9900\" or \"[::1]:9900\"",
            Self::Connect => "an address such as \"10.0.0.11:5432\" or \"[2001:db8::11]:5432\"",
        }
    }

    /// An address to propose when there is only a port.
    fn proposal(self, port: &str) -> String {
        match self {
            Self::Accept => {
                format!(
                    "write \"0.0.0.0:{port}\" for every IPv4 address or \"[::]:{port}\" for IPv6"
                )
            }
            Self::Show | Self::Connect => format!("write \"127.0.0.1:{port}\" for this host"),
        }
    }
}

/// Reads an IP address with its port, or the path of a Unix socket.
pub(super) fn address(
    value: &Value<'_>,
    purpose: Purpose,
    report: &mut Report<'_>,
) -> Option<Address> {
    let text = value.text().unwrap_or_default();
    if let Some(path) = text.strip_prefix(PREFIX) {
        return unix::socket_path(path, value, report).map(Address::Unix);
    }
    if let Some(finding) = unix::misspelt(text) {
        report.error(&value.place, finding);
        return None;
    }
    if purpose == Purpose::Connect
        && let Some(host) = without_port(text, report)
    {
        return match host {
            Ok(host) => Some(Address::Host(host)),
            Err(finding) => {
                report.error(&value.place, finding);
                None
            }
        };
    }
    socket(value, purpose, report).map(Address::Ip)
}

/// The host that a backend is at whose port is the listener's; `None` for text that is no IP
/// address without a port.
fn without_port(text: &str, report: &Report<'_>) -> Option<Result<HostAddress, Finding>> {
    let inside = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let inside = inside.filter(|inside| inside.contains(':')).unwrap_or(text);
    let (ip, scope) = match inside.split_once('%') {
        None => (inside.parse::<IpAddr>().ok()?.to_canonical(), 0),
        Some((ip, interface)) => {
            let ip = IpAddr::V6(ip.parse().ok()?);
            let number = interface.parse().ok().filter(|number| *number > 0);
            match number.or_else(|| report.interface(interface)) {
                Some(index) => (ip, index),
                None => return Some(Err(no_interface(interface))),
            }
        }
    };
    let address = match ip {
        IpAddr::V4(_) => SocketAddr::new(ip, 0),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, 0, 0, scope).into(),
    };
    if ip.is_unspecified() {
        let finding = Finding::new(format!("`{ip}` is no address of a backend"));
        return Some(Err(finding
            .expected(Purpose::Connect.expected())
            .hint("write \"127.0.0.1\" for this host")));
    }
    Some(match is_of_several_links(address) {
        true => Err(several_links(ip, &format!("{ip}%eth0"))),
        false => Ok(HostAddress::of(address)),
    })
}

/// Whether an IPv6 address is there on every link, and does not say which is meant.
fn is_of_several_links(address: SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(link)
        if link.ip().is_unicast_link_local() && link.scope_id() == 0)
}

fn several_links(ip: IpAddr, sample: &str) -> Finding {
    Finding::new(format!("`{ip}` is one address on each of several links"))
        .expected("its interface behind `%`")
        .hint(format!("write \"{sample}\" with the name of the interface"))
}

fn no_interface(interface: &str) -> Finding {
    Finding::new(format!("this host has no interface `{}`", shown(interface)))
        .expected("the name of one of its interfaces behind `%`")
        .hint("`ip link` lists them; their numbers will do, too")
}

/// Reads an IP address with its port.
pub(super) fn socket(
    value: &Value<'_>,
    purpose: Purpose,
    report: &mut Report<'_>,
) -> Option<SocketAddr> {
    if let Some(port) = bare_port(value) {
        let finding = Finding::new(format!("`{port}` has no address"));
        let hint = purpose.proposal(port);
        report.error(&value.place, finding.expected(purpose.expected()).hint(hint));
        return None;
    }
    let text = scalar::string(value, purpose.expected(), report)?;
    match judged(&text, purpose, report) {
        Ok(address) => Some(address),
        Err(finding) => {
            report.error(&value.place, finding);
            None
        }
    }
}

/// Reads where a listener accepts: an address, or one with a range of ports.
pub(super) fn accepted(value: &Value<'_>, report: &mut Report<'_>) -> Option<AddressRange> {
    let Some((host, ports)) = value.text().and_then(with_range) else {
        return address(value, Purpose::Accept, report).map(AddressRange::from);
    };
    match range(host, ports, report) {
        Ok(range) => Some(range),
        Err(finding) => {
            report.error(&value.place, finding);
            None
        }
    }
}

/// The parts of `0.0.0.0:5000-5099`.
fn with_range(text: &str) -> Option<(&str, &str)> {
    let is_path = text.starts_with(PREFIX) || unix::misspelt(text).is_some();
    text.rsplit_once(':').filter(|(_, ports)| !is_path && ports.contains('-'))
}

/// The ports of an IP address from one to another.
fn range(host: &str, ports: &str, report: &Report<'_>) -> Result<AddressRange, Finding> {
    let number = |digits: &str| {
        let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        digits.parse::<u16>().ok().filter(|_| is_number)
    };
    let numbers = ports.split_once('-').map(|(first, last)| (number(first), number(last)));
    let Some((Some(first), Some(last))) = numbers else {
        return Err(Finding::new(format!("`{}` is no range of ports", shown(ports)))
            .expected("the first and the last port, such as \"0.0.0.0:5000-5099\"")
            .hint("a port is a number from 1 to 65535"));
    };
    if first == 0 {
        return Err(Finding::new(format!("the range `{ports}` begins at port 0"))
            .expected("ports from 1 to 65535")
            .hint("port 0, alone, lets the kernel choose one port"));
    }
    if first > last {
        return Err(Finding::new(format!("the range `{ports}` ends before it begins"))
            .expected("the lower port first")
            .hint(format!("write {}", quoted(&format!("{host}:{last}-{first}")))));
    }
    let count = u32::from(last - first) + 1;
    if count > u32::from(RANGE_PORTS_MAX) {
        return Err(Finding::new(format!("the range `{ports}` has {count} ports"))
            .expected(format!("at most {RANGE_PORTS_MAX}"))
            .hint("each port takes a descriptor for every worker; name those that are used"));
    }
    if host.is_empty() || host == "*" {
        return Err(Finding::new(format!("`{}:{ports}` has no address", shown(host)))
            .expected(Purpose::Accept.expected())
            .hint(Purpose::Accept.proposal(ports)));
    }
    if host.parse::<Ipv6Addr>().is_ok() {
        return Err(Finding::new("an IPv6 address with a port needs brackets")
            .expected(Purpose::Accept.expected())
            .hint(format!("write {}", quoted(&format!("[{host}]:{ports}")))));
    }
    if host.parse::<IpAddr>().is_err() && !host.starts_with('[') {
        return Err(explain_host(host, ports, Purpose::Accept));
    }
    let first = judged(&format!("{host}:{first}"), Purpose::Accept, report)?;
    Ok(AddressRange::up_to(first, last))
}

/// An IP address with its port, which can be used for this purpose.
///
/// # Errors
/// With what is wrong.
fn judged(text: &str, purpose: Purpose, report: &Report<'_>) -> Result<SocketAddr, Finding> {
    match parse(text, report) {
        Ok(address) => match unusable(address, purpose) {
            // A mapped address is the IPv4 address that it stands for, in another notation.
            None if address.ip().to_canonical().is_ipv4() => {
                Ok(SocketAddr::new(address.ip().to_canonical(), address.port()))
            }
            None => Ok(address),
            Some(finding) => Err(finding),
        },
        Err(Some(interface)) => Err(no_interface(interface)),
        Err(None) => Err(explain(text, purpose)),
    }
}

/// An address with its port; an IPv6 address may name its interface, as `[fe80::1%eth0]:80`.
///
/// # Errors
/// With the name of an interface that is not there, or without.
fn parse<'t>(text: &'t str, report: &Report<'_>) -> Result<SocketAddr, Option<&'t str>> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    let Some((ip, interface, port)) = with_interface(text) else { return Err(None) };
    match report.interface(interface) {
        Some(index) => Ok(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, index))),
        None => Err(Some(interface)),
    }
}

/// The parts of `[fe80::1%eth0]:80`.
fn with_interface(text: &str) -> Option<(Ipv6Addr, &str, u16)> {
    let (inside, port) = text.strip_prefix('[')?.rsplit_once("]:")?;
    let (ip, interface) = inside.split_once('%')?;
    Some((ip.parse().ok()?, interface, port.parse().ok()?))
}

/// The digits of a port that stands alone, without quotes.
fn bare_port<'t>(value: &Value<'t>) -> Option<&'t str> {
    match value.data {
        DeValue::Integer(number) if number.radix() == 10 => {
            Some(number.as_str()).filter(|text| text.parse::<u16>().is_ok())
        }
        _ => None,
    }
}

/// Why a well-formed address cannot be bound or connected to.
fn unusable(address: SocketAddr, purpose: Purpose) -> Option<Finding> {
    if is_of_several_links(address) {
        let (ip, port) = (address.ip(), address.port());
        return Some(several_links(ip, &format!("[{ip}%eth0]:{port}")));
    }
    if purpose != Purpose::Connect {
        return None;
    }
    if address.port() == 0 {
        let finding = Finding::new("a backend cannot have port 0");
        return Some(finding.expected("a port from 1 to 65535"));
    }
    if address.ip().to_canonical().is_unspecified() {
        let finding = Finding::new(format!("`{}` is no address of a backend", address.ip()));
        return Some(
            finding
                .expected(purpose.expected())
                .hint(purpose.proposal(&address.port().to_string())),
        );
    }
    None
}

/// What is wrong with text that is no address.
fn explain(text: &str, purpose: Purpose) -> Finding {
    if text.starts_with(PREFIX) {
        return Finding::new(format!("`{}` is no IP address", shown(text)))
            .expected(purpose.expected())
            .hint("this is served over TCP only");
    }
    let finding = |message: String| Finding::new(message).expected(purpose.expected());
    let word = shown(text);
    if let Some((host, port)) = split_bare_v6(text) {
        return finding("an IPv6 address with a port needs brackets".to_owned())
            .hint(format!("write {}", quoted(&format!("[{host}]:{port}"))));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        let host = SocketAddr::new(address, 0).to_string();
        let host = host.trim_end_matches('0');
        return finding(format!("`{word}` has no port")).hint(format!("write \"{host}PORT\""));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        if text.parse::<u16>().is_ok() {
            return finding(format!("`{word}` has no address")).hint(purpose.proposal(text));
        }
        return finding(format!("`{word}` is no address with a port"));
    };
    if port.parse::<u16>().is_err() {
        let reason = if port.is_empty() {
            format!("`{word}` has no port")
        } else {
            format!("`{}` is no port", shown(port))
        };
        return finding(reason).hint("a port is a number from 0 to 65535");
    }
    if host.is_empty() || host == "*" {
        return finding(format!("`{word}` has no address")).hint(purpose.proposal(port));
    }
    explain_host(host, port, purpose)
}

/// An IPv6 address without brackets and what seems to be its port.
fn split_bare_v6(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    let is_both = host.parse::<Ipv6Addr>().is_ok() && port.parse::<u16>().is_ok();
    is_both.then_some((host, port))
}

/// What is wrong with a host that is no IP address.
fn explain_host(host: &str, port: &str, purpose: Purpose) -> Finding {
    let word = shown(host);
    let is_numeric = host.chars().all(|letter| letter.is_ascii_digit() || letter == '.');
    let is_name = !is_numeric
        && host.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter));
    if !is_name {
        return Finding::new(format!("`{word}` is no IP address")).expected(purpose.expected());
    }
    let finding = match purpose {
        Purpose::Accept | Purpose::Show => {
            Finding::new(format!("`{word}` is a name, not an IP address"))
        }
        Purpose::Connect => {
            Finding::new(format!("a host name such as `{word}` is not supported yet"))
                .hint("this version cannot honour it; remove it")
        }
    };
    let hint = if host == "localhost" {
        format!("write \"127.0.0.1:{port}\"")
    } else {
        "write its IP address".to_owned()
    };
    finding.expected(purpose.expected()).hint(hint)
}

/// Whether a connection to `backend` would arrive at a socket bound to `bind`.
///
/// Exact addresses always do; a wildcard bind is reached through any loopback address.
pub(super) fn reaches(backend: &Address, bind: &AddressRange) -> bool {
    let Some(port) = bind.first_common_port(&backend.clone().into()) else {
        return backend.is_unix() && backend == bind.first();
    };
    let (Address::Ip(backend), Address::Ip(bind)) = (backend, bind.at(port)) else { return false };
    match (bind.ip().to_canonical(), backend.ip().to_canonical()) {
        (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(target)) => target.is_loopback(),
        (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(target)) => target.is_loopback(),
        (bound, target) => bound == target,
    }
}

/// Whether two listeners cannot accept at once: they have an address in common, or one takes every
/// address of its family at a port of the other.
pub(super) fn overlaps(left: &AddressRange, right: &AddressRange) -> bool {
    let Some(port) = left.first_common_port(right) else {
        return left.first().is_unix() && left.first() == right.first();
    };
    match (left.at(port), right.at(port)) {
        (Address::Ip(left), Address::Ip(right)) => is_in_the_way(left, right),
        _ => false,
    }
}

/// Whether two IP addresses with their ports are in each other's way; port 0 never is.
pub(crate) fn is_in_the_way(left: SocketAddr, right: SocketAddr) -> bool {
    let (one, other) = (left.ip().to_canonical(), right.ip().to_canonical());
    let takes_all = one.is_unspecified() || other.is_unspecified();
    left.port() != 0
        && left.port() == right.port()
        && (one == other || (takes_all && one.is_ipv4() == other.is_ipv4()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(backend: &str, bind: &str) -> bool {
        let address = |text: &str| Address::Ip(text.parse().unwrap());
        reaches(&address(backend), &address(bind).into())
    }

    /// If it fails, `check` passes what `run` cannot open, or refuses what it can.
    #[test]
    fn a_wildcard_takes_every_address_of_its_family() {
        let meet = |left: &str, right: &str| {
            let (left, right) = (left.parse().unwrap(), right.parse().unwrap());
            let (one_way, other_way) = (is_in_the_way(left, right), is_in_the_way(right, left));
            assert_eq!(one_way, other_way);
            one_way
        };
        assert!(meet("0.0.0.0:80", "127.0.0.1:80") && meet("[::]:80", "[::1]:80"));
        assert!(meet("10.0.0.1:80", "[::ffff:10.0.0.1]:80"));
        assert!(!meet("0.0.0.0:80", "[::]:80") && !meet("0.0.0.0:80", "127.0.0.1:81"));
        assert!(!meet("10.0.0.1:80", "10.0.0.2:80") && !meet("0.0.0.0:0", "127.0.0.1:0"));
    }

    /// If it fails, an address of one link is taken for that of another, or for one of no link.
    #[test]
    fn an_address_may_name_its_interface() {
        let index = |name: &str| (name == "eth0").then_some(3);
        let report = Report::new("", String::new()).with_interfaces(index);
        let scoped = SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 0, 3);
        assert_eq!(parse("[fe80::1%eth0]:80", &report), Ok(scoped.into()));
        assert_eq!(parse("[fe80::1%3]:80", &report), Ok(scoped.into()));
        assert_eq!(parse("[fe80::1%eth1]:80", &report), Err(Some("eth1")));
        for wrong in ["[fe80::1%eth0]", "fe80::1%eth0:80", "[10.0.0.1%eth0]:80", "[::1%eth0]:x"] {
            assert_eq!(parse(wrong, &report), Err(None), "{wrong}");
        }
        assert!(unusable("[fe80::1]:80".parse().unwrap(), Purpose::Accept).is_some());
        assert!(unusable(scoped.into(), Purpose::Connect).is_none());
    }

    /// If it fails, a backend without a port is another host than the file says, or is refused.
    #[test]
    fn a_backend_may_have_no_port() {
        let index = |name: &str| (name == "eth0").then_some(3);
        let report = Report::new("", String::new()).with_interfaces(index);
        for (text, shown, at_port) in [
            ("10.0.0.1", "10.0.0.1", "10.0.0.1:80"),
            ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.1:80"),
            ("fd00::1", "fd00::1", "[fd00::1]:80"),
            ("[fd00::1]", "fd00::1", "[fd00::1]:80"),
            ("fe80::1%eth0", "fe80::1%3", "[fe80::1%3]:80"),
            ("[fe80::1%3]", "fe80::1%3", "[fe80::1%3]:80"),
        ] {
            let host = without_port(text, &report).map(|host| host.ok().unwrap());
            let host = host.unwrap_or_else(|| panic!("{text} is no host"));
            assert_eq!(
                (host.to_string().as_str(), host.at(80).to_string().as_str()),
                (shown, at_port)
            );
        }
        for text in ["10.0.0.1:80", "[fd00::1]:80", "[10.0.0.1]", "10.0.0", "fd00::1]", "", "host"]
        {
            assert!(without_port(text, &report).is_none(), "{text}");
        }
        for text in ["0.0.0.0", "[::]", "fe80::1", "fe80::1%eth1"] {
            assert!(without_port(text, &report).is_some_and(|host| host.is_err()), "{text}");
        }
    }

    /// If it fails, a balancer that connects to itself until descriptors run out is accepted.
    #[test]
    fn our_own_listeners_are_recognised() {
        assert!(reached("10.0.0.1:80", "10.0.0.1:80"));
        assert!(reached("127.0.0.1:80", "0.0.0.0:80"));
        assert!(reached("127.1.2.3:80", "0.0.0.0:80"));
        assert!(reached("[::1]:80", "[::]:80"));
        assert!(reached("[::ffff:10.0.0.1]:80", "10.0.0.1:80"));
        assert!(!reached("127.0.0.1:81", "0.0.0.0:80"));
        assert!(!reached("10.0.0.1:80", "0.0.0.0:80"));
        assert!(!reached("127.0.0.1:80", "10.0.0.1:80"));
        assert!(!reached("127.0.0.1:80", "0.0.0.0:0"));
    }
}
