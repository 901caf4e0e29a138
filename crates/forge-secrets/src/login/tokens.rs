//! The token of a login, renewed on demand.

use super::LoginError;
use super::http::{GrantFailure, TokenClient, TokenGrant};
use crate::{Credentials, CredentialsFile};
use forge_ports::Clock;
use parking_lot::Mutex;
use secrecy::{ExposeSecret as _, SecretString};
use std::fs::{File, TryLockError};
use std::sync::Arc;
use std::time::Duration;

/// Interval for polling the lock while another task or process renews the token.
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A login that provides a token and renews it.
pub struct LoginSession {
    file: CredentialsFile,
    http: TokenClient,
    timeout: Duration,
    clock: Arc<dyn Clock>,
    known: Mutex<Option<Credentials>>,
}

impl LoginSession {
    /// Creates a session for the login in this file; nothing is read yet. `timeout` is the longest time for a renewal.
    pub fn new(file: CredentialsFile, timeout: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { file, http: TokenClient::new(timeout), timeout, clock, known: Mutex::default() }
    }

    /// Returns a token that is valid now. A token about to expire is renewed; if that fails temporarily, it is used
    /// until it expires.
    ///
    /// # Errors
    /// If there is no login, or it has ended.
    pub async fn valid_token(&self) -> Result<SecretString, LoginError> {
        let known = self.known.lock().clone();
        let now = self.clock.now();
        if let Some(known) = known.filter(|known| known.is_fresh(now)) {
            return Ok(known.access);
        }
        let stored = self.load_credentials()?;
        let credentials = if stored.is_fresh(now) || (stored.refresh.is_none() && stored.is_valid(now)) {
            stored
        } else {
            self.renew_token(None).await?
        };
        Ok(self.cache_credentials(credentials))
    }

    /// Returns a token in place of one that was refused. Of several callers, the first one renews it and the others get
    /// the same token.
    ///
    /// # Errors
    /// As [`LoginSession::valid_token`].
    pub async fn refresh_after_rejection(&self, refused: &str) -> Result<SecretString, LoginError> {
        let credentials = self.renew_token(Some(refused)).await?;
        Ok(self.cache_credentials(credentials))
    }

    fn cache_credentials(&self, credentials: Credentials) -> SecretString {
        let token = credentials.access.clone();
        *self.known.lock() = Some(credentials);
        token
    }

    fn load_credentials(&self) -> Result<Credentials, LoginError> {
        let provider = || self.file.provider().to_owned();
        self.file.load()?.ok_or_else(|| LoginError::None { provider: provider() })
    }

    /// Renews the token under the lock, unless another task or process has replaced it already: the stored token must
    /// still be the `refused` one, or be about to expire.
    async fn renew_token(&self, refused: Option<&str>) -> Result<Credentials, LoginError> {
        let _lock = self.acquire_lock().await?;
        let found = self.load_credentials()?;
        let stale = match refused {
            Some(refused) => found.access.expose_secret() == refused,
            None => !found.is_fresh(self.clock.now()),
        };
        if !stale {
            return Ok(found);
        }
        let provider = &found.provider;
        let Some(refresh) = &found.refresh else {
            let why = "the token has expired or was revoked, and there is no refresh token".to_owned();
            return Err(LoginError::Ended { provider: provider.clone(), why });
        };
        let grant = TokenGrant::Refresh { token: refresh.expose_secret() };
        match self.http.request_tokens(&found.token_url, &found.client_id, &grant).await {
            Ok(tokens) => {
                let now = self.clock.now();
                let mut renewed = tokens.into_credentials(provider, &found.token_url, &found.client_id, now);
                renewed.since = found.since;
                // Not every response repeats them.
                renewed.refresh = renewed.refresh.or_else(|| found.refresh.clone());
                renewed.account = renewed.account.or_else(|| found.account.clone());
                self.file.save(&renewed)?;
                Ok(renewed)
            }
            // The token is still good for this call; the next one tries again.
            Err(GrantFailure::Other(_)) if refused.is_none() && found.is_valid(self.clock.now()) => Ok(found),
            Err(failed) => Err(failed.into_renewal_error(provider)),
        }
    }

    /// Acquires the lock shared by everything that renews this login, in this process and in others.
    async fn acquire_lock(&self) -> Result<File, LoginError> {
        let file = self.file.open_lock_file()?;
        // A holder gives up after the timeout, and several may be queued ahead.
        let most = self.timeout * 4;
        let taken = async {
            loop {
                match file.try_lock() {
                    Ok(()) => return Ok(()),
                    Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_POLL_INTERVAL).await,
                    Err(TryLockError::Error(error)) => return Err(error),
                }
            }
        };
        let fault = |why: String| LoginError::File { path: self.file.path().to_owned(), what: "locked", why };
        match tokio::time::timeout(most, taken).await {
            Ok(Ok(())) => Ok(file),
            Ok(Err(error)) => Err(fault(error.to_string())),
            Err(_) => Err(fault("another process has been renewing it for a long time".to_owned())),
        }
    }
}

impl std::fmt::Debug for LoginSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("file", &self.file).finish_non_exhaustive()
    }
}
