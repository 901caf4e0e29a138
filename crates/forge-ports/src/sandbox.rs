//! Boxes in which everything happens that a model asks for.

use crate::FlushHandle;
use async_trait::async_trait;
pub use forge_types::ApplyConflict;
use forge_types::{EgressRecord, ErrorClass, SandboxLayer, SandboxReport, SandboxSpec, SnapshotId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What can go wrong with a box.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Isolation that was asked for can't be had; the run must not start.
    #[error("the sandbox can't isolate a run here: {}. `forge doctor` says how to mend it", missing.join("; "))]
    Missing {
        /// Each missing part, with what enables it.
        missing: Vec<String>,
    },
    /// The box did not start.
    #[error("the sandbox did not start: {why}")]
    Startup {
        /// Why.
        why: String,
    },
    /// The box went away.
    #[error("the sandbox went away: {why}")]
    Died {
        /// What is known of it.
        why: String,
    },
    /// The workspace says no: the path leaves it, is not there, is not a regular file, is not permitted.
    #[error("{path}: {why}")]
    Path {
        /// The path as it was given.
        path: String,
        /// In words for the model.
        why: String,
        /// Which of the usual cases it is.
        kind: PathErrorKind,
    },
    /// The private view of the repository can't be made, read or put back.
    #[error("the workspace: {why}")]
    View {
        /// What was being done, what went wrong, and what to do.
        why: String,
    },
    /// A workspace is larger than it may be.
    #[error("the workspace is too large: {why}")]
    Ceiling {
        /// What is too large, the ceiling with its setting, and what to do.
        why: String,
    },
    /// The work was ended because nobody wants it any more.
    #[error("the work on the workspace was stopped before it was done")]
    Stopped,
    /// A result can't be applied: others changed the same things meanwhile. Nothing was changed.
    #[error(
        "{} changed in the repository since the run began; nothing was applied",
        format_conflicts(conflicts)
    )]
    Conflicts {
        /// Each path with the reason, sorted.
        conflicts: Vec<ApplyConflict>,
    },
    /// The request makes no sense (bad pattern, bad glob).
    #[error("{why}")]
    Invalid {
        /// In words for the model.
        why: String,
    },
}

fn format_conflicts(conflicts: &[ApplyConflict]) -> String {
    match conflicts {
        [one] => one.path.clone(),
        many => format!("{} paths", many.len()),
    }
}

/// Usual cases of [`Error::Path`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathErrorKind {
    /// Not there.
    NotFound,
    /// Outside the workspace, or a symlink that leaves it.
    Escapes,
    /// A directory where a file is wanted.
    IsDirectory,
    /// A file where a directory is wanted.
    NotDirectory,
    /// A FIFO, device or socket.
    Special,
    /// Permission, masked, read-only.
    Denied,
    /// It exists and must not.
    Exists,
    /// No space is left.
    NoSpace,
    /// Anything else.
    Other,
}

impl Error {
    /// What can be done about it.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Missing { .. } => ErrorClass::Unavailable,
            Self::Startup { .. } | Self::Died { .. } => ErrorClass::Retry { after: None },
            Self::View { .. } | Self::Stopped => ErrorClass::Fatal,
            Self::Ceiling { .. } | Self::Path { .. } | Self::Conflicts { .. } | Self::Invalid { .. } => {
                ErrorClass::Invalid
            }
        }
    }
}

/// Which stream of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StdStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Takes a command's output while it comes. Live only, never journalled.
pub trait OutputSink: Send + Sync {
    /// More bytes of a stream.
    fn write_output(&self, stream: StdStream, bytes: &[u8]);
}

/// Nobody listens.
impl OutputSink for () {
    fn write_output(&self, _stream: StdStream, _bytes: &[u8]) {}
}

/// What becomes of the processes that a command leaves behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackgroundPolicy {
    /// They are killed when the command ends.
    #[default]
    Kill,
    /// They live until the run ends: development servers. They are stopped while a snapshot is taken.
    Keep,
}

/// A command to run in the box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecSpec {
    /// Program and arguments; never a shell line unless the first is a shell.
    pub argv: Vec<String>,
    /// Where, relative to the workspace; empty: its root.
    pub cwd: String,
    /// Variables beside those of the box.
    pub env: BTreeMap<String, String>,
    /// After this time the command and all it started are killed.
    pub timeout: Duration,
    /// Bytes kept of each stream: the first half from its beginning, the rest from its end.
    pub keep_bytes: usize,
    /// What becomes of the processes that it leaves behind.
    pub background: BackgroundPolicy,
    /// Programs that it may execute beside those of the box's list; where there is no list it may execute any. Named by
    /// Forge itself for what it starts itself, never by a model.
    pub also: Vec<String>,
}

/// Bytes kept of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapturedOutput {
    /// What was kept; where something is left out a line says how much.
    pub bytes: Vec<u8>,
    /// All bytes that came.
    pub total: u64,
    /// How many of them are left out.
    pub missing: u64,
}

