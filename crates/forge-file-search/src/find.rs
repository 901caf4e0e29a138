//! Finding files by a glob.

use super::{Answer, glob, shown, walker};
use forge_ports::sandbox::{Entry, FileKind};
use std::path::Path;

pub(super) fn find(root: &Path, pattern: &str, limit: usize) -> Result<Answer, Answer> {
    let glob = glob(pattern)?;
    let mut items = Vec::new();
    for entry in walker(root).build().flatten() {
        if !entry.file_type().is_some_and(|kind| kind.is_file()) {
            continue;
        }
        let path = shown(root, entry.path());
        if !glob.is_match(&path) {
            continue;
        }
        if items.len() == limit {
            return Ok(Answer::Entries { items, more: true });
        }
        let size = entry.metadata().map_or(0, |metadata| metadata.len());
        items.push(Entry { path, kind: FileKind::File, size });
    }
    Ok(Answer::Entries { items, more: false })
}
