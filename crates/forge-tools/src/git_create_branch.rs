//! `git_create_branch`: makes a branch and switches to it (TOOL-9).

use crate::arguments::{Arguments, bad, optional_text, spec, text};
use crate::fault::{Stop, end};
use crate::git::{Kind, bad_branch, commit, git, refused};
use crate::path::visible;
use forge_ports::tool::{SandboxGone, ToolEnv};
use forge_ports::{Tool, async_trait};
use forge_types::{ParamType, ToolAccess, ToolOutput, ToolSpec};

/// Makes a branch.
#[derive(Debug)]
pub(crate) struct GitCreateBranch;

#[async_trait]
impl Tool for GitCreateBranch {
    fn spec(&self) -> ToolSpec {
        spec(
            ("git_create_branch", &[]),
            ToolAccess::Write,
            "Create a branch and switch to it",
            &[("branch_name", ParamType::String, ""), ("base_ref?", ParamType::String, "default HEAD")],
        )
    }

    async fn run(&self, arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, SandboxGone> {
        end(create(arguments, env).await)
    }
}

async fn create(arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, Stop> {
    let name = text(arguments, "branch_name")?;
    if let Some(why) = bad_branch(name) {
        return Err(bad(format!("`{}` can't be the name of a branch: {why}", visible(name))));
    }
    let base = match optional_text(arguments, "base_ref")?.filter(|base| !base.is_empty()) {
        Some(base) => Some(commit(env, base).await?),
        None => None,
    };
    let mut line = vec!["switch", "--no-track", "--create", name];
    line.extend(base.as_deref());
    let result = git(env, Kind::Writing, &line).await?;
    if result.exit_code != 0 {
        return Err(refused(&result));
    }
    let from = base.map_or_else(String::new, |hash| format!(" at {}", &hash[..hash.len().min(12)]));
    Ok(ToolOutput::ok(format!("Switched to the new branch `{name}`{from}")))
}
