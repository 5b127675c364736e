//! What directives of `stream` and `server` set: the inner ones win.

use std::time::Duration;

use crate::config::units::show_size;
use crate::import::amounts::time;
use crate::import::draft::{KeyLines, quoted};
use crate::import::endpoint::ip;
use crate::import::networks::{network, shown};
use crate::import::notes::Notes;

use super::blocks::Directive;
use super::elsewhere::reason;
use super::quantities::{is_on, nginx_size, nginx_time};

/// Fastest bandwidth that evenkeel holds: 64 GiB/s.
const BANDWIDTH_MAX: u64 = 64 << 30;
/// The time for a connect that nginx has unless it is said.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// The time for first bytes that nginx has unless it is said.
const PREREAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Directives in force for one server.
#[derive(Debug, Clone)]
pub(super) struct StreamSettings {
    /// Keys of the listener.
    pub(super) listener: KeyLines,
    pub(super) peek: KeyLines,
    pub(super) upload: Option<u64>,
    pub(super) download: Option<u64>,
    /// Keys of the pool.
    pub(super) pool: KeyLines,
    /// Whether another server is tried, and how many in all.
    pub(super) goes_on: bool,
    pub(super) tries: u64,
    /// Whether the connection to servers is encrypted.
    pub(super) encrypts: bool,
    pub(super) access: Vec<Directive>,
    pub(super) limits: Vec<Directive>,
    pub(super) only_observes: bool,
    /// Peers that may name the client by a PROXY header.
    pub(super) proxies: Vec<String>,
}

impl Default for StreamSettings {
    fn default() -> Self {
        let mut pool = KeyLines::default();
        pool.set("connect_timeout", time(CONNECT_TIMEOUT));
        let mut peek = KeyLines::default();
        peek.set("timeout", time(PREREAD_TIMEOUT));
        Self {
            listener: KeyLines::default(),
            peek,
            upload: None,
            download: None,
            pool,
            goes_on: true,
            tries: 0,
            encrypts: false,
            access: Vec::new(),
            limits: Vec::new(),
            only_observes: false,
            proxies: Vec::new(),
        }
    }
}

impl StreamSettings {
    /// The settings within a block: lists are inherited only where it has none of its own.
    pub(super) fn within(&self, block: &[Directive]) -> Self {
        let mut inner = self.clone();
        let has = |names: &[&str]| block.iter().any(|line| names.contains(&line.name()));
        if has(&["allow", "deny"]) {
            inner.access.clear();
        }
        if has(&["limit_conn"]) {
            inner.limits.clear();
        }
        if has(&["set_real_ip_from"]) {
            inner.proxies.clear();
        }
        inner
    }

    /// Takes a directive; one without a counterpart gets a note.
    pub(super) fn apply(&mut self, line: &Directive, notes: &mut Notes) {
        let done = match line.name() {
            "allow" | "deny" => {
                self.access.push(line.clone());
                Ok(())
            }
            "limit_conn" => {
                self.limits.push(line.clone());
                Ok(())
            }
            "limit_conn_dry_run" => on(line).map(|is_on| self.only_observes = is_on),
            "set_real_ip_from" => match (line.word(1), network(line.word(1))) {
                ("unix:", _) => Ok(()),
                (_, Some(net)) => {
                    self.proxies.push(shown(&net));
                    Ok(())
                }
                _ => Err("it is no network".to_owned()),
            },
            // Always so.
            "ssl_preread" | "tcp_nodelay" | "proxy_socket_keepalive" => on(line).map(|_| ()),
            name if name.starts_with("proxy_") => self.proxy(line),
            "preread_timeout" => timed(line).map(|wait| {
                self.peek.set("timeout", time(wait.min(Duration::from_secs(3600))));
            }),
            "preread_buffer_size" => match nginx_size(line.word(1)) {
                Some(size @ 1..=65_536) => {
                    self.peek.set_text("max_bytes", &show_size(size));
                    Ok(())
                }
                _ => Err("`max_bytes` of `peek` takes up to 64 KiB".to_owned()),
            },
            name => Err(reason(name).to_owned()),
        };
        if let Err(why) = done {
            notes.lost(line, why);
        }
    }

    fn proxy(&mut self, line: &Directive) -> Result<(), String> {
        match line.name() {
            "proxy_timeout" => self.listener.set("idle_timeout", time(timed(line)?)),
            "proxy_connect_timeout" => self.pool.set("connect_timeout", time(timed(line)?)),
            "proxy_next_upstream" => self.goes_on = on(line)?,
            "proxy_next_upstream_tries" => {
                self.tries = line.word(1).parse().map_err(|_| "it is no number".to_owned())?;
            }
            "proxy_next_upstream_timeout" => match timed(line)? {
                Duration::ZERO => {}
                _ => {
                    let reason = "attempts are bounded by `retries`, each by `connect_timeout`";
                    return Err(reason.to_owned());
                }
            },
            "proxy_protocol" => {
                if on(line)? {
                    self.pool.set_text("send_proxy", "v1");
                }
            }
            "proxy_half_close" => {
                // Without it nginx ends a session with its first FIN.
                if !on(line)? {
                    return Err("a session goes on until both sides have sent FIN".to_owned());
                }
            }
            "proxy_bind" => return self.bind(line),
            "proxy_upload_rate" => self.upload = rate(line)?,
            "proxy_download_rate" => self.download = rate(line)?,
            "proxy_ssl" => self.encrypts = on(line)?,
            name if name.starts_with("proxy_ssl_") && self.encrypts => {}
            name => return Err(reason(name).to_owned()),
        }
        Ok(())
    }

    fn bind(&mut self, line: &Directive) -> Result<(), String> {
        let is_transparent = line.word(2) == "transparent";
        match line.word(1) {
            "off" => {}
            "$remote_addr" if is_transparent => self.pool.set("transparent", true),
            text => match ip(text) {
                Some(address) if !is_transparent && !address.is_unspecified() => {
                    self.pool.set_list("source", &[address.to_string()]);
                }
                _ => return Err("`source` takes addresses of this host".to_owned()),
            },
        }
        Ok(())
    }

    /// Writes `bandwidth`.
    pub(super) fn set_bandwidth(&self, keys: &mut KeyLines) {
        let mut bandwidth = KeyLines::default();
        for (key, bytes) in [("up", self.upload), ("down", self.download)] {
            if let Some(bytes) = bytes {
                let size = show_size(bytes.min(BANDWIDTH_MAX));
                bandwidth.set(key, quoted(&format!("{size}/s")));
            }
        }
        if !bandwidth.is_empty() {
            keys.set("bandwidth", bandwidth.inline());
        }
    }

    /// Further attempts to connect for a pool with this number of servers.
    pub(super) fn retries(&self, servers: usize) -> u64 {
        let all = u64::try_from(servers.max(1)).unwrap_or(u64::MAX);
        let attempts = match (self.goes_on, self.tries) {
            (false, _) => 1,
            (true, 0) => all,
            (true, tries) => tries.min(all),
        };
        (attempts - 1).min(100)
    }
}

fn on(line: &Directive) -> Result<bool, String> {
    is_on(line.word(1)).ok_or_else(|| "it is neither `on` nor `off`".to_owned())
}

fn timed(line: &Directive) -> Result<Duration, String> {
    nginx_time(&line.arguments().join(" ")).ok_or_else(|| "it is no time".to_owned())
}

fn rate(line: &Directive) -> Result<Option<u64>, String> {
    let size = nginx_size(line.word(1)).ok_or_else(|| "it is no size".to_owned())?;
    Ok((size > 0).then_some(size))
}
