//! TOML: values with their lines.

use super::{Leaf, LineIndex, SyntaxFault, join};
use crate::schema::Raw;
use toml_edit::{Document, Item, TableLike, Value};

/// The values of a TOML text.
pub(crate) fn leaves(text: &str) -> Result<Vec<Leaf>, SyntaxFault> {
    let index = LineIndex::new(text);
    let document = Document::parse(text).map_err(|error| SyntaxFault {
        line: error.span().map_or(0, |span| index.line(span.start)),
        problem: error.message().trim().replace('\n', ", "),
    })?;
    let mut out = Vec::new();
    walk(document.as_table(), "", &index, &mut out);
    Ok(out)
}

fn walk(table: &dyn TableLike, prefix: &str, index: &LineIndex, out: &mut Vec<Leaf>) {
    for (name, item) in table.iter() {
        let path = join(prefix, name);
        if let Some(inner) = item.as_table_like() {
            walk(inner, &path, index, out);
            continue;
        }
        let span = table.key(name).and_then(toml_edit::Key::span).or_else(|| item.span());
        let line = span.map_or(0, |span| index.line(span.start));
        let raw = match item {
            Item::Value(value) => raw(value),
            Item::ArrayOfTables(tables) => Raw::List(tables.iter().map(|one| entry(one)).collect()),
            Item::None | Item::Table(_) => Raw::Null,
        };
        out.push(Leaf { path, line, raw });
    }
}

fn raw(value: &Value) -> Raw {
    match value {
        Value::String(text) => Raw::Text(text.value().clone()),
        Value::Integer(number) => Raw::Int(i128::from(*number.value())),
        Value::Float(number) => Raw::Float(*number.value()),
        Value::Boolean(value) => Raw::Bool(*value.value()),
        Value::Datetime(_) => Raw::Other("a date"),
        Value::Array(items) => Raw::List(items.iter().map(raw).collect()),
        Value::InlineTable(fields) => entry(fields),
    }
}

/// A table that is an entry of a list.
fn entry(fields: &dyn TableLike) -> Raw {
    let field = |(name, item): (&str, &Item)| {
        let raw = item.as_value().map_or(Raw::Other("a table"), raw);
        (name.to_owned(), raw)
    };
    Raw::Table(fields.iter().map(field).collect())
}
