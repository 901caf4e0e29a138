//! Logins at providers: made by `forge login`, used by runs in place of a key.

use crate::clock::SystemClock;
use forge_config::Loaded;
use forge_models::{Bearer, Key, TokenError, TokenSource};
use forge_ports::{Clock as _, async_trait};
use forge_redact::Redactor;
use forge_secrets::login::{Pending, begin};
use forge_secrets::{CredentialsFile, Endpoints, ExposeSecret as _, Login, SecretString, Standing};
use forge_types::{Class, ErrorKind, Timestamp};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use forge_secrets::LoginError;

/// How long somebody may take in the browser.
const IN_THE_BROWSER: Duration = Duration::from_secs(10 * 60);

/// A login that waits for the browser.
#[derive(Debug)]
pub struct LoginUnderWay {
    pending: Pending,
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
    Endpoints::providers().collect()
}

/// Begins to log in: listens for the browser and makes the address to open.
///
/// # Errors
/// If the provider knows no logins, or the port is taken.
pub async fn begin_login(loaded: &Loaded, provider: &str) -> Result<LoginUnderWay, LoginError> {
    let Some(mut endpoints) = Endpoints::of(provider) else {
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
    let file = CredentialsFile::of(&loaded.dirs.data, provider);
    Ok(LoginUnderWay { pending: begin(endpoints).await?, file })
}

impl LoginUnderWay {
    /// The address that the browser is to open.
    pub fn url(&self) -> &str {
        self.pending.url()
    }

    /// Waits for the browser and keeps what it brings.
    ///
    /// # Errors
    /// Everything that can go wrong in between; an earlier login is kept then.
    pub async fn finish(self) -> Result<LoginStatus, LoginError> {
        let credentials = self.pending.finish(IN_THE_BROWSER, &SystemClock).await?;
        self.file.save(&credentials)?;
        Ok(status(&self.file))
    }
}

/// Forgets a login; says whether there was one.
///
/// # Errors
/// If its file can't be removed.
pub fn logout(loaded: &Loaded, provider: &str) -> Result<bool, LoginError> {
    CredentialsFile::of(&loaded.dirs.data, provider).remove()
}

/// How the logins stand, one row for each provider that can log people in.
pub fn logins(loaded: &Loaded) -> Vec<LoginStatus> {
    Endpoints::providers().map(|provider| status(&CredentialsFile::of(&loaded.dirs.data, provider))).collect()
}

fn status(file: &CredentialsFile) -> LoginStatus {
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
            status.state = match credentials.standing(SystemClock.now()) {
                Standing::Valid(_) => LoginState::Valid,
                Standing::Renewable => LoginState::Renewable,
                Standing::Expired => LoginState::Expired,
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
pub(crate) fn credential(loaded: &Loaded, provider: &str) -> Option<String> {
    if let Some(key) = loaded.secrets.get(provider) {
        return Some(key.expose().to_owned());
    }
    if !loaded.secrets.is_logged_in(provider) {
        return None;
    }
    let login = CredentialsFile::of(&loaded.dirs.data, provider).load().ok().flatten()?;
    Some(format!("login of {}", login.since.as_micros()))
}

/// The tokens of a provider's login, for requests while there is no key. Each token is hidden before it is used.
pub(crate) fn bearer(loaded: &Loaded, provider: &str, redactor: &Arc<Redactor>) -> Option<Bearer> {
    let secrets = &loaded.secrets;
    if secrets.get(provider).is_some() || !secrets.is_logged_in(provider) {
        return None;
    }
    let file = CredentialsFile::of(&loaded.dirs.data, provider);
    let timeout = Duration::from_secs(loaded.settings.login.timeout_seconds);
    let login = Login::new(file, timeout, Arc::new(SystemClock));
    Some(Bearer::new(Arc::new(Tokens { login, redactor: redactor.clone() })))
}

struct Tokens {
    login: Login,
    redactor: Arc<Redactor>,
}

impl Tokens {
    fn hidden(&self, token: Result<SecretString, LoginError>) -> Result<Key, TokenError> {
        let token = token.map_err(|error| TokenError {
            kind: match error.class() {
                Class::Retry { .. } | Class::Unavailable => ErrorKind::Unavailable,
                _ => ErrorKind::Auth,
            },
            message: error.to_string(),
        })?;
        self.redactor.learn([token.expose_secret()]);
        Ok(Key::new(token.expose_secret()))
    }
}

#[async_trait]
impl TokenSource for Tokens {
    async fn token(&self) -> Result<Key, TokenError> {
        self.hidden(self.login.token().await)
    }

    async fn instead_of(&self, refused: &Key) -> Result<Key, TokenError> {
        self.hidden(self.login.instead_of(refused.reveal()).await)
    }
}
