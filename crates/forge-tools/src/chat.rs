//! `chat`: the router's way to say something (TOOL-11).

use crate::arguments::{Arguments, spec, text};
use crate::fault::{end, failed};
use forge_ports::tool::{SandboxGone, ToolEnv};
use forge_ports::{Tool, async_trait};
use forge_types::{ErrorKind, ParamType, ToolAccess, ToolOutput, ToolSpec};

/// Gives its content back as the answer.
#[derive(Debug)]
pub(crate) struct Chat;

#[async_trait]
impl Tool for Chat {
    fn spec(&self) -> ToolSpec {
        spec(
            ("chat", &[]),
            ToolAccess::Nothing,
            "Talk to the user",
            &[("content", ParamType::String, "your whole answer in plain words")],
        )
    }

    async fn run(&self, arguments: &Arguments, _env: &ToolEnv) -> Result<ToolOutput, SandboxGone> {
        end(text(arguments, "content").and_then(|content| match content.trim() {
            "" => Err(failed(ErrorKind::EmptyOutput, "the answer is empty")),
            content => Ok(ToolOutput::ok(content)),
        }))
    }
}
