//! How many files a change of one kind touches, counted by the files of `src/` that name what is
//! there already, and whether every term has a word.

use super::reading::{Source, code, comment, has_word, string};

/// Code with the contents of its strings, and without comments and unit tests.
fn without_comments(source: &Source) -> String {
    let text = source.without_tests();
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(length) = comment(rest) {
            rest = &rest[length..];
            continue;
        }
        let length = string(rest).unwrap_or(first.len_utf8());
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out
}

/// Files and folders in which such a name means something else: words of other balancers, labels of
/// refusals, text that is written for the parser to read.
const OTHER_WORDS: [&str; 3] = ["src/config/suggest.rs", "src/shared/reasons.rs", "src/import/"];

/// The files of `src/` that may name a key or a term, with what they say without comments.
pub(crate) fn naming_files(sources: &[Source]) -> Vec<(&Source, String)> {
    let is_test = |source: &Source| source.name().ends_with("tests.rs");
    let is_other = |source: &Source| OTHER_WORDS.iter().any(|start| source.path.starts_with(start));
    let files = sources.iter().filter(|source| source.path.starts_with("src/"));
    let files = files.filter(|source| !is_test(source) && !is_other(source));
    files.map(|source| (source, without_comments(source))).collect()
}

/// Those that name one of these, or are named so.
pub(crate) fn that_name<'a>(files: &[(&'a Source, String)], names: &[&str]) -> Vec<&'a str> {
    let is_named = |(source, text): &&(&Source, String)| {
        let stem = source.name().trim_end_matches(".rs");
        names.iter().any(|name| stem == *name || has_word(text, name))
    };
    files.iter().filter(is_named).map(|(source, _)| source.path.as_str()).collect()
}

/// Variants of an enum of this code; only those without fields.
fn variants(code: &str, name: &str) -> Vec<String> {
    let Some(start) = code.find(&format!("enum {name} {{")) else { return Vec::new() };
    let body = code[start..].split_once('{').and_then(|(_, body)| body.split_once('}'));
    let parts = body.map_or("", |(body, _)| body).split([',', '\n']).map(str::trim);
    let is_name = |part: &&str| !part.is_empty() && part.chars().all(char::is_alphanumeric);
    parts.filter(is_name).map(str::to_owned).collect()
}

/// Variants of a term that no word stands for, of a file in which both are.
pub(crate) fn terms_without_a_word(source: &Source) -> Vec<String> {
    let code = code(source.without_tests());
    let mut wrong = Vec::new();
    for (at, _) in code.match_indices("impl Word for ") {
        let rest = &code[at + "impl Word for ".len()..];
        let name = rest.split(' ').next().unwrap();
        let end = rest.find("\n}").unwrap_or(rest.len());
        let all = variants(&code, name);
        if all.is_empty() {
            wrong.push(source.says(0, &format!("{name} and its words are in two files")));
        }
        let is_missing = |variant: &&String| !has_word(&rest[..end], variant);
        let missing = all.iter().filter(is_missing);
        wrong.extend(missing.map(|it| source.says(0, &format!("no word for {name}::{it}"))));
    }
    wrong
}
