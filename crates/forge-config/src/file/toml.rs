//! TOML: values with their lines.

use super::{ConfigLeaf, LineIndex, SyntaxError, join_path};
use crate::schema::RawSetting;
use toml_edit::{Document, Item, TableLike, Value};

/// Parses a TOML text into its values.
pub(crate) fn parse_toml(text: &str) -> Result<Vec<ConfigLeaf>, SyntaxError> {
    let index = LineIndex::new(text);
    let document = Document::parse(text).map_err(|error| SyntaxError {
        line: error.span().map_or(0, |span| index.line_at(span.start)),
        problem: error.message().trim().replace('\n', ", "),
    })?;
    let mut out = Vec::new();
    walk_table(document.as_table(), "", &index, &mut out);
    Ok(out)
}

fn walk_table(table: &dyn TableLike, prefix: &str, index: &LineIndex, out: &mut Vec<ConfigLeaf>) {
    for (name, item) in table.iter() {
        let path = join_path(prefix, name);
        if let Some(inner) = item.as_table_like() {
            walk_table(inner, &path, index, out);
            continue;
        }
        let span = table.key(name).and_then(toml_edit::Key::span).or_else(|| item.span());
        let line = span.map_or(0, |span| index.line_at(span.start));
        let raw = match item {
            Item::Value(value) => raw_value(value),
            Item::ArrayOfTables(tables) => {
                RawSetting::List(tables.iter().map(|one| list_entry(one)).collect())
            }
            Item::None | Item::Table(_) => RawSetting::Null,
        };
        out.push(ConfigLeaf { path, line, raw });
    }
}

fn raw_value(value: &Value) -> RawSetting {
    match value {
        Value::String(text) => RawSetting::Text(text.value().clone()),
        Value::Integer(number) => RawSetting::Int(i128::from(*number.value())),
        Value::Float(number) => RawSetting::Float(*number.value()),
        Value::Boolean(value) => RawSetting::Bool(*value.value()),
        Value::Datetime(_) => RawSetting::Other("a date"),
        Value::Array(items) => RawSetting::List(items.iter().map(raw_value).collect()),
        Value::InlineTable(fields) => list_entry(fields),
    }
}

/// Reads a table that is an entry of a list.
fn list_entry(fields: &dyn TableLike) -> RawSetting {
    let field = |(name, item): (&str, &Item)| {
        let raw = item.as_value().map_or(RawSetting::Other("a table"), raw_value);
        (name.to_owned(), raw)
    };
    RawSetting::Table(fields.iter().map(field).collect())
}
