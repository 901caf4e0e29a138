//! `write_file`: a whole file at once (TOOL-2).

use crate::arguments::{Arguments, bad, spec, text};
use crate::bytes::size;
use crate::fault::{Stop, end, explain};
use crate::path::{visible, writable};
use forge_ports::sandbox::{Error, PathFault};
use forge_ports::tool::{SandboxGone, ToolEnv};
use forge_ports::{Tool, Workspace, async_trait};
use forge_types::{ParamType, ToolAccess, ToolOutput, ToolSpec};

/// Bytes that one call writes.
pub(crate) const MAX_CONTENT: usize = 100 * 1024;

/// Creates or replaces a file.
#[derive(Debug)]
pub(crate) struct WriteFile;

#[async_trait]
impl Tool for WriteFile {
    fn spec(&self) -> ToolSpec {
        spec(
            ("write_file", &["file_write"]),
            ToolAccess::Write,
            "Create or replace a file (at most 100 KB), with its folders",
            &[("path", ParamType::String, ""), ("content", ParamType::String, "the whole file")],
        )
    }

    async fn run(&self, arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, SandboxGone> {
        end(write(arguments, env.workspace.as_ref()).await)
    }
}

async fn write(arguments: &Arguments, workspace: &dyn Workspace) -> Result<ToolOutput, Stop> {
    let path = writable(text(arguments, "path")?)?;
    let content = text(arguments, "content")?;
    let before = put(workspace, &path, content).await?;
    let name = visible(&path);
    let lines = content.lines().count();
    Ok(ToolOutput::ok(match before {
        None => format!("Created `{name}` ({}, {lines} lines)", size(content.len() as u64)),
        Some(old) => {
            format!(
                "Replaced `{name}` ({}, {lines} lines; before: {})",
                size(content.len() as u64),
                size(old)
            )
        }
    }))
}

/// Writes a file; the size of the one that stood there before, if there was one.
pub(crate) async fn put(workspace: &dyn Workspace, path: &str, content: &str) -> Result<Option<u64>, Stop> {
    if content.len() > MAX_CONTENT {
        return Err(bad(format!(
            "the content has {}; one call writes at most {}. Write the first part, then add to it with edit_file",
            size(content.len() as u64),
            size(MAX_CONTENT as u64)
        )));
    }
    // Also tells a directory, a FIFO or a device before anything is written.
    let before = match workspace.read(path, 0, 1).await {
        Ok(chunk) => Some(chunk.size),
        Err(Error::Path { kind: PathFault::NotFound, .. }) => None,
        Err(error) => return Err(explain(workspace, path, error).await),
    };
    match workspace.write(path, content.as_bytes()).await {
        Ok(()) => Ok(before),
        Err(error) => Err(explain(workspace, path, error).await),
    }
}
