//! New paths of covered files after a run has renamed a directory above them.
//!
//! An overlay mounted by root renames a directory of the repository by recording in its upper layer where the directory
//! continues. A file covered by its path in the repository then appears under another path.

use forge_snapshot::RelPath;
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Attribute of a renamed directory: a path from the root, or a sibling's name.
const REDIRECT_XATTR: &str = "trusted.overlay.redirect";
/// Maximum path length; longer paths cannot be named in the sandbox.
const MAX_PATH_BYTES: usize = 4095;
/// Maximum number of directories inspected in the upper layer.
const MAX_DIRECTORIES: usize = 1_000_000;

/// Returns additional paths under which the files at `covered` appear in the overlay with this upper layer.
#[must_use]
pub fn find_redirected_paths(upper: &Path, covered: &[RelPath]) -> Vec<RelPath> {
    let mut seen = Vec::new();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(root) = rustix::fs::open(upper, flags, Mode::empty()) else { return seen };
    // Directories of the upper layer, each with its visible path and its path in the repository.
    let mut waiting = vec![(RelPath::default(), RelPath::default())];
    let mut looked = 0;
    while let Some((path, below)) = waiting.pop() {
        looked += 1;
        let Some(folder) = open_relative(&root, &path).filter(|_| looked <= MAX_DIRECTORIES) else {
            continue;
        };
        if path != below {
            seen.extend(covered.iter().filter(|covered| covered.is_below(&below)).filter_map(|covered| {
                let rest = covered.as_bytes().strip_prefix(below.as_bytes())?.strip_prefix(b"/")?;
                RelPath::new([path.as_bytes(), b"/", rest].concat())
            }));
        }
        for name in list_subdirectories(&folder) {
            let child = path.join(&name);
            if child.as_bytes().len() > MAX_PATH_BYTES {
                continue;
            }
            let continues = match open_relative(&root, &child).and_then(|folder| read_redirect(&folder)) {
                None => Some(below.join(&name)),
                Some(to) => match to.strip_prefix(b"/") {
                    Some(path) => RelPath::new(path),
                    None => RelPath::new(to).map(|to| below.join(to.as_bytes())),
                },
            };
            waiting.extend(continues.map(|below| (child, below)));
        }
    }
    seen
}

fn open_relative(root: &OwnedFd, path: &RelPath) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let path = if path.as_bytes().is_empty() { b".".as_slice() } else { path.as_bytes() };
    rustix::fs::openat2(root, path, flags, Mode::empty(), how).ok()
}

fn read_redirect(folder: &OwnedFd) -> Option<Vec<u8>> {
    let mut value = vec![0; MAX_PATH_BYTES + 1];
    let length = rustix::fs::fgetxattr(folder, REDIRECT_XATTR, value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(value)
}

/// Lists the names of the subdirectories of an open directory.
fn list_subdirectories(folder: &OwnedFd) -> Vec<Vec<u8>> {
    let Ok(mut entries) = Dir::read_from(folder) else { return Vec::new() };
    let mut names = Vec::new();
    while let Some(Ok(entry)) = entries.read() {
        let name = entry.file_name().to_bytes();
        if entry.file_type() == FileType::Directory && name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names
}
