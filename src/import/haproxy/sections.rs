//! The sections of a file of HAProxy's, and their lines.

use crate::import::notes::{Noted, Notes};
use crate::import::outcome::ImportError;
use crate::import::place::SourcePlace;

use super::words::split;

/// Words that begin a section.
const SECTIONS: &[&str] = &[
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "peers",
    "userlist",
    "resolvers",
    "mailers",
    "cache",
    "program",
    "http-errors",
    "ring",
    "log-forward",
    "fcgi-app",
    "crt-store",
    "traces",
    "log-profile",
    "acme",
];

/// One line with at least one word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConfigLine {
    pub(super) place: SourcePlace,
    pub(super) words: Vec<String>,
}

impl ConfigLine {
    /// A word, or an empty text where there is none.
    pub(super) fn word(&self, at: usize) -> &str {
        self.words.get(at).map_or("", String::as_str)
    }

    /// The words from one on.
    pub(super) fn from(&self, at: usize) -> &[String] {
        self.words.get(at..).unwrap_or_default()
    }
}

impl Noted for ConfigLine {
    fn place(&self) -> SourcePlace {
        self.place.clone()
    }

    fn shown(&self) -> String {
        self.words.join(" ")
    }
}

/// A section: the line that begins it, and those in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HaproxySection {
    pub(super) head: ConfigLine,
    pub(super) lines: Vec<ConfigLine>,
}

impl HaproxySection {
    /// `frontend`, `backend` and so on.
    pub(super) fn kind(&self) -> &str {
        self.head.word(0)
    }

    /// The name behind `from`.
    pub(super) fn from(&self) -> Option<&str> {
        let at = self.head.words.iter().skip(1).position(|word| word == "from")?;
        self.head.words.get(at + 2).map(String::as_str)
    }

    /// Its name; a `defaults` section may have none.
    pub(super) fn name(&self) -> &str {
        match self.head.word(1) {
            "from" => "",
            name => name,
        }
    }
}

impl Noted for HaproxySection {
    fn place(&self) -> SourcePlace {
        let last = self.lines.last().map_or(self.head.place.line, |line| line.place.line);
        self.head.place.to(last)
    }

    fn shown(&self) -> String {
        self.head.shown()
    }
}

/// Reads a file.
///
/// # Errors
/// When HAProxy could not read it either: a quote without an end, a line outside of a section.
pub(super) fn read(
    file: &str,
    text: &str,
    notes: &mut Notes,
) -> Result<Vec<HaproxySection>, ImportError> {
    let mut sections: Vec<HaproxySection> = Vec::new();
    let start = SourcePlace::new(file, 1);
    let mut conditionals = 0_usize;
    for (number, text) in text.lines().enumerate() {
        let place = start.at(number + 1);
        let failed = |message| ImportError { place: place.clone(), message };
        let line = split(text).map_err(failed)?;
        let variable = line.variable;
        let line = ConfigLine { place: place.clone(), words: line.words };
        let first = line.word(0).to_owned();
        if first.is_empty() {
            continue;
        }
        conditionals += usize::from(first == ".if");
        if conditionals > 0 || first.starts_with('.') {
            let reason = "evenkeel has no conditions: write what applies to this host without them";
            notes.lost(&line, reason);
            conditionals -= usize::from(first == ".endif" && conditionals > 0);
            continue;
        }
        if SECTIONS.contains(&first.as_str()) {
            sections.push(HaproxySection { head: line, lines: Vec::new() });
            continue;
        }
        let Some(section) = sections.last_mut() else {
            let message = format!("`{first}` is in no section; is this a file of HAProxy's?");
            return Err(ImportError { place, message });
        };
        match variable {
            Some(name) => notes.lost(
                &line,
                format!("it takes ${name} from the environment: write its value, and import again"),
            ),
            None => section.lines.push(line),
        }
    }
    Ok(sections)
}
