//! Tables for people: columns as wide as what is in them, and nothing in them that a terminal would obey.

use serde_json::Value;

/// Rows of texts under columns.
#[derive(Debug)]
pub struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(columns: &[&'static str]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds what an object has under the columns' names.
    pub fn row_of(&mut self, object: &Value) {
        let value = |name: &&'static str| plain(object.get(*name).unwrap_or(&Value::Null));
        self.rows.push(self.columns.iter().map(value).collect());
    }

    /// With the columns' names above.
    pub fn print(&self) -> String {
        let titles: Vec<String> = self.columns.iter().map(|name| name.replace('_', " ").to_uppercase()).collect();
        self.lines(std::iter::once(&titles).chain(&self.rows))
    }

    pub fn print_rows(&self) -> String {
        self.lines(self.rows.iter())
    }

    fn lines<'a>(&self, rows: impl Iterator<Item = &'a Vec<String>>) -> String {
        let width = |at: usize| {
            let longest = self.rows.iter().filter_map(|row| row.get(at)).map(|text| text.chars().count()).max();
            longest.unwrap_or(0).max(self.columns.get(at).map_or(0, |name| name.chars().count()))
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut printed = String::new();
        for row in rows {
            let cells = row.iter().zip(&widths).map(|(text, width)| format!("{text:<width$}"));
            printed.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            printed.push('\n');
        }
        printed
    }
}

/// Whether a character turns what follows it round, so that one reads something else than what is there (UAX #9 §2).
fn is_turning(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A value as a text of one line.
pub fn plain(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.chars().map(|c| if c.is_control() || is_turning(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let mut table = Table::new(&["ip_address", "n"]);
        table.row_of(&json!({"ip_address": "192.0.2.100", "n": 7, "other": true}));
        table.row_of(&json!({"ip_address": "a\u{1b}[2J", "n": null}));
        assert_eq!(table.print(), "IP ADDRESS   N\n192.0.2.100  7\na\u{fffd}[2J\n");
        assert_eq!(table.print_rows(), "192.0.2.100  7\na\u{fffd}[2J\n");
    }
}
