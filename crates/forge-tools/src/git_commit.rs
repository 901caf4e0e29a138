//! `git_commit`: commits what is staged (TOOL-9).

use crate::arguments::{Arguments, bad, spec, text};
use crate::fault::{Stop, end, failed};
use crate::git::{Kind, git, identity, refused, said, with};
use forge_ports::tool::{SandboxGone, ToolEnv};
use forge_ports::{Tool, async_trait};
use forge_types::{ErrorKind, ParamType, ToolAccess, ToolOutput, ToolSpec};

/// Longest message.
const MAX_MESSAGE: usize = 64 << 10;

/// Commits.
#[derive(Debug)]
pub(crate) struct GitCommit;

#[async_trait]
impl Tool for GitCommit {
    fn spec(&self) -> ToolSpec {
        spec(
            ("git_commit", &[]),
            ToolAccess::Write,
            "Commit what is staged",
            &[("message", ParamType::String, "")],
        )
    }

    async fn run(&self, arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, SandboxGone> {
        end(commit(arguments, env).await)
    }
}

async fn commit(arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, Stop> {
    let message = text(arguments, "message")?;
    if message.trim().is_empty() {
        return Err(bad("the message is empty"));
    }
    if message.contains('\0') || message.len() > MAX_MESSAGE {
        return Err(bad("the message holds a NUL character or is longer than 64 kB"));
    }
    let staged = git(env, Kind::Reading, &["diff", "--cached", "--quiet", "--no-ext-diff", "--"]).await?;
    match staged.exit_code {
        0 => return Err(failed(ErrorKind::Execution, "No staged changes to commit.")),
        1 => {}
        _ => return Err(refused(&staged)),
    }
    // Hooks run as a developer expects: they are in the box as all else. Nobody is there who could unlock a key.
    let line = ["commit", "--no-gpg-sign", "-m", message];
    let result = with(env, Kind::Writing, identity(env).await?, &line).await?;
    if result.exit_code != 0 {
        let text = format!(
            "Nothing was committed: git, or a hook of the repository, ended with exit code {}:\n{}",
            result.exit_code,
            said(&result)
        );
        let mut output = ToolOutput::failed(ErrorKind::Execution, text);
        output.exit_code = Some(result.exit_code);
        return Ok(output);
    }
    let mut output = ToolOutput::ok(format!("Committed: {}", said(&result)));
    output.duration_ms = result.duration_ms;
    Ok(output)
}