impl CapturedOutput {
    /// Whether something is left out.
    pub const fn is_truncated(&self) -> bool {
        self.missing > 0
    }
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecResult {
    /// Exit code; 124 after a timeout, 128 + N after signal N.
    pub exit_code: i32,
    /// Whether the time limit ended it.
    pub timed_out: bool,
    /// Whether the memory limit ended it.
    pub out_of_memory: bool,
    /// Standard output.
    pub stdout: CapturedOutput,
    /// Standard error.
    pub stderr: CapturedOutput,
    /// Milliseconds it took.
    pub duration_ms: u64,
    /// Most memory that it and what it started used together, as far as that can be measured here; bytes.
    pub peak_memory: u64,
}

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A FIFO, device or socket.
    Special,
}

/// Part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChunk {
    /// The bytes from the asked offset on.
    pub bytes: Vec<u8>,
    /// Size of the whole file in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
}

/// An entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceEntry {
    /// Path relative to the workspace; bytes that are not UTF-8 stand as U+FFFD.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Size in bytes.
    pub size: u64,
}

/// Some of many things, and whether there are more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundedList<T> {
    /// The things, in order.
    pub items: Vec<T>,
    /// Whether some were left out.
    pub more: bool,
}

/// What to search for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchSpec {
    /// A regular expression.
    pub pattern: String,
    /// File or directory, relative to the workspace; empty: all.
    pub path: String,
    /// Only files whose path or name matches.
    pub glob: Option<String>,
    /// At most so many matches.
    pub max_matches: usize,
    /// At most so many files with matches.
    pub max_files: usize,
}

/// A line that matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchMatch {
    /// The file, relative to the workspace.
    pub path: String,
    /// The line's number, from 1.
    pub line: u64,
    /// The line, cut to 500 characters.
    pub text: String,
}

/// A backend.
#[async_trait]
pub trait Sandbox: Send + Sync {
    /// Each layer of isolation and whether it can be had here. For `forge doctor`.
    async fn probe_layers(&self) -> Vec<SandboxLayer>;

    /// Opens a box. Nothing is opened with less isolation than `spec` asks for. The workspace is put to the snapshot
    /// `at` first: whatever an attempt that died left behind is gone. `None`: it is new, or goes on as it stands.
    async fn open(
        &self,
        spec: &SandboxSpec,
        run: forge_types::RunId,
        at: Option<SnapshotId>,
    ) -> Result<Arc<dyn Workspace>, Error>;
}

/// The files of a workspace. All paths are relative to the workspace and never leave it.
///
/// Dropping the future of a call ends what the call started.
#[async_trait]
pub trait WorkspaceFiles: Send + Sync {
    /// Reads at most `limit` bytes of a regular file from `offset` on. Symlinks that stay inside are followed;
    /// what is not a regular file is refused without blocking.
    async fn read_file(&self, path: &str, offset: u64, limit: usize) -> Result<FileChunk, Error>;

    /// Writes a whole file atomically (temporary name, then rename), with its parents; keeps an existing mode.
    async fn write_file(&self, path: &str, bytes: &[u8]) -> Result<(), Error>;

    /// Removes a file or a symlink, never its target; a directory is refused.
    async fn remove_file(&self, path: &str) -> Result<(), Error>;

    /// Lists a directory, sorted by path, `depth` levels deep (1: only its entries), at most `limit` entries.
    async fn list_directory(
        &self,
        path: &str,
        depth: u32,
        limit: usize,
    ) -> Result<BoundedList<WorkspaceEntry>, Error>;

    /// Searches file contents; `.git` and ignored files are left out.
    async fn search_contents(&self, spec: SearchSpec) -> Result<BoundedList<SearchMatch>, Error>;

    /// Files whose path matches a glob, sorted; `.git` and ignored files are left out.
    async fn find_files(&self, glob: &str, limit: usize) -> Result<BoundedList<WorkspaceEntry>, Error>;
}

/// An open box with its workspace. Dropping the last handle ends the box.
#[async_trait]
pub trait Workspace: WorkspaceFiles {
    /// What the box really is.
    fn report(&self) -> SandboxReport;

    /// Runs a command; at its end all it started is gone, unless it is to be kept.
    async fn exec(&self, spec: ExecSpec, output: &dyn OutputSink) -> Result<ExecResult, Error>;

    /// Keeps the workspace as it stands now: tracked, ignored and untracked files of any size, modes, symlinks, empty
    /// folders, deletions, `.git`. It is durable when this returns. Equal workspaces give equal snapshots.
    async fn snapshot(&self) -> Result<SnapshotId, Error>;

    /// As [`Workspace::snapshot`], but returns as soon as the workspace was read, so that work goes on while the snapshot
    /// gets to the disk. Nothing durable may name it before it is there itself.
    async fn start_snapshot(&self) -> Result<(SnapshotId, FlushHandle), Error> {
        Ok((self.snapshot().await?, FlushHandle::done()))
    }

    /// What the box tried to reach since the last call.
    fn drain_egress_records(&self) -> Vec<EgressRecord>;
}
