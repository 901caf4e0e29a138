//! Types of values: what is expected, how text and file values are read, how values are shown.

use super::Fallback;
use crate::quantity::{parse_size, parse_time, show_size};
use serde::Serialize;
use std::path::{Component, Path, PathBuf};

/// An inclusive range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound<T> {
    /// Smallest value.
    pub min: T,
    /// Largest value.
    pub max: T,
}

/// The unit in which a time is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Millis,
}

/// Whether a text may have several lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// One line without control characters.
    One,
    /// Any number of lines.
    Many,
}

/// What the entries of a list are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// Names without white space.
    Name,
    /// Names of environment variables.
    Variable,
    /// Paths on the host; `~` and relative ones are resolved.
    Path,
    /// Paths inside the workspace.
    Inside,
    /// Entries of [`super::Fallback`].
    Fallback,
    /// Models, as [`Kind::Model`].
    Model,
    /// Repositories of a server, as `owner/name`.
    Repository,
}

/// A choice and its other spellings.
pub type Spelling = (&'static str, &'static [&'static str]);

/// The type of a key.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// True or false.
    Bool,
    /// A whole number.
    Int(Bound<u64>),
    /// A number.
    Number(Bound<f64>),
    /// A size, kept in bytes.
    Bytes(Bound<u64>),
    /// A time, kept in the unit; the bounds too.
    Time(Unit, Bound<u64>),
    /// A text.
    Text(Lines),
    /// One of these, each with its other spellings.
    Choice(&'static [Spelling]),
    /// `http://` or `https://` and a host.
    Url,
    /// The name of an environment variable.
    Variable,
    /// A path on the host; `~` and relative ones are resolved.
    Path,
    /// A model with its provider, as `provider/model`.
    Model,
    /// A level, or `target=level` pairs.
    LogFilter,
    /// A list of texts.
    List(Element),
}

/// A value that fits its key.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A whole number, bytes, or a time in the key's unit.
    Int(u64),
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<String>),
}

/// What stood in a file, before it is known to fit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Raw {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Raw>),
    /// A table that is an entry of a list.
    Table(Vec<(String, Raw)>),
    /// A thing that no key takes, in words.
    Other(&'static str),
}

/// Where a value stands, as far as reading it depends on that.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Folder that relative paths start from.
    pub base: &'a Path,
    /// The user's home, for `~/`.
    pub home: Option<&'a Path>,
}

/// A value that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// What was found, safe to print.
    pub found: String,
    /// What would mend it, if that can be told.
    pub hint: Option<String>,
}

