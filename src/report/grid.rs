//! A table of words, and the forms in which it leaves: terminal, Markdown, LaTeX.

use super::table::PLAIN;
use comfy_table::{Attribute, Cell as Text, CellAlignment, ColumnConstraint, ContentArrangement, Table};
use std::fmt::Write as _;

/// One cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// What it says.
    pub text: String,
    /// Whether it stands out.
    pub bold: bool,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), bold: false }
    }
}

impl Cell {
    /// A cell that stands out.
    pub fn bold(text: impl Into<String>) -> Self {
        Self { text: text.into(), bold: true }
    }
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its heading.
    pub name: String,
    /// Whether it holds numbers, which stand at the right and keep their width.
    pub number: bool,
}

/// A table: rows have one cell a column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grid {
    /// The columns.
    pub columns: Vec<Column>,
    /// The rows.
    pub rows: Vec<Vec<Cell>>,
}

impl Grid {
    /// An empty table; a name that begins with `#` is of a column of numbers.
    pub fn new(columns: &[&str]) -> Self {
        let column = |c: &&str| Column { name: c.trim_start_matches('#').to_owned(), number: c.starts_with('#') };
        Self { columns: columns.iter().map(column).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn push<C: Into<Cell>>(&mut self, row: impl IntoIterator<Item = C>) {
        self.rows.push(row.into_iter().map(Into::into).collect());
    }

    /// For a terminal of a width (unlimited where unknown), with bold type where it is wanted.
    pub fn text(&self, width: Option<u16>, bold: bool) -> String {
        let mut table = Table::new();
        table.load_style(PLAIN).set_content_arrangement(ContentArrangement::Dynamic);
        if let Some(width) = width {
            table.set_width(width);
        }
        let cell = |text: &str, stands_out: bool| {
            let cell = Text::new(text);
            if bold && stands_out { cell.add_attribute(Attribute::Bold) } else { cell }
        };
        table.set_header(self.columns.iter().map(|c| cell(&c.name, true)));
        for row in &self.rows {
            table.add_row(row.iter().map(|c| cell(&c.text, c.bold)));
        }
        for (i, column) in self.columns.iter().enumerate() {
            if let (true, Some(shown)) = (column.number, table.column_mut(i)) {
                shown.set_cell_alignment(CellAlignment::Right);
                shown.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        table.trim_fmt()
    }

    /// As a Markdown table (GitHub's).
    pub fn markdown(&self) -> String {
        let escape = |text: &str| text.replace('\\', "\\\\").replace('|', "\\|").replace('*', "\\*").replace('\n', " ");
        let mut text = String::from("|");
        for column in &self.columns {
            let _ = write!(text, " {} |", escape(&column.name));
        }
        text.push_str("\n|");
        for column in &self.columns {
            text.push_str(if column.number { " ---: |" } else { " --- |" });
        }
        for row in &self.rows {
            text.push_str("\n|");
            for cell in row {
                let said = escape(&cell.text);
                let _ = if cell.bold && !said.is_empty() {
                    write!(text, " **{said}** |")
                } else {
                    write!(text, " {said} |")
                };
            }
        }
        text.push('\n');
        text
    }

    /// As a LaTeX `tabular` with the rules of the package `booktabs`.
    pub fn latex(&self) -> String {
        let kinds: String = self.columns.iter().map(|c| if c.number { 'r' } else { 'l' }).collect();
        let mut text = format!("% \\usepackage{{booktabs}}\n\\begin{{tabular}}{{{kinds}}}\n\\toprule\n");
        let names: Vec<String> = self.columns.iter().map(|c| tex(&c.name)).collect();
        let _ = writeln!(text, "{} \\\\\n\\midrule", names.join(" & "));
        for row in &self.rows {
            let cells: Vec<String> =
                row.iter()
                    .map(|c| {
                        if c.bold && !c.text.is_empty() {
                            format!("\\textbf{{{}}}", tex(&c.text))
                        } else {
                            tex(&c.text)
                        }
                    })
                    .collect();
            let _ = writeln!(text, "{} \\\\", cells.join(" & "));
        }
        text.push_str("\\bottomrule\n\\end{tabular}\n");
        text
    }
}

/// Text as LaTeX reads it under any of its engines.
fn tex(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', c]),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '\\' => out.push_str("\\textbackslash{}"),
            '<' => out.push_str("$<$"),
            '>' => out.push_str("$>$"),
            '×' => out.push_str("$\\times$"),
            '≈' => out.push_str("$\\approx$"),
            '−' => out.push_str("$-$"),
            '±' => out.push_str("$\\pm$"),
            '·' => out.push_str("$\\cdot$"),
            '→' => out.push_str("$\\to$"),
            'µ' | 'μ' => out.push_str("\\textmu{}"),
            '…' => out.push_str("\\dots{}"),
            '–' => out.push_str("--"),
            '—' => out.push_str("---"),
            '\n' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_characters_survive() {
        let mut grid = Grid::new(&["layer_1", "#speedup"]);
        grid.push([Cell::from("a|b & 50 %"), Cell::bold("1.2×")]);
        assert_eq!(grid.markdown(), "| layer_1 | speedup |\n| --- | ---: |\n| a\\|b & 50 % | **1.2×** |\n");
        assert_eq!(
            grid.latex(),
            "% \\usepackage{booktabs}\n\\begin{tabular}{lr}\n\\toprule\nlayer\\_1 & speedup \\\\\n\\midrule\n\
             a|b \\& 50 \\% & \\textbf{1.2$\\times$} \\\\\n\\bottomrule\n\\end{tabular}\n"
        );
    }
}
