//! Runs git in the sandbox, never on the host: with arguments instead of a shell line, and without prompts.

use crate::terminal::{cut_middle, render_output};
use crate::tool_error::{ToolError, tool_failure};
use crate::workspace_error::from_workspace_error;
use forge_ports::sandbox::{BackgroundPolicy, ExecResult, ExecSpec, InheritedEnv};
use forge_ports::tool::ToolEnv;
use forge_types::ErrorKind;
use std::collections::BTreeMap;
use std::time::Duration;

/// Maximum size of the output shown to the model, in bytes.
pub(crate) const MAX_OUTPUT_BYTES: usize = 50 * 1024;
/// Time limit of a query.
const QUERY_TIMEOUT: Duration = Duration::from_secs(60);
/// The author of commits if none is configured.
const FALLBACK_IDENTITY: (&str, &str) = ("Forge", "forge@localhost");

/// The kind of access of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GitCommandKind {
    /// A query: it does not refresh the index and starts no configured program.
    Reading,
    /// A command that changes the repository.
    Writing,
}

/// Settings of every command. The workspace may belong to another user than the sandbox's, but to no third party.
const GIT_SETTINGS: [(&str, &str); 5] = [
    ("safe.directory", "*"),
    ("color.ui", "false"),
    ("core.quotePath", "false"),
    ("core.fsmonitor", "false"),
    ("advice.detachedHead", "false"),
];

