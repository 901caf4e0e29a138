//! Strict parsing of a table of models: damaged, negative, absurd or duplicate entries are reported with row and field.

use forge_types::ErrorClass;
use serde_json::{Map, Value};

use super::{Catalog, CatalogRow, ModelFamily, ModelPurpose, SamplingParameter, Vocabulary};
use crate::vendors::{find_vendor, vendor_names};

/// Largest size of a table in bytes.
const MAX_TABLE_BYTES: usize = 16 << 20;
/// Highest plausible price in dollars per million tokens.
const MAX_USD_PER_MILLION_TOKENS: f64 = 10_000.0;
/// Largest plausible context window in tokens.
const MAX_WINDOW_TOKENS: u64 = 100_000_000;

/// An error in a table of models.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// The table is too long.
    #[error("the model table has {0} bytes; the limit is 16 MiB")]
    TooLong(usize),
    /// The table is not JSON.
    #[error(
        "the model table is not valid JSON (line {line}, column {column}): {why}. Is the file truncated, or the wrong one?"
    )]
    NotJson {
        /// Line number, from 1.
        line: usize,
        /// Column number, from 1.
        column: usize,
        /// Message of the parser.
        why: String,
    },
    /// A field of the table itself is missing or invalid.
    #[error("model table: `{field}` {why}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// Description of the error.
        why: String,
    },
    /// A field of a row is missing or invalid.
    #[error("model table, row {row} ({name}): `{field}` {why}")]
    Row {
        /// Number of the row in `models` or `families`, from 1.
        row: usize,
        /// Provider and model of the row as far as they are known.
        name: String,
        /// Name of the field.
        field: String,
        /// Description of the error.
        why: String,
    },
    /// Two rows describe the same model.
    #[error("model table, row {row}: {name} is already in row {first}")]
    Duplicate {
        /// Number of the later row.
        row: usize,
        /// Number of the earlier row.
        first: usize,
        /// Provider and model.
        name: String,
    },
}

impl CatalogError {
    /// Returns the class of the error: the file must change.
    pub const fn class(&self) -> ErrorClass {
        ErrorClass::Invalid
    }
}

pub(super) fn parse_catalog(text: &str) -> Result<Catalog, CatalogError> {
    if text.len() > MAX_TABLE_BYTES {
        return Err(CatalogError::TooLong(text.len()));
    }
    let json: Value = serde_json::from_str(text).map_err(|error| CatalogError::NotJson {
        line: error.line(),
        column: error.column(),
        why: error.to_string(),
    })?;
    let Value::Object(table) = &json else {
        return Err(field_error("models", "is missing: the file is not a JSON object"));
    };
    reject_unknown_fields(table, &["as_of", "source", "models", "families"])
        .map_err(|name| field_error("models", format!("is next to the unknown field `{name}`")))?;
    let as_of =
        text_of(table, "as_of").ok_or_else(|| field_error("as_of", "is missing: the date of the prices"))?;
    if as_of.parse::<jiff::civil::Date>().is_err() {
        return Err(field_error("as_of", format!("must be a date such as 2026-04-06, not `{as_of}`")));
    }
    let source = text_of(table, "source").filter(|source| !source.trim().is_empty());
    let source = source.ok_or_else(|| field_error("source", "is missing: the source of the prices"))?;
    let rows = read_list(table, "models")?.ok_or_else(|| field_error("models", "is missing"))?;
    if rows.is_empty() {
        return Err(field_error("models", "has no rows"));
    }
    let models = rows.iter().enumerate().map(|(at, row)| RowReader::new(at, row)?.read_model());
    let models: Vec<CatalogRow> = models.collect::<Result<_, _>>()?;
    for (at, row) in models.iter().enumerate() {
        let same = |other: &CatalogRow| other.provider == row.provider && other.model == row.model;
        if let Some(first) = models[..at].iter().position(same) {
            let name = format!("{}/{}", row.provider, row.model);
            return Err(CatalogError::Duplicate { row: at + 1, first: first + 1, name });
        }
    }
    let families = match read_list(table, "families")? {
        None => Catalog::builtin().families.clone(),
        Some(rows) => {
            let families = rows.iter().enumerate().map(|(at, row)| RowReader::new(at, row)?.read_family());
            families.collect::<Result<_, _>>()?
        }
    };
    Ok(Catalog { as_of: as_of.to_owned(), source: source.to_owned(), models, families })
}

fn field_error(field: &'static str, why: impl Into<String>) -> CatalogError {
    CatalogError::Field { field, why: why.into() }
}

fn read_list<'a>(
    table: &'a Map<String, Value>,
    name: &'static str,
) -> Result<Option<&'a Vec<Value>>, CatalogError> {
    match table.get(name) {
        None => Ok(None),
        Some(Value::Array(rows)) => Ok(Some(rows)),
        Some(_) => Err(field_error(name, "is not a list")),
    }
}

fn text_of<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    object.get(name).and_then(Value::as_str)
}

/// Reports the first member that is not in `known`.
fn reject_unknown_fields<'a>(object: &'a Map<String, Value>, known: &[&str]) -> Result<(), &'a str> {
    match object.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(name),
        None => Ok(()),
    }
}

/// A reader of one row.
struct RowReader<'a> {
    at: usize,
    row: &'a Map<String, Value>,
}

impl<'a> RowReader<'a> {
    fn new(at: usize, row: &'a Value) -> Result<Self, CatalogError> {
        match row {
            Value::Object(row) => Ok(Self { at, row }),
            _ => Err(CatalogError::Row {
                row: at + 1,
                name: "not an object".to_owned(),
                field: "provider".to_owned(),
                why: "is missing".to_owned(),
            }),
        }
    }

