//! `write_file`: a whole file at once (TOOL-2).

use crate::arguments::{Arguments, bad_arguments, builtin_spec, required_text};
use crate::bytes::format_size;
use crate::path::{visible_path, writable_path};
use crate::tool_error::{ToolError, into_result};
use crate::workspace_error::from_workspace_error;
use forge_ports::sandbox::{Error, PathErrorKind};
use forge_ports::tool::{SandboxGone, ToolEnv};
use forge_ports::{Tool, Workspace, async_trait};
use forge_types::{ParamType, ToolAccess, ToolOutput, ToolSpec};

/// Maximum number of bytes written per call.
pub(crate) const MAX_CONTENT_BYTES: usize = 100 * 1024;

/// Creates or replaces a file.
#[derive(Debug)]
pub(crate) struct WriteFile;

#[async_trait]
impl Tool for WriteFile {
    fn spec(&self) -> ToolSpec {
        builtin_spec(
            ("write_file", &["file_write"]),
            ToolAccess::Write,
            "Create or replace a file (at most 100 KB), with its directories",
            &[("path", ParamType::String, ""), ("content", ParamType::String, "the whole file")],
        )
    }

    async fn run(&self, arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, SandboxGone> {
        into_result(write_content(arguments, env.workspace.as_ref()).await)
    }
}

async fn write_content(arguments: &Arguments, workspace: &dyn Workspace) -> Result<ToolOutput, ToolError> {
    let path = writable_path(required_text(arguments, "path")?)?;
    let content = required_text(arguments, "content")?;
    let before = replace_file(workspace, &path, content).await?;
    let name = visible_path(&path);
    let lines = content.lines().count();
    Ok(ToolOutput::ok(match before {
        None => format!("Created `{name}` ({}, {lines} lines)", format_size(content.len() as u64)),
        Some(old) => {
            format!(
                "Replaced `{name}` ({}, {lines} lines; before: {})",
                format_size(content.len() as u64),
                format_size(old)
            )
        }
    }))
}

/// Writes a file; returns the size of the file that it replaced, if any.
pub(crate) async fn replace_file(
    workspace: &dyn Workspace,
    path: &str,
    content: &str,
) -> Result<Option<u64>, ToolError> {
    if content.len() > MAX_CONTENT_BYTES {
        return Err(bad_arguments(format!(
            "the content has {}; one call writes at most {}. Write the first part, then add to it with edit_file",
            format_size(content.len() as u64),
            format_size(MAX_CONTENT_BYTES as u64)
        )));
    }
    // Also detects a directory, a FIFO or a device before anything is written.
    let before = match workspace.read_file(path, 0, 1).await {
        Ok(chunk) => Some(chunk.size),
        Err(Error::Path { kind: PathErrorKind::NotFound, .. }) => None,
        Err(error) => return Err(from_workspace_error(workspace, path, error).await),
    };
    match workspace.write_file(path, content.as_bytes()).await {
        Ok(()) => Ok(before),
        Err(error) => Err(from_workspace_error(workspace, path, error).await),
    }
}
