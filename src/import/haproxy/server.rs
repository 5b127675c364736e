//! `server` and `default-server` lines of HAProxy.

use std::time::Duration;

use crate::import::amounts::time;
use crate::import::draft::KeyLines;
use crate::import::endpoint::{Endpoint, ip};
use crate::import::notes::Notes;

use super::quantities::haproxy_time;
use super::sections::ConfigLine;

/// Options of `server` that take a value and have no counterpart.
const WITH_VALUE: &[&str] = &[
    "addr",
    "agent-addr",
    "agent-inter",
    "agent-port",
    "agent-send",
    "alpn",
    "ca-file",
    "check-alpn",
    "check-proto",
    "check-sni",
    "ciphers",
    "ciphersuites",
    "cookie",
    "crl-file",
    "crt",
    "downinter",
    "error-limit",
    "fall",
    "fastinter",
    "id",
    "init-addr",
    "init-state",
    "inter",
    "log-bufsize",
    "log-proto",
    "max-reuse",
    "maxconn",
    "maxqueue",
    "minconn",
    "namespace",
    "observe",
    "on-error",
    "on-marked-down",
    "on-marked-up",
    "pool-low-conn",
    "pool-max-conn",
    "pool-purge-delay",
    "port",
    "proto",
    "redir",
    "resolve-net",
    "resolve-opts",
    "resolve-prefer",
    "resolvers",
    "rise",
    "shard",
    "sigalgs",
    "slowstart",
    "sni",
    "socks4",
    "source",
    "ssl-max-ver",
    "ssl-min-ver",
    "tcp-ut",
    "track",
    "usesrc",
    "verify",
    "verifyhost",
    "weight",
    "ws",
    "proxy-v2-options",
    "curves",
    "guid",
    "hash-key",
    "interface",
    "pool-conn-name",
    "strict-maxconn",
    "check-pool-conn-name",
];

/// What `server` or `default-server` sets, as far as evenkeel has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ServerOptions {
    pub(super) is_checked: bool,
    pub(super) interval: Option<Duration>,
    pub(super) fast_interval: Option<Duration>,
    pub(super) down_interval: Option<Duration>,
    /// `rise`, `fall` and `port` of the checks, by their names.
    pub(super) check: KeyLines,
    pub(super) is_check_tls: bool,
    pub(super) check_name: Option<String>,
    pub(super) weight: Option<u16>,
    pub(super) maxconn: Option<u64>,
    pub(super) is_backup: bool,
    pub(super) is_disabled: bool,
    pub(super) header: Option<&'static str>,
    /// Keys of the pool that it asks for.
    pub(super) pool: KeyLines,
    pub(super) error_limit: Option<u16>,
    pub(super) observes: bool,
    /// Whether the connection to it is encrypted.
    pub(super) speaks_tls: bool,
}

impl ServerOptions {
    /// Takes the options of a line from a word on; what has no counterpart gets a note.
    pub(super) fn apply(&mut self, line: &ConfigLine, from: usize, notes: &mut Notes) {
        let mut rest = line.from(from).iter();
        while let Some(option) = rest.next() {
            let value = WITH_VALUE.contains(&option.as_str()).then(|| rest.next()).flatten();
            let value = value.map_or("", String::as_str);
            if let Err(why) = self
                .check_option(option, value)
                .unwrap_or_else(|| self.traffic_option(option, value))
            {
                notes.lost(line, why);
            }
        }
    }

