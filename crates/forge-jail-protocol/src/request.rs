//! Requests to the init: commands, and operations on files of the workspace.

use serde::{Deserialize, Serialize};

use crate::raw_bytes::RawBytes;

/// A request to the init. Paths are relative to the workspace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum JailRequest {
    /// Start a command; the write ends for stdout and stderr are passed with the message.
    Exec(JailCommand),
    /// Kill the command started by an earlier request.
    Cancel {
        /// The id that `forge_jail::Jail::submit` returned for it.
        target: u64,
    },
    /// Open a regular file for reading; the descriptor is passed with [`JailReply::Opened`](crate::JailReply::Opened).
    OpenRead {
        /// The file.
        path: RawBytes,
    },
    /// Describe a path.
    Stat {
        /// The path.
        path: RawBytes,
        /// The treatment of a symbolic link as the last part.
        links: FinalSymlink,
    },
    /// Create a temporary file next to `path`; a descriptor for writing is returned.
    CreateTemp {
        /// The file that it will replace. Links are followed; the target must be inside the workspace.
        path: RawBytes,
        /// Permission bits for a new file; an existing file keeps its own.
        mode: u32,
    },
    /// Move a temporary file to its destination.
    CommitTemp {
        /// The token from [`JailReply::Temp`](crate::JailReply::Temp).
        token: u64,
        /// Whether an existing file may be replaced.
        replace: ReplaceExisting,
        /// Whether the file and its directory are synced first.
        sync: SyncToDisk,
    },
    /// Discard a temporary file.
    AbortTemp {
        /// The token from [`JailReply::Temp`](crate::JailReply::Temp).
        token: u64,
    },
    /// Create a directory and its parents.
    MakeDirs {
        /// The directory.
        path: RawBytes,
    },
    /// Remove a path; a symbolic link itself, never its target.
    Remove {
        /// The path.
        path: RawBytes,
        /// The extent of the removal.
        what: RemovalScope,
    },
    /// Rename a path within the workspace.
    Rename {
        /// The current path.
        from: RawBytes,
        /// The new path.
        to: RawBytes,
        /// Whether an existing file may be replaced.
        replace: ReplaceExisting,
    },
    /// Stop every process of the sandbox. The reply is [`JailReply::Done`](crate::JailReply::Done) once all are stopped, or [`FaultKind::Os`](crate::FaultKind::Os)
    /// (`EBUSY`) if one cannot be stopped, in which case all continue. Time limits of commands keep running.
    Freeze,
    /// Resume the processes that [`JailRequest::Freeze`] stopped.
    Thaw,
    /// Reply with [`JailReply::Done`](crate::JailReply::Done).
    Ping,
    /// Kill everything and exit.
    Shutdown,
}

/// A command to run in the sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JailCommand {
    /// The program to execute, if not the first element of `argv`.
    pub program: Option<RawBytes>,
    /// Name and arguments. A program without a slash is looked up in the command's own `PATH`.
    pub argv: Vec<RawBytes>,
    /// Working directory, relative to the workspace; empty means the workspace itself.
    pub cwd: RawBytes,
    /// Names of the sandbox's variables that it gets; `None` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inherited_env: Option<Vec<RawBytes>>,
    /// Variables set on top of those.
    pub env: Vec<(RawBytes, RawBytes)>,
    /// Content of its standard input; `None` for an empty one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<RawBytes>,
    /// Time limit in milliseconds, after which the command is ended (TERM, a short grace period, KILL).
    pub timeout_ms: Option<u64>,
    /// The fate of processes that outlive the command.
    pub background: BackgroundProcesses,
    /// Programs that it may execute in addition to [`crate::JailSpec::programs`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<RawBytes>,
}

/// The fate of processes that outlive their command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackgroundProcesses {
    /// The processes are killed when the command ends.
    #[default]
    Kill,
    /// The processes live until the sandbox closes (development servers).
    LeaveRunning,
}

/// Whether the last part of a path may be a symbolic link that is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalSymlink {
    /// Describe the link's target.
    Follow,
    /// Describe the link.
    NoFollow,
}

/// Whether an existing file may be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplaceExisting {
    /// The file is replaced atomically.
    Yes,
    /// The request fails with [`FaultKind::Exists`](crate::FaultKind::Exists).
    No,
}

/// Whether a change is on disk before the reply is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncToDisk {
    /// Synced.
    Yes,
    /// Left to the kernel.
    No,
}

/// The extent of a [`JailRequest::Remove`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemovalScope {
    /// One file or link.
    File,
    /// One empty directory.
    EmptyDir,
    /// A directory with everything below it.
    Tree,
}
