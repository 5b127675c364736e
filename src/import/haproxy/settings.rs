//! What the lines of a proxy, and of `defaults`, set.

use std::time::Duration;

use crate::import::draft::KeyLines;
use crate::import::notes::Notes;

use super::conditions::{Acls, Subject};
use super::elsewhere::reason;
use super::probe::CheckDraft;
use super::quantities::haproxy_time;
use super::sections::ConfigLine;
use super::server::{ServerOptions, set_source, set_usesrc};

/// Times of a proxy; none where HAProxy waits for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ProxyTimes {
    pub(super) client: Option<Duration>,
    pub(super) server: Option<Duration>,
    pub(super) connect: Option<Duration>,
    pub(super) queue: Option<Duration>,
    pub(super) tunnel: Option<Duration>,
    pub(super) check: Option<Duration>,
    pub(super) client_fin: Option<Duration>,
    pub(super) server_fin: Option<Duration>,
}

/// Everything that a proxy may have set, itself or by its defaults.
#[derive(Debug, Clone, Default)]
pub(super) struct ProxySettings {
    pub(super) is_http: bool,
    pub(super) is_disabled: bool,
    pub(super) times: ProxyTimes,
    pub(super) maxconn: Option<(u64, ConfigLine)>,
    pub(super) backlog: Option<u16>,
    pub(super) retries: Option<u8>,
    pub(super) session_rate: Option<(u64, ConfigLine)>,
    /// `keepalive` of the listener.
    pub(super) keepalive: KeyLines,
    /// `balance` and what belongs to it.
    pub(super) balance: KeyLines,
    /// Other keys of the pool.
    pub(super) pool: KeyLines,
    pub(super) check: CheckDraft,
    pub(super) is_any_backup: bool,
    pub(super) server: ServerOptions,
    pub(super) binds: Vec<ConfigLine>,
    /// Servers, each with what `default-server` had said by then.
    pub(super) servers: Vec<(ConfigLine, ServerOptions)>,
    pub(super) acls: Acls,
    /// `tcp-request` lines.
    pub(super) requests: Vec<ConfigLine>,
    pub(super) switches: Vec<ConfigLine>,
    pub(super) stick_table: Option<ConfigLine>,
    pub(super) sticks: Vec<ConfigLine>,
    pub(super) default_backend: Option<ConfigLine>,
    /// The first line that asks for the page of statistics.
    pub(super) stats: Option<ConfigLine>,
}

impl ProxySettings {
    /// Takes a line; one that has no counterpart gets a note.
    pub(super) fn apply(&mut self, line: &ConfigLine, notes: &mut Notes) {
        let (is_no, at) = match line.word(0) {
            "no" => (true, 1),
            // It only makes HAProxy forget what is set, which is what comes next.
            "default" => {
                notes.lost(line, "what it takes back has to be left out of the file");
                return;
            }
            _ => (false, 0),
        };
        if is_no {
            self.without(line, notes);
            return;
        }
        let known = self.traffic(line, notes) || self.serving(line, notes);
        if !known {
            notes.lost(line, reason(line.word(at), line.word(at + 1)));
        }
    }

    /// `no option ...` and its like: only what the defaults may have set matters.
    fn without(&mut self, line: &ConfigLine, notes: &mut Notes) {
        match (line.word(1), line.word(2)) {
            ("option", "allbackups") => self.is_any_backup = false,
            ("option", "tcp-check" | "httpchk") => self.check = CheckDraft::default(),
            ("option", "redispatch") => notes.differs(
                line,
                "a client whose backend fails goes to another one while there is one; `retries = \
                 0` lets it fail",
            ),
            ("option", "clitcpka" | "srvtcpka" | "tcpka") => {
                notes.differs(line, "evenkeel always has keepalive; see `keepalive`");
            }
            ("option", _) => {}
            ("log", _) => notes.lost(line, "`sessions = \"none\"` of `log` is for all listeners"),
            _ => notes.lost(line, reason(line.word(1), line.word(2))),
        }
    }

