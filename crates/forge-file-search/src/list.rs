//! Listing a directory.

use super::{SearchPathFault, SearchResponse, display_path, resolve_start};
use forge_ports::sandbox::{EntryKind, WorkspaceEntry};
use std::fs::{FileType, Metadata};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

/// Maximum depth of a listing, whatever the request asks for.
const MAX_LIST_DEPTH: usize = 64;

pub(super) fn list_entries(
    root: &Path,
    path: &str,
    depth: u32,
    limit: usize,
) -> Result<SearchResponse, SearchResponse> {
    let begin = resolve_start(root, path)?;
    if !begin.is_dir() {
        let why = "it is a file, not a directory".to_owned();
        return Err(SearchResponse::Path {
            path: path.to_owned(),
            why,
            fault: SearchPathFault::NotDirectory,
        });
    }
    let depth = usize::try_from(depth).unwrap_or(MAX_LIST_DEPTH).clamp(1, MAX_LIST_DEPTH);
    let walk = ignore::WalkBuilder::new(&begin)
        .standard_filters(false)
        .follow_links(false)
        .max_depth(Some(depth))
        .filter_entry(|entry| entry.depth() == 0 || entry.file_name() != ".git")
        .sort_by_file_path(Path::cmp)
        .build();
    let mut items = Vec::new();
    let mut more = false;
    for entry in walk.flatten().filter(|entry| entry.depth() > 0) {
        if items.len() == limit {
            more = true;
            break;
        }
        let metadata = entry.path().symlink_metadata();
        let kind = metadata.as_ref().map_or(EntryKind::Special, |m| kind_of(m.file_type()));
        items.push(WorkspaceEntry {
            path: display_path(root, entry.path()),
            kind,
            size: metadata.as_ref().map_or(0, Metadata::len),
        });
    }
    Ok(SearchResponse::Entries { items, more })
}

pub(super) fn kind_of(kind: FileType) -> EntryKind {
    if kind.is_file() {
        EntryKind::File
    } else if kind.is_dir() {
        EntryKind::Directory
    } else if kind.is_symlink() {
        EntryKind::Symlink
    } else {
        debug_assert!(kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device());
        EntryKind::Special
    }
}
