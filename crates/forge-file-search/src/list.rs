//! Listing a directory.

use super::{Answer, Fault, shown, start};
use forge_ports::sandbox::{Entry, FileKind};
use std::fs::{FileType, Metadata};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

/// Deeper than this no listing goes, whatever is asked.
const DEEPEST: usize = 64;

pub(super) fn list(root: &Path, path: &str, depth: u32, limit: usize) -> Result<Answer, Answer> {
    let begin = start(root, path)?;
    if !begin.is_dir() {
        let why = "it is a file, not a directory".to_owned();
        return Err(Answer::Path { path: path.to_owned(), why, fault: Fault::NotDirectory });
    }
    let depth = usize::try_from(depth).unwrap_or(DEEPEST).clamp(1, DEEPEST);
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
        let kind = metadata.as_ref().map_or(FileKind::Special, |m| kind_of(m.file_type()));
        items.push(Entry {
            path: shown(root, entry.path()),
            kind,
            size: metadata.as_ref().map_or(0, Metadata::len),
        });
    }
    Ok(Answer::Entries { items, more })
}

pub(super) fn kind_of(kind: FileType) -> FileKind {
    if kind.is_file() {
        FileKind::File
    } else if kind.is_dir() {
        FileKind::Directory
    } else if kind.is_symlink() {
        FileKind::Symlink
    } else {
        debug_assert!(kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device());
        FileKind::Special
    }
}