    /// Lines about how connections are treated; whether it is one.
    fn traffic(&mut self, line: &ConfigLine, notes: &mut Notes) -> bool {
        let value = line.word(1);
        match line.word(0) {
            "mode" => {
                self.is_http = value == "http";
                if self.is_http {
                    let reason = "evenkeel balances connections, not requests: no rule, header or \
                                  log of a request; all requests of a connection go to one backend";
                    notes.lost(line, reason);
                } else if value != "tcp" {
                    notes.lost(line, format!("there is no mode {value}"));
                }
            }
            "timeout" => self.timeout(line, notes),
            "option" => return self.option(line, notes),
            "maxconn" => match value.parse::<u64>() {
                Ok(number) if number > 0 => self.maxconn = Some((number, line.clone())),
                _ => notes.lost(line, "it is no number of connections"),
            },
            "backlog" => match value.parse::<u16>().ok().filter(|length| *length > 0) {
                Some(length) => self.backlog = Some(length),
                None => notes.lost(line, "`backlog` takes 1 to 65535"),
            },
            "retries" => match value.parse::<u8>().ok().filter(|retries| *retries <= 100) {
                Some(retries) => self.retries = Some(retries),
                None => notes.lost(line, "`retries` takes 0 to 100"),
            },
            "rate-limit" if value == "sessions" => match line.word(2).parse::<u64>() {
                Ok(number) if number > 0 => self.session_rate = Some((number, line.clone())),
                _ => notes.lost(line, "it is no rate"),
            },
            "clitcpka-idle" | "clitcpka-intvl" | "srvtcpka-idle" | "srvtcpka-intvl" => {
                let key = if line.word(0).ends_with("idle") { "idle" } else { "interval" };
                match haproxy_time(value).filter(|time| time.subsec_nanos() == 0) {
                    Some(time) if time.as_secs() <= 32_767 => {
                        self.keepalive.set(key, crate::import::amounts::time(time));
                    }
                    _ => notes.lost(line, "`keepalive` takes whole seconds up to 9 hours"),
                }
            }
            "clitcpka-cnt" | "srvtcpka-cnt" => match value.parse::<u8>() {
                Ok(count @ 1..=127) => self.keepalive.set("count", count),
                _ => notes.lost(line, "`keepalive` takes a count of 1 to 127"),
            },
            "bind" => self.binds.push(line.clone()),
            "acl" => {
                if let Subject::Unknown(why) = self.acls.define(line) {
                    notes.lost(line, why);
                }
            }
            "tcp-request" => self.requests.push(line.clone()),
            "use_backend" => self.switches.push(line.clone()),
            "default_backend" => self.default_backend = Some(line.clone()),
            // Each session has its line, where that of the process is.
            "log" if value == "global" => {}
            "disabled" => self.is_disabled = true,
            "enabled" => self.is_disabled = false,
            "stats" => {
                self.stats.get_or_insert_with(|| line.clone());
            }
            _ => return false,
        }
        true
    }

    /// Lines about servers; whether it is one.
    fn serving(&mut self, line: &ConfigLine, notes: &mut Notes) -> bool {
        match line.word(0) {
            "balance" => {
                self.balance = super::balance::balance(line, notes);
            }
            "hash-type" => super::balance::hash_type(line, notes),
            "server" => {
                let mut options = self.server.clone();
                options.apply(line, 3, notes);
                self.servers.push((line.clone(), options));
            }
            "default-server" => self.server.apply(line, 1, notes),
            "dispatch" => {
                let mut server = line.clone();
                server.words.insert(1, "dispatch".to_owned());
                self.servers.push((server, ServerOptions::default()));
            }
            "source" => {
                if let Err(why) = set_source(&mut self.pool, line.word(1)) {
                    notes.lost(line, why);
                }
                match line.word(2) {
                    "" => {}
                    "usesrc" => {
                        if let Err(why) = set_usesrc(&mut self.pool, line.word(3)) {
                            notes.lost(line, why);
                        }
                    }
                    other => notes.lost(line, format!("`{other}` has no counterpart")),
                }
            }
            "tcp-check" => self.check.tcp(line, notes),
            "http-check" => self.check.http(line, notes),
            "stick-table" => self.stick_table = Some(line.clone()),
            "stick" => self.sticks.push(line.clone()),
            _ => return false,
        }
        true
    }

    fn timeout(&mut self, line: &ConfigLine, notes: &mut Notes) {
        let time = haproxy_time(line.word(2));
        if time.is_none() && !line.word(2).trim_start_matches('0').is_empty() {
            notes.lost(line, format!("`{}` is no time", line.word(2)));
            return;
        }
        let times = &mut self.times;
        let target = match line.word(1) {
            "client" => &mut times.client,
            "server" => &mut times.server,
            "connect" => &mut times.connect,
            "queue" => &mut times.queue,
            "tunnel" => &mut times.tunnel,
            "check" => &mut times.check,
            "client-fin" => &mut times.client_fin,
            "server-fin" => &mut times.server_fin,
            other => {
                notes.lost(line, reason("timeout", other));
                return;
            }
        };
        *target = time;
    }

    fn option(&mut self, line: &ConfigLine, notes: &mut Notes) -> bool {
        if self.check.option(line, notes) {
            return true;
        }
        match line.word(1) {
            // What evenkeel does anyway.
            "redispatch" | "tcplog" | "log-health-checks" | "splice-auto" | "splice-request"
            | "splice-response" | "tcpka" | "clitcpka" | "srvtcpka" => {}
            "allbackups" => self.is_any_backup = true,
            _ => return false,
        }
        true
    }
}
