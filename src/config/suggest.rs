//! "Did you mean": the known word closest to what was written, or our word for one of other load
//! balancers, which no distance of letters finds.
//!
//! Distance is optimal string alignment: insert, remove, replace or swap two neighbours. A word
//! that shares too little with what was written is not proposed.

use strsim::osa_distance;

/// Longest text that is compared; what is longer is no slip of the fingers.
const LENGTH_MAX: usize = 64;

/// The closest of `known` to `written`, if it is close enough to be what was meant.
pub(super) fn nearest<'k>(written: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let written = written.to_lowercase();
    if written.is_empty() || written.chars().count() > LENGTH_MAX {
        return None;
    }
    let slack = (written.chars().count() / 3).clamp(1, 4);
    known
        .map(|word| (osa_distance(&written, &word.to_lowercase()), word))
        .filter(|(steps, word)| *steps <= slack && *steps < word.chars().count())
        .min_by_key(|(steps, _)| *steps)
        .map(|(_, word)| word)
}

/// Words that stand as a value: the key, the words, what they are called here.
const VALUES: &[(&str, &[&str], &str)] = &[
    ("balance", &["leastconn", "least_conn", "least_request"], "least-connections"),
    ("balance", &["source", "hash", "ip_hash", "source_hash", "ring_hash"], "maglev"),
    ("balance", &["roundrobin", "static_rr", "rr", "wrr"], "round-robin"),
    ("balance", &["least_time", "ewma"], "least-latency"),
    ("balance", &["random_two_least_conn", "p2c"], "random-two"),
    ("hash_key", &["ip", "source", "src", "remote_addr"], "client-ip"),
    ("hash_key", &["host", "server_name", "req.ssl_sni"], "sni"),
    ("protocol", &["http1", "http/1.1"], "http"),
    ("action", &["drop", "deny", "reject"], "reset"),
    ("level", &["warning", "notice"], "warn"),
];

/// Keys with what they are called here, in one table or another. A key is compared in lower case,
/// with `_` for what stands between its words.
const KEYS: &[(&[&str], &[&str])] = &[
    (&["frontend"], &["listener", "bind"]),
    (&["server"], &["backends", "address", "listener"]),
    (&["servers", "members", "endpoints", "targets", "hosts"], &["backends"]),
    (&["backend", "upstream", "cluster"], &["pool", "backends"]),
    (&["listen", "listeners", "addresses"], &["bind", "listener"]),
    (&["port", "address", "addr"], &["bind", "address"]),
    (&["default_backend", "use_backend", "proxy_pass"], &["pool"]),
    (&["mode"], &["protocol"]),
    (&["method", "algorithm", "lb_policy", "policy"], &["balance"]),
    (&["hash", "hash_type", "hash_on"], &["hash_key"]),
    (
        &["host", "hostname", "server_name", "servername", "ssl_preread_server_name"],
        &["sni", "host"],
    ),
    (&["ssl_preread"], &["route"]),
    (&["timeout_client", "timeout_server", "timeout_tunnel", "proxy_timeout"], &["idle_timeout"]),
    (&["timeout_client_fin", "timeout_server_fin"], &["half_closed_timeout"]),
    (&["timeout_connect", "proxy_connect_timeout"], &["connect_timeout"]),
    (&["timeout_check"], &["timeout"]),
    (&["timeout_queue", "maxqueue"], &["queue"]),
    (&["inspect_delay", "preread_timeout"], &["peek"]),
    (&["preread_buffer_size"], &["max_bytes"]),
    (&["option_redispatch", "redispatch", "proxy_next_upstream", "retry"], &["retries"]),
    (&["check", "checks", "health_check", "healthcheck", "option_httpchk"], &["health"]),
    (&["inter"], &["interval"]),
    (&["fastinter"], &["fast_interval"]),
    (&["downinter"], &["down_backoff"]),
    (&["uri"], &["path"]),
    (&["type", "kind", "check_type"], &["probe"]),
    (&["max_fails", "error_limit"], &["consecutive_failures", "outlier"]),
    (&["fail_timeout"], &["eject", "outlier"]),
    (
        &["maxconn", "max_conns", "max_connections", "connection_limit", "worker_connections"],
        &["max_sessions"],
    ),
    (&["stick_table", "limit_conn_zone"], &["limit", "sticky"]),
    (&["stick_on", "stick", "persistence"], &["sticky"]),
    (&["src_conn_rate", "conn_rate", "rate_limit"], &["rate", "limit"]),
    (&["src_conn_cur", "limit_conn"], &["max_concurrent", "limit"]),
    (&["tcp_request", "accept", "whitelist", "allowlist"], &["allow"]),
    (&["reject", "blacklist", "denylist"], &["deny"]),
    (&["nbthread", "nbproc", "worker_processes", "threads"], &["workers"]),
    (&["hard_stop_after", "worker_shutdown_timeout"], &["drain_timeout"]),
    (&["grace"], &["shutdown_delay"]),
    (&["stats", "stats_socket"], &["http", "socket"]),
    (&["send_proxy_v2"], &["send_proxy"]),
    (&["proxy_protocol"], &["send_proxy", "accept_proxy"]),
    (&["usesrc", "proxy_bind"], &["source", "transparent"]),
    (&["proxy_upload_rate"], &["up", "bandwidth"]),
    (&["proxy_download_rate"], &["down", "bandwidth"]),
    (&["so_keepalive", "clitcpka", "srvtcpka", "tcpka"], &["keepalive"]),
    (&["tcp_ut"], &["user_timeout"]),
    (&["tfo", "fastopen"], &["fast_open"]),
    (&["slowstart"], &["slow_start"]),
    (&["on_marked_down"], &["on_down"]),
    (&["on_marked_up"], &["on_up"]),
    (&["log_level", "loglevel"], &["level", "log"]),
    (&["access_log", "error_log", "output", "file", "syslog"], &["to", "log"]),
    (&["dontlognull"], &["silent", "log"]),
    (&["dontlog_normal"], &["sessions", "log"]),
    (&["log_separate_errors", "sampling"], &["sample", "log"]),
];

