//! Where the memory of a repository's conversations lies, and what a repository brings along.
//!
//! It lies in the user's own data directory, where neither a clone nor a run can write. A file in the repository counts
//! only where the user's own settings name it, and then only as Forge left it or as the user accepted it. A memory that
//! came with the repository is taken in once, after `forge trust` has shown it.

use crate::checkout::Checkouts;
use crate::conversation::Memory;
use crate::environment::Dirs;
use crate::fault::{Notice, NoticeKind};
use crate::load::Loaded;
use crate::trust;
use forge_types::Digest;
use std::path::{Path, PathBuf};

/// The memory that a repository brings along, as earlier versions kept it.
pub const BROUGHT: &str = ".forge/memory/memory.json";
/// A larger one is not looked at.
pub(crate) const MAX_BYTES: u64 = 8 << 20;
/// The directory of memories in the data directory.
const DIRECTORY: &str = "memory";

/// Where a memory lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Where only the user writes.
    Own(PathBuf),
    /// In a repository.
    InRepository {
        /// The outermost directory that came with the clone.
        root: PathBuf,
        /// The file's path from there.
        relative: PathBuf,
        /// The record of what is believed, in the data directory.
        record: PathBuf,
    },
}

/// The place of the memory of conversations about `repo`.
pub fn place(loaded: &Loaded, repo: &Path) -> Place {
    let canonical = repo.canonicalize().unwrap_or_else(|_| repo.to_owned());
    let memories = loaded.dirs.data.join(DIRECTORY);
    let Some(file) = &loaded.settings.memory.file else {
        return Place::Own(memories.join(key(&canonical)).join("memory.json"));
    };
    let clones = Checkouts::around(repo, None, loaded.dirs.home());
    if !clones.hold(file) {
        return Place::Own(file.clone());
    }
    // The path as it is written below the repository: a link on the way is to be found, not resolved.
    let below = |path: &Path| {
        let root = path
            .ancestors()
            .skip(1)
            .filter(|root| root.canonicalize().is_ok_and(|real| clones.roots().any(|known| known == real)));
        let root = root.last()?;
        Some((root.to_owned(), path.strip_prefix(root).ok()?.to_owned()))
    };
    let file: PathBuf = file.components().collect();
    let (root, relative) = below(&file).unwrap_or_else(|| {
        // Reached from elsewhere: its directory stands for the repository.
        let root = file.parent().unwrap_or(&file).to_owned();
        (root, PathBuf::from(file.file_name().unwrap_or_default()))
    });
    let real = root.canonicalize().unwrap_or_else(|_| root.clone()).join(&relative);
    let record = memories.join(format!("{}.accepted", key(&real)));
    Place::InRepository { root, relative, record }
}

fn key(path: &Path) -> String {
    Digest::of(path.as_os_str().as_encoded_bytes()).to_string()
}

/// The memory that came with a repository; no link on the way to it is followed.
pub(crate) fn brought(repo: &Path) -> Result<Vec<u8>, forge_files::Error> {
    forge_files::read_within(repo, Path::new(BROUGHT), MAX_BYTES)
}

/// What is said of a memory that came with a repository and is not believed.
pub(crate) fn refusal(dirs: &Dirs, repo: &Path, memory: &Memory) -> Option<Notice> {
    if !memory.enabled || memory.file.is_some() {
        return None;
    }
    let place = repo.join(BROUGHT);
    let message = match brought(repo) {
        Err(error) if error.is_absent() => return None,
        Err(error) => format!("the repository's memory {} is ignored: {}", place.display(), error.reason()),
        Ok(bytes) if trust::has_accepted(dirs, repo, BROUGHT, Digest::of(&bytes)) => return None,
        Ok(_) => format!(
            "the repository's memory {} is ignored until you have looked at it and accepted it with `forge trust`",
            place.display()
        ),
    };
    Some(Notice { kind: NoticeKind::Refused, key: Some(BROUGHT.to_owned()), message })
}

/// The memory that came with a repository, if the user accepted it as it is.
pub fn accepted(dirs: &Dirs, repo: &Path) -> Option<Vec<u8>> {
    let bytes = brought(repo).ok()?;
    trust::has_accepted(dirs, repo, BROUGHT, Digest::of(&bytes)).then_some(bytes)
}

/// The memory at a place in a repository, if the user accepted it there as it is.
pub fn accepted_at(dirs: &Dirs, repo: &Path, root: &Path, relative: &Path) -> Option<Digest> {
    let bytes = forge_files::read_within(root, relative, MAX_BYTES).ok()?;
    let digest = Digest::of(&bytes);
    let path = root.join(relative);
    let canonical = repo.canonicalize().ok()?;
    let name = trust::relative(&canonical, &path);
    trust::has_accepted(dirs, repo, &name, digest).then_some(digest)
}