    /// An option of the checks; `None` for others.
    fn check_option(&mut self, option: &str, value: &str) -> Option<Result<(), String>> {
        let number = || value.parse::<u16>().ok().filter(|number| (1..=1000).contains(number));
        let wrong = || Err(format!("`{option} {value}` is not understood"));
        let timed = |target: &mut Option<Duration>| match haproxy_time(value) {
            Some(time) => {
                *target = Some(time);
                Ok(())
            }
            None => wrong(),
        };
        Some(match option {
            "check" => {
                self.is_checked = true;
                Ok(())
            }
            "no-check" => {
                self.is_checked = false;
                Ok(())
            }
            "inter" => timed(&mut self.interval),
            "fastinter" => timed(&mut self.fast_interval),
            "downinter" => timed(&mut self.down_interval),
            "rise" | "fall" => match number() {
                Some(number) => {
                    self.check.set(if option == "rise" { "rise" } else { "fall" }, number);
                    Ok(())
                }
                None => wrong(),
            },
            "port" => match value.parse::<u16>().ok().filter(|port| *port > 0) {
                Some(port) => {
                    self.check.set("port", port);
                    Ok(())
                }
                None => wrong(),
            },
            "check-ssl" => {
                self.is_check_tls = true;
                Ok(())
            }
            "no-check-ssl" => {
                self.is_check_tls = false;
                Ok(())
            }
            "check-sni" => {
                self.check_name = Some(value.to_owned());
                Ok(())
            }
            "check-send-proxy" | "no-check-send-proxy" => Ok(()),
            "observe" if value == "layer4" => {
                self.observes = true;
                Ok(())
            }
            "on-error" if value == "mark-down" => Ok(()),
            "error-limit" => match number() {
                Some(number) => {
                    self.error_limit = Some(number);
                    Ok(())
                }
                None => wrong(),
            },
            "addr" => Err(format!(
                "`addr {value}`: probes ask the backend's own address; `port` of its health table \
                 can be another"
            )),
            "agent-check" | "agent-addr" | "agent-inter" | "agent-port" | "agent-send" => {
                Err(format!("`{option}`: there are no agents; change weights by `evenkeel weight`"))
            }
            "track" => Err(format!("`track {value}`: each pool probes its own backends")),
            _ => return None,
        })
    }

    fn traffic_option(&mut self, option: &str, value: &str) -> Result<(), String> {
        match option {
            "weight" => match value.parse() {
                Ok(weight) => self.weight = Some(weight),
                Err(_) => return Err(format!("`weight {value}` is no weight")),
            },
            "maxconn" => match value.parse::<u64>() {
                Ok(maxconn) => self.maxconn = Some(maxconn).filter(|maxconn| *maxconn > 0),
                Err(_) => return Err(format!("`maxconn {value}` is no number")),
            },
            "backup" => self.is_backup = true,
            "no-backup" => self.is_backup = false,
            "disabled" => self.is_disabled = true,
            "enabled" => self.is_disabled = false,
            "send-proxy" => self.header = Some("v1"),
            "send-proxy-v2" => self.header = Some("v2"),
            "no-send-proxy" | "no-send-proxy-v2" => self.header = None,
            "slowstart" => match haproxy_time(value) {
                Some(slow) => self.pool.set("slow_start", time(slow)),
                None => return Err(format!("`slowstart {value}` is no time")),
            },
            "on-marked-down" if value == "shutdown-sessions" => {
                self.pool.set_text("on_down", "reset");
            }
            "on-marked-up" if value == "shutdown-backup-sessions" => {
                self.pool.set_text("on_up", "reset");
            }
            "source" => set_source(&mut self.pool, value)?,
            "usesrc" => set_usesrc(&mut self.pool, value)?,
            "ssl" => self.speaks_tls = true,
            "no-ssl" => self.speaks_tls = false,
            // What they change is TLS that is not carried over, or checks that look at it.
            "verify" | "sni" | "ca-file" | "crt" | "alpn" | "ciphers" | "ciphersuites"
            | "ssl-min-ver" | "ssl-max-ver" | "verifyhost" | "crl-file"
                if self.speaks_tls => {}
            "verify" if value == "none" => {}
            "resolvers" | "init-addr" | "resolve-prefer" | "resolve-net" | "resolve-opts" => {
                return Err(format!("`{option}`: backends are addresses, which never change"));
            }
            "cookie" => {
                return Err("`cookie`: evenkeel writes no cookies; see `hash_key`".to_owned());
            }
            "minconn" | "maxqueue" => {
                return Err(format!("`{option}`: `queue` of the pool has one bound for all"));
            }
            other => return Err(format!("`{other}` has no counterpart")),
        }
        Ok(())
    }
}

