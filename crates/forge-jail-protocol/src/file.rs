//! Descriptions of files, and the faults of operations on them.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use crate::raw_bytes::RawBytes;

/// The kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JailFileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A device.
    Device,
}

impl fmt::Display for JailFileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "regular file",
            Self::Dir => "folder",
            Self::Symlink => "symbolic link",
            Self::Fifo => "named pipe",
            Self::Socket => "socket",
            Self::Device => "device",
        })
    }
}

/// The description of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStat {
    /// The kind of the file.
    pub kind: JailFileKind,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Number of hard links.
    pub links: u64,
}

/// A file operation that was refused or failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFault {
    /// The path as requested.
    pub path: RawBytes,
    /// The kind of fault.
    pub kind: FaultKind,
}

/// The kind of a fault in a file operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The path was not found.
    NotFound,
    /// Not allowed: permissions or a masked file.
    Denied,
    /// The path leaves the workspace.
    Outside,
    /// A write to the path would change git's own data.
    GitData,
    /// A symbolic link that points to nothing.
    Dangling,
    /// Too many symbolic links.
    Loop,
    /// A part of the path is not a directory.
    NotDir,
    /// The path already exists.
    Exists,
    /// The directory is not empty.
    NotEmpty,
    /// Not a regular file.
    NotRegular(JailFileKind),
    /// No temporary file has this token.
    NoSuchTemp,
    /// The path is empty, contains a NUL, or is too long.
    BadPath,
    /// The disk or quota is full.
    Full,
    /// Another error number of the kernel.
    Os(i32),
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match self.kind {
            FaultKind::NotFound => write!(f, "{path}: no such file or folder"),
            FaultKind::Denied => write!(f, "{path}: permission denied"),
            FaultKind::Outside => write!(f, "{path}: leaves the workspace"),
            FaultKind::GitData => write!(f, "{path}: belongs to git's own data"),
            FaultKind::Dangling => write!(f, "{path}: is a symbolic link that points to nothing"),
            FaultKind::Loop => write!(f, "{path}: too many symbolic links"),
            FaultKind::NotDir => write!(f, "{path}: a part of the path is not a folder"),
            FaultKind::Exists => write!(f, "{path}: exists already"),
            FaultKind::NotEmpty => write!(f, "{path}: the folder is not empty"),
            FaultKind::NotRegular(kind) => write!(f, "{path}: is a {kind}, not a regular file"),
            FaultKind::NoSuchTemp => write!(f, "{path}: the write was already finished or given up"),
            FaultKind::BadPath => write!(f, "{path:?}: not a usable path"),
            FaultKind::Full => write!(f, "{path}: no space left"),
            FaultKind::Os(errno) => write!(f, "{path}: {}", io::Error::from_raw_os_error(errno)),
        }
    }
}
