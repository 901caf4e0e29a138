//! Credentials in git's history: covering a file does not hide its copies in git.
//!
//! Only the index is read, not the history: a tracked path has contents in the object database, which commands can
//! request from git. The same may be true of a path that was tracked once; such paths are not reported.

use crate::names::{self, FileOrigin, NameVerdict, RevealedPaths};
use forge_snapshot::{StopFlag, WorkBounds};
use forge_types::WorkspaceLimits;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Maximum size of an index, which is read in pieces.
const MAX_INDEX_BYTES: u64 = 256 << 20;
/// Bytes of an index that are in memory at once.
const READ_BUFFER_BYTES: usize = 64 << 10;
/// Bytes at the beginning of an index that contain its first entry.
const FIRST_ENTRY_BYTES: u64 = 12 + 40 + 32 + 4 + 1 + MAX_PATH_BYTES as u64 + 1;
/// Maximum number of bytes of a number in an index.
const MAX_VARINT_BYTES: usize = 5;
/// Maximum number of paths reported.
const MAX_REPORTED_PATHS: usize = 20;
/// Maximum length of a path in an index.
const MAX_PATH_BYTES: usize = 4096;

/// Returns paths that git tracks in the repository at `root` and that have credential names or are among `covered`: at
/// most 20, sorted. Returns nothing if there is no readable index.
#[must_use]
pub fn tracked_credentials(root: &Path, covered: &[PathBuf]) -> Vec<PathBuf> {
    let index = git_directory(root).join("index");
    let Some(index) = forge_files::open(&index)
        .ok()
        .filter(|index| index.metadata().is_ok_and(|meta| meta.len() <= MAX_INDEX_BYTES))
    else {
        return Vec::new();
    };
    let covered: BTreeSet<&Path> = covered.iter().map(PathBuf::as_path).collect();
    let mut found = Vec::new();
    // The index may grow while it is read.
    // What precedes a damaged entry counts.
    let _ = for_each_index_path(index.take(MAX_INDEX_BYTES), |path| {
        let path = Path::new(OsStr::from_bytes(path));
        if is_credential_name(path) || covered.contains(path) {
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

/// Calls `more` with each path of an index of version 2, 3 or 4, until it returns `false`. Reads the index in pieces and
/// has one path of it in memory.
///
/// # Errors
/// The index is damaged or cannot be read.
fn for_each_index_path(mut index: impl Read, mut more: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut head = Vec::new();
    index.by_ref().take(FIRST_ENTRY_BYTES).read_to_end(&mut head)?;
    let header = head.strip_prefix(b"DIRC").ok_or_else(damaged)?;
    let version = u32::from_be_bytes(*header.first_chunk().ok_or_else(damaged)?);
    let count = u32::from_be_bytes(*header.get(4..).and_then(<[u8]>::first_chunk).ok_or_else(damaged)?);
    // With SHA-256, object names are longer. Both lengths are tried; the one with matching flags is correct.
    let name_bytes = if first_entry_fits(&head, version, 20) { 20 } else { 32 };
    let entries = io::Cursor::new(&head).chain(index);
    let mut entries = IndexEntries { input: BufReader::with_capacity(READ_BUFFER_BYTES, entries), at: 0 };
    entries.skip(12)?;
    let mut path: Vec<u8> = Vec::new();
    for _ in 0..count {
        let start = entries.at;
        entries.skip(40 + name_bytes)?;
        let flags = u16::from_be_bytes(entries.read_bytes()?);
        if version >= 3 && flags & 0x4000 != 0 {
            entries.skip(2)?;
        }
        if version == 4 {
            let cut = entries.read_varint()?;
            path.truncate(path.len().checked_sub(cut).ok_or_else(damaged)?);
        } else {
            path.clear();
        }
        entries.append_path(&mut path)?;
        if version != 4 {
            // Padded with NULs to a multiple of eight.
            let bytes = entries.at - start;
            entries.skip(bytes.next_multiple_of(8) - bytes)?;
        }
        if !more(&path) {
            break;
        }
    }
    Ok(())
}

fn damaged() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// The entries of an index, read in order.
struct IndexEntries<R> {
    input: BufReader<R>,
    /// Position in the index.
    at: u64,
}

impl<R: Read> IndexEntries<R> {
    fn read_bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(bytes)
    }

    /// Passes over bytes.
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.input.by_ref().take(bytes), &mut io::sink())?;
        self.at += skipped;
        if skipped == bytes { Ok(()) } else { Err(damaged()) }
    }

    /// Appends the text up to the next NUL to a path and passes over the NUL.
    fn append_path(&mut self, path: &mut Vec<u8>) -> io::Result<()> {
        let limit = MAX_PATH_BYTES as u64 + 1;
        let read = self.input.by_ref().take(limit).read_until(0, path)?;
        self.at += read as u64;
        // Version 4 shares prefixes, so a path can be longer than what is stored of it.
        if path.pop() == Some(0) && path.len() <= MAX_PATH_BYTES { Ok(()) } else { Err(damaged()) }
    }

    /// Reads a number in git's variable-length encoding.
    fn read_varint(&mut self) -> io::Result<usize> {
        let mut value = 0_usize;
        for _ in 0..MAX_VARINT_BYTES {
            let [byte] = self.read_bytes()?;
            value = value
                .checked_shl(7)
                .and_then(|high| high.checked_add(usize::from(byte & 0x7f)))
                .ok_or_else(damaged)?;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
            value += 1;
        }
        Err(damaged())
    }
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

    /// Returns the memory of this process that is not shared, in bytes.
    fn memory_bytes() -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    #[test]
    fn a_large_index_is_read_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".git")).unwrap();
        let index = dir.path().join(".git/index");
        // Few entries and a large hole.
        fs::write(&index, b"DIRC\0\0\0\x02\xff\xff\xff\xff").unwrap();
        fs::OpenOptions::new().write(true).open(&index).unwrap().set_len(255 << 20).unwrap();
        let before = memory_bytes();
        assert!(tracked_credentials(dir.path(), &[]).is_empty());
        let grown = memory_bytes().saturating_sub(before);
        assert!(grown < 32 << 20, "{grown}");
        // Many entries.
        let entry = |name: &str| {
            let mut entry = vec![0_u8; 60];
            entry.extend((name.len() as u16).to_be_bytes());
            entry.extend(name.as_bytes());
            entry.resize((entry.len() + 1).next_multiple_of(8), 0);
            entry
        };
        let count = 1_000_000_u32;
        let mut bytes = b"DIRC\0\0\0\x02".to_vec();
        bytes.extend(count.to_be_bytes());
        {
            use std::io::Write as _;
            let mut file = std::io::BufWriter::new(fs::File::create(&index).unwrap());
            file.write_all(&bytes).unwrap();
            for number in 0..count - 1 {
                file.write_all(&entry(&format!("src/{number:07}"))).unwrap();
            }
            file.write_all(&entry("z/.env")).unwrap();
        }
        let covered: Vec<PathBuf> = (0..5_000).map(|number| format!("covered/{number}").into()).collect();
        assert_eq!(tracked_credentials(dir.path(), &covered), [PathBuf::from("z/.env")]);
        let grown = memory_bytes().saturating_sub(before);
        assert!(grown < 32 << 20, "{grown}");
    }

    #[test]
    fn paths_of_version_4_do_not_grow_beyond_a_path() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".git")).unwrap();
        let mut bytes = [&b"DIRC\0\0\0\x04"[..], &1000_u32.to_be_bytes()].concat();
        for _ in 0..1000 {
            bytes.extend([0; 60]);
            bytes.extend(3000_u16.to_be_bytes());
            bytes.push(0);
            bytes.extend([b'a'; 3000]);
            bytes.push(0);
        }
        let mut longest = 0;
        let read = for_each_index_path(bytes.as_slice(), |path| {
            longest = longest.max(path.len());
            true
        });
        assert!(read.is_err() && longest == 3000, "{longest}");
    }
}
