//! Masked files of a workspace, as far as this crate must know them; `forge-covers` decides which files hold
//! credentials.

pub(crate) use forge_covers::can_be_credential;
use forge_ports::sandbox::Error;
use forge_types::Digest;
use std::path::Path;

/// Git's own configuration of a repository.
const GIT_CONFIG: &str = ".git/config";
/// Maximum size in bytes of a masked file that is recognised by its content after a rename.
const MAX_MASKED_BYTES: u64 = 16 << 20;

/// Refuses a repository with a git configuration that is not a regular file: every git command in the sandbox would
/// wait for a pipe or read a device forever.
pub(crate) fn refuse_special_git_config(root: &Path) -> Result<(), Error> {
    match forge_files::open(&root.join(GIT_CONFIG)) {
        Err(error @ forge_files::Error::NotRegular { .. }) => Err(Error::View {
            why: format!("{error}, so git can't work in this repository; remove it, or restore the file"),
        }),
        _ => Ok(()),
    }
}

/// Returns the digest by which a masked file is recognised after a rename; `None` if it is not a regular file, cannot
/// be read or is large.
pub(crate) fn masked_content_digest(root: &Path, path: &Path) -> Option<Digest> {
    let bytes = forge_files::read_within(root, path, MAX_MASKED_BYTES).ok()?;
    Some(Digest::of_bytes(&bytes))
}
