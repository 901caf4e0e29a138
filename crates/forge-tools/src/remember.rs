//! `remember`: a fact that outlasts the conversation (TOOL-15).

use crate::arguments::{Arguments, bad, spec, text};
use crate::fault::{Stop, end, failed};
use forge_ports::tool::{SandboxGone, ToolEnv};
use forge_ports::{Tool, async_trait};
use forge_types::{ErrorKind, Fact, ParamType, ToolAccess, ToolOutput, ToolSpec};

/// Longest key in characters.
const MAX_KEY: usize = 100;
/// Longest value in characters.
const MAX_VALUE: usize = 2_000;

/// Keeps a fact in the memory.
#[derive(Debug)]
pub(crate) struct Remember;

#[async_trait]
impl Tool for Remember {
    fn spec(&self) -> ToolSpec {
        spec(
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
        end(remember(arguments, env).await)
    }
}

async fn remember(arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, Stop> {
    let (key, value) = (text(arguments, "key")?.trim(), text(arguments, "value")?.trim());
    if key.is_empty() || value.is_empty() {
        return Err(bad("key and value must not be empty"));
    }
    if key.chars().count() > MAX_KEY || value.chars().count() > MAX_VALUE {
        return Err(bad(format!("at most {MAX_KEY} characters of key and {MAX_VALUE} of value are kept")));
    }
    let Some(memory) = &env.memory else {
        return Err(failed(ErrorKind::NotEnabled, "nothing is remembered here: memory.enabled is false"));
    };
    let fact = Fact { key: key.to_owned(), value: value.to_owned() };
    match memory.add_fact(fact).await {
        Ok(()) => Ok(ToolOutput::ok(format!("I will remember: {key} = {value}"))),
        Err(error) => Err(failed(ErrorKind::Execution, error.to_string())),
    }
}
