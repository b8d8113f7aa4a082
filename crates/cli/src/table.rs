//! Tables that fit the terminal: aligned columns, the long one cut, and records below each other where even that is too wide.

use crate::screen::{Style, harmless, paint};

/// Between two columns.
const GAP: usize = 2;
/// A cut column keeps so many characters.
const LEAST: usize = 10;

/// A piece of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A cell in a style. Control characters in `text` are replaced.
    #[must_use]
    pub fn new(text: impl AsRef<str>, style: Style) -> Self {
        Self { text: harmless(text.as_ref()), style }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Style::Plain)
    }
}

/// Rows under a head.
#[derive(Debug, Clone)]
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these columns. One whose name starts with `>` is set flush right.
    #[must_use]
    pub fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; it has as many cells as the table has columns.
    pub fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.head.len(), "a row fills every column");
        self.rows.push(cells);
    }

    /// The lines of the table within `width` columns, any width when there is none.
    #[must_use]
    pub fn render(&self, width: Option<usize>, colour: bool) -> Vec<String> {
        let natural = self.natural_widths();
        match width.map_or(Some(natural.clone()), |width| fit(natural, width)) {
            Some(widths) => self.columns(&widths, colour),
            None => self.records(colour),
        }
    }

    fn natural_widths(&self) -> Vec<usize> {
        let column = |index: usize| {
            let cells = self.rows.iter().map(|row| row.get(index).map_or(0, |cell| length(&cell.text)));
            cells.chain([length(title(self.head[index]))]).max().unwrap_or(0)
        };
        (0..self.head.len()).map(column).collect()
    }

    fn columns(&self, widths: &[usize], colour: bool) -> Vec<String> {
        let head = self.head.iter().map(|name| Cell::new(title(name), Style::Dim)).collect();
        let lines = std::iter::once(&head).chain(&self.rows);
        lines.map(|cells: &Vec<Cell>| self.columns_of(cells, widths, colour)).collect()
    }

    fn columns_of(&self, cells: &[Cell], widths: &[usize], colour: bool) -> String {
        let mut line = String::new();
        for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
            if index > 0 {
                line.push_str(&" ".repeat(GAP));
            }
            let text = cut(&cell.text, *width);
            let blank = " ".repeat(width - length(&text));
            let text = paint(&text, cell.style, colour);
            let right = self.head[index].starts_with('>');
            line.push_str(&if right { blank + &text } else { text + &blank });
        }
        line.truncate(line.trim_end().len());
        line
    }

    fn records(&self, colour: bool) -> Vec<String> {
        let widest = self.head.iter().map(|name| length(title(name))).max().unwrap_or(0);
        let mut lines = Vec::new();
        for (index, row) in self.rows.iter().enumerate() {
            if index > 0 {
                lines.push(String::new());
            }
            for (name, cell) in self.head.iter().zip(row) {
                let name = title(name);
                let blank = " ".repeat(widest - length(name) + GAP);
                let text = paint(&cell.text, cell.style, colour);
                lines.push(format!("{}{blank}{text}", paint(name, Style::Dim, colour)));
            }
        }
        lines
    }
}

fn title(name: &'static str) -> &'static str {
    name.strip_prefix('>').unwrap_or(name)
}

fn length(text: &str) -> usize {
    text.chars().count()
}

fn cut(text: &str, width: usize) -> String {
    if length(text) <= width {
        return text.to_owned();
    }
    let mut shorter: String = text.chars().take(width.saturating_sub(1)).collect();
    shorter.push('\u{2026}');
    shorter
}

/// Takes from the widest column until all fit; none when every column is at its least and they still do not.
fn fit(mut widths: Vec<usize>, width: usize) -> Option<Vec<usize>> {
    let room = width.checked_sub(GAP * widths.len().saturating_sub(1))?;
    loop {
        let over = widths.iter().sum::<usize>().saturating_sub(room);
        if over == 0 {
            return Some(widths);
        }
        let widest = widths.iter_mut().max_by_key(|column| **column)?;
        if *widest <= LEAST {
            return None;
        }
        *widest -= over.min(*widest - LEAST).min((*widest / 4).max(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apps() -> Table {
        let mut table = Table::new(&["APP", "STATE", ">RELEASE", "ADDRESS"]);
        table.row(vec![
            "shop".into(),
            Cell::new("running", Style::Good),
            "v7".into(),
            "http://shop.localhost:8080".into(),
        ]);
        table.row(vec!["a\x1b[2Jb".into(), Cell::new("empty", Style::Dim), "-".into(), "".into()]);
        table
    }

    #[test]
    fn columns_are_aligned() {
        assert_eq!(
            apps().render(None, false),
            [
                "APP     STATE    RELEASE  ADDRESS",
                "shop    running       v7  http://shop.localhost:8080",
                "a\u{fffd}[2Jb  empty          -",
            ]
        );
        assert!(apps().render(Some(80), true)[1].contains("\x1b[32mrunning\x1b[0m"));
    }

    #[test]
    fn the_long_column_is_cut_first() {
        let lines = apps().render(Some(40), false);
        assert_eq!(lines[1], "shop    running       v7  http://shop.l\u{2026}");
        assert!(lines.iter().all(|line| length(line) <= 40));
    }

    #[test]
    fn a_very_narrow_terminal_gets_records() {
        assert_eq!(
            apps().render(Some(20), false)[..5],
            ["APP      shop", "STATE    running", "RELEASE  v7", "ADDRESS  http://shop.localhost:8080", ""]
        );
    }
}
