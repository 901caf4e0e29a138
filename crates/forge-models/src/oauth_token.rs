//! Tokens that stand in for a key: they expire, and somebody else renews them.

use std::fmt;
use std::sync::Arc;

use forge_ports::async_trait;
use forge_ports::model::Error;
use forge_types::ErrorKind;

use crate::options::ApiKey;

/// Why there is no token. The message says what happened and what to do; it holds no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TokenError {
    /// What it means for the call: [`ErrorKind::Auth`] if only a person can help, else a kind that is tried again.
    pub kind: ErrorKind,
    /// For people.
    pub message: String,
}

impl From<TokenError> for Error {
    fn from(error: TokenError) -> Self {
        Self { kind: error.kind, message: error.message, retry_after: None }
    }
}

/// Gives tokens and renews them.
#[async_trait]
pub trait TokenSource: Send + Sync {
    /// A token that is valid now, renewed beforehand if it is about to expire.
    async fn valid_token(&self) -> Result<ApiKey, TokenError>;

    /// A token in place of one that the provider has just refused. Many callers may ask at once; the token is renewed
    /// once.
    async fn refresh_after_rejection(&self, refused: &ApiKey) -> Result<ApiKey, TokenError>;
}

/// A shared [`TokenSource`]. Two are equal if they are the same one.
#[derive(Clone)]
pub struct SharedTokenSource(Arc<dyn TokenSource>);

impl SharedTokenSource {
    /// Shares a source.
    pub fn new(source: Arc<dyn TokenSource>) -> Self {
        Self(source)
    }

    pub(crate) async fn valid_token(&self) -> Result<ApiKey, TokenError> {
        self.0.valid_token().await
    }

    pub(crate) async fn refresh_after_rejection(&self, refused: &ApiKey) -> Result<ApiKey, TokenError> {
        self.0.refresh_after_rejection(refused).await
    }
}

impl PartialEq for SharedTokenSource {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for SharedTokenSource {}

impl fmt::Debug for SharedTokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(hidden)")
    }
}
