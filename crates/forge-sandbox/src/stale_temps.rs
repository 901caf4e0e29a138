//! Temporary files and folders of this crate's: where they lie, their kinds, and what becomes of those whose process was
//! killed.
//!
//! All lie in one directory of this user that nobody else can enter, so nobody can put anything beside them or move
//! them. What another user's program has to reach is the one exception, and is kept in the shared folder for temporary
//! files under a name that can't be foreseen.

use crate::BackendOptions;
use forge_files::PrivateDir;
use forge_ports::sandbox::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

/// Certificates that a box is shown.
pub(crate) const CA_BUNDLE_KIND: &str = "ca";
/// A program and the folder that it works in.
pub(crate) const ONE_SHOT_KIND: &str = "once";
/// The home folder of commands that nothing isolates.
pub(crate) const HOME_DIR_KIND: &str = "home";
/// The directory for sockets of containers in a user's runtime directory.
const RUNTIME_SUBDIR: &str = "forge";

/// Gives the directory for temporary things, which is made if it is missing.
pub(crate) fn temp_directory(options: &BackendOptions) -> Result<PrivateDir, Error> {
    PrivateDir::open_or_create(&options.temporary).map_err(|error| Error::Startup { why: error.to_string() })
}

/// Gives the directory for sockets, and small files beside them: in the user's runtime directory if that is what it should
/// be, since not every file system holds sockets, else the one for temporary things.
pub(crate) fn socket_directory(
    runtime: Option<&Path>,
    temporary: &Path,
) -> Result<PrivateDir, forge_files::NotPrivate> {
    match runtime.map(|runtime| PrivateDir::open_or_create_below(runtime, RUNTIME_SUBDIR)) {
        Some(Ok(directory)) => Ok(directory),
        _ => PrivateDir::open_or_create(temporary),
    }
}

/// The directories that [`for_sockets`] may have given.
pub(crate) fn socket_directories(runtime: Option<&Path>, temporary: &Path) -> Vec<PathBuf> {
    runtime.map(|runtime| runtime.join(RUNTIME_SUBDIR)).into_iter().chain([temporary.to_owned()]).collect()
}

/// Removes what processes left that are gone, in `temporary` and where another user's program had to reach it. Gives
/// what was removed.
pub(crate) fn remove_stale_temps(temporary: &Path) -> Vec<PathBuf> {
    let mut removed = forge_files::remove_stale(temporary, &[CA_BUNDLE_KIND, ONE_SHOT_KIND, HOME_DIR_KIND]);
    let mut shared = forge_files::find_stale(&std::env::temp_dir(), &[forge_git::DIRECTORY_KIND]);
    shared.retain(|path| {
        forge_files::remove_own_tree(path);
        fs::symlink_metadata(path).is_err()
    });
    removed.extend(shared);
    removed.extend(forge_verify::prune_stale());
    removed
}

/// Does so beside whatever is going on, the first time that this process opens a box: who never hears of
/// `forge sandbox prune` is rid of leftovers all the same.
pub(crate) fn remove_stale_in_background(options: &BackendOptions) {
    static PRUNE_ONCE: Once = Once::new();
    PRUNE_ONCE.call_once(|| {
        let temporary = options.temporary.clone();
        // What can't be done now is done by the next one.
        let _ = std::thread::Builder::new()
            .name("forge-prune".to_owned())
            .spawn(move || remove_stale_temps(&temporary));
    });
}
