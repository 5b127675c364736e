//! The files of the plainest session, as ARCHITECTURE.md lists them: those to read, and tools.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// All of them, by paths from the root of the repository.
pub(crate) struct Plainest {
    /// In the order in which they are read.
    pub(crate) list: Vec<String>,
    pub(crate) tools: BTreeSet<String>,
    /// Files that run around the list, and use files of it.
    pub(crate) around: BTreeSet<String>,
}

impl Plainest {
    /// As ARCHITECTURE.md says.
    pub(crate) fn read() -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md");
        Self::of(&fs::read_to_string(file).unwrap())
    }

    /// As this text says between its headings "What to read" and "Step by step".
    pub(crate) fn of(text: &str) -> Self {
        let part = text.split("### What to read").nth(1).unwrap_or_default();
        let part = part.split("\n### ").next().unwrap_or_default();
        let mut said = Self { list: Vec::new(), tools: BTreeSet::new(), around: BTreeSet::new() };
        let mut room = String::new();
        for line in part.lines() {
            let names: Vec<&str> = line.split('`').skip(1).step_by(2).collect();
            if line.starts_with(|first: char| first.is_ascii_digit()) {
                said.list.extend(names.first().map(|name| format!("src/{name}")));
                continue;
            }
            if line.starts_with("Around them") {
                said.around.extend(names.iter().map(|name| format!("src/{name}")));
            }
            let is_tools = line.starts_with("- `") || line.starts_with("  ") && !room.is_empty();
            if !is_tools {
                room.clear();
            }
            for name in names.into_iter().filter(|_| is_tools) {
                match name.strip_suffix('/') {
                    Some(name) => room = name.to_owned(),
                    None => {
                        said.tools.insert(format!("src/{room}/{name}"));
                    }
                }
            }
        }
        said
    }

    /// All files.
    pub(crate) fn all(&self) -> BTreeSet<String> {
        self.list.iter().chain(&self.tools).chain(&self.around).cloned().collect()
    }
}
