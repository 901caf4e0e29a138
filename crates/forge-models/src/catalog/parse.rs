//! Reading a table of models, strictly: what is damaged, negative, absurd or double is named with row and field.

use forge_types::Class;
use serde_json::{Map, Value};

use super::{Catalog, Family, Purpose, Refused, Row, Vocabulary};
use crate::vendors::{VENDORS, vendor};

/// The longest table that is read, in bytes.
const LONGEST: usize = 16 << 20;
/// The dearest model that is believed, in dollars per million tokens.
const DEAREST: f64 = 10_000.0;
/// The largest window that is believed, in tokens.
const WIDEST: u64 = 100_000_000;

/// What is wrong with a table of models.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// It is longer than any table.
    #[error("the table of models has {0} bytes; more than 16 MiB are not read")]
    TooLong(usize),
    /// It is no JSON.
    #[error(
        "the table of models is no JSON (line {line}, column {column}): {why}. Was it cut, or is it another file?"
    )]
    NotJson {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What the parser says.
        why: String,
    },
    /// A field of the table itself is missing or wrong.
    #[error("the table of models: `{field}` {why}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A field of a row is missing or wrong.
    #[error("the table of models, row {row} ({name}): `{field}` {why}")]
    Row {
        /// The row of `models` or `families`, from 1.
        row: usize,
        /// The row's provider and model as far as they are known.
        name: String,
        /// The field.
        field: String,
        /// What is wrong with it.
        why: String,
    },
    /// Two rows for one model.
    #[error("the table of models, row {row}: {name} stands already in row {first}")]
    Duplicate {
        /// The later row.
        row: usize,
        /// The earlier one.
        first: usize,
        /// Provider and model.
        name: String,
    },
}

impl CatalogError {
    /// What can be done about it: the file must change.
    pub const fn class(&self) -> Class {
        Class::Invalid
    }
}

pub(super) fn catalog(text: &str) -> Result<Catalog, CatalogError> {
    if text.len() > LONGEST {
        return Err(CatalogError::TooLong(text.len()));
    }
    let json: Value = serde_json::from_str(text).map_err(|error| CatalogError::NotJson {
        line: error.line(),
        column: error.column(),
        why: error.to_string(),
    })?;
    let Value::Object(table) = &json else { return Err(field("models", "is missing: it is no JSON object")) };
    only(table, &["as_of", "source", "models", "families"])
        .map_err(|name| field("models", format!("stands beside `{name}`, which is not known")))?;
    let as_of = text_of(table, "as_of")
        .ok_or_else(|| field("as_of", "is missing: the day on which the prices were looked up"))?;
    if as_of.parse::<jiff::civil::Date>().is_err() {
        return Err(field("as_of", format!("must be a day such as 2026-04-06 and is `{as_of}`")));
    }
    let source = text_of(table, "source").filter(|source| !source.trim().is_empty());
    let source = source.ok_or_else(|| field("source", "is missing: where the prices come from"))?;
    let rows = list(table, "models")?.ok_or_else(|| field("models", "is missing"))?;
    if rows.is_empty() {
        return Err(field("models", "holds no rows"));
    }
    let models = rows.iter().enumerate().map(|(at, row)| Fields::new(at, row)?.model());
    let models: Vec<Row> = models.collect::<Result<_, _>>()?;
    for (at, row) in models.iter().enumerate() {
        let same = |other: &Row| other.provider == row.provider && other.model == row.model;
        if let Some(first) = models[..at].iter().position(same) {
            let name = format!("{}/{}", row.provider, row.model);
            return Err(CatalogError::Duplicate { row: at + 1, first: first + 1, name });
        }
    }
    let families = match list(table, "families")? {
        None => super::catalog().families.clone(),
        Some(rows) => {
            let families = rows.iter().enumerate().map(|(at, row)| Fields::new(at, row)?.family());
            families.collect::<Result<_, _>>()?
        }
    };
    Ok(Catalog { as_of: as_of.to_owned(), source: source.to_owned(), models, families })
}

fn field(field: &'static str, why: impl Into<String>) -> CatalogError {
    CatalogError::Field { field, why: why.into() }
}

fn list<'a>(
    table: &'a Map<String, Value>,
    name: &'static str,
) -> Result<Option<&'a Vec<Value>>, CatalogError> {
    match table.get(name) {
        None => Ok(None),
        Some(Value::Array(rows)) => Ok(Some(rows)),
        Some(_) => Err(field(name, "is no list")),
    }
}

fn text_of<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    object.get(name).and_then(Value::as_str)
}

/// The first member that is none of these.
fn only<'a>(object: &'a Map<String, Value>, known: &[&str]) -> Result<(), &'a str> {
    match object.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(name),
        None => Ok(()),
    }
}

