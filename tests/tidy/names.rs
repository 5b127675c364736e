//! Names of types and shapes of parameters.

use std::collections::BTreeMap;

use super::reading::Source;

/// Type names that stand twice, and why each may.
const TWICE: &[(&str, &str)] = &[];

/// Most of those there may be.
const TWICE_MAX: usize = 5;

/// Types that a file defines, without those that belong to a trait.
fn types(source: &Source) -> Vec<String> {
    let code = source.code();
    let mut found = Vec::new();
    for line in code.lines() {
        let is_inside = line.starts_with(' ');
        let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
        let kind = words.next().unwrap_or_default();
        let is_type = matches!(kind, "struct" | "enum" | "trait" | "union");
        if is_type || kind == "type" && !is_inside {
            let name = words.next().unwrap_or_default();
            let end = name.find(|letter: char| !letter.is_alphanumeric()).unwrap_or(name.len());
            found.push(name[..end].to_owned());
        }
    }
    found
}

/// Types whose name another type has.
pub(crate) fn types_named_twice(sources: &[Source]) -> Vec<String> {
    let mut homes: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for source in sources.iter().filter(|source| source.path.starts_with("src/")) {
        for name in types(source) {
            homes.entry(name).or_default().push(&source.path);
        }
    }
    let is_allowed = |name: &str| TWICE.iter().any(|(allowed, _)| *allowed == name);
    let mut wrong: Vec<String> = homes
        .iter()
        .filter(|(name, homes)| homes.len() > 1 && !is_allowed(name))
        .map(|(name, homes)| format!("{name} is more than one type: {}", homes.join(", ")))
        .collect();
    if TWICE.len() > TWICE_MAX {
        wrong.push(format!("{} names are allowed twice, {TWICE_MAX} may be", TWICE.len()));
    }
    let is_stale = |name: &&str| homes.get(*name).is_none_or(|homes| homes.len() < 2);
    let stale = TWICE.iter().map(|(name, _)| *name).filter(is_stale);
    wrong.extend(stale.map(|name| format!("{name} is allowed twice and is not")));
    wrong
}

/// The parameters of each function: the line it begins in, and its list.
fn parameter_lists(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let is_word = code[..at].chars().next_back().is_none_or(|before| before.is_whitespace());
        let Some(open) = code[at..].find('(').map(|open| at + open) else { continue };
        if !is_word || code[at..open].contains([';', '{', '}']) {
            continue;
        }
        let mut depth = 0_usize;
        let end = code[open..].char_indices().find(|(_, letter)| {
            depth += usize::from(*letter == '(');
            depth -= usize::from(*letter == ')');
            depth == 0
        });
        if let Some((end, _)) = end {
            found.push((code[..at].matches('\n').count(), &code[open + 1..open + end]));
        }
    }
    found
}

/// Parameters that are taken apart where they are named, which makes one of several.
pub(crate) fn parameters_in_disguise(source: &Source) -> Vec<String> {
    if !source.path.starts_with("src/") {
        return Vec::new();
    }
    let code = source.code();
    let mut wrong = Vec::new();
    for (line, list) in parameter_lists(&code) {
        let mut depth = 0_usize;
        let mut begins = true;
        for letter in list.chars() {
            match letter {
                '(' | '[' if begins => {
                    wrong.push(source.says(line, "a parameter that is several: give it a type"));
                    depth += 1;
                }
                '(' | '[' | '<' | '{' => depth += 1,
                ')' | ']' | '>' | '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            begins = match letter {
                ',' if depth == 0 => true,
                letter if letter.is_whitespace() => begins,
                _ => false,
            };
        }
    }
    wrong
}

/// Faults that tests put in and that production code knows of: they belong in `tests/controls/`.
pub(crate) fn test_hooks(source: &Source) -> Vec<String> {
    if !source.path.starts_with("src/") {
        return Vec::new();
    }
    let code = source.code();
    let hooks = code.lines().enumerate().filter(|(_, line)| line.contains("has(Defect"));
    hooks.map(|(line, _)| source.says(line, "a fault that only tests need")).collect()
}
