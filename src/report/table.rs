//! Columns that line up in a terminal.

use std::fmt::Display;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

#[derive(Debug)]
pub struct Table {
    aligns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

const GAP: &str = "  ";

impl Table {
    /// Titles may be empty.
    pub fn new(columns: &[(&str, Align)]) -> Table {
        let aligns = columns.iter().map(|(_, align)| *align).collect();
        let titles = columns.iter().map(|(title, _)| (*title).to_owned()).collect();
        Table { aligns, rows: vec![titles] }
    }

    /// Adds a row, one cell a column.
    pub fn row(&mut self, cells: &[&dyn Display]) {
        self.rows.push(cells.iter().map(ToString::to_string).collect());
    }

    /// The lines, without that of the titles if all are empty.
    pub fn text(&self) -> String {
        let width = |column: usize| {
            self.rows.iter().map(|row| row.get(column).map_or(0, |it| it.chars().count())).max()
        };
        let widths: Vec<usize> =
            (0..self.aligns.len()).map(|column| width(column).unwrap_or(0)).collect();
        let mut text = String::new();
        for row in &self.rows {
            if row.iter().all(String::is_empty) {
                continue;
            }
            let cells = row.iter().zip(&widths).zip(&self.aligns);
            let cells = cells.map(|((cell, &width), align)| match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            });
            text += cells.collect::<Vec<_>>().join(GAP).trim_end();
            text.push('\n');
        }
        text
    }
}

/// Two columns without titles, indented: names and texts.
pub fn list(entries: &[(&str, String)]) -> String {
    let mut table = Table::new(&[("", Align::Left); 3]);
    for (name, text) in entries {
        table.row(&[&"", name, text]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_by_characters_and_lines_end_without_blanks() {
        let mut table =
            Table::new(&[("name", Align::Left), ("n", Align::Right), ("", Align::Left)]);
        table.row(&[&"ä", &12, &""]);
        table.row(&[&"longer", &3, &"x"]);
        assert_eq!(table.text(), "name     n\nä       12\nlonger   3  x\n");
    }
}
