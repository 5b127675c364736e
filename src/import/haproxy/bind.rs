//! `bind` lines of HAProxy: addresses, and what is set for them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::import::draft::{BindDraft, BindLine};
use crate::import::endpoint::{Endpoint, ip};
use crate::import::notes::Notes;

use super::quantities::haproxy_time;
use super::sections::ConfigLine;

/// Options of `bind` that take a value.
const WITH_VALUE: &[&str] = &[
    "crt",
    "ca-file",
    "ca-verify-file",
    "alpn",
    "npn",
    "ciphers",
    "ciphersuites",
    "curves",
    "ecdhe",
    "verify",
    "crl-file",
    "crt-ignore-err",
    "ca-ignore-err",
    "crt-list",
    "ssl-min-ver",
    "ssl-max-ver",
    "interface",
    "id",
    "name",
    "level",
    "nice",
    "process",
    "thread",
    "user",
    "group",
    "mode",
    "uid",
    "gid",
    "namespace",
    "proto",
    "severity-output",
    "tcp-ut",
    "mss",
    "maxconn",
    "backlog",
    "accept-netscaler-cip",
    "sigalgs",
    "client-sigalgs",
    "tls-ticket-keys",
    "shards",
    "guid-prefix",
    "expose-fd",
    "ca-sign-file",
    "ca-sign-pass",
    "default-crt",
    "cc",
    "idle-ping",
    "label",
];

/// Reads a line, with a note for each address and each option that is not carried over.
pub(super) fn bind(line: &ConfigLine, notes: &mut Notes) -> BindLine {
    let mut found = BindLine::default();
    let options = line.from(2);
    if options.iter().any(|word| word == "ssl") {
        notes.lost(
            line,
            "evenkeel terminates no TLS: terminate it at the servers, or leave HAProxy in front of \
             it for this address",
        );
        return found;
    }
    let has = |name: &str| options.iter().any(|word| word == name);
    for text in line.word(1).split(',') {
        match address(text) {
            Ok(endpoint) => {
                let place = line.place.clone();
                found.binds.push(BindDraft { endpoint: endpoint.clone(), place: place.clone() });
                let both = both_families(&endpoint).filter(|_| !has("v6only"));
                found.binds.extend(both.map(|endpoint| BindDraft { endpoint, place }));
            }
            Err(why) => notes.lost(line, why),
        }
    }
    let mut rest = options.iter();
    while let Some(option) = rest.next() {
        let value = WITH_VALUE.contains(&option.as_str()).then(|| rest.next()).flatten();
        set_option(&mut found, option, value.map_or("", String::as_str), &mut |why| {
            notes.lost(line, why);
        });
    }
    found
}

fn set_option(found: &mut BindLine, option: &str, value: &str, lost: &mut dyn FnMut(String)) {
    match option {
        "accept-proxy" => found.takes_header = true,
        "tfo" => found.keys.set("fast_open", true),
        "defer-accept" => found.keys.set("defer_accept", true),
        "transparent" => found.keys.set("freebind", true),
        "v4v6" | "v6only" => {}
        "tcp-ut" => match haproxy_time(value).filter(|time| time.as_secs() < 24 * 86_400) {
            Some(time) => found.keys.set("user_timeout", crate::import::amounts::time(time)),
            None => lost(format!("`tcp-ut {value}` is no time that `user_timeout` takes")),
        },
        "backlog" => match value.parse::<u16>().ok().filter(|length| *length > 0) {
            Some(length) => found.keys.set("backlog", length),
            None => lost(format!("`backlog {value}`: evenkeel takes 1 to 65535")),
        },
        "maxconn" => lost(format!(
            "`maxconn {value}` of one address: `max_sessions` is for a whole listener; make it one \
             of its own"
        )),
        "mss" => lost("`mss` has no counterpart: set `advmss` of the route (ip-route)".to_owned()),
        "interface" => lost(format!(
            "`interface {value}`: evenkeel is bound to addresses; name those of the interface"
        )),
        "user" | "group" | "mode" | "uid" | "gid" => lost(format!(
            "`{option}`: evenkeel makes its sockets with mode 0666; guard the directory, or let a \
             socket unit of systemd make it"
        )),
        "name" | "id" => lost(format!("`{option}`: an address has no name of its own")),
        "process" | "thread" | "nice" | "shards" => {
            lost(format!("`{option}`: every worker accepts on every address"));
        }
        other => lost(format!("`{other}` has no counterpart")),
    }
}

/// The IPv4 wildcard beside that of IPv6: Linux serves both by one socket, evenkeel by two.
fn both_families(endpoint: &Endpoint) -> Option<Endpoint> {
    match endpoint {
        Endpoint::Ports { ip: IpAddr::V6(ip), first, last } if ip.is_unspecified() => {
            Some(Endpoint::Ports {
                ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                first: *first,
                last: *last,
            })
        }
        _ => None,
    }
}

/// One address of a `bind` line.
fn address(text: &str) -> Result<Endpoint, String> {
    let (family, rest) = text.split_once('@').unwrap_or(("", text));
    match family {
        "" if rest.starts_with('/') => return Endpoint::unix(rest),
        "unix" | "uxst" => return Endpoint::unix(rest),
        "" | "ipv4" | "ipv6" | "tcp" | "tcp4" | "tcp6" => {}
        "abns" | "abnsz" => return Err("evenkeel has no abstract sockets".to_owned()),
        "fd" | "sockpair" => {
            return Err("a passed descriptor: use a socket unit of systemd".to_owned());
        }
        other => return Err(format!("`{other}@` has no counterpart")),
    }
    let Some((host, port)) = rest.rsplit_once(':') else {
        return Err(format!("`{rest}` has no port"));
    };
    let wildcard: IpAddr = if matches!(family, "ipv6" | "tcp6") {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    let host = match host {
        "" | "*" => wildcard,
        host => ip(host).or_else(|| host.parse().ok()).ok_or_else(|| {
            format!("`{host}` is no address: evenkeel listens on addresses, not on names")
        })?,
    };
    Endpoint::ports(host, port)
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, evenkeel listens somewhere else than HAProxy did.
    #[test]
    fn addresses_are_those_that_haproxy_takes() {
        for (text, shown) in [
            (":80", "0.0.0.0:80"),
            ("*:80", "0.0.0.0:80"),
            ("10.0.0.1:5000-5009", "10.0.0.1:5000-5009"),
            (":::80", "[::]:80"),
            ("[::1]:80", "[::1]:80"),
            ("ipv6@:80", "[::]:80"),
            ("unix@/run/a.sock", "unix:/run/a.sock"),
            ("/run/a.sock", "unix:/run/a.sock"),
        ] {
            assert_eq!(address(text).map(|endpoint| endpoint.to_string()), Ok(shown.to_owned()));
        }
        for text in ["", "80", "host:80", "abns@x", "fd@3", "10.0.0.1:0", "/", ":9-5"] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