/// A word as [`KEYS`] and [`VALUES`] have it.
fn normal(written: &str) -> String {
    written.to_lowercase().replace(['-', ' '], "_")
}

/// Our word for a value of `key`.
pub(super) fn foreign_value(key: &str, written: &str) -> Option<&'static str> {
    let written = normal(written);
    let mut known = VALUES.iter().filter(|(of, _, _)| *of == key);
    known.find(|(_, words, _)| words.contains(&written.as_str())).map(|(_, _, ours)| *ours)
}

/// Our words for a key, the most likely first; the name of a table at the top of the file too.
pub(super) fn foreign_key(written: &str) -> &'static [&'static str] {
    let written = normal(written);
    let known = KEYS.iter().find(|(words, _)| words.contains(&written.as_str()));
    known.map_or(&[], |(_, ours)| *ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::{self, Shape};

    /// Without it a slip of the fingers gets no proposal.
    #[test]
    fn slips_find_their_word() {
        let known = ["idle_timeout", "bind", "pool", "keepalive"];
        let find = |written| nearest(written, known.iter().copied());
        assert_eq!(find("idle_timout"), Some("idle_timeout"));
        assert_eq!(find("idle-timeout"), Some("idle_timeout"));
        assert_eq!(find("bnid"), Some("bind"));
        assert_eq!(find("POOL"), Some("pool"));
        assert_eq!(find("pools"), Some("pool"));
    }

    /// Without it any word gets a proposal, however absurd.
    #[test]
    fn strangers_find_nothing() {
        let known = ["idle_timeout", "bind", "pool"];
        assert_eq!(nearest("certificate", known.iter().copied()), None);
        assert_eq!(nearest("", known.iter().copied()), None);
        assert_eq!(nearest(&"x".repeat(1000), known.iter().copied()), None);
    }

    /// Keys of ours, too, in another table than the one where others have them.
    const OURS_ELSEWHERE: &[&str] =
        &["port", "address", "mode", "method", "algorithm", "host", "hosts"];

    fn is_known(name: &str) -> bool {
        keys::FILE.find(name).is_some() || keys::tables_with(name).next().is_some()
    }

    /// If it fails, an operator is sent to a key that does not exist, or away from one that does.
    #[test]
    fn proposals_are_keys_and_foreign_words_are_not() {
        for (words, ours) in KEYS {
            for word in *words {
                assert_eq!(is_known(word), OURS_ELSEWHERE.contains(word), "{word}");
                assert_eq!(normal(word), *word);
            }
            assert!(ours.iter().all(|key| is_known(key)), "{ours:?}");
        }
        for (key, words, ours) in VALUES {
            let table = keys::tables_with(key).next().unwrap();
            let (Shape::Word(known) | Shape::WordWith(known, _)) = table.find(key).unwrap().shape
            else {
                panic!("{key}")
            };
            assert!(known().contains(ours), "{ours}");
            assert!(words.iter().all(|word| normal(word) == *word && !known().contains(word)));
        }
    }

    /// If it fails, an operator who comes from another balancer writes a word of the table that was
    /// made for that, and is not led to ours.
    #[test]
    fn every_word_of_the_table_of_migration_leads_on() {
        let text = include_str!("../../docs/migrating.md");
        let mut seen = 0;
        for row in text.lines().filter(|line| line.starts_with("| `")) {
            let row = row.replace("\\|", "/");
            let cells: Vec<&str> = row.split('|').collect();
            let [_, haproxy, nginx, ours, ..] = cells.as_slice() else { panic!("{row}") };
            if ours.contains("evenkeel ") {
                continue;
            }
            let quoted = [haproxy, nginx].into_iter().flat_map(|cell| cell.split('`').skip(1));
            for phrase in quoted.step_by(2) {
                let is_of_balance = foreign_value("balance", phrase).is_some();
                // A line of theirs may hold several words; the first, or the whole, is a key.
                let first = phrase.split(' ').next().unwrap();
                let is_led = |word: &str| is_known(word) || !foreign_key(word).is_empty();
                assert!(is_of_balance || is_led(phrase) || is_led(first), "{phrase}");
                seen += 1;
            }
        }
        assert!(seen > 30, "only {seen} words");
    }
}
