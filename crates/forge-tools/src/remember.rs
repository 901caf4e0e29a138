//! `remember`: a fact that outlasts the conversation (TOOL-15).

use crate::arguments::{Arguments, bad_arguments, builtin_spec, required_text};
use crate::tool_error::{ToolError, into_result, tool_failure};
use forge_ports::tool::{SandboxGone, ToolEnv};
use forge_ports::{Tool, async_trait};
use forge_types::{ErrorKind, MemoryFact, ParamType, ToolAccess, ToolOutput, ToolSpec};

/// Maximum length of a key in characters.
const MAX_KEY_CHARS: usize = 100;
/// Maximum length of a value in characters.
const MAX_VALUE_CHARS: usize = 2_000;

/// Saves a fact in the memory.
#[derive(Debug)]
pub(crate) struct Remember;

#[async_trait]
impl Tool for Remember {
    fn spec(&self) -> ToolSpec {
        builtin_spec(
            ("remember", &[]),
            ToolAccess::Nothing,
            "Remember a fact for all later conversations; the same key replaces it",
            &[
                ("key", ParamType::String, "what it is about, such as favourite color"),
                ("value", ParamType::String, "what is known"),
            ],
        )
    }

    async fn run(&self, arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, SandboxGone> {
        into_result(remember_fact(arguments, env).await)
    }
}

async fn remember_fact(arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, ToolError> {
    let (key, value) = (required_text(arguments, "key")?.trim(), required_text(arguments, "value")?.trim());
    if key.is_empty() || value.is_empty() {
        return Err(bad_arguments("key and value must not be empty"));
    }
    if key.chars().count() > MAX_KEY_CHARS || value.chars().count() > MAX_VALUE_CHARS {
        return Err(bad_arguments(format!(
            "at most {MAX_KEY_CHARS} characters of key and {MAX_VALUE_CHARS} of value are kept"
        )));
    }
    let Some(memory) = &env.memory else {
        return Err(tool_failure(ErrorKind::NotEnabled, "the memory is disabled: memory.enabled is false"));
    };
    let fact = MemoryFact { key: key.to_owned(), value: value.to_owned() };
    match memory.add_fact(fact).await {
        Ok(()) => Ok(ToolOutput::ok(format!("I will remember: {key} = {value}"))),
        Err(error) => Err(tool_failure(ErrorKind::Execution, error.to_string())),
    }
}
