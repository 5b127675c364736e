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
    let snippet = problem.span.as_ref().and_then(|span| snippet(problem, span, text));
    group = match snippet {
        Some(snippet) => group.element(snippet.path(file)),
        None => without_lines(group, problem, file),
    };
    if !problem.hint.is_empty() {
        group = group.element(Level::HELP.message(normalize_untrusted_str(&problem.hint)));
    }
    renderer.render(&[group])
}

/// How far the ends of a line may be from what is underlined, in bytes. A longer line is no help to
/// a reader, and a problem in each of its entries would show all of it each time.
const LINE_BYTES_MAX: usize = 4096;

/// The source lines of a problem with the offending text underlined; `None` when they are too long.
fn snippet<'t>(
    problem: &'t Problem,
    span: &Range<usize>,
    text: &'t str,
) -> Option<Snippet<'t, Annotation<'t>>> {
    let span = clip(span, text);
    let related = problem.related.as_ref().map(|(span, label)| (clip(span, text), label));
    let window = window(&span, related.as_ref().map(|(span, _)| span), text)?;
    let above = text.get(window.start..span.start).unwrap_or("").matches('\n').count();
    let within = |span: Range<usize>| span.start - window.start..span.end - window.start;
    let mut primary = AnnotationKind::Primary.span(within(span));
    if !problem.expected.is_empty() {
        let expected = normalize_untrusted_str(&problem.expected);
        primary = primary.label(format!("expected {expected}"));
    }
    let line = usize::try_from(problem.line).unwrap_or(1);
    let mut snippet = Snippet::source(text.get(window.clone()).unwrap_or(""))
        .line_start(line.saturating_sub(above).max(1))
        .annotation(primary);
    if let Some((span, label)) = related {
        let context = AnnotationKind::Context.span(within(span));
        snippet = snippet.annotation(context.label(normalize_untrusted_str(label)));
    }
    Some(snippet)
}

/// The whole lines that two spans touch, and those between: all the renderer has to look at. `None`
/// when an end of these lines is far away.
fn window(span: &Range<usize>, related: Option<&Range<usize>>, text: &str) -> Option<Range<usize>> {
    let first = related.map_or(span.start, |related| related.start.min(span.start));
    let last = related.map_or(span.end, |related| related.end.max(span.end));
    let (from, to) = (first.saturating_sub(LINE_BYTES_MAX), last.saturating_add(LINE_BYTES_MAX));
    let before = text.as_bytes().get(from..first).unwrap_or_default();
    let start = match before.iter().rposition(|byte| *byte == b'\n') {
        Some(at) => from + at + 1,
        None if from == 0 => 0,
        None => return None,
    };
    let after = text.as_bytes().get(last..to.min(text.len())).unwrap_or_default();
    let end = match after.iter().position(|byte| *byte == b'\n') {
        Some(at) => last + at,
        None if to >= text.len() => text.len(),
        None => return None,
    };
    Some(start..end)
}

/// A problem of the file as a whole, or of a line that is too long to be shown.
fn without_lines<'t>(group: Group<'t>, problem: &Problem, file: String) -> Group<'t> {
    let number = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
    let origin = match problem.span {
        Some(_) => {
            let origin = Origin::path(file).line(number(problem.line));
            origin.char_column(number(problem.column))
        }
        None => Origin::path(file),
    };
    let group = group.element(origin);
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

    /// If it fails, a long list with a problem in each entry is shown whole for each of them, which
    /// takes for ever.
    #[test]
    fn a_line_that_is_too_long_is_not_shown() {
        let mut problem = sample();
        let text = format!("a = 1\nb = x{}\n", " ".repeat(2 * LINE_BYTES_MAX));
        let shown = render(&[problem.clone()], &text, false);
        assert!(shown.contains("a.toml:2:5") && shown.len() < LINE_BYTES_MAX, "{shown}");
        assert!(shown.contains("expected a better one"), "{shown}");
        let text = format!("a = 1{}\nb = x\n", " ".repeat(2 * LINE_BYTES_MAX));
        let moved = 10 + 2 * LINE_BYTES_MAX;
        problem.span = Some(moved..moved + 1);
        let shown = render(&[problem], &text, false);
        assert!(shown.contains("2 | b = x"), "the long line is another one: {shown}");
    }

    /// If it fails, showing a problem beside another text than the parsed one crashes.
    #[test]
    fn another_text_does_not_panic() {
        render(&[sample()], "", false);
        render(&[sample()], "ééééééé", false);
    }
}
