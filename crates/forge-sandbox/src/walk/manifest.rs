//! What stands in the workspace, for telling what a run changed.

use super::{Answer, shown, walker};
use forge_ports::sandbox::{Manifest, ManifestEntry};
use forge_types::Digest;
use std::fs::Metadata;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Files above this size are compared by size and time only.
const HASHED_BYTES: u64 = 1 << 20;
/// Trees with more entries are listed in part.
const MOST_ENTRIES: usize = 50_000;

pub(super) fn manifest(root: &Path) -> Result<Answer, Answer> {
    let mut manifest = Manifest::default();
    for entry in walker(root).build().flatten() {
        let Ok(metadata) = entry.path().symlink_metadata() else { continue };
        if metadata.is_dir() {
            continue;
        }
        if manifest.entries.len() == MOST_ENTRIES {
            manifest.partial = true;
            break;
        }
        let described = ManifestEntry {
            mode: metadata.mode(),
            size: metadata.len(),
            mtime_ns: metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec()),
            digest: digest(entry.path(), &metadata),
        };
        manifest.entries.insert(shown(root, entry.path()), described);
    }
    Ok(Answer::Manifest(manifest))
}

fn digest(path: &Path, metadata: &Metadata) -> Option<Digest> {
    if metadata.is_symlink() {
        return std::fs::read_link(path).ok().map(|target| Digest::of(target.as_os_str().as_bytes()));
    }
    if !metadata.is_file() || metadata.len() > HASHED_BYTES {
        return None;
    }
    // The file may have become a FIFO since it was looked at: never wait for one.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).ok()?;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(HASHED_BYTES + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= HASHED_BYTES).then(|| Digest::of(&bytes))
}