impl Mismatch {
    pub(super) fn new(found: impl Into<String>) -> Self {
        Self { found: found.into(), hint: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl Kind {
    /// What is expected, in words.
    pub fn expected(&self) -> String {
        match self {
            Self::Bool => "true or false".to_owned(),
            Self::Int(Bound { min, max }) => format!("a whole number from {min} to {max}"),
            Self::Number(Bound { min, max }) => format!("a number from {min} to {max}"),
            Self::Bytes(Bound { min, max }) => {
                format!("a size from {} to {}, such as `2g`", show_size(*min), show_size(*max))
            }
            Self::Time(Unit::Seconds, Bound { min, max }) => {
                format!("seconds from {min} to {max}, or a time such as `90s`")
            }
            Self::Time(Unit::Millis, Bound { min, max }) => {
                format!("milliseconds from {min} to {max}, or a time such as `90s`")
            }
            Self::Text(Lines::One) => "a text of one line".to_owned(),
            Self::Text(Lines::Many) => "a text".to_owned(),
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
            Self::List(Element::Name) => "a list of names".to_owned(),
            Self::List(Element::Variable) => "a list of names of environment variables".to_owned(),
            Self::List(Element::Path) => "a list of paths".to_owned(),
            Self::List(Element::Inside) => "a list of paths inside the repository".to_owned(),
            Self::List(Element::Repository) => "a list of repositories, each as `owner/name`".to_owned(),
            Self::List(Element::Model) => "a list of models, each as `provider/model`".to_owned(),
            Self::List(Element::Fallback) => {
                "a list of `provider:model`, or of tables with provider, name and organization_id".to_owned()
            }
        }
    }

    /// Reads a value as it stands in the environment or in a flag.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn read_text(&self, text: &str, context: Context<'_>) -> Result<Value, Mismatch> {
        let trimmed = text.trim();
        let raw = match self {
            Self::Bool => match trimmed.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Raw::Bool(true),
                "false" | "0" | "no" | "off" => Raw::Bool(false),
                _ => return Err(Mismatch::new(shown(text))),
            },
            Self::Int(_) | Self::Bytes(_) | Self::Time(..) => {
                match trimmed.replace('_', "").parse::<i128>() {
                    Ok(number) => Raw::Int(number),
                    Err(_) => Raw::Text(trimmed.to_owned()),
                }
            }
            Self::Number(_) => match trimmed.parse::<f64>() {
                Ok(number) => Raw::Float(number),
                Err(_) => return Err(Mismatch::new(shown(text))),
            },
            Self::List(_) => Raw::List(
                text.split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(|item| Raw::Text(item.to_owned()))
                    .collect(),
            ),
            Self::Text(Lines::Many) => Raw::Text(text.to_owned()),
            _ => Raw::Text(trimmed.to_owned()),
        };
        self.read(&raw, context)
    }

    /// Reads a value as it stands in a file.
    pub(crate) fn read(&self, raw: &Raw, context: Context<'_>) -> Result<Value, Mismatch> {
        match self {
            Self::Bool => match raw {
                Raw::Bool(value) => Ok(Value::Bool(*value)),
                Raw::Text(text)
                    if matches!(text.as_str(), "yes" | "no" | "on" | "off" | "true" | "false") =>
                {
                    Err(Mismatch::new(raw.shown()).hint("write true or false, without quotes"))
                }
                _ => Err(Mismatch::new(raw.shown())),
            },
            Self::Int(bound) => whole(raw, *bound),
            Self::Number(bound) => decimal(raw, *bound),
            Self::Bytes(bound) => match raw {
                Raw::Text(text) => in_bound(text, parse_size(text), *bound),
                _ => whole(raw, *bound),
            },
            Self::Time(unit, bound) => match raw {
                Raw::Text(text) => in_bound(text, time_in(*unit, text), *bound),
                _ => whole(raw, *bound),
            },
            Self::List(element) => list(*element, raw, context),
            Self::Text(_)
            | Self::Choice(_)
            | Self::Url
            | Self::Variable
            | Self::Path
            | Self::Model
            | Self::LogFilter => match raw {
                Raw::Text(text) => self.text(text, context),
                Raw::Int(_) | Raw::Float(_) | Raw::Bool(_) => {
                    Err(Mismatch::new(raw.shown()).hint("put it in quotes"))
                }
                _ => Err(Mismatch::new(raw.shown())),
            },
        }
    }

    /// Reads the kinds that are texts.
    fn text(&self, text: &str, context: Context<'_>) -> Result<Value, Mismatch> {
        let wrong = || Mismatch::new(shown(text));
        if text.trim().is_empty() {
            return Err(Mismatch::new("nothing").hint("leave the key out if it is not to be set"));
        }
        let value = match self {
            Self::Text(Lines::One) if text.chars().any(char::is_control) => return Err(wrong()),
            Self::Text(Lines::Many)
                if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t' | '\r')) =>
            {
                return Err(wrong().hint("it holds control characters"));
            }
            Self::Choice(choices) => {
                let name = text.to_ascii_lowercase();
                choices
                    .iter()
                    .find(|(choice, also)| *choice == name || also.contains(&name.as_str()))
                    .map(|(choice, _)| (*choice).to_owned())
                    .ok_or_else(|| near_choice(choices, text, wrong()))?
            }
            Self::Url => url(text)?,
            Self::Variable => {
                if !is_variable(text) {
                    // People paste the key itself here; it must not be printed.
                    return Err(Mismatch::new("something else (not shown, it may be a key)")
                        .hint("put the key into an environment variable and name that variable here"));
                }
                text.to_owned()
            }
            Self::Path => path_text(text, context).ok_or_else(wrong)?,
            Self::Model => super::fallback::model(text)?,
            Self::LogFilter => log_filter(text).ok_or_else(wrong)?,
            _ => text.to_owned(),
        };
        Ok(Value::Text(value))
    }

    /// A value as people write it.
    pub fn show(&self, value: &Value) -> String {
        match (self, value) {
            (Self::Bytes(_), Value::Int(bytes)) => show_size(*bytes),
            (_, Value::Bool(value)) => value.to_string(),
            (_, Value::Int(value)) => value.to_string(),
            (_, Value::Number(value)) => number_text(*value),
            (_, Value::Text(text)) => text.clone(),
            (_, Value::List(items)) => items.join(", "),
        }
    }
}

/// A number with a decimal point, so that TOML and YAML read it back as one.
pub(crate) fn number_text(value: f64) -> String {
    format!("{value:?}")
}

fn near_choice(choices: &[Spelling], text: &str, wrong: Mismatch) -> Mismatch {
    match super::nearest(text, choices.iter().map(|(name, _)| *name)) {
        Some(name) => wrong.hint(format!("did you mean `{name}`?")),
        None => wrong,
    }
}

fn whole(raw: &Raw, bound: Bound<u64>) -> Result<Value, Mismatch> {
    let wrong = || Mismatch::new(raw.shown());
    match raw {
        Raw::Int(number) => match u64::try_from(*number) {
            Ok(number) if (bound.min..=bound.max).contains(&number) => Ok(Value::Int(number)),
            _ => Err(wrong()),
        },
        Raw::Text(text) if text.trim().parse::<u64>().is_ok() => Err(wrong().hint("write it without quotes")),
        _ => Err(wrong()),
    }
}

fn decimal(raw: &Raw, bound: Bound<f64>) -> Result<Value, Mismatch> {
    let number = match raw {
        Raw::Float(number) => *number,
        #[allow(clippy::cast_precision_loss, reason = "numbers out of bounds are refused below")]
        Raw::Int(number) => *number as f64,
        _ => return Err(Mismatch::new(raw.shown())),
    };
    // Written so that NaN is refused.
    if number >= bound.min && number <= bound.max {
        Ok(Value::Number(number))
    } else {
        Err(Mismatch::new(raw.shown()))
    }
}

fn in_bound<E: std::fmt::Display>(
    text: &str,
    parsed: Result<u64, E>,
    bound: Bound<u64>,
) -> Result<Value, Mismatch> {
    match parsed {
        Ok(number) if (bound.min..=bound.max).contains(&number) => Ok(Value::Int(number)),
        Ok(_) => Err(Mismatch::new(shown(text))),
        Err(reason) => Err(Mismatch::new(shown(text)).hint(shown_plain(&reason.to_string()))),
    }
}

/// A time in the unit. What the unit can't hold exactly is refused rather than rounded.
fn time_in(unit: Unit, text: &str) -> Result<u64, String> {
    let millis = parse_time(text).map_err(|error| error.to_string())?;
    match unit {
        Unit::Millis => Ok(millis),
        Unit::Seconds if millis % 1000 == 0 => Ok(millis / 1000),
        Unit::Seconds => Err("whole seconds are wanted".to_owned()),
    }
}

fn list(element: Element, raw: &Raw, context: Context<'_>) -> Result<Value, Mismatch> {
    let Raw::List(items) = raw else {
        return Err(match raw {
            Raw::Text(_) => Mismatch::new(raw.shown()).hint("put it in brackets: [\"…\"]"),
            _ => Mismatch::new(raw.shown()),
        });
    };
    if element == Element::Fallback && matches!(items.as_slice(), [Raw::Text(none)] if none == "none") {
        return Ok(Value::List(Vec::new()));
    }
    let mut out: Vec<String> = Vec::new();
    for item in items {
        let wrong = || {
            let found = if let Raw::Text(text) = item { shown(text) } else { item.shown() };
            Mismatch::new(format!("the entry {found}"))
        };
        if element == Element::Fallback {
            let entry = Fallback::read(item)?;
            out.push(entry.text());
            continue;
        }
        let Raw::Text(text) = item else { return Err(wrong()) };
        let fits = match element {
            Element::Name => {
                !text.is_empty() && !text.chars().any(|c| c.is_whitespace() || c.is_control() || c == ',')
            }
            Element::Variable => is_variable(text),
            Element::Model => super::fallback::model(text).is_ok(),
            Element::Path | Element::Fallback => true,
            Element::Inside => is_inside(text),
            Element::Repository => is_repository(text),
        };
        if !fits {
            return Err(wrong());
        }
        let text = match element {
            Element::Path => path_text(text, context).ok_or_else(wrong)?,
            _ => text.clone(),
        };
        if !out.contains(&text) {
            out.push(text);
        }
    }
    Ok(Value::List(out))
}

pub(crate) fn is_variable(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text.len() <= 128
        // Names have no lower case after an upper-case start in practice, keys do: `AIzaSy…` is no name.
        && !looks_like_key(text)
}

/// Prefixes by which vendors mark their keys (SEC-6).
fn looks_like_key(text: &str) -> bool {
    ["AIza", "sk-", "sk_", "key-", "ghp_", "ghs_", "glpat-"].iter().any(|prefix| text.starts_with(prefix))
}

/// Whether a text is `owner/name`.
fn is_repository(text: &str) -> bool {
    let good = |part: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !matches!(part, "" | "." | "..") && part.len() <= 100 && part.chars().all(known)
    };
    text.split_once('/').is_some_and(|(owner, name)| good(owner) && good(name))
}

