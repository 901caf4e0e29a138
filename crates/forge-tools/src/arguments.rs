//! Access to a call's arguments, and a short form of tool declarations.

use crate::tool_error::ToolError;
use forge_types::{ErrorKind, ParamSpec, ParamType, ToolAccess, ToolCategory, ToolOutput, ToolSpec};
use serde_json::{Map, Value};

pub(crate) type Arguments = Map<String, Value>;

/// Returns a required text.
pub(crate) fn required_text<'a>(arguments: &'a Arguments, name: &str) -> Result<&'a str, ToolError> {
    optional_text(arguments, name)?.ok_or_else(|| bad_arguments(format!("`{name}` is missing")))
}

/// Returns an optional text.
pub(crate) fn optional_text<'a>(arguments: &'a Arguments, name: &str) -> Result<Option<&'a str>, ToolError> {
    match arguments.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(bad_arguments(format!("`{name}` must be a string"))),
    }
}

/// Returns an optional whole number, at least 1.
pub(crate) fn optional_positive(arguments: &Arguments, name: &str) -> Result<Option<u64>, ToolError> {
    match arguments.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(number) if number > 0 => Ok(Some(number)),
            _ => Err(bad_arguments(format!("`{name}` must be a whole number of at least 1, not {value}"))),
        },
    }
}

/// Returns an optional flag; false if absent.
pub(crate) fn optional_flag(arguments: &Arguments, name: &str) -> Result<bool, ToolError> {
    match arguments.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(bad_arguments(format!("`{name}` must be true or false"))),
    }
}

/// Returns the answer to invalid arguments.
pub(crate) fn bad_arguments(why: impl Into<String>) -> ToolError {
    ToolError::Answer(ToolOutput::failed(ErrorKind::BadArguments, why))
}

/// Declares a built-in tool. Parameters are `(name, type, description)`; a `?` after the name makes it optional.
pub(crate) fn builtin_spec(
    (name, aliases): (&str, &[&str]),
    access: ToolAccess,
    description: &str,
    params: &[(&str, ParamType, &str)],
) -> ToolSpec {
    ToolSpec {
        name: name.to_owned(),
        aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
        description: description.to_owned(),
        params: params
            .iter()
            .map(|&(name, kind, description)| match name.strip_suffix('?') {
                Some(name) => ParamSpec::optional(name, kind, description),
                None => ParamSpec::required(name, kind, description),
            })
            .collect(),
        access,
        category: ToolCategory::Builtin,
    }
}
