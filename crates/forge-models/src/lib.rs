//! Models of providers: seven wire shapes over HTTP, and a scripted one.
//!
//! [`Models`] implements the ports `Model` and `Embedder`. One call is one HTTP attempt; what to do after an error is
//! decided elsewhere, by the error's class alone. Vendors are rows of [`vendors`], models rows of [`catalog`]; nothing
//! else knows a vendor's name.
//!
//! Invariants: a key goes to its own provider's address only and is printed nowhere; a stream without its proper
//! end is an error, never an answer; the same request always gives the same bytes, and a longer conversation
//! extends those of a shorter one; nothing is read or connected before the first call.

pub mod catalog;
mod embed;
mod errors;
mod fetch;
mod http;
mod oauth_token;
mod options;
mod probe;
mod reply_builder;
mod retry_after;
mod schema;
mod scripted;
mod service;
pub mod sse;
mod structured;
pub mod tiers;
pub mod tokens;
pub mod vendors;
mod wire_format;

pub use catalog::{Catalog, CatalogError, model_facts};
pub use fetch::fetch_table;
pub use oauth_token::{SharedTokenSource, TokenError, TokenSource};
pub use options::{ApiKey, Options, ProviderOptions, ReplyLimits, ScriptSource};
pub use probe::{ConnectionTest, LocalServerInfo};
pub use service::{ModelProviders, ProviderSetupError};
pub use wire_format::WireFormat;
