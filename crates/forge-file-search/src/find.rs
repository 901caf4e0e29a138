//! Finding files by a glob.

use super::{SearchResponse, compile_glob, display_path, walk_builder};
use forge_ports::sandbox::{EntryKind, WorkspaceEntry};
use std::path::Path;

pub(super) fn find_files(root: &Path, pattern: &str, limit: usize) -> Result<SearchResponse, SearchResponse> {
    let glob = compile_glob(pattern)?;
    let mut items = Vec::new();
    for entry in walk_builder(root).build().flatten() {
        if !entry.file_type().is_some_and(|kind| kind.is_file()) {
            continue;
        }
        let path = display_path(root, entry.path());
        if !glob.is_match(&path) {
            continue;
        }
        if items.len() == limit {
            return Ok(SearchResponse::Entries { items, more: true });
        }
        let size = entry.metadata().map_or(0, |metadata| metadata.len());
        items.push(WorkspaceEntry { path, kind: EntryKind::File, size });
    }
    Ok(SearchResponse::Entries { items, more: false })
}