    fn row_error(&self, field: &str, why: impl Into<String>) -> CatalogError {
        let part = |name: &str| text_of(self.row, name).unwrap_or("?").to_owned();
        let name = match text_of(self.row, "prefix") {
            Some(prefix) => prefix.to_owned(),
            None => format!("{}/{}", part("provider"), part("model")),
        };
        CatalogError::Row { row: self.at + 1, name, field: field.to_owned(), why: why.into() }
    }

    fn read_model(&self) -> Result<CatalogRow, CatalogError> {
        let known = [
            "provider",
            "model",
            "input",
            "output",
            "cached",
            "cache_write",
            "window",
            "max_output",
            "refuses",
            "reasons",
            "vocabulary",
            "purpose",
        ];
        reject_unknown_fields(self.row, &known)
            .map_err(|name| self.row_error(name, "is not a known field"))?;
        let provider = self.read_text("provider")?;
        if find_vendor(provider).is_none() {
            let names: Vec<_> = vendor_names().collect();
            return Err(self.row_error("provider", format!("must be one of {}", names.join(", "))));
        }
        let price = |name| self.read_price(name);
        let required =
            |name| price(name)?.ok_or_else(|| self.row_error(name, "is missing: dollars per million tokens"));
        let (input, output) = (required("input")?, required("output")?);
        let cached = price("cached")?;
        if cached.is_some_and(|cached| cached > input) {
            return Err(self.row_error("cached", "is higher than `input`"));
        }
        Ok(CatalogRow {
            provider: provider.to_owned(),
            model: self.read_text("model")?.to_owned(),
            input,
            output,
            cached,
            cache_write: price("cache_write")?,
            window: self.read_tokens("window")?,
            max_output: self.read_tokens("max_output")?,
            refuses: self.read_refused()?,
            reasons: match self.row.get("reasons") {
                None => false,
                Some(Value::Bool(reasons)) => *reasons,
                Some(_) => return Err(self.row_error("reasons", "must be true or false")),
            },
            vocabulary: self.read_vocabulary()?,
            purpose: match text_of(self.row, "purpose") {
                None if !self.row.contains_key("purpose") => ModelPurpose::Chat,
                Some("chat") => ModelPurpose::Chat,
                Some("embedding") => ModelPurpose::Embedding,
                _ => return Err(self.row_error("purpose", "must be `chat` or `embedding`")),
            },
        })
    }

    fn read_family(&self) -> Result<ModelFamily, CatalogError> {
        reject_unknown_fields(self.row, &["prefix", "window", "vocabulary"])
            .map_err(|name| self.row_error(name, "is not a known field"))?;
        Ok(ModelFamily {
            prefix: self.read_text("prefix")?.to_ascii_lowercase(),
            window: self.read_tokens("window")?.ok_or_else(|| self.row_error("window", "is missing"))?,
            vocabulary: self.read_vocabulary()?,
        })
    }

    fn read_text(&self, name: &str) -> Result<&'a str, CatalogError> {
        let text = text_of(self.row, name).filter(|text| !text.trim().is_empty());
        text.ok_or_else(|| self.row_error(name, "is missing"))
    }

    fn read_price(&self, name: &str) -> Result<Option<f64>, CatalogError> {
        match self.row.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Number(number)) => match number.as_f64() {
                Some(dollars) if !dollars.is_finite() => Err(self.row_error(name, "is not a finite number")),
                Some(dollars) if dollars < 0.0 => {
                    Err(self.row_error(name, format!("is negative ({dollars})")))
                }
                Some(dollars) if dollars > MAX_USD_PER_MILLION_TOKENS => Err(self
                    .row_error(name, format!("is implausibly high: {dollars} dollars per million tokens"))),
                Some(dollars) => Ok(Some(dollars)),
                None => Err(self.row_error(name, "is not a usable number")),
            },
            Some(other) => Err(self.row_error(name, format!("must be a number, not {other}"))),
        }
    }

    fn read_tokens(&self, name: &str) -> Result<Option<u64>, CatalogError> {
        match self.row.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                Some(tokens) if (1..=MAX_WINDOW_TOKENS).contains(&tokens) => Ok(Some(tokens)),
                _ => Err(self.row_error(
                    name,
                    format!("must be a number of tokens from 1 to {MAX_WINDOW_TOKENS}, not {value}"),
                )),
            },
        }
    }

    fn read_refused(&self) -> Result<Vec<SamplingParameter>, CatalogError> {
        let wrong = || self.row_error("refuses", "must be a list of `temperature` and `top_p`");
        let Some(value) = self.row.get("refuses") else { return Ok(Vec::new()) };
        let parameter = |value: &Value| match value.as_str() {
            Some("temperature") => Some(SamplingParameter::Temperature),
            Some("top_p") => Some(SamplingParameter::TopP),
            _ => None,
        };
        let list = value.as_array().ok_or_else(wrong)?;
        list.iter().map(|value| parameter(value).ok_or_else(wrong)).collect()
    }

    fn read_vocabulary(&self) -> Result<Option<Vocabulary>, CatalogError> {
        let Some(value) = self.row.get("vocabulary") else { return Ok(None) };
        let found = Vocabulary::ALL.into_iter().find(|vocabulary| value.as_str() == Some(vocabulary.name()));
        match found {
            Some(vocabulary) => Ok(Some(vocabulary)),
            None => {
                let names: Vec<_> = Vocabulary::ALL.iter().map(|vocabulary| vocabulary.name()).collect();
                Err(self.row_error("vocabulary", format!("must be one of {}", names.join(", "))))
            }
        }
    }
}
