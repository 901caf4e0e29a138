//! Temporary files and folders of this crate's: their kinds, and what becomes of those whose process was killed.

use crate::view::remove_tree;
use std::fs;
use std::path::PathBuf;
use std::sync::Once;

/// Certificates that a box is shown.
pub(crate) const CERTIFICATES: &str = "ca";
/// A program and the folder that it works in.
pub(crate) const ONCE: &str = "once";
/// A commit on its way into a repository.
pub(crate) const BUNDLE: &str = "bundle";
/// The home folder of commands that nothing isolates.
pub(crate) const HOME: &str = "home";

/// Removes what processes left in the folder for temporary files that are gone. Gives what was removed.
pub(crate) fn prune() -> Vec<PathBuf> {
    let mut removed = forge_jail::ownerless(&std::env::temp_dir(), &[CERTIFICATES, ONCE, BUNDLE, HOME]);
    removed.retain(|path| {
        remove_tree(path);
        fs::symlink_metadata(path).is_err()
    });
    removed.extend(forge_verify::prune());
    removed
}

/// Does so beside whatever is going on, the first time that this process opens a box: who never hears of
/// `forge sandbox prune` is rid of leftovers all the same.
pub(crate) fn prune_beside() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        // What can't be done now is done by the next one.
        let _ = std::thread::Builder::new().name("forge-prune".to_owned()).spawn(prune);
    });
}
