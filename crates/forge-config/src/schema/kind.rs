//! Types of values: their description, how they are read from text and files, and how they are displayed.

use super::fallback::{FallbackEntry, parse_model};
use super::nearest_name::nearest_name;
use super::value::{
    RawSetting, SettingValue, ValueMismatch, format_number, is_key_like, quote_safely, shorten_escaped,
};
use crate::quantity::{format_size, parse_size, parse_time};
use std::path::{Component, Path, PathBuf};

/// An inclusive range of values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValueRange<T> {
    /// Smallest valid value.
    pub min: T,
    /// Largest valid value.
    pub max: T,
}

/// The unit in which a time is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Millis,
}

/// The number of lines that a text may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextLines {
    /// One line without control characters.
    One,
    /// Any number of lines.
    Multiple,
}

/// The type of a list's entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListElement {
    /// Names without white space.
    Name,
    /// Names of environment variables.
    Variable,
    /// Paths on the host; `~` and relative paths are resolved.
    Path,
    /// Paths inside the workspace.
    Inside,
    /// Entries that [`super::FallbackEntry`] reads.
    Fallback,
    /// Models in the form of [`KeyKind::Model`].
    Model,
    /// Repositories on a server, as `owner/name`.
    Repository,
}

/// A choice and its alternative spellings.
pub type ChoiceSpelling = (&'static str, &'static [&'static str]);

/// The type of a key.
#[derive(Clone, Copy, Debug)]
pub enum KeyKind {
    /// True or false.
    Bool,
    /// A whole number.
    Int(ValueRange<u64>),
    /// A number.
    Number(ValueRange<f64>),
    /// A size, stored in bytes.
    Bytes(ValueRange<u64>),
    /// A time, stored in the unit, as are its bounds.
    Time(TimeUnit, ValueRange<u64>),
    /// A text.
    Text(TextLines),
    /// One of several choices, each with its alternative spellings.
    Choice(&'static [ChoiceSpelling]),
    /// An address of the form `http://` or `https://` and a host.
    Url,
    /// The name of an environment variable.
    Variable,
    /// A path on the host; `~` and relative paths are resolved.
    Path,
    /// A model with its provider, as `provider/model`.
    Model,
    /// A level, or `target=level` pairs.
    LogFilter,
    /// A list of texts.
    List(ListElement),
}

/// The context in which a value is read.
#[derive(Clone, Copy, Debug)]
pub struct ReadContext<'a> {
    /// Directory that relative paths are resolved against.
    pub base: &'a Path,
    /// The user's home directory, for `~/`.
    pub home: Option<&'a Path>,
}

const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl KeyKind {
    /// Describes valid values.
    pub fn expected_text(&self) -> String {
        match self {
            Self::Bool => "true or false".to_owned(),
            Self::Int(ValueRange { min, max }) => format!("a whole number from {min} to {max}"),
            Self::Number(ValueRange { min, max }) => format!("a number from {min} to {max}"),
            Self::Bytes(ValueRange { min, max }) => {
                format!("a size from {} to {}, such as `2g`", format_size(*min), format_size(*max))
            }
            Self::Time(TimeUnit::Seconds, ValueRange { min, max }) => {
                format!("seconds from {min} to {max}, or a time such as `90s`")
            }
            Self::Time(TimeUnit::Millis, ValueRange { min, max }) => {
                format!("milliseconds from {min} to {max}, or a time such as `90s`")
            }
            Self::Text(TextLines::One) => "a single line of text".to_owned(),
            Self::Text(TextLines::Multiple) => "a text".to_owned(),
            Self::Choice(choices) => {
                let names: Vec<_> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
                match names.as_slice() {
                    [only] => only.clone(),
                    names => format!("one of {}", names.join(", ")),
                }
            }
            Self::Url => "an http:// or https:// address without user name and password".to_owned(),
            Self::Variable => "the name of an environment variable".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::Model => "a known provider and a model, as `provider/model`".to_owned(),
            Self::LogFilter => "off, error, warn, info, debug, trace, or a list of target=level".to_owned(),
            Self::List(ListElement::Name) => "a list of names".to_owned(),
            Self::List(ListElement::Variable) => "a list of names of environment variables".to_owned(),
            Self::List(ListElement::Path) => "a list of paths".to_owned(),
            Self::List(ListElement::Inside) => "a list of paths inside the repository".to_owned(),
            Self::List(ListElement::Repository) => "a list of repositories, each as `owner/name`".to_owned(),
            Self::List(ListElement::Model) => "a list of models, each as `provider/model`".to_owned(),
            Self::List(ListElement::Fallback) => {
                "a list of `provider:model`, or of tables with provider, name and organization_id".to_owned()
            }
        }
    }

    /// Reads a value from an environment variable or a flag.
    ///
    /// # Errors
    /// If the value is invalid.
    pub fn read_text(&self, text: &str, context: ReadContext<'_>) -> Result<SettingValue, ValueMismatch> {
        let trimmed = text.trim();
        let raw = match self {
            Self::Bool => match trimmed.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => RawSetting::Bool(true),
                "false" | "0" | "no" | "off" => RawSetting::Bool(false),
                _ => return Err(ValueMismatch::new(quote_safely(text))),
            },
            Self::Int(_) | Self::Bytes(_) | Self::Time(..) => {
                match trimmed.replace('_', "").parse::<i128>() {
                    Ok(number) => RawSetting::Int(number),
                    Err(_) => RawSetting::Text(trimmed.to_owned()),
                }
            }
            Self::Number(_) => match trimmed.parse::<f64>() {
                Ok(number) => RawSetting::Float(number),
                Err(_) => return Err(ValueMismatch::new(quote_safely(text))),
            },
            Self::List(_) => RawSetting::List(
                text.split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(|item| RawSetting::Text(item.to_owned()))
                    .collect(),
            ),
            Self::Text(TextLines::Multiple) => RawSetting::Text(text.to_owned()),
            _ => RawSetting::Text(trimmed.to_owned()),
        };
        self.read_raw(&raw, context)
    }

    /// Reads a value from a file.
    pub(crate) fn read_raw(
        &self,
        raw: &RawSetting,
        context: ReadContext<'_>,
    ) -> Result<SettingValue, ValueMismatch> {
        match self {
            Self::Bool => match raw {
                RawSetting::Bool(value) => Ok(SettingValue::Bool(*value)),
                RawSetting::Text(text)
                    if matches!(text.as_str(), "yes" | "no" | "on" | "off" | "true" | "false") =>
                {
                    Err(ValueMismatch::new(raw.describe()).with_hint("write true or false, without quotes"))
                }
                _ => Err(ValueMismatch::new(raw.describe())),
            },
            Self::Int(bound) => read_integer(raw, *bound),
            Self::Number(bound) => read_decimal(raw, *bound),
            Self::Bytes(bound) => match raw {
                RawSetting::Text(text) => check_range(text, parse_size(text), *bound),
                _ => read_integer(raw, *bound),
            },
            Self::Time(unit, bound) => match raw {
                RawSetting::Text(text) => check_range(text, parse_time_in(*unit, text), *bound),
                _ => read_integer(raw, *bound),
            },
            Self::List(element) => read_list(*element, raw, context),
            Self::Text(_)
            | Self::Choice(_)
            | Self::Url
            | Self::Variable
            | Self::Path
            | Self::Model
            | Self::LogFilter => match raw {
                RawSetting::Text(text) => self.read_kind_text(text, context),
                RawSetting::Int(_) | RawSetting::Float(_) | RawSetting::Bool(_) => {
                    Err(ValueMismatch::new(raw.describe()).with_hint("put it in quotes"))
                }
                _ => Err(ValueMismatch::new(raw.describe())),
            },
        }
    }

    /// Reads a value of a kind that is a text.
    fn read_kind_text(&self, text: &str, context: ReadContext<'_>) -> Result<SettingValue, ValueMismatch> {
        let wrong = || ValueMismatch::new(quote_safely(text));
        if text.trim().is_empty() {
            return Err(ValueMismatch::new("nothing").with_hint("omit the key to leave it unset"));
        }
        let value = match self {
            Self::Text(TextLines::One) if text.chars().any(char::is_control) => return Err(wrong()),
            Self::Text(TextLines::Multiple)
                if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t' | '\r')) =>
            {
                return Err(wrong().with_hint("it contains control characters"));
            }
            Self::Choice(choices) => {
                let name = text.to_ascii_lowercase();
                choices
                    .iter()
                    .find(|(choice, also)| *choice == name || also.contains(&name.as_str()))
                    .map(|(choice, _)| (*choice).to_owned())
                    .ok_or_else(|| with_choice_hint(choices, text, wrong()))?
            }
            Self::Url => parse_url(text)?,
            Self::Variable => {
                if !is_variable(text) {
                    // Users sometimes paste the API key itself here; it must not be printed.
                    return Err(ValueMismatch::new("something else (not shown, it may be a key)")
                        .with_hint("put the key into an environment variable and name that variable here"));
                }
                text.to_owned()
            }
            Self::Path => expand_path(text, context).ok_or_else(wrong)?,
            Self::Model => parse_model(text)?,
            Self::LogFilter => parse_log_filter(text).ok_or_else(wrong)?,
            _ => text.to_owned(),
        };
        Ok(SettingValue::Text(value))
    }

    /// Formats a value in the form that users write.
    pub fn format_value(&self, value: &SettingValue) -> String {
        match (self, value) {
            (Self::Bytes(_), SettingValue::Int(bytes)) => format_size(*bytes),
            (_, SettingValue::Bool(value)) => value.to_string(),
            (_, SettingValue::Int(value)) => value.to_string(),
            (_, SettingValue::Number(value)) => format_number(*value),
            (_, SettingValue::Text(text)) => text.clone(),
            (_, SettingValue::List(items)) => items.join(", "),
        }
    }
}

fn with_choice_hint(choices: &[ChoiceSpelling], text: &str, wrong: ValueMismatch) -> ValueMismatch {
    match nearest_name(text, choices.iter().map(|(name, _)| *name)) {
        Some(name) => wrong.with_hint(format!("did you mean `{name}`?")),
        None => wrong,
    }
}

fn read_integer(raw: &RawSetting, bound: ValueRange<u64>) -> Result<SettingValue, ValueMismatch> {
    let wrong = || ValueMismatch::new(raw.describe());
    match raw {
        RawSetting::Int(number) => match u64::try_from(*number) {
            Ok(number) if (bound.min..=bound.max).contains(&number) => Ok(SettingValue::Int(number)),
            _ => Err(wrong()),
        },
        RawSetting::Text(text) if text.trim().parse::<u64>().is_ok() => {
            Err(wrong().with_hint("write it without quotes"))
        }
        _ => Err(wrong()),
    }
}

fn read_decimal(raw: &RawSetting, bound: ValueRange<f64>) -> Result<SettingValue, ValueMismatch> {
    let number = match raw {
        RawSetting::Float(number) => *number,
        #[allow(clippy::cast_precision_loss, reason = "numbers out of bounds are refused below")]
        RawSetting::Int(number) => *number as f64,
        _ => return Err(ValueMismatch::new(raw.describe())),
    };
    // This form of the comparison refuses NaN.
    if number >= bound.min && number <= bound.max {
        Ok(SettingValue::Number(number))
    } else {
        Err(ValueMismatch::new(raw.describe()))
    }
}

fn check_range<E: std::fmt::Display>(
    text: &str,
    parsed: Result<u64, E>,
    bound: ValueRange<u64>,
) -> Result<SettingValue, ValueMismatch> {
    match parsed {
        Ok(number) if (bound.min..=bound.max).contains(&number) => Ok(SettingValue::Int(number)),
        Ok(_) => Err(ValueMismatch::new(quote_safely(text))),
        Err(reason) => {
            Err(ValueMismatch::new(quote_safely(text)).with_hint(shorten_escaped(&reason.to_string())))
        }
    }
}

/// Parses a time into the unit. A time that the unit can't represent exactly is refused, not rounded.
fn parse_time_in(unit: TimeUnit, text: &str) -> Result<u64, String> {
    let millis = parse_time(text).map_err(|error| error.to_string())?;
    match unit {
        TimeUnit::Millis => Ok(millis),
        TimeUnit::Seconds if millis % 1000 == 0 => Ok(millis / 1000),
        TimeUnit::Seconds => Err("it must be whole seconds".to_owned()),
    }
}

fn read_list(
    element: ListElement,
    raw: &RawSetting,
    context: ReadContext<'_>,
) -> Result<SettingValue, ValueMismatch> {
    let RawSetting::List(items) = raw else {
        return Err(match raw {
            RawSetting::Text(_) => {
                ValueMismatch::new(raw.describe()).with_hint("put it in brackets: [\"…\"]")
            }
            _ => ValueMismatch::new(raw.describe()),
        });
    };
    if element == ListElement::Fallback
        && matches!(items.as_slice(), [RawSetting::Text(none)] if none == "none")
    {
        return Ok(SettingValue::List(Vec::new()));
    }
    let mut out: Vec<String> = Vec::new();
    for item in items {
        let wrong = || {
            let found = if let RawSetting::Text(text) = item { quote_safely(text) } else { item.describe() };
            ValueMismatch::new(format!("the entry {found}"))
        };
        if element == ListElement::Fallback {
            let entry = FallbackEntry::read_raw(item)?;
            out.push(entry.to_text());
            continue;
        }
        let RawSetting::Text(text) = item else { return Err(wrong()) };
        let fits = match element {
            ListElement::Name => {
                !text.is_empty() && !text.chars().any(|c| c.is_whitespace() || c.is_control() || c == ',')
            }
            ListElement::Variable => is_variable(text),
            ListElement::Model => parse_model(text).is_ok(),
            ListElement::Path | ListElement::Fallback => true,
            ListElement::Inside => is_inner_path(text),
            ListElement::Repository => is_repository(text),
        };
        if !fits {
            return Err(wrong());
        }
        let text = match element {
            ListElement::Path => expand_path(text, context).ok_or_else(wrong)?,
            _ => text.clone(),
        };
        if !out.contains(&text) {
            out.push(text);
        }
    }
    Ok(SettingValue::List(out))
}

pub(crate) fn is_variable(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text.len() <= 128
        // In practice a name that starts in upper case has no lower case, but a key does: `AIzaSy…` is not a name.
        && !is_key_like(text)
}

/// Returns whether a text has the form `owner/name`.
fn is_repository(text: &str) -> bool {
    let good = |part: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !matches!(part, "" | "." | "..") && part.len() <= 100 && part.chars().all(known)
    };
    text.split_once('/').is_some_and(|(owner, name)| good(owner) && good(name))
}

