//! `chat`: a router's answer in words (TOOL-11).

use crate::arguments::{Arguments, builtin_spec, required_text};
use crate::tool_error::{into_result, tool_failure};
use forge_ports::tool::{SandboxGone, ToolEnv};
use forge_ports::{Tool, async_trait};
use forge_types::{ErrorKind, ParamType, ToolAccess, ToolOutput, ToolSpec};

/// Returns its content as the answer.
#[derive(Debug)]
pub(crate) struct ChatTool;

#[async_trait]
impl Tool for ChatTool {
    fn spec(&self) -> ToolSpec {
        builtin_spec(
            ("chat", &[]),
            ToolAccess::Nothing,
            "Talk to the user",
            &[("content", ParamType::String, "your whole answer in plain words")],
        )
    }

    async fn run(&self, arguments: &Arguments, _env: &ToolEnv) -> Result<ToolOutput, SandboxGone> {
        into_result(required_text(arguments, "content").and_then(|content| match content.trim() {
            "" => Err(tool_failure(ErrorKind::EmptyOutput, "the answer is empty")),
            content => Ok(ToolOutput::ok(content)),
        }))
    }
}
