//! Reading files to detect credentials: without blocking, regular files only, and not through links.

use crate::content::{self, FileHeadKind, HEAD_BYTES, MAX_KEY_BYTES, MIN_KEY_BYTES};
use crate::names::{self, FileOrigin, NameVerdict};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Number of bytes searched for words that indicate a credential.
const MAX_SEARCHED_BYTES: u64 = 256 << 10;

/// Opens the directory to be inspected. Links in its path are followed because the caller named it.
pub(crate) fn open_root(path: &Path) -> std::io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens a directory below an open one without following links.
pub(crate) fn open_directory(root: impl AsFd, path: &Path) -> Option<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(root, path, flags, Mode::empty(), RESOLVE_BENEATH).ok()
}

const RESOLVE_BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Opens a regular file in an open directory and returns it with its size.
fn open_file(directory: impl AsFd, name: &Path) -> rustix::io::Result<Option<(File, u64)>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(directory, name, flags, Mode::empty(), RESOLVE_BENEATH)?;
    let stat = rustix::fs::fstat(&file)?;
    let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    Ok(regular.then(|| (File::from(file), u64::try_from(stat.st_size).unwrap_or(0))))
}

/// Returns whether a file may be a private key, judging by its size and name.
pub(crate) fn may_be_key(name: &[u8], size: u64) -> bool {
    (MIN_KEY_BYTES..=MAX_KEY_BYTES).contains(&size) && !names::is_never_a_key(name)
}

/// Returns whether the file `name` in an open directory is a private key. An unreadable file counts as none because a
/// sandbox of this user could not read it either.
pub(crate) fn is_key(directory: impl AsFd, name: &[u8]) -> bool {
    let Ok(Some((file, size))) = open_file(directory, Path::new(std::ffi::OsStr::from_bytes(name))) else {
        return false;
    };
    if !(MIN_KEY_BYTES..=MAX_KEY_BYTES).contains(&size) {
        return false;
    }
    let mut head = [0; HEAD_BYTES];
    let Ok(read) = file.read_at(&mut head, 0) else { return false };
    match content::classify_head(&head[..read], size) {
        FileHeadKind::Key => true,
        FileHeadKind::Other => false,
        FileHeadKind::ReadOn => {
            let mut bytes = Vec::new();
            file.take(MAX_KEY_BYTES).read_to_end(&mut bytes).is_ok() && content::contains_private_key(&bytes)
        }
    }
}

/// Returns whether the beginning of a file below an open directory contains one of `words`. An unreadable file is
/// assumed to contain them.
pub(crate) fn contains_any_word(root: impl AsFd, path: &Path, words: &[&str]) -> bool {
    match open_file(root, path) {
        Ok(None) => false,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => false,
        Err(_) => true,
        Ok(Some((file, _))) => {
            let mut bytes = Vec::new();
            file.take(MAX_SEARCHED_BYTES).read_to_end(&mut bytes).is_err() || {
                let text = String::from_utf8_lossy(&bytes);
                words.iter().any(|word| text.contains(word))
            }
        }
    }
}

/// Returns whether the name of a file, with its content where the name is not enough, indicates credentials.
pub(crate) fn has_credential_name(root: impl AsFd, path: &Path, place: FileOrigin) -> bool {
    let name = path.file_name().unwrap_or_default();
    match names::classify_name(name.as_bytes(), place) {
        NameVerdict::No => false,
        NameVerdict::Always => true,
        NameVerdict::Below => names::is_credential_path(path),
        NameVerdict::IfInside(words) => contains_any_word(root, path, words),
    }
}

/// Like [`has_credential_name`], for a link to the file at `target` in the same directory tree.
pub(crate) fn has_credential_name_through_link(
    root: impl AsFd,
    link: &Path,
    target: &Path,
    place: FileOrigin,
) -> bool {
    let name = link.file_name().unwrap_or_default();
    match names::classify_name(name.as_bytes(), place) {
        NameVerdict::IfInside(words) => contains_any_word(root, target, words),
        _ => has_credential_name(root, link, place),
    }
}

/// Returns whether a regular file below an open directory holds credentials, by its name or as a private key.
pub(crate) fn is_credential(root: impl AsFd, path: &Path, size: u64) -> bool {
    let name = path.file_name().unwrap_or_default().as_bytes();
    if has_credential_name(&root, path, FileOrigin::of_path(path)) {
        return true;
    }
    let parent = path.parent().unwrap_or(Path::new(""));
    may_be_key(name, size) && open_directory(root, parent).is_some_and(|directory| is_key(directory, name))
}
