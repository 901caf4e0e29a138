//! Models of providers.

use async_trait::async_trait;
use forge_types::{
    EmbedRequest, Embeddings, ErrorClass, ErrorInfo, ErrorKind, ModelReply, ModelRequest, NextStep,
};
use std::time::Duration;

/// An error of one request to a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The kind of error.
    pub kind: ErrorKind,
    /// The error and the provider. Never contains a key.
    pub message: String,
    /// The delay that the provider asked for.
    pub retry_after: Option<Duration>,
    /// Steps that the user can take.
    pub next_steps: Vec<NextStep>,
}

impl Error {
    /// Returns the class of this error, which decides how the caller handles it.
    pub const fn class(&self) -> ErrorClass {
        match self.kind {
            ErrorKind::RateLimit
            | ErrorKind::Timeout
            | ErrorKind::Overloaded
            | ErrorKind::Unavailable
            | ErrorKind::MalformedResponse
            | ErrorKind::Unknown => ErrorClass::Retry { after: self.retry_after },
            ErrorKind::Auth | ErrorKind::Billing => ErrorClass::Denied,
            _ => ErrorClass::Invalid,
        }
    }

    /// Returns the error in the form that is journalled.
    pub fn to_info(&self) -> ErrorInfo {
        let info = match self.class() {
            ErrorClass::Retry { after } => ErrorInfo::retryable(self.kind, self.message.clone(), after),
            _ => ErrorInfo::fatal(self.kind, self.message.clone()),
        };
        info.with_next_steps(self.next_steps.iter().cloned())
    }
}

/// A receiver of a reply's text while it streams. Live only, never journalled.
pub trait DeltaSink: Send + Sync {
    /// Receives more text of the reply.
    fn push_text(&self, text: &str);

    /// Receives more text of the model's reasoning, if the provider exposes it.
    fn push_reasoning(&self, _text: &str) {}
}

/// Discards the text.
impl DeltaSink for () {
    fn push_text(&self, _text: &str) {}
}

/// The chat models of a provider.
///
/// One call is one HTTP attempt: adapters never retry. A stream that is cut off is an error, never an answer. Dropping
/// the future cancels the request.
#[async_trait]
pub trait Model: Send + Sync {
    /// Asks a model and streams its reply.
    async fn request_reply(&self, request: ModelRequest, deltas: &dyn DeltaSink)
    -> Result<ModelReply, Error>;
}

/// The embedding models of a provider.
///
/// One call is one HTTP attempt, as with [`Model`]. A reply without exactly one vector per text, in order, is an error;
/// a provider without such models returns [`ErrorKind::Format`].
#[async_trait]
pub trait Embedder: Send + Sync {
    /// Turns texts into vectors.
    async fn embed(&self, request: EmbedRequest) -> Result<Embeddings, Error>;
}