fn is_inner_path(text: &str) -> bool {
    !text.is_empty()
        && !text.chars().any(char::is_control)
        && Path::new(text).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// Returns the full path: `~/` is the home directory, relative paths start at the context's directory.
fn expand_path(text: &str, context: ReadContext<'_>) -> Option<String> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return None;
    }
    let path: PathBuf = match text.strip_prefix("~/") {
        Some(rest) => context.home?.join(rest),
        None if text == "~" => context.home?.to_owned(),
        None => context.base.join(text),
    };
    path.into_os_string().into_string().ok()
}

fn parse_url(text: &str) -> Result<String, ValueMismatch> {
    let hidden = || ValueMismatch::new("an invalid address (not shown, it may contain a password)");
    let wrong = || if text.contains('@') { hidden() } else { ValueMismatch::new(quote_safely(text)) };
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or_else(|| {
        if text.contains("://") { wrong() } else { wrong().with_hint("put http:// or https:// in front") }
    })?;
    let host = rest.split('/').next().unwrap_or_default();
    if host.contains('@') {
        return Err(hidden().with_hint("put the key into the provider's own variable"));
    }
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '<' | '>' | '\\' | '`' | '?' | '#');
    if host.is_empty() || host.starts_with(':') || !rest.chars().all(plain) {
        return Err(wrong());
    }
    // Aliases may hold a full endpoint. Its base depends on the vendor, which is the concern of forge-models.
    Ok(text.trim_end_matches('/').to_owned())
}

/// Parses a level into lower case, or a comma-separated list of levels and `target=level` pairs.
fn parse_log_filter(text: &str) -> Option<String> {
    let level = |text: &str| {
        let text = text.trim().to_ascii_lowercase();
        let text = if text == "warning" { "warn".to_owned() } else { text };
        LOG_LEVELS.contains(&text.as_str()).then_some(text)
    };
    let items: Option<Vec<String>> = text
        .split(',')
        .map(|item| match item.split_once('=') {
            None => level(item),
            Some((target, named)) => {
                let target = target.trim();
                let fits = !target.is_empty()
                    && target.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-'));
                fits.then(|| level(named).map(|level| format!("{target}={level}"))).flatten()
            }
        })
        .collect();
    items.map(|items| items.join(","))
}
