//! Git's own data directories: file requests never write there.
//!
//! Git starts the programs named in its configuration and hooks, on any machine where git is used next. So the decision
//! depends not on the requested path, which a link or another spelling can disguise, but on the directory opened for
//! the write and its parents.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use forge_jail_protocol::FaultKind;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

/// Deepest directory that is checked; the path of a deeper one cannot be passed in one call anyway.
const MAX_DEPTH: usize = 2048;
/// Longest `.git` file that is read.
const MAX_GIT_FILE_BYTES: usize = 4096;

/// Entries that distinguish a git directory from any other one with `objects` and `refs`.
const GIT_DIR_MARKERS: &[&str] = &["HEAD", "config", "config.worktree", "hooks", "packed-refs"];

const DIRECTORY_FLAGS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Refuses to write `name` in the open directory `parent` of the workspace `root` if that is a git directory, is inside
/// one, or would become one by the write.
pub(super) fn refuse_git_write(root: &OwnedFd, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), FaultKind> {
    if is_dot_git(name) || has_dot_git(root, parent) || completes_git_directory(parent, name) {
        return Err(FaultKind::GitData);
    }
    let linked = linked_directory(root);
    let top = inode_identity(&stat_directory(root.as_fd())?);
    let mut here = open_directory(parent, c".")?;
    let mut now = inode_identity(&stat_directory(here.as_fd())?);
    for _ in 0..MAX_DEPTH {
        if Some(now) == linked || is_git_directory(here.as_fd()) {
            return Err(FaultKind::GitData);
        }
        if now == top {
            return Ok(());
        }
        let above = open_directory(here.as_fd(), c"..")?;
        let next = inode_identity(&stat_directory(above.as_fd())?);
        // The root of the file system: the directory was moved out of the workspace meanwhile.
        if next == now {
            break;
        }
        (here, now) = (above, next);
    }
    Err(FaultKind::Outside)
}

/// Returns whether git takes a name for `.git` on some file system: in other letter case, with characters that HFS+
/// ignores, with suffixes that NTFS cuts off, or as its short name there.
pub(super) fn is_dot_git(name: &[u8]) -> bool {
    let kept: String = String::from_utf8_lossy(name).chars().filter(|c| !is_hfs_ignorable(*c)).collect();
    let stream = kept.split(':').next().unwrap_or_default();
    let plain = stream.trim_end_matches([' ', '.']);
    plain.eq_ignore_ascii_case(".git") || plain.eq_ignore_ascii_case("git~1")
}

/// Returns whether HFS+ ignores a character in comparisons.
const fn is_hfs_ignorable(c: char) -> bool {
    matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
}

/// Returns whether the real path of `parent` below `root` has a part `.git`. An unknown path counts as having none,
/// since the parents are checked for git directories in any case.
fn has_dot_git(root: &OwnedFd, parent: BorrowedFd<'_>) -> bool {
    let path = |fd: BorrowedFd<'_>| {
        rustix::fs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new())
            .map(|path| path.into_bytes())
    };
    let (Ok(root), Ok(parent)) = (path(root.as_fd()), path(parent)) else { return false };
    let below = parent.strip_prefix(root.as_slice()).unwrap_or(&parent);
    below.split(|byte| *byte == b'/').any(is_dot_git)
}

/// Returns whether git takes an open directory for a repository's data: `HEAD` with `objects` and `refs`, or with
/// `commondir` instead of both. That covers bare repositories and the data of submodules and worktrees, under any name.
/// The part that worktrees share needs no `HEAD` of its own: settings or hooks next to `objects` and `refs` are enough.
fn is_git_directory(directory: BorrowedFd<'_>) -> bool {
    if is_directory(directory, "objects") && is_directory(directory, "refs") {
        return GIT_DIR_MARKERS.iter().any(|name| entry_exists(directory, name));
    }
    entry_exists(directory, "HEAD") && entry_exists(directory, "commondir")
}

/// Returns whether `name` is the last entry that a directory lacks to be a git directory.
fn completes_git_directory(directory: BorrowedFd<'_>, name: &[u8]) -> bool {
    let has = |part: &str| is_directory(directory, part);
    match name.to_ascii_lowercase().as_slice() {
        b"head" => entry_exists(directory, "commondir") || (has("objects") && has("refs")),
        b"config" | b"config.worktree" | b"hooks" | b"packed-refs" => has("objects") && has("refs"),
        b"objects" => has("refs") && GIT_DIR_MARKERS.iter().any(|name| entry_exists(directory, name)),
        b"refs" => has("objects") && GIT_DIR_MARKERS.iter().any(|name| entry_exists(directory, name)),
        b"commondir" => entry_exists(directory, "HEAD"),
        _ => false,
    }
}

/// Returns the directory that the workspace's own `.git` file names, if it is inside the workspace: git takes it for
/// the repository's data as soon as it contains enough.
fn linked_directory(root: &OwnedFd) -> Option<(u64, u64)> {
    let found = rustix::fs::statat(root, c".git", AtFlags::SYMLINK_NOFOLLOW).ok()?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return None;
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(root, c".git", flags, Mode::empty()).ok()?;
    let mut bytes = [0; MAX_GIT_FILE_BYTES];
    let length = rustix::io::read(&file, &mut bytes).ok()?;
    let named = bytes[..length].strip_prefix(b"gitdir:")?.trim_ascii();
    let directory = rustix::fs::openat(root, named, DIRECTORY_FLAGS, Mode::empty()).ok()?;
    Some(inode_identity(&rustix::fs::fstat(directory).ok()?))
}

fn open_directory(from: BorrowedFd<'_>, path: &std::ffi::CStr) -> Result<OwnedFd, FaultKind> {
    rustix::fs::openat(from, path, DIRECTORY_FLAGS, Mode::empty())
        .map_err(super::file_conversions::fault_kind)
}

fn stat_directory(directory: BorrowedFd<'_>) -> Result<Stat, FaultKind> {
    rustix::fs::fstat(directory).map_err(super::file_conversions::fault_kind)
}

#[allow(
    clippy::unnecessary_cast,
    clippy::useless_conversion,
    reason = "the types differ between architectures"
)]
fn inode_identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev as u64, stat.st_ino as u64)
}

fn entry_exists(directory: BorrowedFd<'_>, name: &str) -> bool {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// Returns whether a name leads to a directory, also through a link, as git sees it.
fn is_directory(directory: BorrowedFd<'_>, name: &str) -> bool {
    rustix::fs::statat(directory, name, AtFlags::empty())
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_mean_dot_git_somewhere_are_known() {
        for name in [
            ".git",
            ".GIT",
            ".Git",
            ".git ",
            ".git.",
            ".git . .",
            ".git::$INDEX_ALLOCATION",
            "GIT~1",
            ".g\u{200c}it",
        ] {
            assert!(is_dot_git(name.as_bytes()), "{name}");
        }
        for name in [".gitignore", "git", ".github", ".gitmodules", "x.git", "..git", "git~10", ".gi"] {
            assert!(!is_dot_git(name.as_bytes()), "{name}");
        }
    }
}
