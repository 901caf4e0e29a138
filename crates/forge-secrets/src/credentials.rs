//! The file in which a login is stored.

use crate::login::LoginError;
use crate::private_file;
use forge_types::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time before expiry at which a token is renewed, so that it does not expire during a call.
const MAX_RENEWAL_MARGIN: Duration = Duration::from_secs(120);
/// Largest size in bytes of a credentials file.
const MAX_CREDENTIALS_BYTES: u64 = 1 << 20;
const FORMAT_VERSION: u32 = 1;

/// The result of a login. Its `Debug` form shows no token.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Name of the provider.
    pub provider: String,
    /// Name of the account, if the provider reported it.
    pub account: Option<String>,
    /// Token that requests carry.
    pub access: SecretString,
    /// Token that obtains the next access token.
    pub refresh: Option<SecretString>,
    /// Time of the login. A renewal does not change it.
    pub since: Timestamp,
    /// Time at which the access token was issued.
    pub obtained: Timestamp,
    /// Time at which the access token expires, if the provider reported it.
    pub expires: Option<Timestamp>,
    /// Address for renewals, used even if the settings have changed since the login.
    pub token_url: String,
    /// Client ID that the tokens were issued to.
    pub client_id: String,
}

/// Validity of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenState {
    /// The token is valid, until the given time if that is known.
    Valid(Option<Timestamp>),
    /// The token has expired or is about to, and can be renewed.
    Renewable,
    /// The token has expired and can't be renewed.
    Expired,
}

impl Credentials {
    /// Returns the validity of the login at `now`.
    pub fn token_state(&self, now: Timestamp) -> TokenState {
        match (self.is_fresh(now), &self.refresh) {
            (true, _) => TokenState::Valid(self.expires),
            (false, Some(_)) => TokenState::Renewable,
            (false, None) if self.is_valid(now) => TokenState::Valid(self.expires),
            (false, None) => TokenState::Expired,
        }
    }

    /// Returns whether the token is valid and not about to expire.
    pub(crate) fn is_fresh(&self, now: Timestamp) -> bool {
        let Some(expires) = self.expires else { return true };
        // A short-lived token is renewed in the last quarter of its lifetime.
        let early = MAX_RENEWAL_MARGIN.min(expires.since(self.obtained) / 4);
        now.after(early) < expires
    }

    /// Returns whether the token is still valid.
    pub(crate) fn is_valid(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// The format of the file.
#[derive(Serialize, Deserialize)]
struct StoredCredentials {
    version: u32,
    provider: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    access_token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(default)]
    logged_in_at: Option<Timestamp>,
    obtained_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    token_url: String,
    client_id: String,
}

/// The file that stores a login.
#[derive(Clone, Debug)]
pub struct CredentialsFile {
    provider: String,
    path: PathBuf,
    lock: PathBuf,
}

impl CredentialsFile {
    /// Returns the file of a provider in the user's data directory.
    pub fn for_provider(data: &Path, provider: &str) -> Self {
        let folder = data.join("credentials");
        Self {
            provider: provider.to_owned(),
            path: folder.join(format!("{provider}.json")),
            lock: folder.join(format!(".{provider}.lock")),
        }
    }

    /// Returns the name of the provider.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether anything exists at the path of the file, or may exist there; loading it then reports the error.
    pub fn exists(&self) -> bool {
        forge_files::may_be_present(&self.path)
    }

    /// Loads the login; `None` if there is none.
    ///
    /// # Errors
    /// If the file is readable by others or damaged.
    pub fn load(&self) -> Result<Option<Credentials>, LoginError> {
        let meta = match self.path.metadata() {
            Ok(meta) => meta,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.file_error("read", source)),
        };
        if !meta.is_file() || meta.len() > MAX_CREDENTIALS_BYTES {
            return Err(self.damaged_error());
        }
        if let Some(mode) = private_file::exposed_mode(&meta) {
            return Err(LoginError::TooOpen { path: self.path.clone(), mode });
        }
        let text = match forge_files::read_text(&self.path, MAX_CREDENTIALS_BYTES) {
            Ok(text) => SecretString::from(text),
            Err(error @ forge_files::Error::Io { .. }) => {
                return Err(self.file_error("read", error.into_io_error()));
            }
            Err(_) => return Err(self.damaged_error()),
        };
        let stored: StoredCredentials =
            serde_json::from_str(text.expose_secret()).map_err(|_| self.damaged_error())?;
        if stored.version != FORMAT_VERSION || stored.access_token.is_empty() {
            return Err(self.damaged_error());
        }
        Ok(Some(Credentials {
            provider: stored.provider,
            account: stored.account,
            access: stored.access_token.into(),
            refresh: stored.refresh_token.map(SecretString::from),
            since: stored.logged_in_at.unwrap_or(stored.obtained_at),
            obtained: stored.obtained_at,
            expires: stored.expires_at,
            token_url: stored.token_url,
            client_id: stored.client_id,
        }))
    }

    /// Writes the login atomically, readable by its owner only.
    ///
    /// # Errors
    /// If the system refuses; the old file still exists then.
    pub fn save(&self, credentials: &Credentials) -> Result<(), LoginError> {
        let stored = StoredCredentials {
            version: FORMAT_VERSION,
            provider: credentials.provider.clone(),
            account: credentials.account.clone(),
            access_token: credentials.access.expose_secret().to_owned(),
            refresh_token: credentials.refresh.as_ref().map(|token| token.expose_secret().to_owned()),
            logged_in_at: Some(credentials.since),
            obtained_at: credentials.obtained,
            expires_at: credentials.expires,
            token_url: credentials.token_url.clone(),
            client_id: credentials.client_id.clone(),
        };
        let mut json = serde_json::to_vec_pretty(&stored).expect("texts and times are plain JSON");
        json.push(b'\n');
        private_file::replace_file(&self.path, &json).map_err(|source| self.file_error("written", source))
    }

    /// Removes the file and returns whether there was one.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn remove(&self) -> Result<bool, LoginError> {
        match std::fs::remove_file(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(self.file_error("removed", source)),
        }
    }

    /// Opens the lock file that serializes renewals of the token.
    pub(crate) fn open_lock_file(&self) -> Result<std::fs::File, LoginError> {
        private_file::open_lock_file(&self.lock).map_err(|source| self.file_error("locked", source))
    }

    fn file_error(&self, what: &'static str, source: std::io::Error) -> LoginError {
        LoginError::File { path: self.path.clone(), what, why: source.to_string() }
    }

    fn damaged_error(&self) -> LoginError {
        LoginError::Damaged { path: self.path.clone(), provider: self.provider.clone() }
    }
}
