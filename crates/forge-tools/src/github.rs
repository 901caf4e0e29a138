//! A client for GitHub's REST API (version 2022-11-28) with one host and one token.
//!
//! The token is sent to the configured host only. Redirects within that host are followed, since a renamed repository
//! answers with one; all others are refused.

use crate::options::{GITHUB_API, GitHubOptions, GitHubToken};
use forge_types::{ErrorKind, Timestamp};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, StatusCode, Url};
use serde_json::Value;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Time limit of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum size of a response in bytes.
const MAX_RESPONSE_BYTES: usize = 2 << 20;
/// Maximum number of redirects.
const MAX_REDIRECTS: usize = 3;

/// The failure of a request, worded for the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GitHubFailure {
    pub(crate) kind: ErrorKind,
    pub(crate) why: String,
    /// Whether the request may have taken effect.
    pub(crate) unclear: bool,
}

impl GitHubFailure {
    pub(crate) fn new(kind: ErrorKind, why: impl Into<String>) -> Self {
        Self { kind, why: why.into(), unclear: false }
    }
}

/// The body of a request that changes something.
#[derive(Clone, Copy)]
pub(crate) struct RequestBody<'a> {
    /// The content.
    pub(crate) json: &'a Value,
    /// The key that marks repetitions of the request (draft-ietf-httpapi-idempotency-key-header). GitHub ignores it;
    /// proxies and compatible servers may not.
    pub(crate) idempotency_key: Option<&'a str>,
}

/// A response with any status.
#[derive(Debug)]
pub(crate) struct GitHubResponse {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
    headers: HeaderMap,
}

/// A client for the API.
#[derive(Debug)]
pub(crate) struct GitHubApi {
    options: GitHubOptions,
    client: OnceLock<Result<Client, String>>,
}

impl GitHubApi {
    pub(crate) fn new(options: GitHubOptions) -> Self {
        Self { options, client: OnceLock::new() }
    }

    /// Returns the token and the API's address, if both are usable.
    fn token_and_url(&self) -> Result<(&GitHubToken, Url), GitHubFailure> {
        let token = self.options.token.as_ref().filter(|token| !token.reveal().is_empty()).ok_or_else(|| {
            let why = "there is no GitHub token. The user must set GITHUB_TOKEN where Forge runs; it can't be set \
            from inside the sandbox";
            GitHubFailure::new(ErrorKind::Auth, why)
        })?;
        let bad = |why: String| GitHubFailure::new(ErrorKind::ConfigInvalid, why);
        let api = &self.options.api;
        let url = Url::parse(api).map_err(|_| bad(format!("GitHub's address `{api}` is not a URL")))?;
        let host = url.host_str().unwrap_or_default().to_lowercase();
        let listed = GITHUB_API.ends_with(&format!("//{host}"))
            || self.options.allow.iter().any(|rule| rule_covers(rule, &host));
        if !listed {
            let why = format!("egress blocked: domain {host} not in allowlist (mode=allowlist)");
            return Err(GitHubFailure::new(ErrorKind::Denied, why));
        }
        let local = matches!(host.as_str(), "127.0.0.1" | "localhost" | "[::1]");
        if url.scheme() != "https" && !(url.scheme() == "http" && local) {
            return Err(bad(format!("the token for `{api}` is sent over https only")));
        }
        Ok((token, url))
    }

    /// Returns whether repositories on this host are reached through the API.
    pub(crate) fn serves_host(&self, host: &str) -> bool {
        let host = host.to_lowercase();
        let api = Url::parse(&self.options.api).ok();
        let api = api.as_ref().and_then(Url::host_str).unwrap_or_default();
        match api {
            "api.github.com" => matches!(host.as_str(), "github.com" | "www.github.com" | "ssh.github.com"),
            api => host == api || api.strip_prefix("api.") == Some(host.as_str()),
        }
    }

    /// Sends a request to a path below the API's address.
    pub(crate) async fn send_request(
        &self,
        method: Method,
        path: &str,
        body: Option<RequestBody<'_>>,
    ) -> Result<GitHubResponse, GitHubFailure> {
        let (token, base) = self.token_and_url()?;
        self.follow_redirects(method, &base, path, body, token).await
    }

    /// Removes the token from a text.
    pub(crate) fn redact(&self, text: &str) -> String {
        match self.options.token.as_ref().map(GitHubToken::reveal) {
            Some(token) if !token.is_empty() => text.replace(token, "***"),
            _ => text.to_owned(),
        }
    }

