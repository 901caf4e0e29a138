//! Logins at providers: created by `forge login`, used by runs in place of a key.

use crate::clock::SystemClock;
use forge_config::ResolvedConfig;
use forge_models::{ApiKey, SharedTokenSource, TokenError, TokenSource};
use forge_ports::{Clock as _, async_trait};
use forge_redact::Redactor;
use forge_secrets::login::{BrowserLogin, start_login};
use forge_secrets::{
    CredentialsFile, ExposeSecret as _, LoginEndpoints, LoginSession, SecretString, TokenState,
};
use forge_types::{ErrorClass, ErrorKind, Timestamp};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use forge_secrets::LoginError;

/// The time limit for the login in the browser.
const BROWSER_LOGIN_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// A login that waits for the browser.
#[derive(Debug)]
pub struct PendingLogin {
    pending: BrowserLogin,
    file: CredentialsFile,
}

/// The status of a login.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LoginStatus {
    /// The provider.
    pub provider: String,
    /// The state of the login.
    pub state: LoginState,
    /// The account, if the provider named it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The expiry of the token, if known; the token is renewed before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// The credentials file.
    pub path: PathBuf,
    /// The problem with a broken login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The state of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginState {
    /// No login exists.
    None,
    /// The token is valid.
    Valid,
    /// The token has expired and is renewed at its next use.
    Renewable,
    /// The login has expired.
    Expired,
    /// The credentials file can't be used.
    Broken,
}

/// Returns the providers that support logins.
pub fn login_providers() -> Vec<&'static str> {
    LoginEndpoints::provider_names().collect()
}

/// Starts a login: listens for the browser and creates the URL to open.
///
/// # Errors
/// If the provider does not support logins, or the port is taken.
pub async fn start_provider_login(
    loaded: &ResolvedConfig,
    provider: &str,
) -> Result<PendingLogin, LoginError> {
    let Some(mut endpoints) = LoginEndpoints::for_provider(provider) else {
        return Err(LoginError::Unsupported { provider: provider.to_owned(), known: login_providers() });
    };
    let own = &loaded.settings.login;
    for (place, value) in [
        (&mut endpoints.authorize_url, &own.authorize_url),
        (&mut endpoints.token_url, &own.token_url),
        (&mut endpoints.client_id, &own.client_id),
    ] {
        if let Some(value) = value {
            place.clone_from(value);
        }
    }
    endpoints.port = own.port;
    endpoints.timeout = Duration::from_secs(own.timeout_seconds);
    let file = CredentialsFile::for_provider(&loaded.dirs.data, provider);
    Ok(PendingLogin { pending: start_login(endpoints).await?, file })
}

impl PendingLogin {
    /// Returns the URL to open in the browser.
    pub fn url(&self) -> &str {
        self.pending.url()
    }

    /// Waits for the browser and saves the credentials.
    ///
    /// # Errors
    /// If any step of the login fails; an earlier login is then kept.
    pub async fn finish_login(self) -> Result<LoginStatus, LoginError> {
        let credentials = self.pending.finish(BROWSER_LOGIN_TIMEOUT, &SystemClock).await?;
        self.file.save(&credentials)?;
        Ok(login_status(&self.file))
    }
}

/// Deletes a login; returns whether it existed.
///
/// # Errors
/// If the credentials file can't be removed.
pub fn logout(loaded: &ResolvedConfig, provider: &str) -> Result<bool, LoginError> {
    CredentialsFile::for_provider(&loaded.dirs.data, provider).remove()
}

/// Returns the status of all logins, one row for each provider that supports them.
pub fn logins(loaded: &ResolvedConfig) -> Vec<LoginStatus> {
    LoginEndpoints::provider_names()
        .map(|provider| login_status(&CredentialsFile::for_provider(&loaded.dirs.data, provider)))
        .collect()
}

fn login_status(file: &CredentialsFile) -> LoginStatus {
    let mut status = LoginStatus {
        provider: file.provider().to_owned(),
        state: LoginState::None,
        account: None,
        expires: None,
        path: file.path().to_owned(),
        problem: None,
    };
    match file.load() {
        Ok(None) => {}
        Ok(Some(credentials)) => {
            status.state = match credentials.token_state(SystemClock.now()) {
                TokenState::Valid(_) => LoginState::Valid,
                TokenState::Renewable => LoginState::Renewable,
                TokenState::Expired => LoginState::Expired,
            };
            status.expires = credentials.expires;
            status.account = credentials.account;
        }
        Err(error) => {
            status.state = LoginState::Broken;
            status.problem = Some(error.to_string());
        }
    }
    status
}

/// Returns an identifier of a provider's credential, so that findings about one are not applied to another: the
/// key, otherwise the login, which stays the same when its token is renewed. Stored only as a hash.
pub(crate) fn credential_id(loaded: &ResolvedConfig, provider: &str) -> Option<String> {
    if let Some(key) = loaded.secrets.get(provider) {
        return Some(key.expose().to_owned());
    }
    if !loaded.secrets.is_logged_in(provider) {
        return None;
    }
    let login = CredentialsFile::for_provider(&loaded.dirs.data, provider).load().ok().flatten()?;
    Some(format!("login of {}", login.since.as_micros()))
}

/// Returns the tokens of a provider's login, for requests without a key. Each token is redacted before it is
/// used.
pub(crate) fn login_bearer(
    loaded: &ResolvedConfig,
    provider: &str,
    redactor: &Arc<Redactor>,
) -> Option<SharedTokenSource> {
    let secrets = &loaded.secrets;
    if secrets.get(provider).is_some() || !secrets.is_logged_in(provider) {
        return None;
    }
    let file = CredentialsFile::for_provider(&loaded.dirs.data, provider);
    let timeout = Duration::from_secs(loaded.settings.login.timeout_seconds);
    let login = LoginSession::new(file, timeout, Arc::new(SystemClock));
    Some(SharedTokenSource::new(Arc::new(LoginTokenSource { login, redactor: redactor.clone() })))
}

struct LoginTokenSource {
    login: LoginSession,
    redactor: Arc<Redactor>,
}

impl LoginTokenSource {
    fn redacted_key(&self, token: Result<SecretString, LoginError>) -> Result<ApiKey, TokenError> {
        let token = token.map_err(|error| TokenError {
            kind: match error.class() {
                ErrorClass::Retry { .. } | ErrorClass::Unavailable => ErrorKind::Unavailable,
                _ => ErrorKind::Auth,
            },
            message: error.to_string(),
            next_steps: error.next_steps(),
        })?;
        self.redactor.add_secrets([token.expose_secret()]);
        Ok(ApiKey::new(token.expose_secret()))
    }
}

#[async_trait]
impl TokenSource for LoginTokenSource {
    async fn valid_token(&self) -> Result<ApiKey, TokenError> {
        self.redacted_key(self.login.valid_token().await)
    }

    async fn refresh_after_rejection(&self, refused: &ApiKey) -> Result<ApiKey, TokenError> {
        self.redacted_key(self.login.refresh_after_rejection(refused.reveal()).await)
    }
}
