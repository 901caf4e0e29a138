//! Temporary files and directories of this crate: their location, their kinds, and their removal after their process
//! was killed.
//!
//! All are in one directory that only this user can enter, so no other user can add or move anything there. Data that
//! another user's program must reach is the only exception: it is kept in the shared temporary directory under an
//! unpredictable name.

use crate::BackendOptions;
use forge_files::PrivateDir;
use forge_ports::sandbox::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

/// Certificates mounted in a sandbox.
pub(crate) const CA_BUNDLE_KIND: &str = "ca";
/// A program and its work directory.
pub(crate) const ONE_SHOT_KIND: &str = "once";
/// Home directory of commands without isolation.
pub(crate) const HOME_DIR_KIND: &str = "home";
/// Directory for sockets of containers in a user's runtime directory.
const RUNTIME_SUBDIR: &str = "forge";

/// Returns the directory for temporary files, creating it if it is missing.
pub(crate) fn temp_directory(options: &BackendOptions) -> Result<PrivateDir, Error> {
    PrivateDir::open_or_create(&options.temporary).map_err(|error| Error::Startup { why: error.to_string() })
}

/// Returns the directory for sockets and small files next to them: in the user's runtime directory if that is usable,
/// since not every file system supports sockets, and otherwise the temporary directory.
pub(crate) fn socket_directory(
    runtime: Option<&Path>,
    temporary: &Path,
) -> Result<PrivateDir, forge_files::NotPrivate> {
    match runtime.map(|runtime| PrivateDir::open_or_create_below(runtime, RUNTIME_SUBDIR)) {
        Some(Ok(directory)) => Ok(directory),
        _ => PrivateDir::open_or_create(temporary),
    }
}

/// Returns the directories that [`socket_directory`] may have returned.
pub(crate) fn socket_directories(runtime: Option<&Path>, temporary: &Path) -> Vec<PathBuf> {
    runtime.map(|runtime| runtime.join(RUNTIME_SUBDIR)).into_iter().chain([temporary.to_owned()]).collect()
}

/// Removes what dead processes left, in `temporary` and in the shared temporary directory. Returns the removed paths.
pub(crate) fn remove_stale_temps(temporary: &Path) -> Vec<PathBuf> {
    let mut removed = forge_files::remove_stale(
        temporary,
        &[CA_BUNDLE_KIND, ONE_SHOT_KIND, HOME_DIR_KIND, forge_git::DIRECTORY_KIND],
    );
    let mut shared = forge_files::find_stale(&std::env::temp_dir(), &[forge_git::DIRECTORY_KIND]);
    shared.retain(|path| {
        forge_files::remove_own_tree(path);
        fs::symlink_metadata(path).is_err()
    });
    removed.extend(shared);
    removed.extend(forge_probes::prune_stale());
    removed
}

/// Does the same in the background the first time that this process opens a sandbox, so that users need not know of
/// `forge sandbox prune`.
pub(crate) fn remove_stale_in_background(options: &BackendOptions) {
    static PRUNE_ONCE: Once = Once::new();
    PRUNE_ONCE.call_once(|| {
        let temporary = options.temporary.clone();
        // Anything that cannot be removed now is removed by the next process.
        let _ = std::thread::Builder::new()
            .name("forge-prune".to_owned())
            .spawn(move || remove_stale_temps(&temporary));
    });
}
