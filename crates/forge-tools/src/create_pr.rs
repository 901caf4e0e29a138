//! `create_pr`: opens a pull request on GitHub (TOOL-9).
//!
//! The request is made outside the sandbox and touches no file; only git runs in the sandbox, to determine the branch.
//! The request goes to the repository that the remote `origin` named when the run began, or to one in the user's
//! settings: neither a model nor anything a run writes into the repository can send the user's token or a text
//! elsewhere. GitHub detects a second request for the same branches, so that a repetition after a crash opens nothing
//! twice.

use crate::arguments::{Arguments, bad_arguments, builtin_spec, optional_text, required_text};
use crate::git::query_git;
use crate::github::{GitHubApi, GitHubFailure, RequestBody};
use crate::options::GitHubOptions;
use crate::path::visible_path;
use crate::tool_error::{ToolError, into_result, tool_failure};
use forge_ports::tool::{SandboxGone, ToolEnv};
use forge_ports::{Tool, async_trait};
use forge_types::{ErrorKind, ParamType, PullRequestRules, ToolAccess, ToolOutput, ToolSpec};
use reqwest::Method;
use serde_json::{Value, json};

/// Maximum lengths of title and body at GitHub, in characters.
const MAX_TITLE_CHARS: usize = 256;
const MAX_BODY_CHARS: usize = 65_536;

/// Opens pull requests.
#[derive(Debug)]
pub(crate) struct CreatePullRequest {
    api: GitHubApi,
}

impl CreatePullRequest {
    pub(crate) fn new(options: GitHubOptions) -> Self {
        Self { api: GitHubApi::new(options) }
    }
}

#[async_trait]
impl Tool for CreatePullRequest {
    fn spec(&self) -> ToolSpec {
        builtin_spec(
            ("create_pr", &[]),
            ToolAccess::Network,
            "Open a GitHub pull request; head must be pushed already",
            &[
                ("title", ParamType::String, ""),
                ("body", ParamType::String, ""),
                ("base?", ParamType::String, "default: the default branch"),
                ("head?", ParamType::String, "default: this branch"),
                (
                    "repo?",
                    ParamType::String,
                    "owner/name, default: origin; others only if the user permits them",
                ),
            ],
        )
    }

