//! Tables of the report, as they stand in the documentation.

/// A table of so many columns: the first is text, the others are numbers.
#[derive(Clone, Debug)]
pub struct Markdown<const COLUMNS: usize>(String);

impl<const COLUMNS: usize> Markdown<COLUMNS> {
    /// A table with this head.
    pub fn new(head: [&str; COLUMNS]) -> Self {
        let mut table = Self(String::from("\n"));
        table.row(head.map(String::from));
        table.0.push_str("|---");
        table.0.push_str(&"|---:".repeat(COLUMNS - 1));
        table.0.push_str("|\n");
        table
    }

    /// Adds a row.
    pub fn row(&mut self, cells: [String; COLUMNS]) {
        for cell in cells {
            self.0.extend(["| ", &cell, " "]);
        }
        self.0.push_str("|\n");
    }

    /// The table between empty lines.
    pub fn finish(self) -> String {
        self.0 + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_its_head_and_its_rows() {
        let mut table = Markdown::new(["row", "ns"]);
        table.row(["hit".into(), "12".into()]);
        assert_eq!(
            table.finish(),
            "\n| row | ns |\n|---|---:|\n| hit | 12 |\n\n"
        );
    }
}
