//! The token endpoint: one request, one response, and its interpretation (RFC 6749, 5).

use super::LoginError;
use crate::Credentials;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use forge_types::Timestamp;
use reqwest::Client;
use secrecy::SecretString;
use serde_json::Value;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Largest size in bytes of a response.
const MAX_RESPONSE_BYTES: usize = 256 << 10;
/// Largest number of characters of a provider's message that are passed on.
const MAX_MESSAGE_CHARS: usize = 300;

/// A grant to exchange for tokens.
pub(super) enum TokenGrant<'a> {
    /// A code from the callback.
    Code {
        /// Code from the callback.
        code: &'a str,
        /// Verifier that the challenge was derived from.
        verifier: &'a str,
        /// Address of the callback.
        redirect: &'a str,
    },
    /// A refresh token.
    Refresh {
        /// Refresh token to exchange.
        token: &'a str,
    },
}

impl TokenGrant<'_> {
    fn form_body(&self, client_id: &str) -> String {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        match self {
            Self::Code { code, verifier, redirect } => form
                .append_pair("grant_type", "authorization_code")
                .append_pair("code", code)
                .append_pair("redirect_uri", redirect)
                .append_pair("code_verifier", verifier),
            Self::Refresh { token } => {
                form.append_pair("grant_type", "refresh_token").append_pair("refresh_token", token)
            }
        };
        form.append_pair("client_id", client_id).finish()
    }

    /// Returns the values that must not appear in a message.
    fn secret_values(&self) -> Vec<&str> {
        match self {
            Self::Code { code, verifier, .. } => vec![code, verifier],
            Self::Refresh { token } => vec![token],
        }
    }
}

/// The tokens that the endpoint issued.
pub(super) struct IssuedTokens {
    access: SecretString,
    refresh: Option<SecretString>,
    lifetime: Option<Duration>,
    account: Option<String>,
}

impl IssuedTokens {
    pub(super) fn into_credentials(
        self,
        provider: &str,
        token_url: &str,
        client_id: &str,
        now: Timestamp,
    ) -> Credentials {
        Credentials {
            provider: provider.to_owned(),
            account: self.account,
            access: self.access,
            refresh: self.refresh,
            since: now,
            obtained: now,
            expires: self.lifetime.map(|lifetime| now.after(lifetime)),
            token_url: token_url.to_owned(),
            client_id: client_id.to_owned(),
        }
    }
}

/// The reason why no tokens were issued.
pub(super) enum GrantFailure {
    /// The endpoint refused the grant, with the given reason.
    Refused(String),
    /// Any other error.
    Other(LoginError),
}

impl GrantFailure {
    /// Returns the error for a login in progress.
    pub(super) fn into_login_error(self, provider: &str) -> LoginError {
        match self {
            Self::Refused(why) => LoginError::Refused { provider: provider.to_owned(), why },
            Self::Other(error) => error,
        }
    }

    /// Returns the error for the renewal of an existing login.
    pub(super) fn into_renewal_error(self, provider: &str) -> LoginError {
        match self {
            Self::Refused(why) => LoginError::Ended { provider: provider.to_owned(), why },
            Self::Other(error) => error,
        }
    }
}

/// The HTTP clients, each created on first use: a local server requires no certificates.
#[derive(Debug)]
pub(super) struct TokenClient {
    http: OnceLock<Result<Client, String>>,
    https: OnceLock<Result<Client, String>>,
    timeout: Duration,
}

impl TokenClient {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { http: OnceLock::new(), https: OnceLock::new(), timeout }
    }

    fn client_for(&self, url: &str) -> Result<&Client, LoginError> {
        let client = if url.starts_with("https:") {
            self.https.get_or_init(|| {
                // reqwest uses the process's crypto provider; one that is installed already works as well.
                let _ = rustls::crypto::ring::default_provider().install_default();
                self.base_builder().build().map_err(|error| root_cause(&error))
            })
        } else {
            self.http.get_or_init(|| {
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let tls = rustls::ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .map_err(|error| error.to_string())?
                    .with_root_certificates(rustls::RootCertStore::empty())
                    .with_no_client_auth();
                self.base_builder().tls_backend_preconfigured(tls).build().map_err(|error| root_cause(&error))
            })
        };
        client
            .as_ref()
            .map_err(|why| LoginError::Setup { what: format!("can't create an HTTP client: {why}") })
    }

    fn base_builder(&self) -> reqwest::ClientBuilder {
        Client::builder()
            .user_agent(concat!("forge/", env!("CARGO_PKG_VERSION")))
            .timeout(self.timeout)
            // A redirect would carry the code or the token to another host.
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
    }

    /// Exchanges a grant for tokens.
    pub(super) async fn request_tokens(
        &self,
        url: &str,
        client_id: &str,
        grant: &TokenGrant<'_>,
    ) -> Result<IssuedTokens, GrantFailure> {
        let host = host_of(url).map_err(GrantFailure::Other)?;
        let client = self.client_for(url).map_err(GrantFailure::Other)?;
        let request = client
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(grant.form_body(client_id));
        let failed = |error: reqwest::Error| {
            GrantFailure::Other(if error.is_timeout() {
                LoginError::Slow { host: host.clone(), seconds: self.timeout.as_secs() }
            } else {
                LoginError::Unreachable { host: host.clone(), why: root_cause(&error) }
            })
        };
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(failed)? {
            body.extend_from_slice(&piece);
            if body.len() > MAX_RESPONSE_BYTES {
                return Err(malformed_response(&host, "it is too long"));
            }
        }
        parse_response(&host, status, &body, grant)
    }
}

