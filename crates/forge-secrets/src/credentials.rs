//! The file that a login leaves behind.

use crate::login::LoginError;
use crate::private_file;
use forge_types::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A token is renewed this long before it expires, so that no call begins with one that ends under way.
const MAX_RENEWAL_MARGIN: Duration = Duration::from_secs(120);
/// A file that is larger is none of ours.
const MAX_CREDENTIALS_BYTES: u64 = 1 << 20;
const FORMAT_VERSION: u32 = 1;

/// What a login gave. Its `Debug` form shows no token.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Who gave it, by the provider's name.
    pub provider: String,
    /// The account as the provider calls it, if it said so.
    pub account: Option<String>,
    /// The token that requests carry.
    pub access: SecretString,
    /// The token that gets the next one.
    pub refresh: Option<SecretString>,
    /// When the user logged in. A renewal does not change it.
    pub since: Timestamp,
    /// When the access token was given.
    pub obtained: Timestamp,
    /// When it expires, if the provider said so.
    pub expires: Option<Timestamp>,
    /// Where it is renewed: nowhere else, whatever the settings say by then.
    pub token_url: String,
    /// The program that the provider gave it to.
    pub client_id: String,
}

/// How long a login holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenState {
    /// The token is valid, until then if that is known.
    Valid(Option<Timestamp>),
    /// The token has expired, or is about to, and can be renewed.
    Renewable,
    /// The token has expired and nothing renews it.
    Expired,
}

impl Credentials {
    /// How the login stands at `now`.
    pub fn token_state(&self, now: Timestamp) -> TokenState {
        match (self.is_fresh(now), &self.refresh) {
            (true, _) => TokenState::Valid(self.expires),
            (false, Some(_)) => TokenState::Renewable,
            (false, None) if self.is_valid(now) => TokenState::Valid(self.expires),
            (false, None) => TokenState::Expired,
        }
    }

    /// Whether the token is valid and not about to expire.
    pub(crate) fn is_fresh(&self, now: Timestamp) -> bool {
        let Some(expires) = self.expires else { return true };
        // Of a token that is short-lived as a whole, the last quarter.
        let early = MAX_RENEWAL_MARGIN.min(expires.since(self.obtained) / 4);
        now.after(early) < expires
    }

    /// Whether the token is still valid.
    pub(crate) fn is_valid(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// The form of the file.
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

/// Where a login is kept.
#[derive(Clone, Debug)]
pub struct CredentialsFile {
    provider: String,
    path: PathBuf,
    lock: PathBuf,
}

impl CredentialsFile {
    /// The file of a provider below the user's data folder.
    pub fn for_provider(data: &Path, provider: &str) -> Self {
        let folder = data.join("credentials");
        Self {
            provider: provider.to_owned(),
            path: folder.join(format!("{provider}.json")),
            lock: folder.join(format!(".{provider}.lock")),
        }
    }

    /// The provider.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether something stands in the file's place.
    pub fn exists(&self) -> bool {
        self.path.symlink_metadata().is_ok()
    }

    /// What is in it; `None` if there is none.
    ///
    /// # Errors
    /// If others can read it, or it is damaged.
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

    /// Writes it, whole, readable by its owner only.
    ///
    /// # Errors
    /// If the system refuses; the old file is still there then.
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

    /// Removes it; says whether there was one.
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

    /// Opens the file whose lock keeps those apart who renew the token.
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
