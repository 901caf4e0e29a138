//! Tables that fit the terminal.

use super::text::{columns, cut, pad};

/// A column: its heading, and whether it gives way when the terminal is narrow.
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) shrinks: bool,
}

/// A column that keeps its width.
pub(crate) const fn fixed(name: &'static str) -> Column {
    Column { name, shrinks: false }
}

/// A column that gives way.
pub(crate) const fn flexible(name: &'static str) -> Column {
    Column { name, shrinks: true }
}

/// Narrowest width of a column that gives way.
const NARROWEST: usize = 8;

/// The table's lines, heading first, each at most `width` columns wide where that is possible.
pub(crate) fn lines(head: &[Column], rows: &[Vec<String>], width: usize) -> Vec<String> {
    let mut widths: Vec<usize> = head
        .iter()
        .enumerate()
        .map(|(i, column)| {
            let cells = rows.iter().filter_map(|row| row.get(i)).map(|cell| columns(cell));
            cells.chain([columns(column.name)]).max().unwrap_or(0)
        })
        .collect();
    let gaps = head.len().saturating_sub(1) * 2;
    let mut excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(width);
    // The widest of those that may shrink gives way first, so that short cells stay whole.
    while excess > 0 {
        let shrinkable = (0..head.len()).filter(|&i| head[i].shrinks && widths[i] > NARROWEST);
        let Some(widest) = shrinkable.max_by_key(|&i| widths[i]) else { break };
        widths[widest] -= 1;
        excess -= 1;
    }
    let names: Vec<String> = head.iter().map(|column| column.name.to_owned()).collect();
    std::iter::once(&names).chain(rows).map(|row| line(row, &widths)).collect()
}

fn line(row: &[String], widths: &[usize]) -> String {
    let cells: Vec<String> =
        row.iter().zip(widths).map(|(cell, width)| pad(&cut(cell, *width), *width)).collect();
    cells.join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_flexible_columns_give_way() {
        let head = [fixed("ID"), flexible("TASK"), fixed("COST")];
        let rows = vec![vec!["0192".to_owned(), "a long task in many words".to_owned(), "$1".to_owned()]];
        assert_eq!(lines(&head, &rows, 80)[1], "0192  a long task in many words  $1");
        assert_eq!(lines(&head, &rows, 24), ["ID    TASK          COST", "0192  a long task…  $1"]);
        assert_eq!(lines(&head, &rows, 3)[1], "0192  a long …  $1");
    }
}
