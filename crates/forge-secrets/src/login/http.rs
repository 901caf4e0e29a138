//! The token endpoint: one request, one answer, and what its answers mean (RFC 6749, 5).

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

/// The longest answer read, in bytes.
const LONGEST: usize = 256 << 10;
/// The longest part of a provider's own message that is passed on, in characters.
const MESSAGE_CHARS: usize = 300;

/// What is exchanged for tokens.
pub(super) enum Grant<'a> {
    /// A code that the browser brought.
    Code {
        /// The code.
        code: &'a str,
        /// What the challenge was made of.
        verifier: &'a str,
        /// Where the browser was sent back to.
        redirect: &'a str,
    },
    /// A refresh token.
    Refresh {
        /// The token.
        token: &'a str,
    },
}

impl Grant<'_> {
    fn body(&self, client_id: &str) -> String {
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

    /// What must not come back in a message.
    fn secrets(&self) -> Vec<&str> {
        match self {
            Self::Code { code, verifier, .. } => vec![code, verifier],
            Self::Refresh { token } => vec![token],
        }
    }
}

/// What the endpoint gave.
pub(super) struct Tokens {
    access: SecretString,
    refresh: Option<SecretString>,
    lifetime: Option<Duration>,
    account: Option<String>,
}

impl Tokens {
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

/// Why it gave nothing.
pub(super) enum Failed {
    /// It refused what was exchanged, in these words.
    Refused(String),
    /// Anything else.
    Other(LoginError),
}

impl Failed {
    /// As the end of a login that was under way.
    pub(super) fn at_login(self, provider: &str) -> LoginError {
        match self {
            Self::Refused(why) => LoginError::Refused { provider: provider.to_owned(), why },
            Self::Other(error) => error,
        }
    }

    /// As the end of a login that stood.
    pub(super) fn at_renewal(self, provider: &str) -> LoginError {
        match self {
            Self::Refused(why) => LoginError::Ended { provider: provider.to_owned(), why },
            Self::Other(error) => error,
        }
    }
}

/// The HTTP clients, each built at its first use: for a local server no certificates are read.
#[derive(Debug)]
pub(super) struct Http {
    plain: OnceLock<Result<Client, String>>,
    secure: OnceLock<Result<Client, String>>,
    timeout: Duration,
}

impl Http {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { plain: OnceLock::new(), secure: OnceLock::new(), timeout }
    }

    fn client(&self, url: &str) -> Result<&Client, LoginError> {
        let client = if url.starts_with("https:") {
            self.secure.get_or_init(|| {
                // reqwest takes the process's provider; if somebody installed one already, theirs is as good.
                let _ = rustls::crypto::ring::default_provider().install_default();
                self.base().build().map_err(|error| cause(&error))
            })
        } else {
            self.plain.get_or_init(|| {
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let tls = rustls::ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .map_err(|error| error.to_string())?
                    .with_root_certificates(rustls::RootCertStore::empty())
                    .with_no_client_auth();
                self.base().tls_backend_preconfigured(tls).build().map_err(|error| cause(&error))
            })
        };
        client.as_ref().map_err(|why| LoginError::Setup { what: format!("no HTTP client can be had: {why}") })
    }

    fn base(&self) -> reqwest::ClientBuilder {
        Client::builder()
            .user_agent(concat!("forge/", env!("CARGO_PKG_VERSION")))
            .timeout(self.timeout)
            // A redirect would carry the code or the token to another host.
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
    }

    /// Exchanges what is there for tokens.
    pub(super) async fn ask(&self, url: &str, client_id: &str, grant: &Grant<'_>) -> Result<Tokens, Failed> {
        let host = host_of(url).map_err(Failed::Other)?;
        let client = self.client(url).map_err(Failed::Other)?;
        let request = client
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(grant.body(client_id));
        let failed = |error: reqwest::Error| {
            Failed::Other(if error.is_timeout() {
                LoginError::Slow { host: host.clone(), seconds: self.timeout.as_secs() }
            } else {
                LoginError::Unreachable { host: host.clone(), why: cause(&error) }
            })
        };
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(failed)? {
            body.extend_from_slice(&piece);
            if body.len() > LONGEST {
                return Err(malformed(&host, "it does not end"));
            }
        }
        read(&host, status, &body, grant)
    }
}

