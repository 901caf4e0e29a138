//! `git_create_branch`: creates a branch and switches to it (TOOL-9).

use crate::arguments::{Arguments, bad_arguments, builtin_spec, optional_text, required_text};
use crate::git::{GitCommandKind, git_failure, invalid_branch_reason, resolve_commit, run_git};
use crate::path::visible_path;
use crate::tool_error::{ToolError, into_result};
use forge_ports::tool::{SandboxGone, ToolEnv};
use forge_ports::{Tool, async_trait};
use forge_types::{ParamType, ToolAccess, ToolOutput, ToolSpec};

/// Creates a branch.
#[derive(Debug)]
pub(crate) struct GitCreateBranch;

#[async_trait]
impl Tool for GitCreateBranch {
    fn spec(&self) -> ToolSpec {
        builtin_spec(
            ("git_create_branch", &[]),
            ToolAccess::Write,
            "Create a branch and switch to it",
            &[("branch_name", ParamType::String, ""), ("base_ref?", ParamType::String, "default HEAD")],
        )
    }

    async fn run(&self, arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, SandboxGone> {
        into_result(create_branch(arguments, env).await)
    }
}

async fn create_branch(arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, ToolError> {
    let name = required_text(arguments, "branch_name")?;
    if let Some(why) = invalid_branch_reason(name) {
        return Err(bad_arguments(format!("`{}` can't be the name of a branch: {why}", visible_path(name))));
    }
    let base = match optional_text(arguments, "base_ref")?.filter(|base| !base.is_empty()) {
        Some(base) => Some(resolve_commit(env, base).await?),
        None => None,
    };
    let mut line = vec!["switch", "--no-track", "--create", name];
    line.extend(base.as_deref());
    let result = run_git(env, GitCommandKind::Writing, &line).await?;
    if result.exit_code != 0 {
        return Err(git_failure(&result));
    }
    let from = base.map_or_else(String::new, |hash| format!(" at {}", &hash[..hash.len().min(12)]));
    Ok(ToolOutput::ok(format!("Switched to the new branch `{name}`{from}")))
}