/// A row while it is read.
struct Fields<'a> {
    at: usize,
    row: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn new(at: usize, row: &'a Value) -> Result<Self, CatalogError> {
        match row {
            Value::Object(row) => Ok(Self { at, row }),
            _ => Err(CatalogError::Row {
                row: at + 1,
                name: "no object".to_owned(),
                field: "provider".to_owned(),
                why: "is missing".to_owned(),
            }),
        }
    }

    fn wrong(&self, field: &str, why: impl Into<String>) -> CatalogError {
        let part = |name: &str| text_of(self.row, name).unwrap_or("?").to_owned();
        let name = match text_of(self.row, "prefix") {
            Some(prefix) => prefix.to_owned(),
            None => format!("{}/{}", part("provider"), part("model")),
        };
        CatalogError::Row { row: self.at + 1, name, field: field.to_owned(), why: why.into() }
    }

    fn model(&self) -> Result<Row, CatalogError> {
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
        only(self.row, &known).map_err(|name| self.wrong(name, "is not a field that is known"))?;
        let provider = self.text("provider")?;
        if vendor(provider).is_none() {
            let names: Vec<_> = VENDORS.iter().map(|vendor| vendor.name).collect();
            return Err(self.wrong("provider", format!("must be one of {}", names.join(", "))));
        }
        let price = |name| self.price(name);
        let required =
            |name| price(name)?.ok_or_else(|| self.wrong(name, "is missing: dollars per million tokens"));
        let (input, output) = (required("input")?, required("output")?);
        let cached = price("cached")?;
        if cached.is_some_and(|cached| cached > input) {
            return Err(self.wrong("cached", "is dearer than `input`"));
        }
        Ok(Row {
            provider: provider.to_owned(),
            model: self.text("model")?.to_owned(),
            input,
            output,
            cached,
            cache_write: price("cache_write")?,
            window: self.tokens("window")?,
            max_output: self.tokens("max_output")?,
            refuses: self.refuses()?,
            reasons: match self.row.get("reasons") {
                None => false,
                Some(Value::Bool(reasons)) => *reasons,
                Some(_) => return Err(self.wrong("reasons", "must be true or false")),
            },
            vocabulary: self.vocabulary()?,
            purpose: match text_of(self.row, "purpose") {
                None if !self.row.contains_key("purpose") => Purpose::Chat,
                Some("chat") => Purpose::Chat,
                Some("embedding") => Purpose::Embedding,
                _ => return Err(self.wrong("purpose", "must be `chat` or `embedding`")),
            },
        })
    }

    fn family(&self) -> Result<Family, CatalogError> {
        only(self.row, &["prefix", "window", "vocabulary"])
            .map_err(|name| self.wrong(name, "is not a field that is known"))?;
        Ok(Family {
            prefix: self.text("prefix")?.to_ascii_lowercase(),
            window: self.tokens("window")?.ok_or_else(|| self.wrong("window", "is missing"))?,
            vocabulary: self.vocabulary()?,
        })
    }

    fn text(&self, name: &str) -> Result<&'a str, CatalogError> {
        let text = text_of(self.row, name).filter(|text| !text.trim().is_empty());
        text.ok_or_else(|| self.wrong(name, "is missing"))
    }

    fn price(&self, name: &str) -> Result<Option<f64>, CatalogError> {
        match self.row.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Number(number)) => match number.as_f64() {
                Some(dollars) if !dollars.is_finite() => Err(self.wrong(name, "is no finite number")),
                Some(dollars) if dollars < 0.0 => {
                    Err(self.wrong(name, format!("is negative ({dollars}); nobody pays for being asked")))
                }
                Some(dollars) if dollars > DEAREST => Err(self.wrong(
                    name,
                    format!(
                        "is {dollars} dollars per million tokens, which is beyond belief (a price per token?)"
                    ),
                )),
                Some(dollars) => Ok(Some(dollars)),
                None => Err(self.wrong(name, "is no number that can be used")),
            },
            Some(other) => Err(self.wrong(name, format!("must be a number and is {other}"))),
        }
    }

    fn tokens(&self, name: &str) -> Result<Option<u64>, CatalogError> {
        match self.row.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                Some(tokens) if (1..=WIDEST).contains(&tokens) => Ok(Some(tokens)),
                _ => {
                    Err(self
                        .wrong(name, format!("must be a number of tokens from 1 to {WIDEST} and is {value}")))
                }
            },
        }
    }

    fn refuses(&self) -> Result<Vec<Refused>, CatalogError> {
        let wrong = || self.wrong("refuses", "must be a list of `temperature` and `top_p`");
        let Some(value) = self.row.get("refuses") else { return Ok(Vec::new()) };
        let parameter = |value: &Value| match value.as_str() {
            Some("temperature") => Some(Refused::Temperature),
            Some("top_p") => Some(Refused::TopP),
            _ => None,
        };
        let list = value.as_array().ok_or_else(wrong)?;
        list.iter().map(|value| parameter(value).ok_or_else(wrong)).collect()
    }

    fn vocabulary(&self) -> Result<Option<Vocabulary>, CatalogError> {
        let Some(value) = self.row.get("vocabulary") else { return Ok(None) };
        let found = Vocabulary::ALL.into_iter().find(|vocabulary| value.as_str() == Some(vocabulary.name()));
        match found {
            Some(vocabulary) => Ok(Some(vocabulary)),
            None => {
                let names: Vec<_> = Vocabulary::ALL.iter().map(|vocabulary| vocabulary.name()).collect();
                Err(self.wrong("vocabulary", format!("must be one of {}", names.join(", "))))
            }
        }
    }
}
