//! `find_files`: search for files by name (TOOL-10).

use crate::arguments::{Arguments, bad_arguments, builtin_spec, required_text};
use crate::path::{relative_path, visible_path};
use crate::tool_error::{ToolError, into_result};
use crate::workspace_error::from_workspace_error;
use forge_ports::tool::{SandboxGone, ToolEnv};
use forge_ports::{Tool, Workspace, async_trait};
use forge_types::{ParamType, ToolAccess, ToolOutput, ToolSpec};

/// Maximum number of files shown per call.
const MAX_FILES: usize = 100;

/// Finds files with paths that match a glob.
#[derive(Debug)]
pub(crate) struct FindFiles;

#[async_trait]
impl Tool for FindFiles {
    fn spec(&self) -> ToolSpec {
        builtin_spec(
            ("find_files", &["search_files", "glob_search"]),
            ToolAccess::Read,
            "Find files by name",
            &[("glob", ParamType::String, "such as *.rs or src/**/test_*")],
        )
    }

    async fn run(&self, arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, SandboxGone> {
        into_result(find_by_glob(arguments, env.workspace.as_ref()).await)
    }
}

async fn find_by_glob(arguments: &Arguments, workspace: &dyn Workspace) -> Result<ToolOutput, ToolError> {
    let glob = relative_path(required_text(arguments, "glob")?)?;
    if glob.is_empty() {
        return Err(bad_arguments("the glob is empty. Give one such as *.rs or src/**/test_*"));
    }
    // A bare name is searched for in every directory.
    let full = if glob.contains('/') { glob.clone() } else { format!("**/{glob}") };
    let found = match workspace.find_files(&full, MAX_FILES).await {
        Ok(found) => found,
        Err(error) => return Err(from_workspace_error(workspace, "", error).await),
    };
    if found.items.is_empty() {
        let text = format!("No file matches `{}`. Ignored files and .git were left out", visible_path(&glob));
        return Ok(ToolOutput::ok(text));
    }
    let mut text: String = found.items.iter().map(|entry| visible_path(&entry.path) + "\n").collect();
    if found.more {
        text.push_str(&format!("[the first {MAX_FILES}; there are more: use a narrower glob]"));
    }
    let mut output = ToolOutput::ok(text);
    output.truncated = found.more;
    Ok(output)
}
