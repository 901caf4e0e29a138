//! Which files of a repository hold credentials. A sandbox covers them, unless the user reveals them by name.
//!
//! Two things decide: names (`.env`, `id_rsa`, `.npmrc` with a token in it) and, whatever the name, what a file begins with
//! (private keys). [`among`] goes through the manifest of a repository and tells what names say; what has to be read for the
//! rest is left to the caller's time ([`Unread::read`]) and remembered, so that no file is read twice. [`Watch`] tells of files
//! that come to be while a run works. [`tracked`] tells what of it stands in git's history as well.
//!
//! This crate knows nothing of sandboxes, and covers nothing itself.

mod content;
mod history;
mod inspect;
mod names;
mod overlay_redirects;
mod scan;
mod scan_cache;
mod watch;

pub use history::{secrets_in_history, tracked_credentials};
pub use names::{RevealedPaths, can_be_credential};
pub use overlay_redirects::find_redirected_paths;
pub use scan::{CredentialScan, UnreadFiles, scan_manifest};
pub use watch::{CoveredPath, CredentialWatch, WatchTarget};
