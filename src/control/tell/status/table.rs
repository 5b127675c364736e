//! A table for a terminal: columns as wide as their widest cell, some of them aligned right.
//!
//! Not a table crate: with cells of different colours, `comfy-table` 8.0 would add 12 crates to the
//! tree and `tabled` 0.22 would add 10. Width comes from `unicode-width`, which is linked anyway.

use std::fmt::Write;

use anstyle::Style;
use unicode_width::UnicodeWidthStr;

const HEADING: Style = Style::new().bold();

/// One cell: its text, and the style it has where styles are shown.
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// Text without a style.
    pub(crate) fn plain(text: impl ToString) -> Self {
        Self::styled(text, Style::new())
    }

    /// Text with a style.
    pub(crate) fn styled(text: impl ToString, style: Style) -> Self {
        Self { text: text.to_string(), style }
    }
}

/// Rows below a line of headings. A heading that begins with `>` aligns its column right.
pub(crate) struct StatusTable {
    headings: &'static [&'static str],
    rows: Vec<Vec<Cell>>,
}

impl StatusTable {
    /// A table without rows.
    pub(crate) fn new(headings: &'static [&'static str]) -> Self {
        Self { headings, rows: Vec::new() }
    }

    /// Adds a row with a cell for each heading.
    pub(crate) fn add(&mut self, row: Vec<Cell>) {
        self.rows.push(row);
    }

    /// Whether there is no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as lines, without spaces at their ends.
    pub(crate) fn show(&self, with_styles: bool) -> String {
        let heading = |text: &&str| Cell::styled(text.trim_start_matches('>'), HEADING);
        let first: Vec<Cell> = self.headings.iter().map(heading).collect();
        let rows: Vec<&Vec<Cell>> = std::iter::once(&first).chain(&self.rows).collect();
        let mut widths = vec![0; self.headings.len()];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(*row) {
                *width = cell.text.width().max(*width);
            }
        }
        let mut out = String::new();
        for row in rows {
            let mut line = String::new();
            for ((cell, width), heading) in row.iter().zip(&widths).zip(self.headings) {
                let space = " ".repeat(width - cell.text.width());
                let text = painted(if with_styles { cell.style } else { Style::new() }, &cell.text);
                // Writing to a `String` cannot fail.
                let _ = if heading.starts_with('>') {
                    write!(line, "{space}{text}  ")
                } else {
                    write!(line, "{text}{space}  ")
                };
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// Text between the escapes of a style; bare text for the plain style.
pub(super) fn painted(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, a name in wide letters or a colour pushes the columns behind it aside.
    #[test]
    fn columns_are_as_wide_as_they_look() {
        let mut table = StatusTable::new(&["NAME", ">SESSIONS"]);
        table.add(vec![Cell::plain("東京"), Cell::plain(7)]);
        table.add(vec![Cell::styled("web", HEADING), Cell::plain(1234)]);
        assert_eq!(table.show(false), "NAME  SESSIONS\n東京         7\nweb       1234\n");
        let styled = table.show(true);
        assert!(styled.contains("\u{1b}[1mweb\u{1b}[0m "), "{styled:?}");
        assert_eq!(styled.replace("\u{1b}[1m", "").replace("\u{1b}[0m", ""), table.show(false));
    }
}
