//! Tokens that replace an API key: they expire, and their source renews them.

use std::fmt;
use std::sync::Arc;

use forge_ports::async_trait;
use forge_ports::model::Error;
use forge_types::{ErrorKind, NextStep};

use crate::key::ApiKey;

/// Failure to obtain a token. The message describes the error and holds no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TokenError {
    /// Kind of error for the call: [`ErrorKind::Auth`] if only the user can help, else a kind that is retried.
    pub kind: ErrorKind,
    /// Message for people.
    pub message: String,
    /// Steps that the user can take.
    pub next_steps: Vec<NextStep>,
}

impl From<TokenError> for Error {
    fn from(error: TokenError) -> Self {
        Self { kind: error.kind, message: error.message, retry_after: None, next_steps: error.next_steps }
    }
}

/// A source of tokens that renews them.
#[async_trait]
pub trait TokenSource: Send + Sync {
    /// Returns a token that is valid now, renewed in advance if it is about to expire.
    async fn valid_token(&self) -> Result<ApiKey, TokenError>;

    /// Returns a token in place of one that the provider has just refused. For concurrent callers, the token is renewed
    /// only once.
    async fn refresh_after_rejection(&self, refused: &ApiKey) -> Result<ApiKey, TokenError>;
}

/// A shared [`TokenSource`]. Two values are equal if they share the same source.
#[derive(Clone)]
pub struct SharedTokenSource(Arc<dyn TokenSource>);

impl SharedTokenSource {
    /// Wraps a source.
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
