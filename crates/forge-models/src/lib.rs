//! Models of providers: four wire shapes over HTTP, and a scripted one.
//!
//! [`Models`] implements the port `Model`. One call is one HTTP attempt; what to do after an error is decided
//! elsewhere, by the error's class alone. Vendors are rows of [`vendors`], models rows of [`catalog`]; nothing
//! else knows a vendor's name.
//!
//! Invariants: a key goes to its own provider's address only and is printed nowhere; a stream without its proper
//! end is an error, never an answer; the same request always gives the same bytes, and a longer conversation
//! extends those of a shorter one; nothing is read or connected before the first call.

mod assembly;
mod bearer;
pub mod catalog;
mod errors;
mod http;
mod options;
mod probe;
mod retry_after;
mod scripted;
mod service;
mod shape;
pub mod sse;
pub mod vendors;

pub use bearer::{Bearer, TokenError, TokenSource};
pub use catalog::facts;
pub use options::{Key, Options, ProviderOptions, ScriptSource};
pub use probe::{ConnectionTest, Sighting};
pub use service::{Models, SetupError};
pub use shape::Shape;