fn is_inside(text: &str) -> bool {
    !text.is_empty()
        && !text.chars().any(char::is_control)
        && Path::new(text).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// The path in full: `~/` is the home, relative ones start at the context's folder.
fn path_text(text: &str, context: Context<'_>) -> Option<String> {
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

fn url(text: &str) -> Result<String, Mismatch> {
    let hidden = || Mismatch::new("an address that can't be used (not shown, it may hold a password)");
    let wrong = || if text.contains('@') { hidden() } else { Mismatch::new(shown(text)) };
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or_else(|| {
        if text.contains("://") { wrong() } else { wrong().hint("put http:// or https:// in front") }
    })?;
    let host = rest.split('/').next().unwrap_or_default();
    if host.contains('@') {
        return Err(hidden().hint("put the key into the provider's own variable"));
    }
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '<' | '>' | '\\' | '`' | '?' | '#');
    if host.is_empty() || host.starts_with(':') || !rest.chars().all(plain) {
        return Err(wrong());
    }
    // Aliases may hold a full endpoint; what its base is depends on the vendor and is the models' to know.
    Ok(text.trim_end_matches('/').to_owned())
}

/// A level in lower case, or a comma-separated list of levels and `target=level`.
fn log_filter(text: &str) -> Option<String> {
    let level = |text: &str| {
        let text = text.trim().to_ascii_lowercase();
        let text = if text == "warning" { "warn".to_owned() } else { text };
        LEVELS.contains(&text.as_str()).then_some(text)
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

impl Raw {
    /// What it is, safe to print in an error.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => format!("`{value}`"),
            Self::Int(value) => format!("`{value}`"),
            Self::Float(value) => format!("`{}`", number_text(*value)),
            Self::Text(text) => format!("the text {}", shown(text)),
            Self::List(_) => "a list".to_owned(),
            Self::Table(_) => "a table".to_owned(),
            Self::Other(words) => (*words).to_owned(),
        }
    }
}

/// A text in backquotes, shortened, without control characters; what looks like a key is not shown.
pub(crate) fn shown(text: &str) -> String {
    if text.split(|c: char| c.is_whitespace() || matches!(c, '=' | ',' | ':')).any(looks_like_key) {
        return "`***REDACTED***`".to_owned();
    }
    format!("`{}`", shown_plain(text))
}

fn shown_plain(text: &str) -> String {
    const LONGEST: usize = 120;
    let mut out: String = text.chars().take(LONGEST).flat_map(printable).collect();
    if text.chars().nth(LONGEST).is_some() {
        out.push('…');
    }
    out
}

/// The text with everything escaped that a terminal would act on, tabs excepted.
pub(crate) fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            if c == '\t' {
                Box::new(std::iter::once(c)) as Box<dyn Iterator<Item = char>>
            } else {
                printable(c)
            }
        })
        .collect()
}

/// The character, or its escape if a terminal would act on it.
fn printable(c: char) -> Box<dyn Iterator<Item = char>> {
    // Beside control characters: the marks that turn text round, with which a file can show what it does not say.
    if c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    {
        Box::new(c.escape_unicode())
    } else {
        Box::new(std::iter::once(c))
    }
}
