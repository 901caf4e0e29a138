//! A cache of earlier scans: directories in which all files were inspected and have not changed since.
//!
//! A directory is identified by its inode number and a fingerprint of the names, inode numbers, sizes and times of its
//! files. So the next run in the same repository reads none of the files that the last one read.

use forge_snapshot::{BaseItem, NodeKind};
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Header of the cache file; its number changes with the classification rules.
const CACHE_HEADER: &[u8] = b"forge covers 1\n";
/// Maximum size of a cache file.
const MAX_CACHE_BYTES: u64 = 64 << 20;

/// The cache described in the module documentation.
#[derive(Debug, Default)]
pub(crate) struct ScanCache {
    directories: HashMap<u64, ScannedDirectory>,
    /// Whether it differs from the file.
    is_changed: bool,
}

/// A directory in which all files were inspected.
#[derive(Clone, Debug)]
pub(crate) struct ScannedDirectory {
    fingerprint: u64,
    /// Names of the private keys among its files.
    pub(crate) keys: Vec<Vec<u8>>,
}

/// A fingerprint under construction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DirectoryFingerprint {
    value: u64,
    /// Newest time of the files in the directory.
    pub(crate) newest_ns: i64,
}

impl DirectoryFingerprint {
    pub(crate) const fn new(directory: u64) -> Self {
        Self { value: directory, newest_ns: i64::MIN }
    }

    /// Adds a file.
    pub(crate) fn add_file(&mut self, name: &[u8], item: &BaseItem) {
        if item.kind != NodeKind::File {
            return;
        }
        let mut chunks = name.chunks_exact(8);
        for chunk in &mut chunks {
            self.mix_word(u64::from_le_bytes(chunk.try_into().unwrap_or_default()));
        }
        let last = chunks.remainder().iter().fold(name.len() as u64, |sum, byte| sum << 8 | u64::from(*byte));
        self.mix_word(last);
        for word in [item.ino, item.size, item.mtime_ns.cast_unsigned(), item.ctime_ns.cast_unsigned()] {
            self.mix_word(word);
        }
        self.newest_ns = self.newest_ns.max(item.mtime_ns).max(item.ctime_ns);
    }

    const fn mix_word(&mut self, word: u64) {
        let value = (self.value ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.value = value.rotate_left(29) ^ (value >> 32);
    }
}

impl ScanCache {
    /// Returns the entry of a directory if its fingerprint is unchanged.
    pub(crate) fn get(&self, directory: u64, now: &DirectoryFingerprint) -> Option<&ScannedDirectory> {
        self.directories.get(&directory).filter(|known| known.fingerprint == now.value)
    }

    pub(crate) fn insert(&mut self, directory: u64, now: &DirectoryFingerprint, keys: Vec<Vec<u8>>) {
        self.directories.insert(directory, ScannedDirectory { fingerprint: now.value, keys });
        self.is_changed = true;
    }

    pub(crate) fn remove(&mut self, directory: u64) {
        self.is_changed |= self.directories.remove(&directory).is_some();
    }

    /// Reads the cache; returns an empty one if that fails.
    pub(crate) fn load(path: &Path) -> Self {
        let bytes = forge_files::read(path, MAX_CACHE_BYTES).unwrap_or_default();
        decode_cache(&bytes).unwrap_or_default()
    }

    /// Writes the cache atomically, unless nothing has changed.
    pub(crate) fn save(&self, path: &Path) -> std::io::Result<()> {
        if !self.is_changed {
            return Ok(());
        }
        let mut bytes = CACHE_HEADER.to_vec();
        for (number, directory) in &self.directories {
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes.extend_from_slice(&directory.fingerprint.to_le_bytes());
            let count = u16::try_from(directory.keys.len()).unwrap_or(u16::MAX);
            bytes.extend_from_slice(&count.to_le_bytes());
            for key in directory.keys.iter().take(usize::from(count)) {
                bytes.extend_from_slice(&u16::try_from(key.len()).unwrap_or(0).to_le_bytes());
                bytes.extend_from_slice(key);
            }
        }
        bytes.extend_from_slice(&checksum(&bytes).to_le_bytes());
        let parent = path.parent().unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}", std::process::id()));
        let temporary: PathBuf = path.with_file_name(name);
        // The directory is accessible to this user only.
        let moved = fs::write(&temporary, &bytes).and_then(|()| fs::rename(&temporary, path));
        moved.inspect_err(|_| drop(fs::remove_file(&temporary)))
    }
}

fn decode_cache(bytes: &[u8]) -> Option<ScanCache> {
    let (content, said) = bytes.split_last_chunk::<8>()?;
    if checksum(content) != u64::from_le_bytes(*said) {
        return None;
    }
    let mut rest = content.strip_prefix(CACHE_HEADER)?;
    let mut known = ScanCache::default();
    known.directories.reserve(rest.len() / 18);
    while !rest.is_empty() {
        let (number, after) = rest.split_first_chunk::<8>()?;
        let (fingerprint, after) = after.split_first_chunk::<8>()?;
        let (count, after) = after.split_first_chunk::<2>()?;
        rest = after;
        let mut keys = Vec::new();
        for _ in 0..u16::from_le_bytes(*count) {
            let (length, after) = rest.split_first_chunk::<2>()?;
            let (name, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
            keys.push(name.to_vec());
            rest = after;
        }
        let directory = ScannedDirectory { fingerprint: u64::from_le_bytes(*fingerprint), keys };
        known.directories.insert(u64::from_le_bytes(*number), directory);
    }
    Some(known)
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut sum = DirectoryFingerprint::new(bytes.len() as u64);
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        sum.mix_word(u64::from_le_bytes(word));
    }
    sum.value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_known_is_known_again_and_damage_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("covers/x");
        let mut known = ScanCache::default();
        let print = DirectoryFingerprint::new(7);
        known.insert(7, &print, vec![b"deploy".to_vec(), b"b".to_vec()]);
        known.insert(8, &DirectoryFingerprint::new(8), Vec::new());
        known.save(&path).unwrap();
        let again = ScanCache::load(&path);
        assert_eq!(again.get(7, &print).unwrap().keys, [b"deploy".to_vec(), b"b".to_vec()]);
        assert!(again.get(7, &DirectoryFingerprint::new(9)).is_none() && again.get(9, &print).is_none());
        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(decode_cache(&bad).is_none(), "byte {at}");
            assert!(decode_cache(&bytes[..at]).is_none(), "cut at {at}");
        }
    }
}
