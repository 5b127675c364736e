//! Configurations of nginx: the `stream` block, up to nginx 1.27.

mod blocks;
mod elsewhere;
mod include;
mod listen;
mod maps;
mod quantities;
mod servers;
mod settings;
mod upstream;

use std::path::Path;

use super::amounts::time;
use super::draft::Draft;
use super::files::ImportFiles;
use super::notes::Notes;
use super::outcome::ImportError;

use blocks::Directive;
use elsewhere::reason;
use servers::{StreamNames, add_server};
use settings::StreamSettings;

/// Translates a file with those that it includes: a whole nginx.conf, or what stands in `stream`.
///
/// # Errors
/// When one cannot be read, or nginx could not read it either.
pub(super) fn translate(
    file: &Path,
    files: &dyn ImportFiles,
    notes: &mut Notes,
) -> Result<Draft, ImportError> {
    let mut draft = Draft::default();
    let found = include::whole(file, files)?;
    let is_whole = found.iter().any(|line| matches!(line.name(), "stream" | "events" | "http"));
    if is_whole {
        found.iter().for_each(|line| outermost(line, &mut draft, notes));
    } else {
        stream(&found, &mut draft, notes);
    }
    Ok(draft)
}

fn outermost(line: &Directive, draft: &mut Draft, notes: &mut Notes) {
    match (line.name(), line.word(1)) {
        ("stream", _) => stream(line.inside(), draft, notes),
        ("worker_processes", "auto") => {}
        ("worker_processes", number) => match number.parse::<u16>() {
            Ok(workers @ 1..=256) => draft.global.set("workers", workers),
            _ => notes.lost(line, "`workers` takes 1 to 256, or \"auto\""),
        },
        ("worker_shutdown_timeout", text) => match quantities::nginx_time(text) {
            Some(after) => draft.global.set("drain_timeout", time(after)),
            None => notes.lost(line, "it is no time"),
        },
        (name, _) => notes.lost(line, reason(name)),
    }
}

fn stream(lines: &[Directive], draft: &mut Draft, notes: &mut Notes) {
    let mut settings = StreamSettings::default();
    let mut names = StreamNames::default();
    // nginx takes directives in any order: servers come last.
    for line in lines {
        match line.name() {
            "server" => {}
            "upstream" => names.upstreams.push(upstream::upstream(line, notes)),
            "map" | "geo" => names.maps.extend(maps::routing_map(line, notes)),
            "limit_conn_zone" => names.zones.extend(servers::zone(line, notes)),
            _ => settings.apply(line, notes),
        }
    }
    for line in lines.iter().filter(|line| line.name() == "server") {
        add_server(line, &settings, &mut names, draft, notes);
    }
    for upstream in &names.upstreams {
        let is_used = draft.pools.iter().any(|pool| pool.backends == upstream.backends);
        if !is_used && !draft.has_pool(&upstream.name) && names_are_fit(&upstream.name) {
            draft.pools.push(upstream.clone());
        }
    }
}

/// Whether a name is one that a pool can have.
fn names_are_fit(name: &str) -> bool {
    super::draft::name_of(name) == name
}
