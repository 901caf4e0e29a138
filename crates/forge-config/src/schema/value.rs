//! Values of settings, before and after validation, and how they appear in messages.

use serde::Serialize;

/// A value that is valid for its key.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum SettingValue {
    /// True or false.
    Bool(bool),
    /// A whole number, a number of bytes, or a time in the key's unit.
    Int(u64),
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<String>),
}

/// A value from a file, before validation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RawSetting {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<RawSetting>),
    /// A table that is an entry of a list.
    Table(Vec<(String, RawSetting)>),
    /// Any type that no key accepts, in words.
    Other(&'static str),
}

/// The reason why a value is invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueMismatch {
    /// Description of the value, safe to print.
    pub found: String,
    /// Suggested fix, if one is known.
    pub hint: Option<String>,
}

impl ValueMismatch {
    pub(super) fn new(found: impl Into<String>) -> Self {
        Self { found: found.into(), hint: None }
    }

    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl RawSetting {
    /// Describes the value, safe to print in an error.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => format!("`{value}`"),
            Self::Int(value) => format!("`{value}`"),
            Self::Float(value) => format!("`{}`", format_number(*value)),
            Self::Text(text) => format!("the text {}", quote_safely(text)),
            Self::List(_) => "a list".to_owned(),
            Self::Table(_) => "a table".to_owned(),
            Self::Other(words) => (*words).to_owned(),
        }
    }
}

/// Returns a text in backquotes, shortened, without control characters. A text that looks like an API key is not shown.
pub(crate) fn quote_safely(text: &str) -> String {
    if text.split(|c: char| c.is_whitespace() || matches!(c, '=' | ',' | ':')).any(is_key_like) {
        return "`***REDACTED***`".to_owned();
    }
    format!("`{}`", shorten_escaped(text))
}

pub(super) fn shorten_escaped(text: &str) -> String {
    const MAX_SHOWN_CHARS: usize = 120;
    let mut out: String = text.chars().take(MAX_SHOWN_CHARS).flat_map(escape_char).collect();
    if text.chars().nth(MAX_SHOWN_CHARS).is_some() {
        out.push('…');
    }
    out
}

/// Escapes every character that a terminal would interpret, except tabs.
pub(crate) fn escape_controls(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            if c == '\t' {
                Box::new(std::iter::once(c)) as Box<dyn Iterator<Item = char>>
            } else {
                escape_char(c)
            }
        })
        .collect()
}

/// Returns the character, or its escape if a terminal would interpret it.
fn escape_char(c: char) -> Box<dyn Iterator<Item = char>> {
    // In addition to control characters: the marks that reverse text direction, which can make a file appear to have
    // other content.
    if c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    {
        Box::new(c.escape_unicode())
    } else {
        Box::new(std::iter::once(c))
    }
}

/// Formats a number with a decimal point, so that TOML and YAML read it back as one.
pub(crate) fn format_number(value: f64) -> String {
    format!("{value:?}")
}

/// Returns whether a text starts with a prefix that vendors use for API keys (SEC-6).
pub(super) fn is_key_like(text: &str) -> bool {
    ["AIza", "sk-", "sk_", "key-", "ghp_", "ghs_", "glpat-"].iter().any(|prefix| text.starts_with(prefix))
}
