//! The vocabulary: paths, nodes, and how a tree differs from the one it began as.

use forge_types::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// A path below the root of a tree: bytes, parts separated by `/`, no leading slash, no part that is empty, `.` or
/// `..`. The root itself is the empty path. Ordered by bytes. Copies share their bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelPath(Arc<[u8]>);

impl RelPath {
    /// A path from bytes; `None` if they are no path below a root.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Option<Self> {
        let bytes = bytes.into();
        let fine = |part: &[u8]| !part.is_empty() && part != b"." && part != b".." && !part.contains(&0);
        (bytes.is_empty() || bytes.split(|b| *b == b'/').all(fine)).then(|| Self(bytes.into()))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as a relative path of the host.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The path of an entry `name` of this folder. `name` must hold no slash.
    pub fn join(&self, name: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        Self(bytes.into())
    }

    /// Its parts from the root down.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|part| !part.is_empty())
    }

    /// The folder that holds it; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.0.is_empty() {
            return None;
        }
        let end = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        Some(Self(self.0[..end].into()))
    }

    /// Whether it is `folder` or lies below it.
    pub fn is_below(&self, folder: &Self) -> bool {
        let rest = self.0.strip_prefix(&*folder.0);
        folder.0.is_empty() || matches!(rest, Some([] | [b'/', ..]))
    }

    /// Whether one of its parts is `.git`: such paths are never part of what is shown or applied.
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

/// What stands at a path.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum TreeNode {
    /// A regular file.
    File {
        /// Permission bits (`0o7777`).
        mode: u32,
        /// Bytes.
        size: u64,
        /// Last change of content, nanoseconds since the epoch.
        mtime_ns: i64,
        /// SHA-256 of the content. `None` where it was never learned: the file was not read while it stood unchanged.
        content: Option<Digest>,
        /// Files of one tree with the same number are hard links to one another.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        links: Option<u64>,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points, as bytes.
        target: Vec<u8>,
    },
    /// A folder.
    Dir {
        /// Permission bits (`0o7777`).
        mode: u32,
    },
    /// A named pipe. Sockets and devices are no part of a tree.
    Fifo {
        /// Permission bits.
        mode: u32,
    },
}

impl TreeNode {
    /// Whether both are the same for somebody who reads the tree: kind, permission bits, content, target. Times and
    /// hard links do not count. Files whose content is not known on one side are different.
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

/// How one path differs from the beginning. Never the same on both sides.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeltaEntry {
    /// What stood there at the beginning; `None`: nothing.
    #[serde(alias = "was")]
    pub before: Option<TreeNode>,
    /// What stands there now; `None`: nothing.
    #[serde(alias = "now")]
    pub after: Option<TreeNode>,
}

/// How a tree differs from its beginning, path by path. A folder that is gone stands there with everything that was
/// below it; one that is new with everything that is below it.
pub type TreeDelta = BTreeMap<RelPath, DeltaEntry>;
