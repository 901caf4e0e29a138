//! Models of providers: seven wire formats over HTTP, and a scripted provider.
//!
//! [`ModelProviders`] implements the ports `Model` and `Embedder`. One call is one HTTP attempt; the caller decides how
//! to proceed after an error, by its class alone. Vendors and models are rows of the tables in `forge-catalog`; no code
//! depends on a vendor's name.
//!
//! Invariants: an API key is sent to its own provider's address only and is never printed; a stream without its proper
//! end is an error, never an answer; equal requests are encoded as equal bytes, and a longer conversation extends the
//! bytes of a shorter one; nothing is read or connected before the first call.

mod connection_reuse;
mod embed;
mod errors;
mod fetch;
mod http;
mod key;
mod oauth_token;
mod options;
mod probe;
mod provider;
mod reply_builder;
mod retry_after;
mod schema;
mod scripted;
mod service;
pub mod sse;
mod structured;
pub mod tokens;
mod wire_format;

pub use fetch::fetch_table;
pub use key::ApiKey;
pub use oauth_token::{SharedTokenSource, TokenError, TokenSource};
pub use options::{Options, ProviderOptions, ReplyLimits, ScriptSource};
pub use probe::{ConnectionTest, LocalServerInfo};
pub use provider::ProviderSetupError;
pub use service::ModelProviders;
