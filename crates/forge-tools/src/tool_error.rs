//! The reasons why a tool ends early.

use forge_ports::tool::SandboxGone;
use forge_types::{ErrorKind, ToolOutput};

/// The reason why a tool ends early.
#[derive(Debug)]
pub(crate) enum ToolError {
    /// An answer for the model.
    Answer(ToolOutput),
    /// A failure of the sandbox, without an answer.
    Gone(SandboxGone),
}

/// Converts the result of a tool for its port.
pub(crate) fn into_result(result: Result<ToolOutput, ToolError>) -> Result<ToolOutput, SandboxGone> {
    match result {
        Ok(output) | Err(ToolError::Answer(output)) => Ok(output),
        Err(ToolError::Gone(gone)) => Err(gone),
    }
}

/// Returns a failure with this text.
pub(crate) fn tool_failure(kind: ErrorKind, text: impl Into<String>) -> ToolError {
    ToolError::Answer(ToolOutput::failed(kind, text))
}
