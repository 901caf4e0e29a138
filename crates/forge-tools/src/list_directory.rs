//! `list_directory`: the contents of a directory (TOOL-4).

use crate::arguments::{Arguments, builtin_spec, optional_flag, optional_positive, optional_text};
use crate::bytes::format_size;
use crate::path::{relative_path, visible_path};
use crate::tool_error::{ToolError, into_result};
use crate::workspace_error::from_workspace_error;
use forge_ports::sandbox::{EntryKind, WorkspaceEntry};
use forge_ports::tool::{SandboxGone, ToolEnv};
use forge_ports::{Tool, Workspace, async_trait};
use forge_types::{ParamType, ToolAccess, ToolOutput, ToolSpec};
use std::fmt::Write as _;

/// Maximum number of entries shown per call.
const MAX_ENTRIES: usize = 500;
/// Maximum depth per call.
const MAX_DEPTH: u64 = 20;
/// Directories with contents that would crowd out everything else; they are listed but not entered.
const UNEXPANDED_DIRS: [&str; 9] = [
    ".git",
    "node_modules",
    "target",
    "__pycache__",
    ".venv",
    "venv",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
];

/// Lists a directory, or a tree of directories.
#[derive(Debug)]
pub(crate) struct ListDirectory;

#[async_trait]
impl Tool for ListDirectory {
    fn spec(&self) -> ToolSpec {
        builtin_spec(
            ("list_directory", &["directory_tree"]),
            ToolAccess::Read,
            "List a directory",
            &[
                ("path?", ParamType::String, "default /workspace"),
                ("recursive?", ParamType::Boolean, "whole tree"),
                ("max_depth?", ParamType::Integer, "levels, default 3"),
            ],
        )
    }

    async fn run(&self, arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, SandboxGone> {
        into_result(list_tree(arguments, env.workspace.as_ref()).await)
    }
}

async fn list_tree(arguments: &Arguments, workspace: &dyn Workspace) -> Result<ToolOutput, ToolError> {
    let path = relative_path(optional_text(arguments, "path")?.unwrap_or("/workspace"))?;
    let recursive = optional_flag(arguments, "recursive")?;
    let depth = optional_positive(arguments, "max_depth")?.unwrap_or(3).min(MAX_DEPTH);
    let depth = if recursive { depth } else { 1 };
    let mut tree = TreeListing { workspace, text: String::new(), remaining: MAX_ENTRIES, more: false };
    tree.text = format!("{}/\n", visible_path(&path));
    let entries = match tree.read_entries(&path).await {
        Ok(entries) => entries,
        Err(error) => return Err(from_workspace_error(workspace, &path, error).await),
    };
    if entries.is_empty() {
        return Ok(ToolOutput::ok(format!("`{}` is empty", visible_path(&path))));
    }
    tree.write_entries(entries, depth).await?;
    if tree.more {
        let _ =
            write!(tree.text, "[more than {MAX_ENTRIES} entries: list a subdirectory, or use find_files]");
    }
    let mut output = ToolOutput::ok(tree.text);
    output.truncated = tree.more;
    Ok(output)
}

struct TreeListing<'a> {
    workspace: &'a dyn Workspace,
    text: String,
    remaining: usize,
    more: bool,
}

impl TreeListing<'_> {
    async fn read_entries(&mut self, path: &str) -> Result<Vec<WorkspaceEntry>, forge_ports::sandbox::Error> {
        let listing = self.workspace.list_directory(path, 1, self.remaining.max(1)).await?;
        self.more |= listing.more;
        Ok(listing.items)
    }

    /// Writes entries and their children, `depth` levels in all. Not recursive, because the model chooses the depth.
    async fn write_entries(&mut self, entries: Vec<WorkspaceEntry>, depth: u64) -> Result<(), ToolError> {
        let mut levels = vec![entries.into_iter()];
        while let Some(level) = levels.last_mut() {
            let Some(entry) = level.next() else {
                levels.pop();
                continue;
            };
            if self.remaining == 0 {
                self.more = true;
                return Ok(());
            }
            self.remaining -= 1;
            let name = entry.path.rsplit('/').next().unwrap_or(&entry.path);
            let closed = UNEXPANDED_DIRS.contains(&name);
            let below = entry.kind == EntryKind::Directory && (levels.len() as u64) < depth;
            let mark = match entry.kind {
                EntryKind::File => format!(" ({})", format_size(entry.size)),
                EntryKind::Directory if closed && below => "/ (not shown)".to_owned(),
                EntryKind::Directory => "/".to_owned(),
                EntryKind::Symlink => " (symlink)".to_owned(),
                EntryKind::Special => " (device, FIFO or socket)".to_owned(),
            };
            let indent = "  ".repeat(levels.len());
            // Writing to a String can't fail.
            let _ = writeln!(self.text, "{indent}{}{mark}", visible_path(name));
            if below && !closed {
                match self.read_entries(&entry.path).await {
                    Ok(entries) => levels.push(entries.into_iter()),
                    Err(forge_ports::sandbox::Error::Path { why, .. }) => {
                        let _ = writeln!(self.text, "{indent}  [not readable: {why}]");
                    }
                    Err(error) => return Err(from_workspace_error(self.workspace, &entry.path, error).await),
                }
            }
        }
        Ok(())
    }
}
