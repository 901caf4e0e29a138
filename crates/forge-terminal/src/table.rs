//! Tables that fit the terminal.

use crate::text::{pad_right, text_columns, truncate_text};

/// A column of a table.
pub struct TableColumn {
    /// Heading.
    pub name: &'static str,
    /// Whether the column shrinks on a narrow terminal.
    pub shrinks: bool,
}

/// Creates a column that keeps its width.
pub const fn fixed_column(name: &'static str) -> TableColumn {
    TableColumn { name, shrinks: false }
}

/// Creates a column that shrinks.
pub const fn flexible_column(name: &'static str) -> TableColumn {
    TableColumn { name, shrinks: true }
}

/// Minimum width of a column that shrinks.
const MIN_COLUMN_WIDTH: usize = 8;

/// Formats the table, heading first, in lines of at most `width` columns where possible.
pub fn render_table(head: &[TableColumn], rows: &[Vec<String>], width: usize) -> Vec<String> {
    let mut widths: Vec<usize> = head
        .iter()
        .enumerate()
        .map(|(i, column)| {
            let cells = rows.iter().filter_map(|row| row.get(i)).map(|cell| text_columns(cell));
            cells.chain([text_columns(column.name)]).max().unwrap_or(0)
        })
        .collect();
    let gaps = head.len().saturating_sub(1) * 2;
    let mut excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(width);
    // Shrink the widest column first, so that short cells stay whole.
    while excess > 0 {
        let shrinkable = (0..head.len()).filter(|&i| head[i].shrinks && widths[i] > MIN_COLUMN_WIDTH);
        let Some(widest) = shrinkable.max_by_key(|&i| widths[i]) else { break };
        widths[widest] -= 1;
        excess -= 1;
    }
    let names: Vec<String> = head.iter().map(|column| column.name.to_owned()).collect();
    std::iter::once(&names).chain(rows).map(|row| render_row(row, &widths)).collect()
}

fn render_row(row: &[String], widths: &[usize]) -> String {
    let cells: Vec<String> =
        row.iter().zip(widths).map(|(cell, width)| pad_right(&truncate_text(cell, *width), *width)).collect();
    cells.join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_flexible_columns_give_way() {
        let head = [fixed_column("ID"), flexible_column("TASK"), fixed_column("COST")];
        let rows = vec![vec!["0192".to_owned(), "a long task in many words".to_owned(), "$1".to_owned()]];
        assert_eq!(render_table(&head, &rows, 80)[1], "0192  a long task in many words  $1");
        assert_eq!(render_table(&head, &rows, 24), ["ID    TASK          COST", "0192  a long task…  $1"]);
        assert_eq!(render_table(&head, &rows, 3)[1], "0192  a long …  $1");
    }
}
