//! `git_diff`: differences from the index or from a commit (TOOL-9).

use crate::arguments::{Arguments, bad_arguments, builtin_spec, optional_flag, optional_text};
use crate::git::{GitCommandKind, MAX_OUTPUT_BYTES, git_failure, query_git, resolve_commit, run_git};
use crate::path::{relative_path, visible_path};
use crate::terminal::{cut_middle, render_output};
use crate::tool_error::{ToolError, into_result};
use forge_ports::tool::{SandboxGone, ToolEnv};
use forge_ports::{Tool, async_trait};
use forge_types::{ParamType, ToolAccess, ToolOutput, ToolSpec};

/// Maximum number of untracked files listed.
const MAX_UNTRACKED: usize = 20;

/// Shows a diff.
#[derive(Debug)]
pub(crate) struct GitDiff;

#[async_trait]
impl Tool for GitDiff {
    fn spec(&self) -> ToolSpec {
        builtin_spec(
            ("git_diff", &[]),
            // The tool itself changes nothing, but git may start filters that the repository configures, and these may.
            ToolAccess::Write,
            "Uncommitted changes",
            &[
                ("path?", ParamType::String, ""),
                ("staged?", ParamType::Boolean, "only what is staged"),
                ("base_ref?", ParamType::String, "compare with this commit"),
            ],
        )
    }

    async fn run(&self, arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, SandboxGone> {
        into_result(show_diff(arguments, env).await)
    }
}

async fn show_diff(arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, ToolError> {
    let path =
        optional_text(arguments, "path")?.map(relative_path).transpose()?.filter(|path| !path.is_empty());
    let staged = optional_flag(arguments, "staged")?;
    let base = optional_text(arguments, "base_ref")?.filter(|base| !base.is_empty());
    if staged && base.is_some() {
        return Err(bad_arguments("give either staged or base_ref, not both"));
    }
    let base = match base {
        Some(name) => Some(resolve_commit(env, name).await?),
        None => None,
    };
    let mut line = vec!["diff", "--no-color", "--no-ext-diff", "--no-textconv"];
    if staged {
        line.push("--cached");
    }
    line.extend(base.as_deref());
    line.push("--");
    line.extend(path.as_deref());
    let result = run_git(env, GitCommandKind::Reading, &line).await?;
    // Outside a repository git compares files and uses other exit codes.
    if result.exit_code != 0 {
        return Err(git_failure(&result));
    }
    let whole = render_output(&result.stdout.bytes);
    let mut text = cut_middle(&whole, MAX_OUTPUT_BYTES);
    let truncated = result.stdout.is_truncated() || text.len() < whole.len();
    if truncated {
        let line: Vec<&str> =
            [&["diff", "--stat=100", "--stat-count=50", "--no-color", "--no-ext-diff"], &line[4..]].concat();
        text = format!(
            "{}\n[The diff is cut. Give a path to see all of a part.]\n{text}",
            query_git(env, &line).await?
        );
    }
    if whole.trim().is_empty() {
        text = if staged { "No staged changes." } else { "No changes." }.to_owned();
    }
    if !staged {
        text.push_str(&list_untracked(env, path.as_deref()).await?);
    }
    let mut output = ToolOutput::ok(text);
    output.truncated = truncated;
    output.duration_ms = result.duration_ms;
    if truncated {
        output.output_chars = output.output_chars.max(result.stdout.total);
    }
    Ok(output)
}

/// Lists the untracked files, which no diff shows.
async fn list_untracked(env: &ToolEnv, path: Option<&str>) -> Result<String, ToolError> {
    let mut line = vec!["ls-files", "--others", "--exclude-standard", "-z", "--"];
    line.extend(path);
    let result = run_git(env, GitCommandKind::Reading, &line).await?;
    if result.exit_code != 0 {
        return Err(git_failure(&result));
    }
    let names = String::from_utf8_lossy(&result.stdout.bytes);
    let names: Vec<&str> = names.split('\0').filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Ok(String::new());
    }
    let shown: Vec<String> = names.iter().take(MAX_UNTRACKED).map(|name| visible_path(name)).collect();
    let more = if result.stdout.is_truncated() || names.len() > MAX_UNTRACKED { " …" } else { "" };
    Ok(format!("\nUntracked files, not in the diff: {}{more}", shown.join(", ")))
}
