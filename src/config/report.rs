//! The list of problems while a file is being read.
//!
//! Turns byte spans into lines and columns, and drops a problem that was already reported at the
//! same place: what `[defaults]` gets wrong is met once for every table that inherits it.

use std::collections::HashSet;
use std::ops::Range;

use super::problem::{Problem, Severity};

/// Where something stands: the bytes and the dotted path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FilePlace {
    pub(super) span: Range<usize>,
    pub(super) path: String,
}

/// What is wrong at a place, in words.
#[derive(Debug, Default)]
pub(super) struct Finding {
    message: String,
    expected: String,
    hint: String,
    related: Option<(Range<usize>, String)>,
}

impl Finding {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    pub(super) fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = expected.into();
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Points at another place that explains the problem.
    pub(super) fn beside(mut self, place: &FilePlace, label: impl Into<String>) -> Self {
        self.related = Some((place.span.clone(), label.into()));
        self
    }
}

/// Line and column of a place, with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) span: Range<usize>,
    pub(super) line: u32,
    pub(super) column: u32,
}

/// Bytes of a text whose characters are counted together.
const BLOCK: usize = 1024;

/// Finds the line and the column of a byte, in a time that does not grow with the length of a line.
struct LineIndex<'t> {
    text: &'t [u8],
    line_starts: Vec<usize>,
    /// Characters that begin before each block.
    before_block: Vec<usize>,
}

impl<'t> LineIndex<'t> {
    fn new(text: &'t str) -> Self {
        let breaks = text.match_indices('\n').map(|(index, _)| index + 1);
        let line_starts = std::iter::once(0).chain(breaks).collect();
        let text = text.as_bytes();
        let mut before_block = vec![0];
        let mut sum = 0;
        for block in text.chunks(BLOCK) {
            sum += characters(block);
            before_block.push(sum);
        }
        Self { text, line_starts, before_block }
    }

    /// Row and column of a byte, in characters, both from 0.
    fn row_and_column(&self, byte: usize) -> (usize, usize) {
        let row = self.line_starts.partition_point(|start| *start <= byte).saturating_sub(1);
        let start = self.line_starts.get(row).copied().unwrap_or(0);
        (row, self.characters_before(byte) - self.characters_before(start))
    }

    fn characters_before(&self, byte: usize) -> usize {
        let byte = byte.min(self.text.len());
        let block = byte / BLOCK;
        let within = self.text.get(block * BLOCK..byte).unwrap_or_default();
        self.before_block.get(block).copied().unwrap_or(0) + characters(within)
    }
}

/// Characters that begin in these bytes of UTF-8.
fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0b1100_0000 != 0b1000_0000).count()
}

/// Collects the problems of one text.
pub(super) struct Report<'t> {
    text: &'t str,
    file: String,
    lines: LineIndex<'t>,
    seen: HashSet<(usize, String)>,
    problems: Vec<Problem>,
    interface: Interfaces,
}

/// The index of a network interface of this host, by its name; `None` if there is none.
pub(super) type Interfaces = fn(&str) -> Option<u32>;

impl<'t> Report<'t> {
    pub(super) fn new(text: &'t str, file: String) -> Self {
        Self {
            text,
            file,
            lines: LineIndex::new(text),
            seen: HashSet::new(),
            problems: Vec::new(),
            interface: |_| None,
        }
    }

    /// A report of a text whose addresses may name interfaces.
    pub(super) fn with_interfaces(mut self, interface: Interfaces) -> Self {
        self.interface = interface;
        self
    }

    /// The index of the interface that an address names.
    pub(super) fn interface(&self, name: &str) -> Option<u32> {
        (self.interface)(name)
    }

    /// Reports what makes the file unusable.
    pub(super) fn error(&mut self, place: &FilePlace, finding: Finding) {
        self.add(Severity::Error, place, finding);
    }

    /// Reports what is legal but hardly meant.
    pub(super) fn warning(&mut self, place: &FilePlace, finding: Finding) {
        self.add(Severity::Warning, place, finding);
    }

    /// Reports an error of the file as a whole.
    pub(super) fn error_in_file(&mut self, key: &str, finding: Finding) {
        let place = FilePlace { span: 0..0, path: key.to_owned() };
        self.add(Severity::Error, &place, finding);
        if let Some(problem) = self.problems.last_mut() {
            problem.span = None;
        }
    }

    fn add(&mut self, severity: Severity, place: &FilePlace, finding: Finding) {
        if !self.seen.insert((place.span.start, finding.message.clone())) {
            return;
        }
        let spot = self.spot(&place.span);
        self.problems.push(Problem {
            severity,
            file: self.file.clone(),
            line: spot.line,
            column: spot.column,
            key: place.path.clone(),
            message: finding.message,
            expected: finding.expected,
            hint: finding.hint,
            span: Some(spot.span),
            related: finding.related,
        });
    }

    /// Line and column of a span.
    pub(super) fn spot(&self, span: &Range<usize>) -> Spot {
        let (row, column) = self.lines.row_and_column(span.start);
        let number = |value: usize| u32::try_from(value + 1).unwrap_or(u32::MAX);
        Spot { span: span.clone(), line: number(row), column: number(column) }
    }

    /// Line of a place, for messages that point at it.
    pub(super) fn line(&self, place: &FilePlace) -> u32 {
        self.spot(&place.span).line
    }

    /// The text a span covers.
    pub(super) fn source(&self, span: &Range<usize>) -> &'t str {
        self.text.get(span.clone()).unwrap_or("")
    }

    /// Whether an error has been reported of exactly this place.
    pub(super) fn has_error_at(&self, place: &FilePlace) -> bool {
        self.problems.iter().any(|problem| {
            problem.severity == Severity::Error && problem.span.as_ref() == Some(&place.span)
        })
    }

    /// Whether the file is refused.
    pub(super) fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// The problems in the order of the file.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| (problem.line, problem.column, problem.severity));
        self.problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    proptest! {
        /// If it fails, a problem is shown at another place than its own.
        #[test]
        fn a_place_is_what_counting_says(
            text in "[aé€\u{10348}\n]{0,3000}",
            at in 0_usize..9000,
        ) {
            let index = LineIndex::new(&text);
            let starts: Vec<usize> = text.char_indices().map(|(byte, _)| byte).collect();
            let byte = starts.get(at % starts.len().max(1)).copied().unwrap_or(0);
            let before = &text[..byte];
            let row = before.matches('\n').count();
            let column = before.chars().rev().take_while(|letter| *letter != '\n').count();
            prop_assert_eq!(index.row_and_column(byte), (row, column));
        }
    }
}
