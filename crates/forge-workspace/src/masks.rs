//! Files of a workspace that hold credentials, as far as the view must know them; which they are, `forge-covers` says.

pub(crate) use forge_covers::can_be_credential;
use forge_ports::sandbox::Error;
use forge_types::Digest;
use std::path::Path;

/// Git's own configuration of a repository.
const GIT_CONFIG: &str = ".git/config";
/// A covered file of more bytes is not told again by its content when it was renamed.
const MAX_MASKED_BYTES: u64 = 16 << 20;

/// Refuses a repository whose git configuration is no file: every git command in the sandbox would wait for a pipe or
/// read a device for ever.
pub(crate) fn refuse_special_git_config(root: &Path) -> Result<(), Error> {
    match forge_files::open(&root.join(GIT_CONFIG)) {
        Err(error @ forge_files::Error::NotRegular { .. }) => Err(Error::View {
            why: format!("{error}, so git can't work in this repository; remove it, or restore the file"),
        }),
        _ => Ok(()),
    }
}

/// The content of a file that is covered, by which it is told when it was renamed; `None` if it is no regular file, can't
/// be read or is large.
pub(crate) fn masked_content_digest(root: &Path, path: &Path) -> Option<Digest> {
    let bytes = forge_files::read_within(root, path, MAX_MASKED_BYTES).ok()?;
    Some(Digest::of_bytes(&bytes))
}