/// Interprets a response.
fn parse_response(
    host: &str,
    status: u16,
    body: &[u8],
    grant: &TokenGrant<'_>,
) -> Result<IssuedTokens, GrantFailure> {
    let json: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    if status >= 500 || status == 429 {
        let why = format!("it returned status {status}");
        return Err(GrantFailure::Other(LoginError::Unreachable { host: host.to_owned(), why }));
    }
    if let Some(why) = refusal_reason(&json, &grant.secret_values()) {
        return Err(GrantFailure::Refused(why));
    }
    if !json.is_object() {
        let page = body.trim_ascii_start().starts_with(b"<");
        let what = if page { "a web page" } else { "not JSON" };
        return Err(malformed_response(host, &format!("{what} (status {status})")));
    }
    if status != 200 {
        return Err(malformed_response(host, &format!("status {status} without a reason")));
    }
    let text = |name: &str| json[name].as_str().filter(|text| !text.is_empty());
    let Some(access) = text("access_token") else {
        return Err(malformed_response(host, "it has no access token"));
    };
    if !access.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(malformed_response(host, "its access token can't be sent in a header"));
    }
    Ok(IssuedTokens {
        access: SecretString::from(access),
        refresh: text("refresh_token").map(SecretString::from),
        lifetime: json["expires_in"]
            .as_u64()
            .map(|seconds| Duration::from_secs(seconds.min(MAX_LIFETIME_SECS))),
        account: text("id_token").and_then(account_name),
    })
}

/// Upper bound for a token's lifetime of ten years.
const MAX_LIFETIME_SECS: u64 = 10 * 366 * 24 * 3600;

/// Returns the reason for a refused grant: RFC 6749's `error`, which some servers replace by an object.
fn refusal_reason(json: &Value, secrets: &[&str]) -> Option<String> {
    let error = json.get("error").filter(|error| !error.is_null())?;
    let code = error.as_str().or(error["code"].as_str()).or(error["type"].as_str()).unwrap_or("refused");
    let more = json["error_description"].as_str().or(error["message"].as_str());
    Some(match more {
        Some(more) => format!("{} ({})", sanitize_message(more, secrets), sanitize_message(code, secrets)),
        None => sanitize_message(code, secrets),
    })
}

fn malformed_response(host: &str, why: &str) -> GrantFailure {
    GrantFailure::Other(LoginError::Malformed { host: host.to_owned(), why: why.to_owned() })
}

/// Returns a provider's message on one line, limited in length, without the values that were sent to it.
pub(super) fn sanitize_message(text: &str, secrets: &[&str]) -> String {
    let clean = secrets
        .iter()
        .filter(|secret| !secret.is_empty())
        .fold(text.to_owned(), |text, secret| text.replace(secret, "[redacted]"));
    let line: Vec<&str> = clean.split_whitespace().collect();
    line.join(" ").chars().filter(|c| !c.is_control()).take(MAX_MESSAGE_CHARS).collect::<String>()
}

/// Returns the account in an identity token, for display only. No decision depends on it, so the signature is not
/// checked.
fn account_name(token: &str) -> Option<String> {
    let payload = token.split('.').nth(1)?;
    let bytes = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims: Value = serde_json::from_slice(&bytes).ok()?;
    let name = claims["email"].as_str().or(claims["name"].as_str())?;
    Some(sanitize_message(name, &[])).filter(|name| !name.is_empty())
}

/// Returns the host and port of an address, for messages.
fn host_of(url: &str) -> Result<String, LoginError> {
    let setup = |why: String| LoginError::Setup {
        what: format!("login.token_url is invalid: {why}. Use the form https://host/path"),
    };
    let parsed = url::Url::parse(url).map_err(|error| setup(error.to_string()))?;
    let host = parsed.host_str().ok_or_else(|| setup("it has no host".to_owned()))?;
    Ok(match parsed.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

/// Returns the innermost cause, without the address.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