    async fn run(&self, arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, SandboxGone> {
        let mut output = into_result(self.open_pull_request(arguments, env).await)?;
        // Removes the token from any text of GitHub or the repository.
        if let Some(said) = output.content.inline_text() {
            output.content = self.api.redact(said).into();
        }
        Ok(output)
    }
}

/// The arguments of a call.
struct PullRequestDraft {
    repo: String,
    owner: String,
    title: String,
    body: String,
    base: String,
    head: String,
}

impl CreatePullRequest {
    async fn open_pull_request(&self, arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, ToolError> {
        let wanted = self.parse_request(arguments, env).await?;
        let path = format!("/repos/{}/pulls", wanted.repo);
        let body = json!({
            "title": wanted.title, "body": wanted.body, "head": wanted.head, "base": wanted.base,
        });
        let what = format!("repository `{}`", wanted.repo);
        let body = RequestBody { json: &body, idempotency_key: env.idempotency_key.as_deref() };
        let failure = match self.api.send_request(Method::POST, &path, Some(body)).await {
            Ok(answer) if answer.status.is_success() => {
                return Ok(ToolOutput::ok(format!("Opened {}", describe_pull(&answer.body))));
            }
            Ok(answer) => {
                let mut failure = answer.to_failure(&what);
                failure.unclear |= failure.why.contains("already exists");
                if answer.status.as_u16() == 422 && failure.why.contains("head") && !failure.unclear {
                    failure.why.push_str(&format!(
                        ". Is the branch `{}` on GitHub? It must be pushed first, which the sandbox can't do \
                        without network",
                        visible_path(&wanted.head)
                    ));
                }
                failure
            }
            Err(failure) => failure,
        };
        if failure.unclear {
            return self.find_existing(&wanted, failure).await;
        }
        Err(to_tool_error(failure))
    }

    /// Looks for the pull request after an answer that does not show whether it was created.
    async fn find_existing(
        &self,
        wanted: &PullRequestDraft,
        failure: GitHubFailure,
    ) -> Result<ToolOutput, ToolError> {
        let head = if wanted.head.contains(':') {
            wanted.head.clone()
        } else {
            format!("{}:{}", wanted.owner, wanted.head)
        };
        let path = format!(
            "/repos/{}/pulls?state=open&head={}&base={}",
            wanted.repo,
            encode_query(&head),
            encode_query(&wanted.base)
        );
        let there = match self.api.send_request(Method::GET, &path, None).await {
            Ok(answer) if answer.status.is_success() => answer.body.get(0).cloned(),
            _ => None,
        };
        match there {
            Some(pull) => {
                let text = format!(
                    "One already exists for these branches: {}. It was left unchanged",
                    describe_pull(&pull)
                );
                Ok(ToolOutput::ok(text))
            }
            None if failure.kind == ErrorKind::Execution => Err(to_tool_error(failure)),
            None => Err(tool_failure(
                failure.kind,
                format!(
                    "{}. It is unknown whether the pull request was opened: check the repository before trying again",
                    failure.why
                ),
            )),
        }
    }

    async fn parse_request(
        &self,
        arguments: &Arguments,
        env: &ToolEnv,
    ) -> Result<PullRequestDraft, ToolError> {
        let (title, body) = (required_text(arguments, "title")?.trim(), required_text(arguments, "body")?);
        if title.is_empty() || title.chars().count() > MAX_TITLE_CHARS {
            return Err(bad_arguments(format!("the title must have 1 to {MAX_TITLE_CHARS} characters")));
        }
        if body.chars().count() > MAX_BODY_CHARS {
            return Err(bad_arguments(format!("the body has more than {MAX_BODY_CHARS} characters")));
        }
        let given = |name| optional_text(arguments, name).map(|text| text.filter(|text| !text.is_empty()));
        let (repo, head, base) = (given("repo")?, given("head")?, given("base")?);
        let permitted = PermittedRepos::from_rules(&env.pull_requests, &self.api);
        let (owner, name) = match repo {
            Some(repo) => permitted.check_repository(
                parse_repository(repo).ok_or_else(|| bad_arguments("repo must be `owner/name`"))?,
            )?,
            None => self.origin_repository(&env.pull_requests)?,
        };
        let repo = format!("{owner}/{name}");
        let head = match head {
            Some(head) => permitted.resolve_head(head, &owner)?,
            // The run chooses the name of its branch, so the name is checked too.
            None => permitted.resolve_head(&current_branch(env).await?, &owner)?,
        };
        let base = match base {
            Some(base) => base.to_owned(),
            None => self.default_branch(&repo).await?,
        };
        let plain = |name: &str| name.chars().all(|c| !c.is_control() && c != ' ');
        if !plain(&head) || !plain(&base) || base.contains(':') {
            return Err(bad_arguments("base and head are names of branches"));
        }
        if head == base {
            let text = format!(
                "head and base are both `{head}`. Make a branch with git_create_branch and push it first"
            );
            return Err(bad_arguments(text));
        }
        Ok(PullRequestDraft { repo, owner, title: title.to_owned(), body: body.to_owned(), base, head })
    }

    async fn default_branch(&self, repo: &str) -> Result<String, ToolError> {
        let answer = self
            .api
            .send_request(Method::GET, &format!("/repos/{repo}"), None)
            .await
            .map_err(to_tool_error)?;
        match answer.body["default_branch"].as_str() {
            Some(branch) if answer.status.is_success() => Ok(branch.to_owned()),
            _ => Err(to_tool_error(answer.to_failure(&format!("repository `{repo}`")))),
        }
    }

    /// Returns the repository that `origin` named when the run began.
    fn origin_repository(&self, rules: &PullRequestRules) -> Result<(String, String), ToolError> {
        let origin = rules.origin.as_ref().ok_or_else(|| {
            bad_arguments(format!(
                "the remote `origin` named no repository on a server when the run began. {PERMISSION_HINT}"
            ))
        })?;
        if !self.api.serves_host(&origin.host) {
            let host = visible_path(&origin.host);
            return Err(bad_arguments(format!(
                "the remote `origin` is on {host}, not on GitHub. {PERMISSION_HINT}"
            )));
        }
        parse_repository(&origin.repository)
            .ok_or_else(|| bad_arguments("the remote `origin` names no `owner/name`"))
    }
}

/// A hint how to permit more repositories, worded for the model and the user.
const PERMISSION_HINT: &str = "Only the user can permit other repositories, in tools.create_pr.repositories";

/// Repositories that pull requests of a run may go to and come from; a model can't extend them.
struct PermittedRepos {
    /// Pairs of `owner` and `name`.
    repositories: Vec<(String, String)>,
}

impl PermittedRepos {
    fn from_rules(rules: &PullRequestRules, api: &GitHubApi) -> Self {
        let origin = rules.origin.as_ref().filter(|origin| api.serves_host(&origin.host));
        let all = origin.map(|origin| &origin.repository).into_iter().chain(&rules.repositories);
        Self { repositories: all.filter_map(|text| parse_repository(text)).collect() }
    }

    /// Returns a repository if pull requests may go there.
    fn check_repository(&self, wanted: (String, String)) -> Result<(String, String), ToolError> {
        // Names at GitHub are case-insensitive.
        let same = |(owner, name): &(String, String)| {
            owner.eq_ignore_ascii_case(&wanted.0) && name.eq_ignore_ascii_case(&wanted.1)
        };
        if self.repositories.iter().any(same) {
            return Ok(wanted);
        }
        let (owner, name) = wanted;
        Err(tool_failure(
            ErrorKind::Denied,
            format!(
                "no pull request may go to `{owner}/{name}`: it is not the remote `origin`. {PERMISSION_HINT}"
            ),
        ))
    }

