//! Masked files of a workspace, as far as this crate must know them; `forge-covers` decides which files hold
//! credentials.

use crate::repos::OpenRepo;
pub(crate) use forge_covers::can_be_credential;
use forge_ports::sandbox::Error;
use forge_snapshot::{BaseManifest, TreeRoot};
use forge_types::Digest;
use std::path::Path;
use std::sync::Arc;

/// Git's own configuration of a repository.
const GIT_CONFIG: &str = ".git/config";
/// Maximum size in bytes of a masked file that is recognised by its content after a rename.
const MAX_MASKED_BYTES: u64 = 16 << 20;

/// Refuses a repository with a git configuration that is not a regular file: every git command in the sandbox would
/// wait for a pipe or read a device forever.
pub(crate) fn refuse_special_git_config(repo: &OpenRepo) -> Result<(), Error> {
    match forge_files::open(&repo.root.descriptor_path().join(GIT_CONFIG)) {
        Err(error @ forge_files::Error::NotRegular { .. }) => Err(Error::View {
            why: format!(
                "{} is {}, so git can't work in this repository; remove it, or restore the file",
                repo.root.join(GIT_CONFIG).display(),
                error.reason()
            ),
        }),
        _ => Ok(()),
    }
}

/// Returns the digest by which a masked file is recognised after a rename; `None` if it is not a regular file, cannot
/// be read or is large.
pub(crate) fn masked_content_digest(root: &TreeRoot, path: &Path) -> Option<Digest> {
    let bytes = forge_files::read_within(&root.descriptor_path(), path, MAX_MASKED_BYTES).ok()?;
    Some(Digest::of_bytes(&bytes))
}

/// Refuses, as root, a repository of another user with files that this user may not read: a run would show them to code
/// of the repository, and its result would give them to the repository's owner.
pub(crate) fn refuse_private_files(repos: &[OpenRepo], bases: &[Arc<BaseManifest>]) -> Result<(), Error> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    for (repo, base) in repos.iter().zip(bases) {
        let owner = repo.stamp.uid;
        if owner == 0 {
            continue;
        }
        if let Some(path) = base.find_private_foreign(owner) {
            let path = repo.root.join(path.as_path());
            return Err(Error::View {
                why: format!(
                    "{} belongs to another user than the repository (user {owner}), who may not read it; a run as root \
                     would reveal it. Run forge as user {owner}, or remove the file or change its owner",
                    path.display()
                ),
            });
        }
    }
    Ok(())
}
