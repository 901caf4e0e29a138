//! `git_commit`: a commit of the staged changes (TOOL-9).

use crate::arguments::{Arguments, bad_arguments, builtin_spec, required_text};
use crate::git::{GitCommandKind, author_identity, combined_output, git_failure, run_git, run_git_with};
use crate::tool_error::{ToolError, into_result, tool_failure};
use forge_ports::tool::{SandboxGone, ToolEnv};
use forge_ports::{Tool, async_trait};
use forge_types::{ErrorKind, ParamType, ToolAccess, ToolOutput, ToolSpec};

/// Maximum size of a message in bytes.
const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// Commits the staged changes.
#[derive(Debug)]
pub(crate) struct GitCommit;

#[async_trait]
impl Tool for GitCommit {
    fn spec(&self) -> ToolSpec {
        builtin_spec(
            ("git_commit", &[]),
            ToolAccess::Write,
            "Commit what is staged",
            &[("message", ParamType::String, "")],
        )
    }

    async fn run(&self, arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, SandboxGone> {
        into_result(commit_changes(arguments, env).await)
    }
}

async fn commit_changes(arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, ToolError> {
    let message = required_text(arguments, "message")?;
    if message.trim().is_empty() {
        return Err(bad_arguments("the message is empty"));
    }
    if message.contains('\0') || message.len() > MAX_MESSAGE_BYTES {
        return Err(bad_arguments("the message contains a NUL character or is longer than 64 kB"));
    }
    let staged =
        run_git(env, GitCommandKind::Reading, &["diff", "--cached", "--quiet", "--no-ext-diff", "--"])
            .await?;
    match staged.exit_code {
        0 => return Err(tool_failure(ErrorKind::Execution, "No staged changes to commit.")),
        1 => {}
        _ => return Err(git_failure(&staged)),
    }
    // Hooks run as a developer expects, within the sandbox. Signing is off because no user is there to unlock a key.
    let line = ["commit", "--no-gpg-sign", "-m", message];
    let result = run_git_with(env, GitCommandKind::Writing, author_identity(env).await?, &line).await?;
    if result.exit_code != 0 {
        let text = format!(
            "Nothing was committed: git, or a hook of the repository, failed with exit code {}:\n{}",
            result.exit_code,
            combined_output(&result)
        );
        let mut output = ToolOutput::failed(ErrorKind::Execution, text);
        output.exit_code = Some(result.exit_code);
        return Ok(output);
    }
    let mut output = ToolOutput::ok(format!("Committed: {}", combined_output(&result)));
    output.duration_ms = result.duration_ms;
    Ok(output)
}
