//! One thing that is wrong with a configuration file, and how it is shown.
//!
//! A [`Problem`] serializes to the object of `check --format json`; [`render`] shows a list of them
//! to a person: place, source line, the offending text underlined, what was expected, what to do.

use std::ops::Range;

use annotate_snippets::{
    Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str,
};
use serde::Serialize;

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is accepted; the operator should look.
    Warning,
}

/// One problem, with its place in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// The file, as the caller named it.
    pub file: String,
    /// Line, from 1; 1 as well when the problem has no place in the text.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Dotted path of the key, such as `pool.pg.backends[1]`; empty when there is none.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What would be right; empty when the message says it all.
    pub expected: String,
    /// What to do; empty when nothing useful can be said.
    pub hint: String,
    /// The offending bytes of the text.
    #[serde(skip)]
    pub(super) span: Option<Range<usize>>,
    /// Other bytes that explain the problem, with a label.
    #[serde(skip)]
    pub(super) related: Option<(Range<usize>, String)>,
}

/// Shows problems as text, one block each, for a terminal if `colour`.
///
/// `text` is what was parsed: the source lines are taken from it.
pub fn render(problems: &[Problem], text: &str, colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let mut shown = String::new();
    for problem in problems {
        if !shown.is_empty() {
            shown.push('\n');
        }
        shown.push_str(&render_one(problem, text, &renderer));
        shown.push('\n');
    }
    shown
}

/// Shows one problem.
fn render_one(problem: &Problem, text: &str, renderer: &Renderer) -> String {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = level
        .primary_title(normalize_untrusted_str(&problem.message))
        .elements(std::iter::empty::<annotate_snippets::Message<'_>>());
    let file = normalize_untrusted_str(&problem.file);
    group = match &problem.span {
        Some(span) => group.element(snippet(problem, span, text).path(file)),
        None => unplaced(group, problem, file),
    };
    if !problem.hint.is_empty() {
        group = group.element(Level::HELP.message(normalize_untrusted_str(&problem.hint)));
    }
    renderer.render(&[group])
}

/// The source lines of a problem with the offending text underlined.
fn snippet<'t>(
    problem: &'t Problem,
    span: &Range<usize>,
    text: &'t str,
) -> Snippet<'t, Annotation<'t>> {
    let span = clip(span, text);
    let related = problem.related.as_ref().map(|(span, label)| (clip(span, text), label));
    let window = window(&span, related.as_ref().map(|(span, _)| span), text);
    let within = |span: Range<usize>| span.start - window.start..span.end - window.start;
    let mut primary = AnnotationKind::Primary.span(within(span));
    if !problem.expected.is_empty() {
        let expected = normalize_untrusted_str(&problem.expected);
        primary = primary.label(format!("expected {expected}"));
    }
    let before = text.get(..window.start).unwrap_or("");
    let mut snippet = Snippet::source(text.get(window.clone()).unwrap_or(""))
        .line_start(before.matches('\n').count() + 1)
        .annotation(primary);
    if let Some((span, label)) = related {
        let context = AnnotationKind::Context.span(within(span));
        snippet = snippet.annotation(context.label(normalize_untrusted_str(label)));
    }
    snippet
}

/// The whole lines that two spans touch, and those between: all the renderer has to look at.
fn window(span: &Range<usize>, related: Option<&Range<usize>>, text: &str) -> Range<usize> {
    let first = related.map_or(span.start, |related| related.start.min(span.start));
    let last = related.map_or(span.end, |related| related.end.max(span.end));
    let start = text.get(..first).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
    let end =
        text.get(last..).and_then(|after| after.find('\n')).map_or(text.len(), |at| last + at);
    start..end
}

/// A problem of the file as a whole.
fn unplaced<'t>(group: Group<'t>, problem: &Problem, file: String) -> Group<'t> {
    let group = group.element(Origin::path(file));
    if problem.expected.is_empty() {
        return group;
    }
    let expected = normalize_untrusted_str(&problem.expected);
    group.element(Level::NOTE.message(format!("expected {expected}")))
}

/// Keeps a span inside the text and on character borders, whatever text the caller passes.
fn clip(span: &Range<usize>, text: &str) -> Range<usize> {
    let start = border(span.start, text);
    start..border(span.end, text).max(start)
}

/// The last character border at or before `index`.
fn border(index: usize, text: &str) -> usize {
    let index = index.min(text.len());
    (0..=index).rev().find(|place| text.is_char_boundary(*place)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Problem {
        Problem {
            severity: Severity::Error,
            file: "a.toml".to_owned(),
            line: 2,
            column: 5,
            key: "b".to_owned(),
            message: "`b` is wrong".to_owned(),
            expected: "a better one".to_owned(),
            hint: "write `b = 2`".to_owned(),
            span: Some(10..11),
            related: None,
        }
    }

    /// If it fails, scripts and editors that read `check --format json` break.
    #[test]
    fn json_has_exactly_the_promised_fields() {
        let mut problem = sample();
        problem.severity = Severity::Warning;
        problem.related = Some((0..1, "first".to_owned()));
        assert_eq!(
            serde_json::to_value(&problem).unwrap(),
            serde_json::json!({
                "severity": "warning", "file": "a.toml", "line": 2, "column": 5, "key": "b",
                "message": "`b` is wrong", "expected": "a better one", "hint": "write `b = 2`",
            })
        );
    }

    /// If it fails, an operator does not see where, what was expected, and what to do.
    #[test]
    fn a_person_sees_place_expectation_and_remedy() {
        let shown = render(&[sample()], "a = 1\nb = x\n", false);
        assert!(shown.starts_with("error: `b` is wrong\n"), "{shown}");
        assert!(shown.contains("a.toml:2:5"), "{shown}");
        assert!(shown.contains("^ expected a better one"), "{shown}");
        assert!(shown.contains("= help: write `b = 2`"), "{shown}");
        assert!(render(&[sample()], "a = 1\nb = x\n", true).contains('\u{1b}'));
    }

    /// If it fails, showing a problem beside another text than the parsed one crashes.
    #[test]
    fn another_text_does_not_panic() {
        render(&[sample()], "", false);
        render(&[sample()], "ééééééé", false);
    }
}
