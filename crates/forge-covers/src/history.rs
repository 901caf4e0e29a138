//! Credentials in git's history: covering a file does not hide its copies in git.
//!
//! Only the index is read, not the history: a tracked path has contents in the object database, which commands can
//! request from git. The same may be true of a path that was tracked once; such paths are not reported.

use crate::names::{self, FileOrigin, NameVerdict, RevealedPaths};
use forge_snapshot::{StopFlag, WorkBounds};
use forge_types::WorkspaceLimits;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Maximum size of an index.
const MAX_INDEX_BYTES: u64 = 256 << 20;
/// Maximum number of paths reported.
const MAX_REPORTED_PATHS: usize = 20;
/// Maximum length of a path in an index.
const MAX_PATH_BYTES: usize = 4096;

/// Returns paths that git tracks in the repository at `root` and that have credential names or are among `covered`: at
/// most 20, sorted. Returns nothing if there is no readable index.
#[must_use]
pub fn tracked_credentials(root: &Path, covered: &[PathBuf]) -> Vec<PathBuf> {
    let index = git_directory(root).join("index");
    let index = forge_files::read(&index, MAX_INDEX_BYTES).unwrap_or_default();
    let mut found = Vec::new();
    for_each_index_path(&index, |path| {
        let path = Path::new(OsStr::from_bytes(path));
        if is_credential_name(path) || covered.iter().any(|covered| covered == path) {
            found.push(path.to_owned());
        }
        found.len() < MAX_REPORTED_PATHS
    });
    found.sort();
    found
}

/// Finds files of a repository that look like secrets and are in git's history, where covering cannot hide them. Reads
/// all files that may be keys.
///
/// # Errors
/// The repository cannot be read or exceeds the limits of a run in it.
pub fn secrets_in_history(repo: &Path) -> Result<Vec<PathBuf>, forge_snapshot::Error> {
    let bounds = WorkBounds::new(WorkspaceLimits::default(), StopFlag::default());
    let base = forge_snapshot::BaseManifest::scan_tree_within(repo, &bounds)?;
    let found = crate::scan_manifest(repo, &Arc::new(base), RevealedPaths::default(), None);
    let read = found.unread.find_private_keys(&AtomicBool::new(false));
    let covered: Vec<PathBuf> = found.paths.into_iter().chain(read).collect();
    Ok(tracked_credentials(repo, &covered))
}

/// Returns the git directory of the repository at `root`, which is elsewhere for a worktree or submodule.
fn git_directory(root: &Path) -> PathBuf {
    let git = root.join(".git");
    match forge_files::read_text(&git, MAX_PATH_BYTES as u64) {
        Ok(text) => root.join(text.strip_prefix("gitdir:").unwrap_or(&text).trim()),
        Err(_) => git,
    }
}

/// Returns whether a file holds credentials judging by its name alone.
fn is_credential_name(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_bytes();
    match names::classify_name(name, FileOrigin::of_path(path)) {
        NameVerdict::Always => {
            !name.ends_with(b".example") && !name.ends_with(b".sample") && !name.ends_with(b".template")
        }
        NameVerdict::Below => names::is_credential_path(path),
        NameVerdict::No | NameVerdict::IfInside(_) => false,
    }
}

/// Calls `more` with each path of an index of version 2, 3 or 4, until it returns `false` or the index is damaged.
fn for_each_index_path(index: &[u8], mut more: impl FnMut(&[u8]) -> bool) -> Option<()> {
    let header = index.strip_prefix(b"DIRC")?;
    let version = u32::from_be_bytes(*header.first_chunk()?);
    let count = u32::from_be_bytes(*header.get(4..)?.first_chunk()?);
    // With SHA-256, object names are longer. Both lengths are tried; the one with matching flags is correct.
    let mut at = 12_usize;
    let mut path: Vec<u8> = Vec::new();
    let name_bytes = if first_entry_fits(index, version, 20) { 20 } else { 32 };
    for _ in 0..count {
        let start = at;
        at = at.checked_add(40 + name_bytes)?;
        let flags = u16::from_be_bytes(*index.get(at..)?.first_chunk()?);
        at += 2;
        if version >= 3 && flags & 0x4000 != 0 {
            at += 2;
        }
        if version == 4 {
            let (cut, used) = read_varint(index.get(at..)?)?;
            at += used;
            path.truncate(path.len().checked_sub(cut)?);
        } else {
            path.clear();
        }
        let rest = index.get(at..)?;
        let end = rest.iter().take(MAX_PATH_BYTES + 1).position(|byte| *byte == 0)?;
        path.extend_from_slice(&rest[..end]);
        at += end + 1;
        if version != 4 {
            // Padded with NULs to a multiple of eight.
            at = start + (at - start).next_multiple_of(8);
        }
        if !more(&path) {
            break;
        }
    }
    Some(())
}