/// What an answer means.
fn read(host: &str, status: u16, body: &[u8], grant: &Grant<'_>) -> Result<Tokens, Failed> {
    let json: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    if status >= 500 || status == 429 {
        let why = format!("it has trouble (status {status})");
        return Err(Failed::Other(LoginError::Unreachable { host: host.to_owned(), why }));
    }
    if let Some(why) = refusal(&json, &grant.secrets()) {
        return Err(Failed::Refused(why));
    }
    if !json.is_object() {
        let page = body.trim_ascii_start().starts_with(b"<");
        let what = if page { "a web page" } else { "no JSON" };
        return Err(malformed(host, &format!("{what} (status {status})")));
    }
    if status != 200 {
        return Err(malformed(host, &format!("status {status} without a reason")));
    }
    let text = |name: &str| json[name].as_str().filter(|text| !text.is_empty());
    let Some(access) = text("access_token") else {
        return Err(malformed(host, "there is no access token in it"));
    };
    if !access.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(malformed(host, "its access token can't be sent in a header"));
    }
    Ok(Tokens {
        access: SecretString::from(access),
        refresh: text("refresh_token").map(SecretString::from),
        lifetime: json["expires_in"].as_u64().map(|seconds| Duration::from_secs(seconds.min(MOST_SECONDS))),
        account: text("id_token").and_then(account),
    })
}

/// No token lives longer than ten years.
const MOST_SECONDS: u64 = 10 * 366 * 24 * 3600;

/// The reason for which a grant was refused: RFC 6749's `error`, also where a server puts an object in its place.
fn refusal(json: &Value, secrets: &[&str]) -> Option<String> {
    let error = json.get("error").filter(|error| !error.is_null())?;
    let code = error.as_str().or(error["code"].as_str()).or(error["type"].as_str()).unwrap_or("refused");
    let more = json["error_description"].as_str().or(error["message"].as_str());
    Some(match more {
        Some(more) => format!("{} ({})", shown(more, secrets), shown(code, secrets)),
        None => shown(code, secrets),
    })
}

fn malformed(host: &str, why: &str) -> Failed {
    Failed::Other(LoginError::Malformed { host: host.to_owned(), why: why.to_owned() })
}

/// A provider's words: on one line, not too long, without what was sent to it.
pub(super) fn shown(text: &str, secrets: &[&str]) -> String {
    let clean = secrets
        .iter()
        .filter(|secret| !secret.is_empty())
        .fold(text.to_owned(), |text, secret| text.replace(secret, "[hidden]"));
    let line: Vec<&str> = clean.split_whitespace().collect();
    line.join(" ").chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS).collect::<String>()
}

/// The account that an identity token names, for showing only: nothing is decided by it, so nobody checks its
/// signature.
fn account(token: &str) -> Option<String> {
    let payload = token.split('.').nth(1)?;
    let bytes = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims: Value = serde_json::from_slice(&bytes).ok()?;
    let name = claims["email"].as_str().or(claims["name"].as_str())?;
    Some(shown(name, &[])).filter(|name| !name.is_empty())
}

/// Host and port of an address, for messages.
fn host_of(url: &str) -> Result<String, LoginError> {
    let setup = |why: String| LoginError::Setup {
        what: format!("login.token_url can't be used: {why}. Give it as https://host/path"),
    };
    let parsed = url::Url::parse(url).map_err(|error| setup(error.to_string()))?;
    let host = parsed.host_str().ok_or_else(|| setup("it names no host".to_owned()))?;
    Ok(match parsed.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

/// The innermost cause, without the address.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
