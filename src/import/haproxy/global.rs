//! The `global` section of HAProxy.

use std::net::SocketAddr;

use crate::import::amounts::time;
use crate::import::draft::KeyLines;
use crate::import::endpoint::{Endpoint, ip};
use crate::import::notes::Notes;

use super::elsewhere::reason;
use super::quantities::haproxy_time;
use super::sections::ConfigLine;

/// The port of syslog, unless it is said.
const SYSLOG_PORT: u16 = 514;

/// `to` of `log` for a target of HAProxy's; `None` is stderr.
fn log_target(text: &str) -> Result<Option<String>, String> {
    if matches!(text, "stdout" | "stderr") {
        return Ok(None);
    }
    if let Ok(Endpoint::Unix(path)) = Endpoint::unix(text) {
        return Ok(Some(format!("syslog:{path}")));
    }
    let bare = text.strip_prefix("udp@").unwrap_or(text);
    let address = bare.parse::<SocketAddr>().ok();
    let address = address.or_else(|| ip(bare).map(|ip| SocketAddr::new(ip, SYSLOG_PORT)));
    match address.filter(|address| address.port() != 0 && !address.ip().is_unspecified()) {
        Some(address) => Ok(Some(format!("syslog:{address}"))),
        None => Err(format!("`{text}` is no address that the log can be sent to")),
    }
}

/// Takes a line of `global`; one without a counterpart gets a note.
pub(super) fn global(keys: &mut KeyLines, line: &ConfigLine, notes: &mut Notes) {
    let value = line.word(1);
    match line.word(0) {
        "maxconn" => match value.parse::<u64>() {
            Ok(number) if number > 0 => {
                keys.set("max_sessions", number.min(100_000_000));
                let reason =
                    "HAProxy leaves what is above it in the kernel's queue; evenkeel resets it";
                notes.differs(line, reason);
            }
            _ => notes.lost(line, "it is no number of connections"),
        },
        "nbthread" => match value.parse::<u16>() {
            Ok(threads @ 1..=256) => keys.set("workers", threads),
            _ => notes.lost(line, "`workers` takes 1 to 256"),
        },
        "hard-stop-after" => match haproxy_time(value) {
            Some(after) => keys.set("drain_timeout", time(after)),
            None => notes.lost(line, "it is no time"),
        },
        "log" => match log_target(value) {
            Ok(Some(target)) if keys.get("log").is_none() => {
                let mut log = KeyLines::default();
                log.set_text("to", &target);
                keys.set("log", log.inline());
                let reason = "`log`: lines are evenkeel's own (RFC 5424), their facility \
                              is `daemon`";
                notes.differs(line, reason);
            }
            // Where evenkeel writes unless it is told otherwise.
            Ok(None) if keys.get("log").is_none() => {}
            Ok(_) => {
                notes.lost(line, "the log has one place, `to` of `log`, and another line has it")
            }
            Err(why) => notes.lost(line, why),
        },
        "nosplice" => keys.set_text("splice", "never"),
        keyword => notes.lost(line, reason(keyword, value)),
    }
}