    /// Resolves a branch of the repository, or `owner:branch` of a permitted repository.
    fn resolve_head(&self, head: &str, owner: &str) -> Result<String, ToolError> {
        let Some((from, branch)) = head.split_once(':') else { return Ok(head.to_owned()) };
        if branch.is_empty() || branch.contains(':') {
            return Err(bad_arguments("head must be a branch, or `owner:branch`"));
        }
        let known = |other: &str| other.eq_ignore_ascii_case(from);
        if known(owner) || self.repositories.iter().any(|(owner, _)| known(owner)) {
            return Ok(head.to_owned());
        }
        Err(tool_failure(
            ErrorKind::Denied,
            format!(
                "no pull request may come from `{}`: it owns no repository that is permitted. {PERMISSION_HINT}",
                visible_path(from)
            ),
        ))
    }
}

async fn current_branch(env: &ToolEnv) -> Result<String, ToolError> {
    let branch = query_git(env, &["branch", "--show-current"]).await?;
    match branch.trim() {
        "" => {
            Err(bad_arguments("no branch is checked out. Give head, or make a branch with git_create_branch"))
        }
        branch => Ok(branch.to_owned()),
    }
}

fn to_tool_error(failure: GitHubFailure) -> ToolError {
    tool_failure(failure.kind, failure.why)
}

fn describe_pull(pull: &Value) -> String {
    let url = pull["html_url"].as_str().unwrap_or("(GitHub gave no address)");
    format!("pull request #{}: {}", pull["number"].as_u64().unwrap_or_default(), visible_path(url))
}

/// Parses `owner/name`.
pub(crate) fn parse_repository(text: &str) -> Option<(String, String)> {
    let (owner, name) = text.trim_matches('/').split_once('/')?;
    let name = name.strip_suffix(".git").unwrap_or(name);
    let good = |part: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !matches!(part, "" | "." | "..") && part.len() <= 100 && part.chars().all(known)
    };
    (good(owner) && good(name)).then(|| (owner.to_owned(), name.to_owned()))
}

/// Returns host and path of a remote: a URL, or `user@host:path` as used by ssh. Credentials are dropped.
pub(crate) fn parse_remote(url: &str) -> Option<(String, String)> {
    let (authority, path) = match url.split_once("://") {
        Some(("https" | "http" | "ssh" | "git" | "git+ssh", rest)) => rest.split_once('/')?,
        Some(_) => return None,
        None => url.split_once(':').filter(|(host, _)| !host.contains('/'))?,
    };
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = host.split(':').next().unwrap_or_default();
    (!host.is_empty()).then(|| (host.to_owned(), path.to_owned()))
}

/// Encodes a value for the query of a URL (RFC 3986, 2.1).
fn encode_query(value: &str) -> String {
    let mut out = String::new();
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remotes_are_read() {
        for (url, wanted) in [
            ("https://github.com/o/n.git", Some(("github.com", "o/n.git"))),
            ("https://user:secret@github.com/o/n", Some(("github.com", "o/n"))),
            ("https://github.com:443/o/n", Some(("github.com", "o/n"))),
            ("git@github.com:o/n.git", Some(("github.com", "o/n.git"))),
            ("ssh://git@ssh.github.com:443/o/n.git", Some(("ssh.github.com", "o/n.git"))),
            ("/srv/git/n.git", None),
            ("../n", None),
            ("file:///srv/n", None),
            ("", None),
        ] {
            let read = parse_remote(url);
            assert_eq!(read.as_ref().map(|(host, path)| (host.as_str(), path.as_str())), wanted, "{url}");
        }
        assert_eq!(parse_repository("o/n.git"), Some(("o".into(), "n".into())));
        for bad in ["", "o", "o/", "o/n/x", "../n", "o/..", "o/n?x", "o /n", "ö/n"] {
            assert_eq!(parse_repository(bad), None, "{bad}");
        }
        assert_eq!(encode_query("o:feature/ü x"), "o%3Afeature%2F%C3%BC%20x");
    }

    #[test]
    fn an_api_serves_its_own_host() {
        let api = |url: &str| GitHubApi::new(GitHubOptions { api: url.into(), ..GitHubOptions::default() });
        assert!(api("https://api.github.com").serves_host("GitHub.com"));
        assert!(!api("https://api.github.com").serves_host("github.com.evil.org"));
        assert!(api("https://git.corp/api/v3").serves_host("git.corp"));
        assert!(api("https://api.corp.ghe.com").serves_host("corp.ghe.com"));
        assert!(!api("https://git.corp/api/v3").serves_host("github.com"));
    }
}
