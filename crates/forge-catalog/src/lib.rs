//! Providers, wire formats, models, prices and tiers, as data.
//!
//! [`vendors`] is the only list of providers, [`models`] the table of models with its strict parser, [`tiers`] the
//! models of each provider by task tier. Reading files, settings and HTTP belong to the users of this crate.

pub mod models;
pub mod tiers;
pub mod vendors;
mod wire_format;

pub use models::{Catalog, CatalogError};
pub use wire_format::WireFormat;
