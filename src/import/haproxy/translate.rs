//! A file of HAProxy's as a draft: its sections in their order, and what they refer to.

use super::elsewhere::reason;
use super::global::global;
use super::listeners::{FrontendRead, add_listeners};
use super::pools::pool;
use super::rules::RuleContext;
use super::sections::{ConfigLine, HaproxySection, read};
use super::settings::{ProxySettings, ProxyTimes};
use super::tables::StickTable;
use crate::import::draft::{Draft, name_of};
use crate::import::notes::Notes;
use crate::import::outcome::ImportError;

/// A frontend, a backend or both.
struct Proxy {
    section: HaproxySection,
    settings: ProxySettings,
}

impl Proxy {
    /// Whether it counts clients in the table of a proxy, or remembers them there.
    fn uses_table(&self, owner: &str) -> bool {
        let is_own = self.section.name() == owner;
        let names_it = |words: &[String]| match words.iter().position(|word| word == "table") {
            Some(at) => words.get(at + 1).is_some_and(|name| name == owner),
            None => is_own,
        };
        let tracks = |line: &&ConfigLine| line.word(2).starts_with("track-sc");
        let mut tracking = self.settings.requests.iter().filter(tracks);
        tracking.any(|line| names_it(&line.words))
            || self.settings.sticks.iter().any(|line| names_it(&line.words))
    }

    fn has_servers(&self) -> bool {
        match self.section.kind() {
            // One without servers may be only there for its table.
            "backend" => !self.settings.servers.is_empty() || self.settings.stick_table.is_none(),
            "listen" => !self.settings.servers.is_empty(),
            _ => false,
        }
    }
}

/// Translates a file.
///
/// # Errors
/// When HAProxy could not read it either.
pub(crate) fn translate(file: &str, text: &str, notes: &mut Notes) -> Result<Draft, ImportError> {
    let mut draft = Draft::default();
    let mut defaults: Vec<(String, ProxySettings)> =
        vec![(String::new(), ProxySettings::default())];
    let mut proxies = Vec::new();
    for section in read(file, text, notes)? {
        match section.kind() {
            "global" => {
                section.lines.iter().for_each(|line| global(&mut draft.global, line, notes));
            }
            "defaults" | "frontend" | "backend" | "listen" => {
                let settings = proxy_settings(&section, &defaults, notes)?;
                if section.kind() == "defaults" {
                    defaults.push((section.name().to_owned(), settings));
                } else {
                    proxies.push(Proxy { section, settings });
                }
            }
            kind => notes.lost(&section, reason(kind, "")),
        }
    }
    proxies.retain(|proxy: &Proxy| {
        if proxy.settings.is_disabled {
            notes.lost(&proxy.section, "it is disabled");
        }
        !proxy.settings.is_disabled
    });
    compile(&proxies, &mut draft, notes);
    Ok(draft)
}

/// What a section sets, beside what its defaults say.
fn proxy_settings(
    section: &HaproxySection,
    defaults: &[(String, ProxySettings)],
    notes: &mut Notes,
) -> Result<ProxySettings, ImportError> {
    let mut settings = match (section.from(), section.kind()) {
        (Some(from), _) => {
            let found = defaults.iter().rev().find(|(name, _)| name == from && !name.is_empty());
            found.map(|(_, settings)| settings.clone()).ok_or_else(|| ImportError {
                place: section.head.place.clone(),
                message: format!("there is no defaults section {from}"),
            })?
        }
        // Each of these begins anew.
        (None, "defaults") => ProxySettings::default(),
        (None, _) => defaults.last().map(|(_, settings)| settings.clone()).unwrap_or_default(),
    };
    section.lines.iter().for_each(|line| settings.apply(line, notes));
    Ok(settings)
}

fn compile(proxies: &[Proxy], draft: &mut Draft, notes: &mut Notes) {
    let mut tables = Vec::new();
    let mut times: Vec<(String, ProxyTimes)> = Vec::new();
    for proxy in proxies {
        let name = proxy.section.name();
        if let Some(line) = &proxy.settings.stick_table {
            let (table, other) = StickTable::read(name, line);
            if !other.is_empty() {
                notes.lost(line, format!("evenkeel keeps no {}", other.join(", ")));
            }
            if !proxies.iter().any(|other| other.uses_table(name)) {
                notes.lost(line, "no rule counts by it or remembers in it");
            }
            tables.push(table);
        }
        if let Some(line) = proxy.settings.stats.as_ref() {
            notes.lost(line, reason("stats", ""));
        }
        if proxy.has_servers() && !draft.has_pool(name) {
            let name_is_one = name_of(name) == name;
            if name_is_one {
                draft.pools.push(pool(name, &proxy.settings, notes));
                times.push((name.to_owned(), proxy.settings.times));
            } else {
                notes.lost(&proxy.section, "it has no name that a pool can have");
            }
        }
    }
    for proxy in proxies {
        let settings = &proxy.settings;
        if proxy.section.kind() == "backend" {
            for line in &settings.requests {
                notes.lost(line, "clients are judged by their listener: write it in the frontend");
            }
            continue;
        }
        let context =
            RuleContext { proxy: proxy.section.name(), acls: &settings.acls, tables: &tables };
        let front = FrontendRead { section: &proxy.section, settings, times: &times, context };
        add_listeners(&front, draft, notes);
    }
}
