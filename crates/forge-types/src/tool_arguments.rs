//! The arguments of a tool call.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

/// The arguments of a tool call as JSON text, exactly as the model wrote them; may be malformed.
///
/// The text is parsed once: clones that are made afterwards share the parsed object. Journals hold only the text.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ToolArguments {
    text: String,
    #[serde(skip)]
    parsed: OnceLock<Arc<Result<Map<String, Value>, String>>>,
}

impl ToolArguments {
    /// Returns the arguments as a JSON object; absent arguments give an empty object.
    ///
    /// # Errors
    /// Returns a message for the model that explains why the text is not a JSON object.
    pub fn parsed(&self) -> Result<&Map<String, Value>, &str> {
        let parsed = self.parsed.get_or_init(|| Arc::new(parse_object(&self.text)));
        parsed.as_ref().as_ref().map_err(String::as_str)
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Appends a piece of the text.
    pub fn push_str(&mut self, piece: &str) {
        self.parsed.take();
        self.text.push_str(piece);
    }
}

fn parse_object(text: &str) -> Result<Map<String, Value>, String> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err("the arguments are not a JSON object".to_owned()),
        Err(error) => Err(format!("the arguments are not valid JSON: {error}")),
    }
}

impl From<String> for ToolArguments {
    fn from(text: String) -> Self {
        Self { text, parsed: OnceLock::new() }
    }
}

impl From<&str> for ToolArguments {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl Deref for ToolArguments {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl PartialEq for ToolArguments {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for ToolArguments {}

impl PartialEq<str> for ToolArguments {
    fn eq(&self, other: &str) -> bool {
        self.text == other
    }
}

impl PartialEq<&str> for ToolArguments {
    fn eq(&self, other: &&str) -> bool {
        self.text == *other
    }
}

impl fmt::Debug for ToolArguments {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(out)
    }
}

impl fmt::Display for ToolArguments {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_must_be_a_json_object() {
        let parsed = |text: &str| ToolArguments::from(text).parsed().cloned().map_err(str::to_owned);
        assert!(parsed(" ").unwrap().is_empty());
        assert_eq!(parsed(r#"{"path":"a"}"#).unwrap()["path"], "a");
        assert_eq!(
            parsed(r#"{"path":"#).unwrap_err(),
            "the arguments are not valid JSON: EOF while parsing a value at line 1 column 8"
        );
        assert_eq!(parsed("[1]").unwrap_err(), "the arguments are not a JSON object");
    }

    #[test]
    fn a_clone_shares_what_was_parsed() {
        let first = ToolArguments::from(r#"{"path":"a"}"#);
        let parsed = std::ptr::from_ref(first.parsed().unwrap());
        assert!(std::ptr::eq(first.clone().parsed().unwrap(), parsed));
    }

    #[test]
    fn a_longer_text_is_parsed_anew() {
        let mut arguments = ToolArguments::from(r#"{"path":"#);
        assert!(arguments.parsed().is_err());
        arguments.push_str(r#""a"}"#);
        assert_eq!(arguments.parsed().unwrap()["path"], "a");
    }

    #[test]
    fn the_exact_text_is_stored_and_compared() {
        let arguments = ToolArguments::from("{ \"n\": 1.0 }");
        let json = serde_json::to_string(&arguments).unwrap();
        assert_eq!(json, r#""{ \"n\": 1.0 }""#);
        arguments.parsed().unwrap();
        assert_eq!(serde_json::to_string(&arguments).unwrap(), json);
        assert_eq!(serde_json::from_str::<ToolArguments>(&json).unwrap(), arguments);
        assert_ne!(ToolArguments::from(r#"{"n":1.0}"#), arguments);
    }
}
