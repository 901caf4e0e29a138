//! Arguments of a call, and the short way to declare a tool.

use crate::tool_error::ToolError;
use forge_types::{ErrorKind, ParamSpec, ParamType, ToolAccess, ToolCategory, ToolOutput, ToolSpec};
use serde_json::{Map, Value};

pub(crate) type Arguments = Map<String, Value>;

/// A text that must be there.
pub(crate) fn required_text<'a>(arguments: &'a Arguments, name: &str) -> Result<&'a str, ToolError> {
    optional_text(arguments, name)?.ok_or_else(|| bad_arguments(format!("`{name}` is missing")))
}

/// A text that may be left out.
pub(crate) fn optional_text<'a>(arguments: &'a Arguments, name: &str) -> Result<Option<&'a str>, ToolError> {
    match arguments.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(bad_arguments(format!("`{name}` must be a string"))),
    }
}

/// A whole number from 1 on that may be left out.
pub(crate) fn optional_positive(arguments: &Arguments, name: &str) -> Result<Option<u64>, ToolError> {
    match arguments.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(number) if number > 0 => Ok(Some(number)),
            _ => Err(bad_arguments(format!("`{name}` must be a whole number from 1 on, not {value}"))),
        },
    }
}

/// Yes or no; no if left out.
pub(crate) fn optional_flag(arguments: &Arguments, name: &str) -> Result<bool, ToolError> {
    match arguments.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(bad_arguments(format!("`{name}` must be true or false"))),
    }
}

/// The answer to arguments that make no sense.
pub(crate) fn bad_arguments(why: impl Into<String>) -> ToolError {
    ToolError::Answer(ToolOutput::failed(ErrorKind::BadArguments, why))
}

/// Declares a tool that is part of Forge. Parameters are `(name, type, description)`; a `?` behind the name says
/// that it may be left out.
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
