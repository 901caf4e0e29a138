//! Paths, nodes, and the differences of a tree from its baseline.

use forge_types::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// A path below the root of a tree: bytes, components separated by `/`, no leading slash, no component that is
/// empty, `.` or `..`. The root is the empty path. Ordered by bytes. Clones share their bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelPath(Arc<[u8]>);

impl RelPath {
    /// Creates a path from bytes; `None` if they are not a valid path below a root.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Option<Self> {
        let bytes = bytes.into();
        let fine = |part: &[u8]| !part.is_empty() && part != b"." && part != b".." && !part.contains(&0);
        (bytes.is_empty() || bytes.split(|b| *b == b'/').all(fine)).then(|| Self(bytes.into()))
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the bytes as a relative path of the host.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// Returns the path of the entry `name` in this directory. `name` must not contain a slash.
    pub fn join(&self, name: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        Self(bytes.into())
    }

    /// Returns the components from the root down.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|part| !part.is_empty())
    }

    /// Returns the parent directory; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.0.is_empty() {
            return None;
        }
        let end = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        Some(Self(self.0[..end].into()))
    }

    /// Returns whether this path is the given directory or below it.
    pub fn is_below(&self, folder: &Self) -> bool {
        let rest = self.0.strip_prefix(&*folder.0);
        folder.0.is_empty() || matches!(rest, Some([] | [b'/', ..]))
    }

    /// Returns whether a component is `.git`: such paths are never shown or applied.
    pub fn is_git(&self) -> bool {
        self.components().any(|part| part == b".git")
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// The state of a path.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum TreeNode {
    /// A regular file.
    File {
        /// Permission bits (`0o7777`).
        mode: u32,
        /// Size in bytes.
        size: u64,
        /// Time of the last content change, in nanoseconds since the epoch.
        mtime_ns: i64,
        /// SHA-256 of the content. `None` if unknown, because the unchanged file was never read.
        content: Option<Digest>,
        /// Identifier of a group of hard links, unique within the tree.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        links: Option<u64>,
    },
    /// A symbolic link.
    Symlink {
        /// The link's target, as bytes.
        target: Vec<u8>,
    },
    /// A directory.
    Dir {
        /// Permission bits (`0o7777`).
        mode: u32,
    },
    /// A named pipe. Sockets and devices are not part of a tree.
    Fifo {
        /// Permission bits.
        mode: u32,
    },
}

impl TreeNode {
    /// Returns whether both nodes are equal to a reader of the tree: type, permission bits, content, target. Ignores
    /// times and hard links. Files with unknown content on one side are different.
    pub fn is_equivalent(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::File { mode, size, content, .. },
                Self::File { mode: mode2, size: size2, content: content2, .. },
            ) => mode == mode2 && size == size2 && content.is_some() && content == content2,
            _ => self == other,
        }
    }
}

/// The difference of a path from the baseline. The two sides are never equal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeltaEntry {
    /// The baseline state; `None`: the path did not exist.
    #[serde(alias = "was")]
    pub before: Option<TreeNode>,
    /// The current state; `None`: the path does not exist.
    #[serde(alias = "now")]
    pub after: Option<TreeNode>,
}

/// The differences of a tree from its baseline, by path. A removed or added directory is listed with everything
/// below it.
pub type TreeDelta = BTreeMap<RelPath, DeltaEntry>;