    async fn follow_redirects(
        &self,
        method: Method,
        base: &Url,
        path: &str,
        body: Option<RequestBody<'_>>,
        token: &GitHubToken,
    ) -> Result<GitHubResponse, GitHubFailure> {
        let bad = |_| GitHubFailure::new(ErrorKind::BadArguments, "the request's URL is invalid");
        let mut url = Url::parse(&format!("{}{path}", base.as_str().trim_end_matches('/'))).map_err(bad)?;
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.send_single(method.clone(), url.clone(), body, token).await?;
            if !answer.status.is_redirection() {
                return Ok(answer);
            }
            let to = answer.headers.get("location").and_then(|to| to.to_str().ok());
            let to = to.and_then(|to| url.join(to).ok());
            url = to.filter(|to| to.origin() == base.origin()).ok_or_else(|| {
                let why = "GitHub redirects to another host, where the token is not sent. Give the repository's \
                current name";
                GitHubFailure::new(ErrorKind::Denied, why)
            })?;
        }
        Err(GitHubFailure::new(ErrorKind::Unavailable, "GitHub redirects too often"))
    }

    async fn send_single(
        &self,
        method: Method,
        url: Url,
        body: Option<RequestBody<'_>>,
        token: &GitHubToken,
    ) -> Result<GitHubResponse, GitHubFailure> {
        let client = self.client.get_or_init(|| build_client(&self.options));
        let client =
            client.as_ref().map_err(|why| GitHubFailure::new(ErrorKind::Unavailable, why.clone()))?;
        let writes = method != Method::GET;
        let host = url.host_str().unwrap_or_default().to_owned();
        let mut request = client
            .request(method, url)
            .timeout(REQUEST_TIMEOUT)
            .bearer_auth(token.reveal())
            .header("accept", "application/vnd.github+json")
            .header("x-github-api-version", "2022-11-28");
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.json.to_string());
            if let Some(key) = body.idempotency_key {
                request = request.header("idempotency-key", key);
            }
        }
        let failed = |error: &reqwest::Error| GitHubFailure {
            kind: if error.is_timeout() { ErrorKind::Timeout } else { ErrorKind::Unavailable },
            why: match error.is_timeout() {
                true => format!("{host} did not answer within {} s", REQUEST_TIMEOUT.as_secs()),
                false => format!("{host} can't be reached: {}", root_cause(error)),
            },
            unclear: writes && !error.is_connect() && !error.is_builder(),
        };
        let mut response = request.send().await.map_err(|error| failed(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut bytes = Vec::new();
        while bytes.len() < MAX_RESPONSE_BYTES {
            match response.chunk().await {
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(error) => return Err(failed(&error)),
            }
        }
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Ok(GitHubResponse { status, body, headers })
    }
}

impl GitHubResponse {
    /// Returns GitHub's error message on one line.
    pub(crate) fn error_message(&self) -> String {
        let mut parts: Vec<String> = self.body["message"].as_str().map(str::to_owned).into_iter().collect();
        for error in self.body["errors"].as_array().into_iter().flatten().take(5) {
            let field = error["field"].as_str().unwrap_or_default();
            let said =
                error["message"].as_str().or_else(|| error["code"].as_str()).or_else(|| error.as_str());
            parts.extend(
                said.map(|said| if field.is_empty() { said.to_owned() } else { format!("{field}: {said}") }),
            );
        }
        let said = parts.join("; ");
        crate::terminal::escape_controls(&said.chars().take(500).collect::<String>())
    }

    /// Returns the failure for an unsuccessful response to a request for `what`.
    pub(crate) fn to_failure(&self, what: &str) -> GitHubFailure {
        let said = self.error_message();
        let header = |name: &str| self.headers.get(name).and_then(|value| value.to_str().ok());
        let limited = self.status == StatusCode::TOO_MANY_REQUESTS
            || self.status == StatusCode::FORBIDDEN
                && (header("x-ratelimit-remaining") == Some("0") || header("retry-after").is_some());
        if limited {
            let reset = header("x-ratelimit-reset").and_then(|at| at.parse::<i64>().ok());
            let when = match (header("retry-after"), reset) {
                (Some(seconds), _) => format!("Try again after {seconds} s"),
                (None, Some(at)) => {
                    format!("Try again after {}", Timestamp::from_micros(at.saturating_mul(1_000_000)))
                }
                (None, None) => "Try again later".to_owned(),
            };
            return GitHubFailure::new(
                ErrorKind::RateLimit,
                format!("GitHub: rate limited. {when} ({said})"),
            );
        }
        match self.status.as_u16() {
            401 => GitHubFailure::new(ErrorKind::Auth, format!("GitHub rejected the token (401: {said})")),
            403 => GitHubFailure::new(
                ErrorKind::Denied,
                format!("the token lacks permission for this (403: {said})"),
            ),
            404 => GitHubFailure::new(
                ErrorKind::NotFound,
                format!("GitHub has no {what}, or the token can't access it (404: {said})"),
            ),
            400 | 422 => {
                GitHubFailure::new(ErrorKind::Execution, format!("GitHub refused the request: {said}"))
            }
            status @ 500.. => {
                let why = format!("GitHub reports a server error ({status}: {said})");
                GitHubFailure { kind: ErrorKind::Unavailable, why, unclear: true }
            }
            status => {
                GitHubFailure::new(ErrorKind::Execution, format!("GitHub answered with {status}: {said}"))
            }
        }
    }
}

/// Returns whether a rule of an allow-list covers a host.
fn rule_covers(rule: &str, host: &str) -> bool {
    let rule = rule.trim().to_lowercase();
    match rule.strip_prefix("*.") {
        Some(suffix) => host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.')),
        None => rule == host,
    }
}

fn build_client(options: &GitHubOptions) -> Result<Client, String> {
    let none = |why: String| format!("the HTTP client could not be created: {why}");
    let mut builder = Client::builder()
        .user_agent(concat!("forge/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(Duration::from_secs(10))
        .no_proxy();
    if options.api.starts_with("https:") {
        // A provider that the process has already installed works too.
        let _ = rustls::crypto::ring::default_provider().install_default();
        if let Some(proxy) = &options.proxy {
            let proxy = reqwest::Proxy::all(proxy.as_str());
            builder = builder.proxy(proxy.map_err(|_| none("the proxy's URL is invalid".to_owned()))?);
        }
    } else {
        // Plain HTTP needs no certificates, so none are loaded.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| none(error.to_string()))?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        builder = builder.tls_backend_preconfigured(tls);
    }
    builder.build().map_err(|error| none(root_cause(&error)))
}

/// Returns the deepest cause of an error, without the URL.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
