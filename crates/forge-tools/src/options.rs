//! Options of the tools, built from the configuration.

use std::fmt;

/// Options of Forge's tools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolOptions {
    /// `git.read_only`.
    pub git: GitAccess,
    /// Access to GitHub for pull requests.
    pub github: GitHubOptions,
}

/// The permissions of the git tools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GitAccess {
    /// All tools.
    #[default]
    Full,
    /// Read-only tools: those that commit, branch and open pull requests do not exist.
    ReadOnly,
}

/// Options of the API for pull requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitHubOptions {
    /// The API's address without a trailing slash; GitHub Enterprise has it at `https://HOST/api/v3`.
    pub api: String,
    /// Hosts that Forge's own tools may reach in addition to `api.github.com`: exact names or `*.suffix`.
    pub allow: Vec<String>,
    /// The token (`GITHUB_TOKEN`).
    pub token: Option<GitHubToken>,
    /// The HTTPS proxy, if any.
    pub proxy: Option<String>,
}

/// The API of github.com.
pub(crate) const GITHUB_API: &str = "https://api.github.com";

impl Default for GitHubOptions {
    fn default() -> Self {
        Self { api: GITHUB_API.to_owned(), allow: Vec::new(), token: None, proxy: None }
    }
}

/// A token. It is never printed and never enters the sandbox.
#[derive(Clone, PartialEq, Eq)]
pub struct GitHubToken(String);

impl GitHubToken {
    /// Wraps a token without surrounding white space, a common paste error.
    pub fn new(secret: impl AsRef<str>) -> Self {
        Self(secret.as_ref().trim().to_owned())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for GitHubToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}
