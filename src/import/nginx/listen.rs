//! `listen` of nginx.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::import::amounts::time;
use crate::import::draft::{BindDraft, BindLine, KeyLines};
use crate::import::endpoint::{Endpoint, ip};
use crate::import::notes::Notes;

use super::blocks::Directive;
use super::quantities::nginx_time;

/// Reads a directive, with a note for what is not carried over.
pub(super) fn listen(line: &Directive, notes: &mut Notes) -> BindLine {
    let mut found = BindLine::default();
    let options = line.arguments().get(1..).unwrap_or_default();
    let has = |name: &str| options.iter().any(|option| option == name);
    if has("udp") || has("ssl") {
        let reason = if has("udp") {
            "evenkeel has no UDP: leave nginx for it"
        } else {
            "evenkeel terminates no TLS: terminate it at the servers, or leave nginx in front of \
             it for this address"
        };
        notes.lost(line, reason);
        return found;
    }
    let endpoint = match address(line.word(1)) {
        Ok(endpoint) => endpoint,
        Err(why) => {
            notes.lost(line, why);
            return found;
        }
    };
    let place = line.place.clone();
    if let Endpoint::Ports { ip: IpAddr::V6(any), first, last } = endpoint
        && any.is_unspecified()
        && has("ipv6only=off")
    {
        let endpoint = Endpoint::Ports { ip: Ipv4Addr::UNSPECIFIED.into(), first, last };
        found.binds.push(BindDraft { endpoint, place: place.clone() });
    }
    found.binds.push(BindDraft { endpoint, place });
    for option in options {
        if let Err(why) = set_option(&mut found, option) {
            notes.lost(line, why);
        }
    }
    found
}

fn set_option(found: &mut BindLine, option: &str) -> Result<(), String> {
    let (name, value) = option.split_once('=').unwrap_or((option, ""));
    match name {
        "proxy_protocol" => found.takes_header = true,
        "fastopen" => found.keys.set("fast_open", true),
        "deferred" => found.keys.set("defer_accept", true),
        "multipath" => found.keys.set("mptcp", true),
        "backlog" => match value.parse::<u16>() {
            Ok(length) if length > 0 => found.keys.set("backlog", length),
            _ => return Err("`backlog` takes 1 to 65535".to_owned()),
        },
        "so_keepalive" => return set_keepalive(&mut found.keys, value),
        // Each worker has a socket of its own anyway, and a wildcard is for one family.
        "reuseport" | "bind" | "ipv6only" => {}
        "rcvbuf" | "sndbuf" => {
            return Err(format!(
                "`{name}`: the kernel sizes buffers (net.ipv4.tcp_rmem, tcp_wmem)"
            ));
        }
        "default_server" => return Err("routes choose by name: `sni`".to_owned()),
        other => return Err(format!("`{other}` has no counterpart")),
    }
    Ok(())
}

/// `on`, `off`, or `IDLE:INTERVAL:COUNT` with parts left out.
fn set_keepalive(keys: &mut KeyLines, value: &str) -> Result<(), String> {
    match value {
        "on" => return Ok(()),
        "off" => return Err("evenkeel always has keepalive; see `keepalive`".to_owned()),
        _ => {}
    }
    let mut keepalive = KeyLines::default();
    for (key, part) in ["idle", "interval", "count"].into_iter().zip(value.split(':')) {
        if part.is_empty() {
            continue;
        }
        if key == "count" {
            match part.parse::<u8>() {
                Ok(count @ 1..=127) => keepalive.set(key, count),
                _ => return Err("`keepalive` takes a count of 1 to 127".to_owned()),
            }
            continue;
        }
        let seconds = nginx_time(part).filter(|time| time.subsec_nanos() == 0);
        match seconds.filter(|time| (1..=32_767).contains(&time.as_secs())) {
            Some(seconds) => keepalive.set(key, time(seconds)),
            None => return Err("`keepalive` takes whole seconds up to 9 hours".to_owned()),
        }
    }
    if !keepalive.is_empty() {
        keys.set("keepalive", keepalive.inline());
    }
    Ok(())
}

fn address(text: &str) -> Result<Endpoint, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Endpoint::unix(path);
    }
    let any: IpAddr = Ipv4Addr::UNSPECIFIED.into();
    let is_port = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let (host, port) = match text.rsplit_once(':') {
        _ if is_port => (any, text),
        Some(("*", port)) => (any, port),
        Some(("[::]", port)) => (Ipv6Addr::UNSPECIFIED.into(), port),
        Some((host, port)) if !text.ends_with(']') => {
            let no_address =
                || format!("`{host}` is no address: evenkeel listens on addresses, not on names");
            (ip(host).ok_or_else(no_address)?, port)
        }
        _ => return Err(format!("`{text}` has no port")),
    };
    Endpoint::ports(host, port)
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, evenkeel listens somewhere else than nginx did.
    #[test]
    fn addresses_are_those_that_nginx_takes() {
        for (text, shown) in [
            ("80", "0.0.0.0:80"),
            ("*:80", "0.0.0.0:80"),
            ("10.0.0.1:5000-5009", "10.0.0.1:5000-5009"),
            ("[::]:80", "[::]:80"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
        ] {
            assert_eq!(address(text).map(|endpoint| endpoint.to_string()), Ok(shown.to_owned()));
        }
        for text in ["", "host:80", "10.0.0.1", "[::1]", "unix:a", "0", "9-5"] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
