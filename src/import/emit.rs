//! A draft, as the text of a configuration file.

use std::fmt::Write;
use std::path::Path;

use super::draft::{BackendDraft, Draft, KeyLines, ListenerDraft, PoolDraft, quoted};

/// Longest line of `backends` that is not split.
const LINE_MAX: usize = 100;

/// Writes a draft; `peer` is the program that `file` belongs to.
pub(super) fn emit(peer: &str, file: &Path, draft: &Draft) -> String {
    let name = file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let name: String = name.chars().filter(|letter| !letter.is_control()).collect();
    let mut out = format!("# From {name}, by `evenkeel import {peer}`.\n");
    if !draft.global.is_empty() {
        out.push_str("\n[global]\n");
        lines(&mut out, &draft.global);
    }
    for listener in &draft.listeners {
        write_listener(&mut out, listener);
    }
    for pool in &draft.pools {
        write_pool(&mut out, pool);
    }
    out
}

fn write_listener(out: &mut String, listener: &ListenerDraft) {
    let name = key(&listener.name);
    let binds: Vec<String> =
        listener.binds.iter().map(|bind| quoted(&bind.endpoint.to_string())).collect();
    put(out, format_args!("\n[listener.{name}]\nbind = [{}]\n", binds.join(", ")));
    put(out, format_args!("pool = {}\n", quoted(&listener.pool)));
    lines(out, &listener.keys);
    if !listener.peek.is_empty() {
        put(out, format_args!("\n[listener.{name}.peek]\n"));
        lines(out, &listener.peek);
    }
    for route in &listener.routes {
        put(out, format_args!("\n[[listener.{name}.route]]\n"));
        lines(out, &route.keys);
        put(out, format_args!("pool = {}\n", quoted(&route.pool)));
    }
    let is_one = listener.limits.len() == 1;
    for limit in &listener.limits {
        let (open, close) = if is_one { ("[", "]") } else { ("[[", "]]") };
        put(out, format_args!("\n{open}listener.{name}.limit{close}\n"));
        lines(out, limit);
    }
}

fn write_pool(out: &mut String, pool: &PoolDraft) {
    let name = key(&pool.name);
    let comment = if pool.refuses.is_some() { " # these clients are refused" } else { "" };
    put(out, format_args!("\n[pool.{name}]{comment}\n"));
    lines(out, &pool.keys);
    let backends: Vec<String> = pool.backends.iter().map(backend).collect();
    let one_line = format!("backends = [{}]", backends.join(", "));
    if pool.missing.is_empty() && one_line.len() <= LINE_MAX && backends.len() < 4 {
        put(out, format_args!("{one_line}\n"));
    } else {
        out.push_str("backends = [\n");
        backends.iter().for_each(|backend| put(out, format_args!("  {backend},\n")));
        for missing in &pool.missing {
            let missing: String = missing.chars().filter(|letter| !letter.is_control()).collect();
            put(out, format_args!("  # {missing}\n"));
        }
        out.push_str("]\n");
    }
    for (table, keys) in [("health", &pool.health), ("outlier", &pool.outlier)] {
        if let Some(keys) = keys {
            put(out, format_args!("\n[pool.{name}.{table}]\n"));
            lines(out, keys);
        }
    }
}

fn backend(backend: &BackendDraft) -> String {
    let address = backend.endpoint.to_string();
    if backend.name == address && backend.keys.is_empty() {
        return quoted(&address);
    }
    let mut keys = KeyLines::default();
    keys.set_text("address", &address);
    if backend.name != address {
        keys.set_text("name", &backend.name);
    }
    backend.keys.iter().for_each(|(key, value)| keys.set(key, value));
    keys.inline()
}

fn lines(out: &mut String, keys: &KeyLines) {
    for (key, value) in keys.iter() {
        put(out, format_args!("{key} = {value}\n"));
    }
}

/// A name as a part of a table's header.
fn key(name: &str) -> String {
    let is_bare = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    if !name.is_empty() && name.chars().all(is_bare) {
        return name.to_owned();
    }
    // Basic strings only: what `toml` prints may be a literal or a multi-line one.
    let escaped: String = name
        .chars()
        .map(|letter| match letter {
            '"' => "\\\"".to_owned(),
            '\\' => "\\\\".to_owned(),
            letter => letter.to_string(),
        })
        .collect();
    format!("\"{escaped}\"")
}

/// Writing to a `String` cannot fail.
fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}
