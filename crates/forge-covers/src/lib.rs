//! Detection of credential files in a repository. A sandbox masks ("covers") them unless the user reveals them by name.
//!
//! Two criteria apply: names (`.env`, `id_rsa`, `.npmrc` with a token in it) and, for any name, the beginning of a file
//! (private keys). [`scan_manifest`] checks the names in the manifest of a repository. The caller decides when to read
//! the remaining files ([`UnreadFiles::find_private_keys`]); results are cached so that no file is read twice.
//! [`CredentialWatch`] reports files that are created while a run works, and [`tracked_credentials`] those that are
//! also in git's history.
//!
//! This crate knows nothing of sandboxes and covers nothing itself.
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
