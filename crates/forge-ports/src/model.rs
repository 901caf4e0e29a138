//! Models of providers.

use async_trait::async_trait;
use forge_types::{EmbedRequest, Embeddings, ErrorClass, ErrorInfo, ErrorKind, ModelReply, ModelRequest};
use std::time::Duration;

/// What can go wrong with one attempt to ask a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Its kind.
    pub kind: ErrorKind,
    /// What happened, at which provider, and what to do next. Never holds a key.
    pub message: String,
    /// How long the provider asked to wait.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// What can be done about it.
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

    /// As it is journalled.
    pub fn to_info(&self) -> ErrorInfo {
        match self.class() {
            ErrorClass::Retry { after } => ErrorInfo::retryable(self.kind, self.message.clone(), after),
            _ => ErrorInfo::fatal(self.kind, self.message.clone()),
        }
    }
}

/// Takes the text of a reply while it comes. Live only, never journalled.
pub trait DeltaSink: Send + Sync {
    /// More text of the reply.
    fn push_text(&self, text: &str);

    /// More text of the model's reasoning, where the provider shows it.
    fn push_reasoning(&self, _text: &str) {}
}

/// Nobody listens.
impl DeltaSink for () {
    fn push_text(&self, _text: &str) {}
}

/// A provider's models.
///
/// One call is one HTTP attempt: no adapter retries. A stream that ends without its proper end is an
/// error, never an answer. Dropping the future ends the request.
#[async_trait]
pub trait Model: Send + Sync {
    /// Asks a model and streams its reply.
    async fn request_reply(&self, request: ModelRequest, deltas: &dyn DeltaSink)
    -> Result<ModelReply, Error>;
}

/// A provider's models that turn texts into vectors.
///
/// One call is one HTTP attempt, as with [`Model`]. The reply has one vector per text in their order, or it is an
/// error; a provider that has no such models says so ([`ErrorKind::Format`]).
#[async_trait]
pub trait Embedder: Send + Sync {
    /// Turns texts into vectors.
    async fn embed(&self, request: EmbedRequest) -> Result<Embeddings, Error>;
}