/// `source ADDRESS` of a server or a backend.
pub(super) fn set_source(pool: &mut KeyLines, text: &str) -> Result<(), String> {
    let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
    match ip(text).or_else(|| ip(host)) {
        Some(address) if address.is_unspecified() => Ok(()),
        Some(address) if ip(text).is_some() => {
            pool.set_list("source", &[address.to_string()]);
            Ok(())
        }
        Some(_) => Err(format!("`source {text}`: the kernel chooses the port")),
        None => Err(format!("`source {text}` is no address")),
    }
}

/// `usesrc` behind `source`.
pub(super) fn set_usesrc(pool: &mut KeyLines, value: &str) -> Result<(), String> {
    match value {
        "client" | "clientip" => {
            pool.set("transparent", true);
            Ok(())
        }
        other => Err(format!("`usesrc {other}` has no counterpart")),
    }
}

/// Where a server is: an address, or what is wrong with it.
pub(super) fn server_address(text: &str) -> Result<Endpoint, String> {
    let (family, rest) = text.split_once('@').unwrap_or(("", text));
    match family {
        "" if rest.starts_with('/') => return Endpoint::unix(rest),
        "unix" | "uxst" => return Endpoint::unix(rest),
        "" | "ipv4" | "ipv6" | "tcp" | "tcp4" | "tcp6" => {}
        "abns" | "abnsz" => return Err("evenkeel has no abstract sockets".to_owned()),
        other => return Err(format!("`{other}@` has no counterpart")),
    }
    let endpoint = match rest.rsplit_once(':') {
        _ if ip(rest).is_some() && !rest.ends_with(':') && is_alone(rest) => {
            ip(rest).map(Endpoint::Host).ok_or_else(String::new)?
        }
        Some((_, port)) if port.starts_with(['+', '-']) => {
            return Err("a port by an offset has no counterpart".to_owned());
        }
        Some((host, port)) => {
            let host = ip(host).ok_or_else(|| no_address(host))?;
            match port {
                "" | "0" => Endpoint::Host(host),
                port => Endpoint::ports(host, port)?,
            }
        }
        None => return Err(no_address(rest)),
    };
    if endpoint.can_be_connected() {
        Ok(endpoint)
    } else {
        Err(format!("`{text}` cannot be a backend"))
    }
}

/// Whether a text that is an address has no port behind it: `::1:80` may be either, and HAProxy
/// takes what follows the last colon for the port.
fn is_alone(text: &str) -> bool {
    text.starts_with('[') || !text.contains(':')
}

fn no_address(host: &str) -> String {
    format!("`{host}` is no IP address, and evenkeel asks no resolver: write the address")
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, a server is connected at another address or port.
    #[test]
    fn addresses_of_servers_are_those_that_haproxy_takes() {
        for (text, shown) in [
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("10.0.0.1", "10.0.0.1"),
            ("10.0.0.1:", "10.0.0.1"),
            ("[::1]:80", "[::1]:80"),
            ("[::1]", "::1"),
            ("::1:80", "[::1]:80"),
            ("ipv4@10.0.0.1:80", "10.0.0.1:80"),
            ("/run/a.sock", "unix:/run/a.sock"),
        ] {
            let found = server_address(text).map(|endpoint| endpoint.to_string());
            assert_eq!(found, Ok(shown.to_owned()), "{text}");
        }
        for text in ["", "db.example.com:80", "10.0.0.1:+100", "0.0.0.0:80", "10.0.0.1:1-2"] {
            assert!(server_address(text).is_err(), "{text}");
        }
    }
}
