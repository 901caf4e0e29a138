//! Logging in through a browser: authorization code with PKCE (RFC 6749, 7636, 8252), and automatic renewal of tokens.
//!
//! [`start_login`] listens for the browser's callback and creates the address to open; [`BrowserLogin::finish`] waits
//! for the browser and exchanges its code. [`LoginSession`] provides requests with the token and renews it, only once
//! for any number of concurrent callers in this process and in others.

mod callback;
mod error;
mod http;
mod tokens;

pub use error::LoginError;
pub use tokens::LoginSession;

use crate::Credentials;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use callback::{CallbackRequest, CallbackServer};
use forge_ports::Clock;
use http::{TokenClient, TokenGrant};
use sha2::{Digest as _, Sha256};
use std::time::Duration;
use url::Url;

/// Login parameters of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginEndpoints {
    /// Name of the provider.
    pub provider: String,
    /// Address that the browser opens.
    pub authorize_url: String,
    /// Address of the token endpoint, which exchanges codes and refresh tokens for tokens.
    pub token_url: String,
    /// Client ID registered with the provider. It is public: PKCE replaces a client secret.
    pub client_id: String,
    /// Requested scopes, separated by spaces.
    pub scope: String,
    /// Further parameters of the address that the browser opens.
    pub extra: Vec<(String, String)>,
    /// Port of the callback. 0 selects a free one, which real providers refuse.
    pub port: u16,
    /// Path of the callback.
    pub path: String,
    /// Longest time to wait for an answer of the token endpoint.
    pub timeout: Duration,
}

impl LoginEndpoints {
    /// Returns the parameters of a provider that supports login; `None` for all others.
    pub fn for_provider(provider: &str) -> Option<Self> {
        let row = LOGIN_PROVIDERS.iter().find(|row| row.provider == provider)?;
        Some(Self {
            provider: row.provider.to_owned(),
            authorize_url: row.authorize_url.to_owned(),
            token_url: row.token_url.to_owned(),
            client_id: row.client_id.to_owned(),
            scope: row.scope.to_owned(),
            extra: row.extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            port: row.port,
            path: row.path.to_owned(),
            timeout: Duration::from_secs(30),
        })
    }

    /// Returns the providers that support login.
    pub fn provider_names() -> impl Iterator<Item = &'static str> {
        LOGIN_PROVIDERS.iter().map(|row| row.provider)
    }
}

/// The constant form of [`LoginEndpoints`].
struct LoginProvider {
    provider: &'static str,
    authorize_url: &'static str,
    token_url: &'static str,
    client_id: &'static str,
    scope: &'static str,
    extra: &'static [(&'static str, &'static str)],
    port: u16,
    path: &'static str,
}

const LOGIN_PROVIDERS: &[LoginProvider] = &[LoginProvider {
    provider: "openai",
    authorize_url: "https://auth.openai.com/oauth/authorize",
    token_url: "https://auth.openai.com/oauth/token",
    // The only public client that may use this callback.
    client_id: "app_EMoamEEZ73f0CkXaXp7hrann",
    scope: "openid profile email offline_access",
    extra: &[("id_token_add_organizations", "true"), ("codex_cli_simplified_flow", "true")],
    port: 1455,
    path: "/auth/callback",
}];

/// Number of random bytes in `state` and in the verifier, 256 bits each.
const RANDOM_BYTES: usize = 32;

/// A login that waits for the browser.
#[derive(Debug)]
pub struct BrowserLogin {
    endpoints: LoginEndpoints,
    callbacks: CallbackServer,
    redirect: String,
    state: String,
    verifier: String,
    url: String,
}

/// Listens for the browser and creates the address to open.
///
/// # Errors
/// If the port is taken or an address is invalid.
pub async fn start_login(endpoints: LoginEndpoints) -> Result<BrowserLogin, LoginError> {
    let callbacks = CallbackServer::listen(&endpoints).await?;
    let redirect = format!("http://localhost:{}{}", callbacks.port(), endpoints.path);
    let (state, verifier) = (random_token()?, random_token()?);
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
    let mut url = Url::parse(&endpoints.authorize_url).map_err(|error| LoginError::Setup {
        what: format!("login.authorize_url is invalid: {error}. Use the form https://host/path"),
    })?;
    url.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", &endpoints.client_id)
        .append_pair("redirect_uri", &redirect)
        .append_pair("scope", &endpoints.scope)
        .append_pair("code_challenge", &challenge)
        .append_pair("code_challenge_method", "S256")
        .append_pair("state", &state)
        .extend_pairs(&endpoints.extra);
    Ok(BrowserLogin { url: url.into(), endpoints, callbacks, redirect, state, verifier })
}

impl BrowserLogin {
    /// Returns the address to open in the browser. It contains no secret.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Waits for the browser, at most `within`, and obtains the tokens. The page in the browser shows the outcome.
    ///
    /// # Errors
    /// Any failure of the login.
    pub async fn finish(mut self, within: Duration, clock: &dyn Clock) -> Result<Credentials, LoginError> {
        let answer = tokio::time::timeout(within, self.callbacks.next_request()).await.map_err(|_| {
            let minutes = within.as_secs().div_ceil(60);
            LoginError::NobodyCame { provider: self.endpoints.provider.clone(), minutes }
        })?;
        let got = self.exchange_code(&answer, clock).await;
        answer.respond(&self.endpoints.provider, got.as_ref().err()).await;
        got
    }

    async fn exchange_code(
        &self,
        answer: &CallbackRequest,
        clock: &dyn Clock,
    ) -> Result<Credentials, LoginError> {
        let provider = self.endpoints.provider.clone();
        // Checked first: without the right `state`, the rest may come from an attacker.
        if answer.get("state") != Some(&self.state) {
            return Err(LoginError::WrongState { provider });
        }
        if let Some(error) = answer.get("error") {
            let why = match answer.get("error_description") {
                Some(more) => {
                    format!("{} ({})", http::sanitize_message(more, &[]), http::sanitize_message(error, &[]))
                }
                None => http::sanitize_message(error, &[]),
            };
            return Err(LoginError::Refused { provider, why });
        }
        let Some(code) = answer.get("code").filter(|code| !code.is_empty()) else {
            let why = "the callback has no code".to_owned();
            return Err(LoginError::Refused { provider, why });
        };
        let grant = TokenGrant::Code { code, verifier: &self.verifier, redirect: &self.redirect };
        let http = TokenClient::new(self.endpoints.timeout);
        let tokens = http.request_tokens(&self.endpoints.token_url, &self.endpoints.client_id, &grant).await;
        let tokens = tokens.map_err(|failed| failed.into_login_error(&self.endpoints.provider))?;
        Ok(tokens.into_credentials(
            &self.endpoints.provider,
            &self.endpoints.token_url,
            &self.endpoints.client_id,
            clock.now(),
        ))
    }
}

fn random_token() -> Result<String, LoginError> {
    let mut bytes = [0; RANDOM_BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|error| LoginError::Setup { what: format!("no random numbers are available: {error}") })?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