fn git_environment(kind: GitCommandKind) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from(
        [
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_PAGER", "cat"),
            ("GIT_EDITOR", ":"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("LC_ALL", "C.UTF-8"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    if kind == GitCommandKind::Reading {
        env.insert("GIT_OPTIONAL_LOCKS".into(), "0".into());
        // Not set for writing, since hooks would inherit it and may rely on patterns.
        env.insert("GIT_LITERAL_PATHSPECS".into(), "1".into());
    }
    env.insert("GIT_CONFIG_COUNT".into(), GIT_SETTINGS.len().to_string());
    for (n, (key, value)) in GIT_SETTINGS.iter().enumerate() {
        env.insert(format!("GIT_CONFIG_KEY_{n}"), (*key).to_owned());
        env.insert(format!("GIT_CONFIG_VALUE_{n}"), (*value).to_owned());
    }
    env
}

/// Runs git with these arguments; the caller checks the exit code.
pub(crate) async fn run_git(
    env: &ToolEnv,
    kind: GitCommandKind,
    arguments: &[&str],
) -> Result<ExecResult, ToolError> {
    run_git_with(env, kind, BTreeMap::new(), arguments).await
}

/// Runs git like [`run_git`], with additional variables.
pub(crate) async fn run_git_with(
    env: &ToolEnv,
    kind: GitCommandKind,
    variables: BTreeMap<String, String>,
    arguments: &[&str],
) -> Result<ExecResult, ToolError> {
    let mut all = git_environment(kind);
    all.extend(variables);
    let most = if kind == GitCommandKind::Reading { QUERY_TIMEOUT } else { env.default_timeout };
    let spec = ExecSpec {
        argv: std::iter::once("git").chain(arguments.iter().copied()).map(str::to_owned).collect(),
        cwd: String::new(),
        env: all,
        timeout: most.min(env.max_timeout),
        keep_bytes: MAX_OUTPUT_BYTES,
        inherited_env: InheritedEnv::All,
        stdin: None,
        background: BackgroundPolicy::Kill,
        also: vec!["git".to_owned()],
    };
    let result = match env.workspace.exec(spec, &()).await {
        Ok(result) => result,
        Err(error) => return Err(from_workspace_error(env.workspace.as_ref(), "", error).await),
    };
    if result.timed_out {
        let text = format!("git did not finish within {} s and was killed", most.as_secs());
        return Err(tool_failure(ErrorKind::Timeout, text));
    }
    if result.exit_code == 127 {
        return Err(tool_failure(ErrorKind::NotFound, "git is not installed in the sandbox"));
    }
    Ok(result)
}

/// Returns the output of a command that must succeed.
pub(crate) async fn query_git(env: &ToolEnv, arguments: &[&str]) -> Result<String, ToolError> {
    let result = run_git(env, GitCommandKind::Reading, arguments).await?;
    if result.exit_code == 0 { Ok(render_output(&result.stdout.bytes)) } else { Err(git_failure(&result)) }
}

/// Returns the error of a failed git command, with its message.
pub(crate) fn git_failure(result: &ExecResult) -> ToolError {
    let said = combined_output(result);
    if said.to_lowercase().contains("not a git repository") {
        let text = "/workspace is not a git repository. Create one with `git init` in run_shell, or reach one in a \
        subdirectory with `git -C DIRECTORY …` in run_shell";
        return tool_failure(ErrorKind::Execution, text);
    }
    tool_failure(ErrorKind::Execution, format!("git failed with exit code {}: {said}", result.exit_code))
}

/// Returns the whole output of a command, standard error last.
pub(crate) fn combined_output(result: &ExecResult) -> String {
    let (out, err) = (render_output(&result.stdout.bytes), render_output(&result.stderr.bytes));
    let both = format!("{}\n{}", out.trim_end(), err.trim_end());
    cut_middle(both.trim(), MAX_OUTPUT_BYTES / 4)
}

/// Resolves a name to the hash of a commit.
pub(crate) async fn resolve_commit(env: &ToolEnv, name: &str) -> Result<String, ToolError> {
    let wanted = format!("{name}^{{commit}}");
    let result = run_git(
        env,
        GitCommandKind::Reading,
        &["rev-parse", "--verify", "--quiet", "--end-of-options", &wanted],
    )
    .await?;
    let hash = render_output(&result.stdout.bytes).trim().to_owned();
    if result.exit_code == 0 && !hash.is_empty() {
        return Ok(hash);
    }
    if result.exit_code > 1 && !result.stderr.bytes.is_empty() {
        return Err(git_failure(&result));
    }
    let text = format!("there is no commit `{}` in the repository", crate::path::visible_path(name));
    Err(tool_failure(ErrorKind::NotFound, text))
}

/// Returns variables that name an author if neither the repository nor its user configures one.
pub(crate) async fn author_identity(env: &ToolEnv) -> Result<BTreeMap<String, String>, ToolError> {
    let known = run_git(
        env,
        GitCommandKind::Reading,
        &["config", "--get-regexp", "^(user|author|committer)\\.(name|email)$"],
    );
    let known = render_output(&known.await?.stdout.bytes);
    let has = |who: &str, what: &str| {
        let key = format!("{who}.{what} ");
        known.lines().any(|line| line.strip_prefix(&key).is_some_and(|value| !value.trim().is_empty()))
    };
    let mut variables = BTreeMap::new();
    for (what, value) in [("name", FALLBACK_IDENTITY.0), ("email", FALLBACK_IDENTITY.1)] {
        for who in ["author", "committer"] {
            if !has("user", what) && !has(who, what) {
                let name = format!("GIT_{}_{}", who.to_uppercase(), what.to_uppercase());
                variables.insert(name, value.to_owned());
            }
        }
    }
    Ok(variables)
}

/// Returns why a branch name is invalid (the rules of `git check-ref-format --branch`).
pub(crate) fn invalid_branch_reason(name: &str) -> Option<&'static str> {
    let forbidden = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    match name {
        "" => Some("it is empty"),
        "@" | "HEAD" => Some("it has a special meaning in git"),
        _ if name.starts_with('-') => Some("it begins with `-`"),
        _ if name.contains("..") => Some("it holds `..`"),
        _ if name.contains("@{") => Some("it holds `@{`"),
        _ if name.chars().any(forbidden) => {
            Some("it contains a space, a control character or one of ~^:?*[\\")
        }
        _ if name.ends_with('.') => Some("it ends with `.`"),
        _ if name.split('/').any(str::is_empty) => Some("a part of it between slashes is empty"),
        _ if name.split('/').any(|part| part.starts_with('.')) => Some("a part of it begins with `.`"),
        _ if name.split('/').any(|part| part.ends_with(".lock")) => Some("a part of it ends with `.lock`"),
        _ if name.len() > 200 => Some("it is longer than 200 bytes"),
        _ => None,
    }
}