/// Returns whether the first entry has the path length stated in its flags, for object names of this length.
fn first_entry_fits(index: &[u8], version: u32, name_bytes: usize) -> bool {
    let flags_at = 12 + 40 + name_bytes;
    let Some(flags) = index.get(flags_at..).and_then(|rest| rest.first_chunk()) else { return false };
    let flags = u16::from_be_bytes(*flags);
    let length = usize::from(flags & 0x0fff);
    let mut at = flags_at + 2 + if version >= 3 && flags & 0x4000 != 0 { 2 } else { 0 };
    if version == 4 {
        // The first path has no common prefix to cut.
        at += 1;
    }
    length == 0x0fff
        || index
            .get(at..at + length + 1)
            .is_some_and(|path| !path[..length].contains(&0) && length > 0 && path[length] == 0)
}

/// Reads a number in git's variable-length encoding and returns it with its length in bytes.
fn read_varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0_usize;
    for (at, byte) in bytes.iter().enumerate().take(5) {
        value = value.checked_shl(7)?.checked_add(usize::from(byte & 0x7f))?;
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
        value += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::Command;

    #[allow(clippy::disallowed_methods, reason = "git itself makes what is read here")]
    fn git(root: &Path, arguments: &[&str]) -> bool {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=x", "-c", "user.email=x@x"]).args(arguments).current_dir(root);
        command
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("HOME", root)
            .output()
            .is_ok_and(|output| output.status.success())
    }

    #[test]
    fn what_git_tracks_is_read_from_every_kind_of_index() {
        for (version, format) in
            [("2", "sha1"), ("3", "sha1"), ("4", "sha1"), ("2", "sha256"), ("4", "sha256")]
        {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path();
            assert!(git(root, &["init", "-q", "--object-format", format]));
            fs::create_dir_all(root.join("a/deep/er")).unwrap();
            for path in ["a/.env", "a/b.rs", "a/deep/er/x", "deploy", "z.key", ".env.example", ".envrc"] {
                fs::write(root.join(path), path).unwrap();
            }
            assert!(git(root, &["add", "."]) && git(root, &["update-index", "--index-version", version]));
            if version == "3" {
                fs::write(root.join("later"), "x").unwrap();
                assert!(git(root, &["add", "-N", "later"]));
            }
            let found = tracked_credentials(root, &["deploy".into(), "untracked".into()]);
            let wanted = [".envrc", "a/.env", "deploy", "z.key"].map(PathBuf::from);
            assert_eq!(found, wanted, "version {version}, {format}");
        }
    }

    #[test]
    fn a_worktree_has_its_index_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("main");
        fs::create_dir(&main).unwrap();
        fs::write(main.join(".env"), "").unwrap();
        assert!(
            git(&main, &["init", "-q"])
                && git(&main, &["add", "."])
                && git(&main, &["commit", "-q", "-m", "x"])
        );
        assert!(git(&main, &["worktree", "add", "-q", "../tree"]));
        assert_eq!(tracked_credentials(&dir.path().join("tree"), &[]), [PathBuf::from(".env")]);
    }

    #[test]
    fn a_damaged_index_ends_the_look() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".git")).unwrap();
        assert!(tracked_credentials(dir.path(), &[]).is_empty());
        let header = |count: u32| [&b"DIRC\0\0\0\x02"[..], &count.to_be_bytes()].concat();
        for bytes in [b"".to_vec(), b"DIRC".to_vec(), header(u32::MAX), [header(3), vec![0xff; 200]].concat()]
        {
            fs::write(dir.path().join(".git/index"), bytes).unwrap();
            assert!(tracked_credentials(dir.path(), &[]).is_empty());
        }
        fs::remove_file(dir.path().join(".git/index")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.path().join(".git/index")).unwrap();
        assert!(tracked_credentials(dir.path(), &[]).is_empty());
    }
}
