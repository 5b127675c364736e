//! `map` and `geo` blocks of nginx that choose an upstream, as routes.

use crate::import::draft::KeyLines;
use crate::import::networks::{network, shown};
use crate::import::notes::Notes;
use crate::import::server_name::is_server_name;

use super::blocks::Directive;

/// What a variable stands for, by what a client says or where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RoutingMap {
    /// With its `$`.
    pub(super) variable: String,
    /// Values with what a route has to ask for, in the order in which they are asked.
    pub(super) cases: Vec<(KeyLines, String)>,
    /// What it stands for otherwise.
    pub(super) default: Option<String>,
}

/// Reads a `map` or `geo` block; what is not carried over gets a note.
pub(super) fn routing_map(directive: &Directive, notes: &mut Notes) -> Option<RoutingMap> {
    let (source, variable) = match (directive.name(), directive.arguments()) {
        ("map", [source, variable]) => (source.as_str(), variable.clone()),
        ("geo", [variable]) => ("$remote_addr", variable.clone()),
        ("geo", [source, variable]) => (source.as_str(), variable.clone()),
        _ => {
            notes.lost(directive, "it is not understood");
            return None;
        }
    };
    let mut map = RoutingMap { variable, cases: Vec::new(), default: None };
    match (directive.name(), source) {
        ("map", "$ssl_preread_server_name") => names(&mut map, directive, notes),
        ("map", "$ssl_preread_protocol") => protocols(&mut map, directive, notes),
        ("geo", "$remote_addr") => networks(&mut map, directive, notes),
        _ => {
            let reason = "a route asks for $ssl_preread_server_name, $ssl_preread_protocol or the \
                          client's network, and for nothing else";
            notes.lost(directive, reason);
            return None;
        }
    }
    Some(map)
}

/// A line `PATTERN VALUE` of a block; `None` for what is none.
fn case<'a>(line: &'a Directive, notes: &mut Notes) -> Option<(&'a str, &'a str)> {
    match line.words.as_slice() {
        [pattern, value] => Some((pattern, value)),
        [flag] if matches!(flag.as_str(), "hostnames" | "volatile" | "ranges") => {
            if flag == "ranges" {
                notes.lost(line, "write networks instead of ranges of addresses");
            }
            None
        }
        _ => {
            notes.lost(line, "it is not understood");
            None
        }
    }
}

fn names(map: &mut RoutingMap, directive: &Directive, notes: &mut Notes) {
    let has_wildcards = directive.inside().iter().any(|line| line.name() == "hostnames");
    // Exact names win over wildcards, and the longest of those over others.
    let mut ranked: Vec<(usize, KeyLines, String)> = Vec::new();
    for line in directive.inside() {
        let Some((pattern, value)) = case(line, notes) else { continue };
        let pattern = pattern.strip_prefix('\\').unwrap_or(pattern).to_ascii_lowercase();
        if pattern == "default" {
            map.default = Some(value.to_owned());
            continue;
        }
        let below = pattern.strip_prefix("*.").filter(|_| has_wildcards);
        let dotted = pattern.strip_prefix('.').filter(|_| has_wildcards);
        let (rank, patterns) = match (below, dotted) {
            (Some(name), _) => (usize::MAX - name.len(), vec![format!("*.{name}")]),
            (_, Some(name)) => {
                (usize::MAX - name.len(), vec![name.to_owned(), format!("*.{name}")])
            }
            _ => (0, vec![pattern.clone()]),
        };
        let bare = below.or(dotted).unwrap_or(&pattern);
        if !is_server_name(bare) {
            let reason = match pattern.chars().next() {
                Some('~') => "a route knows no regular expressions: write names, or `*.` in front",
                None => "write it as `default`, or as a route with `tls = false`",
                _ => "it is no server name; wildcards need `hostnames`",
            };
            notes.lost(line, reason);
            continue;
        }
        let mut keys = KeyLines::default();
        keys.set_list("sni", &patterns);
        ranked.push((rank, keys, value.to_owned()));
    }
    ranked.sort_by_key(|(rank, ..)| *rank);
    map.cases = grouped(ranked.into_iter().map(|(_, keys, value)| (keys, value)).collect());
}

/// Neighbours with the same value and one list each, as one.
fn grouped(cases: Vec<(KeyLines, String)>) -> Vec<(KeyLines, String)> {
    let mut found: Vec<(KeyLines, String)> = Vec::new();
    for (keys, value) in cases {
        let more = keys.get("sni").and_then(|list| list.strip_prefix('[')).map(str::to_owned);
        match (found.last_mut(), more) {
            (Some((last, other)), Some(more)) if *other == value => {
                let list = last.get("sni").and_then(|list| list.strip_suffix(']'));
                let list = list.unwrap_or_default().to_owned();
                last.set("sni", format!("{list}, {more}"));
            }
            _ => found.push((keys, value)),
        }
    }
    found
}

fn protocols(map: &mut RoutingMap, directive: &Directive, notes: &mut Notes) {
    let mut tls: Option<(String, &Directive)> = None;
    let mut plain = None;
    for line in directive.inside() {
        let Some((pattern, value)) = case(line, notes) else { continue };
        match pattern {
            "default" => map.default = Some(value.to_owned()),
            "" => plain = Some(value.to_owned()),
            version if version.starts_with("TLSv1") || version == "SSLv3" => {
                if tls.as_ref().is_some_and(|(other, _)| other != value) {
                    notes.lost(line, "a route asks for TLS, of whatever version");
                } else {
                    tls = Some((value.to_owned(), line));
                }
            }
            _ => notes.lost(line, "it is no version of TLS"),
        }
    }
    for (is_tls, value) in [(true, tls.map(|(value, _)| value)), (false, plain)] {
        if let Some(value) = value {
            let mut keys = KeyLines::default();
            keys.set("tls", is_tls);
            map.cases.push((keys, value));
        }
    }
}

fn networks(map: &mut RoutingMap, directive: &Directive, notes: &mut Notes) {
    let mut ranked = Vec::new();
    for line in directive.inside() {
        let Some((pattern, value)) = case(line, notes) else { continue };
        match (pattern, network(pattern)) {
            ("default", _) => map.default = Some(value.to_owned()),
            (_, Some(net)) => {
                let mut keys = KeyLines::default();
                keys.set_list("client", &[shown(&net)]);
                ranked.push((net.prefix_len(), keys, value.to_owned()));
            }
            _ => notes.lost(line, "it is no network"),
        }
    }
    // The longest prefix counts.
    ranked.sort_by_key(|(length, ..)| std::cmp::Reverse(*length));
    map.cases = ranked.into_iter().map(|(_, keys, value)| (keys, value)).collect();
}
