//! Running git in the box, never on the host: with arguments, never a shell line, and never with a question.

use crate::fault::{Stop, explain, failed};
use crate::terminal::{cut_middle, plain};
use forge_ports::sandbox::{ExecResult, ExecSpec, Leftovers};
use forge_ports::tool::ToolEnv;
use forge_types::ErrorKind;
use std::collections::BTreeMap;
use std::time::Duration;

/// Bytes of output that the model sees.
pub(crate) const MAX_OUTPUT: usize = 50 * 1024;
/// Time of a command that is no more than a question.
const QUICK: Duration = Duration::from_secs(60);
/// Who commits where nobody is configured.
const NOBODY: (&str, &str) = ("Forge", "forge@localhost");

/// What a command may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It asks: the index is not refreshed on the way, no program of the configuration is started for it.
    Reading,
    /// It changes the repository.
    Writing,
}

/// Settings of every command. The workspace may belong to another user than the box runs as, and to nobody else.
const SETTINGS: [(&str, &str); 5] = [
    ("safe.directory", "*"),
    ("color.ui", "false"),
    ("core.quotePath", "false"),
    ("core.fsmonitor", "false"),
    ("advice.detachedHead", "false"),
];

fn environment(kind: Kind) -> BTreeMap<String, String> {
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
    if kind == Kind::Reading {
        env.insert("GIT_OPTIONAL_LOCKS".into(), "0".into());
        // Hooks would inherit it, to whom patterns may be patterns.
        env.insert("GIT_LITERAL_PATHSPECS".into(), "1".into());
    }
    env.insert("GIT_CONFIG_COUNT".into(), SETTINGS.len().to_string());
    for (n, (key, value)) in SETTINGS.iter().enumerate() {
        env.insert(format!("GIT_CONFIG_KEY_{n}"), (*key).to_owned());
        env.insert(format!("GIT_CONFIG_VALUE_{n}"), (*value).to_owned());
    }
    env
}

/// Runs git with these arguments; its exit code is for the caller to judge.
pub(crate) async fn git(env: &ToolEnv, kind: Kind, arguments: &[&str]) -> Result<ExecResult, Stop> {
    with(env, kind, BTreeMap::new(), arguments).await
}

/// As [`git`], with more variables.
pub(crate) async fn with(
    env: &ToolEnv,
    kind: Kind,
    variables: BTreeMap<String, String>,
    arguments: &[&str],
) -> Result<ExecResult, Stop> {
    let mut all = environment(kind);
    all.extend(variables);
    let most = if kind == Kind::Reading { QUICK } else { env.default_timeout };
    let spec = ExecSpec {
        argv: std::iter::once("git").chain(arguments.iter().copied()).map(str::to_owned).collect(),
        cwd: String::new(),
        env: all,
        timeout: most.min(env.max_timeout),
        keep_bytes: MAX_OUTPUT,
        leftovers: Leftovers::Kill,
        also: vec!["git".to_owned()],
    };
    let result = match env.workspace.exec(spec, &()).await {
        Ok(result) => result,
        Err(error) => return Err(explain(env.workspace.as_ref(), "", error).await),
    };
    if result.timed_out {
        let text = format!("git did not end within {} s and was ended", most.as_secs());
        return Err(failed(ErrorKind::Timeout, text));
    }
    if result.exit_code == 127 {
        return Err(failed(ErrorKind::NotFound, "there is no git in the sandbox"));
    }
    Ok(result)
}

/// The output of a command that must work.
pub(crate) async fn asked(env: &ToolEnv, arguments: &[&str]) -> Result<String, Stop> {
    let result = git(env, Kind::Reading, arguments).await?;
    if result.exit_code == 0 { Ok(plain(&result.stdout.bytes)) } else { Err(refused(&result)) }
}

/// What git said when it failed.
pub(crate) fn refused(result: &ExecResult) -> Stop {
    let said = said(result);
    if said.to_lowercase().contains("not a git repository") {
        let text = "/workspace is not a git repository. `git init` in run_shell makes one; a repository in a folder \
                    of it is reached by `git -C folder …` in run_shell";
        return failed(ErrorKind::Execution, text);
    }
    failed(ErrorKind::Execution, format!("git failed with exit code {}: {said}", result.exit_code))
}

/// All that a command said, its errors last.
pub(crate) fn said(result: &ExecResult) -> String {
    let (out, err) = (plain(&result.stdout.bytes), plain(&result.stderr.bytes));
    let both = format!("{}\n{}", out.trim_end(), err.trim_end());
    cut_middle(both.trim(), MAX_OUTPUT / 4)
}

/// The commit that a name stands for, as its hash.
pub(crate) async fn commit(env: &ToolEnv, name: &str) -> Result<String, Stop> {
    let wanted = format!("{name}^{{commit}}");
    let result =
        git(env, Kind::Reading, &["rev-parse", "--verify", "--quiet", "--end-of-options", &wanted]).await?;
    let hash = plain(&result.stdout.bytes).trim().to_owned();
    if result.exit_code == 0 && !hash.is_empty() {
        return Ok(hash);
    }
    if result.exit_code > 1 && !result.stderr.bytes.is_empty() {
        return Err(refused(&result));
    }
    let text = format!("there is no commit `{}` in the repository", crate::path::visible(name));
    Err(failed(ErrorKind::NotFound, text))
}

/// Variables that name an author where the repository and its user name none.
pub(crate) async fn identity(env: &ToolEnv) -> Result<BTreeMap<String, String>, Stop> {
    let known =
        git(env, Kind::Reading, &["config", "--get-regexp", "^(user|author|committer)\\.(name|email)$"]);
    let known = plain(&known.await?.stdout.bytes);
    let has = |who: &str, what: &str| {
        let key = format!("{who}.{what} ");
        known.lines().any(|line| line.strip_prefix(&key).is_some_and(|value| !value.trim().is_empty()))
    };
    let mut variables = BTreeMap::new();
    for (what, value) in [("name", NOBODY.0), ("email", NOBODY.1)] {
        for who in ["author", "committer"] {
            if !has("user", what) && !has(who, what) {
                let name = format!("GIT_{}_{}", who.to_uppercase(), what.to_uppercase());
                variables.insert(name, value.to_owned());
            }
        }
    }
    Ok(variables)
}

/// Why no branch can have this name (the rules of `git check-ref-format --branch`).
pub(crate) fn bad_branch(name: &str) -> Option<&'static str> {
    let forbidden = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    match name {
        "" => Some("it is empty"),
        "@" | "HEAD" => Some("it means something else in git"),
        _ if name.starts_with('-') => Some("it begins with `-`"),
        _ if name.contains("..") => Some("it holds `..`"),
        _ if name.contains("@{") => Some("it holds `@{`"),
        _ if name.chars().any(forbidden) => Some("it holds a space, a control character or one of ~^:?*[\\"),
        _ if name.ends_with('.') => Some("it ends with `.`"),
        _ if name.split('/').any(str::is_empty) => Some("a part of it between slashes is empty"),
        _ if name.split('/').any(|part| part.starts_with('.')) => Some("a part of it begins with `.`"),
        _ if name.split('/').any(|part| part.ends_with(".lock")) => Some("a part of it ends with `.lock`"),
        _ if name.len() > 200 => Some("it is longer than 200 bytes"),
        _ => None,
    }
}
