//! `list_directory`: what a folder holds (TOOL-4).

use crate::arguments::{Arguments, flag, optional_text, positive, spec};
use crate::bytes::size;
use crate::fault::{Stop, end, explain};
use crate::path::{relative, visible};
use forge_ports::sandbox::{Entry, FileKind};
use forge_ports::tool::{SandboxGone, ToolEnv};
use forge_ports::{Tool, Workspace, async_trait};
use forge_types::{ParamType, ToolAccess, ToolOutput, ToolSpec};
use std::fmt::Write as _;

/// Entries that one call shows.
const MAX_ENTRIES: usize = 500;
/// Levels that one call goes down at most.
const MAX_DEPTH: u64 = 20;
/// Folders whose contents would hide everything else; they are named, not entered.
const CLOSED: [&str; 9] = [
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

/// Lists a folder, or a tree of folders.
#[derive(Debug)]
pub(crate) struct ListDirectory;

#[async_trait]
impl Tool for ListDirectory {
    fn spec(&self) -> ToolSpec {
        spec(
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
        end(list(arguments, env.workspace.as_ref()).await)
    }
}

async fn list(arguments: &Arguments, workspace: &dyn Workspace) -> Result<ToolOutput, Stop> {
    let path = relative(optional_text(arguments, "path")?.unwrap_or("/workspace"))?;
    let recursive = flag(arguments, "recursive")?;
    let depth = positive(arguments, "max_depth")?.unwrap_or(3).min(MAX_DEPTH);
    let depth = if recursive { depth } else { 1 };
    let mut tree = Tree { workspace, text: String::new(), room: MAX_ENTRIES, more: false };
    tree.text = format!("{}/\n", visible(&path));
    let entries = match tree.entries(&path).await {
        Ok(entries) => entries,
        Err(error) => return Err(explain(workspace, &path, error).await),
    };
    if entries.is_empty() {
        return Ok(ToolOutput::ok(format!("`{}` is empty", visible(&path))));
    }
    tree.walk(entries, depth).await?;
    if tree.more {
        let _ =
            write!(tree.text, "[more than {MAX_ENTRIES} entries: list a folder of it, or use find_files]");
    }
    let mut output = ToolOutput::ok(tree.text);
    output.truncated = tree.more;
    Ok(output)
}

struct Tree<'a> {
    workspace: &'a dyn Workspace,
    text: String,
    room: usize,
    more: bool,
}

impl Tree<'_> {
    async fn entries(&mut self, path: &str) -> Result<Vec<Entry>, forge_ports::sandbox::Error> {
        let listing = self.workspace.list(path, 1, self.room.max(1)).await?;
        self.more |= listing.more;
        Ok(listing.items)
    }

    /// Writes entries and what lies below them, `depth` levels in all. Not recursive: depth is the model's choice.
    async fn walk(&mut self, entries: Vec<Entry>, depth: u64) -> Result<(), Stop> {
        let mut levels = vec![entries.into_iter()];
        while let Some(level) = levels.last_mut() {
            let Some(entry) = level.next() else {
                levels.pop();
                continue;
            };
            if self.room == 0 {
                self.more = true;
                return Ok(());
            }
            self.room -= 1;
            let name = entry.path.rsplit('/').next().unwrap_or(&entry.path);
            let closed = CLOSED.contains(&name);
            let below = entry.kind == FileKind::Directory && (levels.len() as u64) < depth;
            let mark = match entry.kind {
                FileKind::File => format!(" ({})", size(entry.size)),
                FileKind::Directory if closed && below => "/ (not shown)".to_owned(),
                FileKind::Directory => "/".to_owned(),
                FileKind::Symlink => " (symlink)".to_owned(),
                FileKind::Special => " (device, FIFO or socket)".to_owned(),
            };
            let indent = "  ".repeat(levels.len());
            // Writing to a String can't fail.
            let _ = writeln!(self.text, "{indent}{}{mark}", visible(name));
            if below && !closed {
                match self.entries(&entry.path).await {
                    Ok(entries) => levels.push(entries.into_iter()),
                    Err(forge_ports::sandbox::Error::Path { why, .. }) => {
                        let _ = writeln!(self.text, "{indent}  [not readable: {why}]");
                    }
                    Err(error) => return Err(explain(self.workspace, &entry.path, error).await),
                }
            }
        }
        Ok(())
    }
}
