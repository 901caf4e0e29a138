//! Logins at providers: made by `forge login`, used by runs in place of a key.

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

/// How long somebody may take in the browser.
const BROWSER_LOGIN_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// A login that waits for the browser.
#[derive(Debug)]
pub struct PendingLogin {
    pending: BrowserLogin,
    file: CredentialsFile,
}

/// A login as it stands.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LoginStatus {
    /// The provider.
    pub provider: String,
    /// How it stands.
    pub state: LoginState,
    /// The account, if the provider named it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// When its token expires, if that is known; it is renewed before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Its file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// How a login stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginState {
    /// There is none.
    None,
    /// Its token is valid.
    Valid,
    /// Its token has expired and is renewed at its next use.
    Renewable,
    /// It has ended.
    Expired,
    /// Its file can't be used.
    Broken,
}

/// The providers that can log people in.
pub fn login_providers() -> Vec<&'static str> {
    LoginEndpoints::provider_names().collect()
}

/// Begins to log in: listens for the browser and makes the address to open.
///
/// # Errors
/// If the provider knows no logins, or the port is taken.
pub async fn start_provider_login(
    loaded: &ResolvedConfig,
    provider: &str,
) -> Result<PendingLogin, LoginError> {
    let Some(mut endpoints) = LoginEndpoints::for_provider(provider) else {
        let known = login_providers().join(", ");
        let what = format!(
            "{provider} has no login that forge knows (there is one for {known}). Use a key: `forge secret set`"
        );
        return Err(LoginError::Setup { what });
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
    /// The address that the browser is to open.
    pub fn url(&self) -> &str {
        self.pending.url()
    }

    /// Waits for the browser and keeps what it brings.
    ///
    /// # Errors
    /// Everything that can go wrong in between; an earlier login is kept then.
    pub async fn finish_login(self) -> Result<LoginStatus, LoginError> {
        let credentials = self.pending.finish(BROWSER_LOGIN_TIMEOUT, &SystemClock).await?;
        self.file.save(&credentials)?;
        Ok(login_status(&self.file))
    }
}

/// Forgets a login; says whether there was one.
///
/// # Errors
/// If its file can't be removed.
pub fn logout(loaded: &ResolvedConfig, provider: &str) -> Result<bool, LoginError> {
    CredentialsFile::for_provider(&loaded.dirs.data, provider).remove()
}

/// How the logins stand, one row for each provider that can log people in.
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

/// What stands for the credential of a provider here, so that what is known of one says nothing about another: the key,
/// else the login, which stays the same when its token is renewed. Kept as a hash only.
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

/// The tokens of a provider's login, for requests while there is no key. Each token is hidden before it is used.
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
