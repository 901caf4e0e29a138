//! The location of a repository's conversation memory, and the memory that came with a repository.
//!
//! The memory is in the user's data directory, where neither a clone nor a run can write. A file in the repository is
//! used only if the user's own settings name it, and only with the content that Forge wrote or the user accepted. A
//! memory that came with the repository is imported once, after `forge trust` has shown it.

use crate::checkout::Checkouts;
use crate::environment::UserDirs;
use crate::error::{ConfigNotice, NoticeKind};
pub use crate::repository_memory::REPOSITORY_MEMORY_PATH;
use crate::repository_memory::{MAX_MEMORY_BYTES, read_repository_memory};
use crate::resolved::ResolvedConfig;
use crate::settings::MemorySettings;
use crate::trust;
use forge_types::{Digest, NextStep};
use std::path::{Path, PathBuf};

/// Name of the directory for memories in the data directory.
const MEMORIES_DIR: &str = "memory";

/// Location of a memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemoryLocation {
    /// A path that only the user can write to.
    Own(PathBuf),
    /// A path in a repository.
    InRepository {
        /// Outermost directory that came with the clone.
        root: PathBuf,
        /// Path of the file relative to that directory.
        relative: PathBuf,
        /// Record of the accepted content, in the data directory.
        record: PathBuf,
    },
}

/// Returns the location of the memory of conversations about `repo`.
pub fn memory_location(loaded: &ResolvedConfig, repo: &Path) -> MemoryLocation {
    let canonical = repo.canonicalize().unwrap_or_else(|_| repo.to_owned());
    let memories = loaded.dirs.data.join(MEMORIES_DIR);
    let Some(file) = &loaded.settings.memory.file else {
        return MemoryLocation::Own(memories.join(path_digest(&canonical)).join("memory.json"));
    };
    let clones = Checkouts::discover(repo, None, loaded.dirs.home_dir());
    let Some((root, relative)) = clones.locate(file) else {
        return MemoryLocation::Own(file.clone());
    };
    let real = root.canonicalize().unwrap_or_else(|_| root.clone()).join(&relative);
    let record = memories.join(format!("{}.accepted", path_digest(&real)));
    MemoryLocation::InRepository { root, relative, record }
}

fn path_digest(path: &Path) -> String {
    Digest::of_bytes(path.as_os_str().as_encoded_bytes()).to_string()
}

/// Returns the notice about a memory that came with a repository and is ignored.
pub(crate) fn memory_refusal(dirs: &UserDirs, repo: &Path, memory: &MemorySettings) -> Option<ConfigNotice> {
    if !memory.enabled || memory.file.is_some() {
        return None;
    }
    let place = repo.join(REPOSITORY_MEMORY_PATH);
    let mut next_step = None;
    let message = match read_repository_memory(repo) {
        Err(error) if error.is_absent() => return None,
        Err(error) => format!("the repository's memory {} is ignored: {}", place.display(), error.reason()),
        Ok(bytes) if trust::has_accepted(dirs, repo, REPOSITORY_MEMORY_PATH, Digest::of_bytes(&bytes)) => {
            return None;
        }
        Ok(_) => {
            next_step = Some(NextStep::Trust { file: None });
            format!("the repository's memory {} is ignored until you review and accept it", place.display())
        }
    };
    Some(ConfigNotice {
        kind: NoticeKind::Refused,
        key: Some(REPOSITORY_MEMORY_PATH.to_owned()),
        message,
        next_step,
    })
}

/// Returns the memory that came with a repository if the user accepted its present content.
pub fn accepted_memory(dirs: &UserDirs, repo: &Path) -> Option<Vec<u8>> {
    let bytes = read_repository_memory(repo).ok()?;
    trust::has_accepted(dirs, repo, REPOSITORY_MEMORY_PATH, Digest::of_bytes(&bytes)).then_some(bytes)
}

/// Returns the digest of a memory in a repository if the user accepted its present content at that path.
pub fn accepted_digest_at(dirs: &UserDirs, repo: &Path, root: &Path, relative: &Path) -> Option<Digest> {
    let bytes = forge_files::read_within(root, relative, MAX_MEMORY_BYTES).ok()?;
    let digest = Digest::of_bytes(&bytes);
    let path = root.join(relative);
    let canonical = repo.canonicalize().ok()?;
    let name = trust::path_in_repository(&canonical, &path);
    trust::has_accepted(dirs, repo, &name, digest).then_some(digest)
}
