//! What the tools want to be told, composed by the configuration.

use std::fmt;

/// How the tools of Forge are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolOptions {
    /// `git.read_only`.
    pub git: GitAccess,
    /// Where pull requests are opened.
    pub github: GitHubOptions,
}

/// What the git tools may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GitAccess {
    /// Everything.
    #[default]
    Full,
    /// Only look: the tools that commit, branch and open pull requests do not exist.
    ReadOnly,
}

/// The API that pull requests are opened through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitHubOptions {
    /// The API's address without a slash at its end; GitHub Enterprise has it at `https://HOST/api/v3`.
    pub api: String,
    /// Hosts that Forge's own tools may reach beside `api.github.com`: exact names or `*.suffix`.
    pub allow: Vec<String>,
    /// Who opens them (`GITHUB_TOKEN`).
    pub token: Option<GitHubToken>,
    /// The proxy for HTTPS, if the outside is reached through one.
    pub proxy: Option<String>,
}

/// The API of github.com.
pub(crate) const GITHUB_API: &str = "https://api.github.com";

impl Default for GitHubOptions {
    fn default() -> Self {
        Self { api: GITHUB_API.to_owned(), allow: Vec::new(), token: None, proxy: None }
    }
}

/// A token. It shows itself to nobody and never enters the sandbox.
#[derive(Clone, PartialEq, Eq)]
pub struct GitHubToken(String);

impl GitHubToken {
    /// Wraps a token; surrounding white space, a common paste error, is dropped.
    pub fn new(secret: impl AsRef<str>) -> Self {
        Self(secret.as_ref().trim().to_owned())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for GitHubToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}
