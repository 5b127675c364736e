//! Rust sources read as text: without comments, strings and unit tests, and the paths they name.

use std::fs;
use std::path::{Path, PathBuf};

/// A file, by its path from the root of the repository.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap()
    }

    /// `policy` of `src/policy/hash.rs`, `main` of `src/main.rs`.
    pub(crate) fn part(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        Some(inside.split('/').next().unwrap().trim_end_matches(".rs"))
    }

    /// Without the unit tests at its end.
    pub(crate) fn without_tests(&self) -> &str {
        if self.name() == "tests.rs" {
            return "";
        }
        let tests = self.text.find("\nmod tests");
        let attribute = tests.and_then(|end| self.text[..=end].rfind("\n#[cfg(test)]\n"));
        attribute.map_or(&self.text, |start| &self.text[..=start])
    }

    /// What the compiler acts on: no comments, no contents of strings, no unit tests.
    pub(crate) fn code(&self) -> String {
        code(self.without_tests())
    }

    pub(crate) fn says(&self, line: usize, what: &str) -> String {
        format!("{}:{}: {what}", self.path, line + 1)
    }
}

/// Blanks out comments and the contents of strings; keeps lines where they are.
pub(crate) fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = comment(rest).or_else(|| string(rest)).unwrap_or_else(|| {
            out.push(first);
            first.len_utf8()
        });
        if length > first.len_utf8() {
            out.extend(rest[..length].chars().filter(|character| *character == '\n'));
        }
        rest = &rest[length..];
    }
    out
}

/// Length of the comment that `text` begins with.
pub(crate) fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    let inside = text.strip_prefix("/*")?;
    Some(inside.find("*/").map_or(text.len(), |end| end + 4))
}

/// Length of the string or of the quoted quotation mark that `text` begins with.
pub(crate) fn string(text: &str) -> Option<usize> {
    for quoted in ["'\"'", "'\\\"'"] {
        if text.starts_with(quoted) {
            return Some(quoted.len());
        }
    }
    if let Some(hashes) = text.strip_prefix('r').filter(|rest| rest.starts_with(['#', '"'])) {
        let count = hashes.len() - hashes.trim_start_matches('#').len();
        let inside = hashes[count..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(count));
        return Some(inside.find(&end).map_or(text.len(), |at| 2 + count + at + end.len()));
    }
    let inside = text.strip_prefix('"')?;
    let mut escaped = false;
    for (at, character) in inside.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at + 2),
            _ => {}
        }
    }
    Some(text.len())
}

/// Whether `word` is in `line` with nothing before or after it that would make it another word.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(is_word)
            && !line[at + word.len()..].chars().next().is_some_and(is_word)
    })
}

/// Paths into the crate that a line of code names, without `crate::` or `evenkeel::`, one for each
/// name of a `{...}` list.
pub(crate) fn crate_paths(code: &str) -> Vec<(usize, String)> {
    let mut paths = Vec::new();
    for root in ["crate::", "evenkeel::"] {
        for (at, _) in code.match_indices(root) {
            let line = code[..at].matches('\n').count();
            expand(&code[at + root.len()..], "", line, &mut paths);
        }
    }
    paths
}

pub(crate) fn expand(rest: &str, before: &str, line: usize, paths: &mut Vec<(usize, String)>) {
    let is_path = |character: char| character.is_alphanumeric() || "_:".contains(character);
    let end = rest.find(|character| !is_path(character)).unwrap_or(rest.len());
    let path = format!("{before}{}", &rest[..end]);
    let Some(list) =
        rest[end..].strip_prefix('{').filter(|_| path.is_empty() || path.ends_with(':'))
    else {
        paths.push((line, path));
        return;
    };
    let mut depth = 0_usize;
    let mut start = 0;
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                let item = list[start..at].trim();
                if !item.is_empty() {
                    expand(item, &path, line, paths);
                }
                start = at + 1;
                if character == '}' {
                    return;
                }
            }
            _ => {}
        }
    }
}

/// The files of the repository below `directory`, of those that have `extension`.
pub(crate) fn walk(directory: &Path, extensions: &[&str], sources: &mut Vec<Source>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut entries: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            let skipped = ["target", ".git", "corpus", "found", "artifacts"];
            if !skipped.contains(&name.as_str()) {
                walk(&path, extensions, sources);
            }
        } else if extensions.iter().any(|extension| name.ends_with(extension)) {
            let inside = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            sources.push(Source { path: inside, text: fs::read_to_string(&path).unwrap() });
        }
    }
}

pub(crate) fn sources_of(extensions: &[&str]) -> Vec<Source> {
    let mut sources = Vec::new();
    walk(Path::new(env!("CARGO_MANIFEST_DIR")), extensions, &mut sources);
    sources
}

pub(crate) fn sources(extensions: &[&str]) -> Vec<Source> {
    let sources = sources_of(extensions);
    assert!(sources.len() > 20, "only {} files found", sources.len());
    sources
}

/// Every path that code names, as it is written, one for each name of a `{...}` list.
pub(crate) fn paths_from(code: &str) -> Vec<String> {
    let is_path = |character: char| character.is_alphanumeric() || "_:".contains(character);
    let mut paths = Vec::new();
    let mut at = 0;
    while let Some(start) = code[at..].find(is_path).map(|start| at + start) {
        let end =
            code[start..].find(|letter| !is_path(letter)).map_or(code.len(), |end| start + end);
        if code[start..end].contains("::") {
            let mut found = Vec::new();
            expand(&code[start..], "", 0, &mut found);
            paths.extend(found.into_iter().map(|(_, path)| path));
        }
        at = end;
    }
    paths
}

/// Whether code has these two words beside each other.
pub(crate) fn has_phrase(code: &str, first: &str, second: &str) -> bool {
    code.match_indices(second).any(|(at, _)| {
        let before = code[..at].trim_end();
        let is_end = !code[at + second.len()..]
            .chars()
            .next()
            .is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
        is_end && before.len() < at && before.ends_with(first)
    })
}
