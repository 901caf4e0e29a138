//! Sandboxes, in which all work that a model requests takes place.

use crate::FlushHandle;
use async_trait::async_trait;
pub use forge_types::ApplyConflict;
use forge_types::{EgressRecord, ErrorClass, NextStep, SandboxLayer, SandboxReport, SandboxSpec, SnapshotId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// An error of the sandbox or its workspace.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Requested isolation is unavailable; the run must not start.
    #[error("cannot sandbox runs on this machine: {}", format_parts(missing))]
    Missing {
        /// Each missing part, and how to enable it.
        missing: Vec<MissingPart>,
    },
    /// The sandbox failed to start.
    #[error("the sandbox did not start: {why}")]
    Startup {
        /// The reason.
        why: String,
    },
    /// The sandbox ended unexpectedly.
    #[error("the sandbox went away: {why}")]
    Died {
        /// The known details.
        why: String,
    },
    /// The workspace refuses a path: it leaves the workspace, does not exist, is no regular file, or is not permitted.
    #[error("{path}: {why}")]
    Path {
        /// The path as given.
        path: String,
        /// The reason, worded for the model.
        why: String,
        /// The kind of refusal.
        kind: PathErrorKind,
    },
    /// The run's private workspace can't be created, read or restored.
    #[error("the workspace: {why}")]
    View {
        /// The operation, the failure and a remedy.
        why: String,
    },
    /// The repository can't take the branch for the result.
    #[error("the workspace: {why}")]
    NoBranch {
        /// The reason.
        why: String,
    },
    /// The disk of the run's private workspace is full.
    #[error("the workspace: {why}")]
    NoSpace {
        /// The operation and the path.
        why: String,
    },
    /// The workspace exceeds a ceiling.
    #[error("the workspace is too large: {why}")]
    Ceiling {
        /// The excess, the ceiling with its setting, and a remedy.
        why: String,
    },
    /// The work was cancelled.
    #[error("the operation on the workspace was cancelled")]
    Stopped,
    /// A result can't be applied: the same paths changed in the repository in the meantime. Nothing was changed.
    #[error(
        "{} changed in the repository since the run began; nothing was applied",
        format_conflicts(conflicts, *omitted)
    )]
    Conflicts {
        /// The first paths with the reasons, sorted; if not all are listed, those that can't be merged come first.
        conflicts: Vec<ApplyConflict>,
        /// The number of conflicts that are not listed.
        omitted: u64,
    },
    /// The request is malformed (bad pattern, bad glob).
    #[error("{why}")]
    Invalid {
        /// The reason, worded for the model.
        why: String,
    },
}

/// A part of the requested isolation that this machine does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingPart {
    /// The part and the reason.
    pub what: String,
    /// Steps that the user can take.
    pub next_steps: Vec<NextStep>,
}

impl MissingPart {
    /// Creates a part that a step of the user provides.
    pub fn with_next_step(what: impl Into<String>, step: NextStep) -> Self {
        Self { what: what.into(), next_steps: vec![step] }
    }
}

impl<T: Into<String>> From<T> for MissingPart {
    fn from(what: T) -> Self {
        Self { what: what.into(), next_steps: Vec::new() }
    }
}

fn format_parts(missing: &[MissingPart]) -> String {
    missing.iter().map(|part| part.what.as_str()).collect::<Vec<_>>().join("; ")
}

fn format_conflicts(conflicts: &[ApplyConflict], omitted: u64) -> String {
    match conflicts {
        [one] if omitted == 0 => one.path.clone(),
        many => format!("{} paths", many.len() as u64 + omitted),
    }
}

/// Kinds of [`Error::Path`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathErrorKind {
    /// The path does not exist.
    NotFound,
    /// The path is outside the workspace, or a symlink that leaves it.
    Escapes,
    /// A directory where a file is expected.
    IsDirectory,
    /// A file where a directory is expected.
    NotDirectory,
    /// A FIFO, device or socket.
    Special,
    /// Not permitted, masked or read-only.
    Denied,
    /// The path exists and must not.
    Exists,
    /// The disk is full.
    NoSpace,
    /// Anything else.
    Other,
}

impl Error {
    /// Creates an error for one missing part.
    pub fn missing(part: impl Into<MissingPart>) -> Self {
        Self::Missing { missing: vec![part.into()] }
    }

    /// Returns the steps that the user can take.
    pub fn next_steps(&self) -> Vec<NextStep> {
        match self {
            Self::Missing { missing } => {
                let mut steps: Vec<NextStep> = Vec::new();
                for step in missing.iter().flat_map(|part| &part.next_steps).chain([&NextStep::CheckSetup]) {
                    if !steps.contains(step) {
                        steps.push(step.clone());
                    }
                }
                steps
            }
            Self::NoBranch { .. } => vec![NextStep::ChooseTransaction],
            Self::NoSpace { .. } => vec![NextStep::RemoveSnapshots],
            _ => Vec::new(),
        }
    }

    /// Returns the class of this error, which decides how the caller handles it.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Missing { .. } => ErrorClass::Unavailable,
            Self::Startup { .. } | Self::Died { .. } => ErrorClass::Retry { after: None },
            Self::View { .. } | Self::NoSpace { .. } | Self::NoBranch { .. } | Self::Stopped => {
                ErrorClass::Fatal
            }
            Self::Ceiling { .. } | Self::Path { .. } | Self::Conflicts { .. } | Self::Invalid { .. } => {
                ErrorClass::Invalid
            }
        }
    }
}

/// An output stream of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StdStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A receiver of a command's output while it runs. Live only, never journalled.
pub trait OutputSink: Send + Sync {
    /// Receives more bytes of a stream.
    fn write_output(&self, stream: StdStream, bytes: &[u8]);
}

/// Discards the output.
impl OutputSink for () {
    fn write_output(&self, _stream: StdStream, _bytes: &[u8]) {}
}

/// The fate of processes that a command leaves running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackgroundPolicy {
    /// Processes are killed when the command ends.
    #[default]
    Kill,
    /// Processes live until the run ends, such as development servers. They are paused while a snapshot is taken.
    Keep,
}

/// The environment variables that a command gets from its sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum InheritedEnv {
    /// All of them.
    #[default]
    All,
    /// Those with these names, if the sandbox has them.
    Only(Vec<String>),
}

/// A command to run in the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecSpec {
    /// Program and arguments; not a shell line unless the program is a shell.
    pub argv: Vec<String>,
    /// Working directory, relative to the workspace; empty for its root.
    pub cwd: String,
    /// The sandbox's own environment variables that the command gets.
    pub inherited_env: InheritedEnv,
    /// Environment variables in addition to those.
    pub env: BTreeMap<String, String>,
    /// Standard input, of at most a few MiB; `None` for an empty one.
    pub stdin: Option<Vec<u8>>,
    /// Time limit, after which the command and all its descendants are killed.
    pub timeout: Duration,
    /// Bytes kept of each stream: the first half from its beginning, the rest from its end.
    pub keep_bytes: usize,
    /// The fate of processes that the command leaves running.
    pub background: BackgroundPolicy,
    /// Programs that the command may execute in addition to the sandbox's list; without a list it may execute any. Set
    /// by Forge for its own commands only, never by a model.
    pub also: Vec<String>,
}

/// Returns the line in place of the middle of an output that is too long, with line breaks around it.
pub fn omission_marker(missing_bytes: u64) -> String {
    format!("\n[… {missing_bytes} bytes left out …]\n")
}

/// Captured bytes of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapturedOutput {
    /// The kept bytes; a line marks each omission with its size.
    pub bytes: Vec<u8>,
    /// Size of the whole output.
    pub total: u64,
    /// Number of omitted bytes.
    pub missing: u64,
}

impl CapturedOutput {
    /// Returns whether bytes were omitted.
    pub const fn is_truncated(&self) -> bool {
        self.missing > 0
    }
}

/// The result of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecResult {
    /// Exit code; 124 after a timeout, 128 + N after signal N.
    pub exit_code: i32,
    /// Whether the time limit ended the command.
    pub timed_out: bool,
    /// Whether the memory limit ended the command.
    pub out_of_memory: bool,
    /// Standard output.
    pub stdout: CapturedOutput,
    /// Standard error.
    pub stderr: CapturedOutput,
    /// Duration in milliseconds.
    pub duration_ms: u64,
    /// Peak memory of the command and its descendants together in bytes, as far as measurable on this machine.
    pub peak_memory: u64,
}

/// The kind of a directory entry.
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
    /// The bytes from the requested offset.
    pub bytes: Vec<u8>,
    /// Size of the whole file in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
}

/// An entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceEntry {
    /// Path relative to the workspace; bytes that are not UTF-8 appear as U+FFFD.
    pub path: String,
    /// The kind of entry.
    pub kind: EntryKind,
    /// Size in bytes.
    pub size: u64,
}

/// A list cut at a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundedList<T> {
    /// The items, in order.
    pub items: Vec<T>,
    /// Whether items were omitted.
    pub more: bool,
}

/// A search for a pattern in files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchSpec {
    /// A regular expression.
    pub pattern: String,
    /// File or directory, relative to the workspace; empty for the whole workspace.
    pub path: String,
    /// Only files with a matching path or name.
    pub glob: Option<String>,
    /// Maximum number of matches.
    pub max_matches: usize,
    /// Maximum number of files with matches.
    pub max_files: usize,
}

/// A matching line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchMatch {
    /// The file, relative to the workspace.
    pub path: String,
    /// The line number, from 1.
    pub line: u64,
    /// The line, cut to 500 characters.
    pub text: String,
}

/// A sandbox backend.
#[async_trait]
pub trait Sandbox: Send + Sync {
    /// Returns each isolation layer and whether it is available on this machine. For `forge doctor`.
    async fn probe_layers(&self) -> Vec<SandboxLayer>;

    /// Opens a sandbox, never with less isolation than `spec` asks for. The workspace is first restored to the snapshot
    /// `at`, which discards everything that a failed attempt left behind. `None` creates the workspace, or keeps the
    /// existing one unchanged.
    async fn open(
        &self,
        spec: &SandboxSpec,
        run: forge_types::RunId,
        at: Option<SnapshotId>,
    ) -> Result<Arc<dyn Workspace>, Error>;
}

/// The files of a workspace. All paths are relative to the workspace and never leave it.
///
/// Dropping the future of a call ends the work that the call started.
#[async_trait]
pub trait WorkspaceFiles: Send + Sync {
    /// Reads at most `limit` bytes of a regular file from `offset` on. Symlinks within the workspace are followed;
    /// anything but a regular file is refused without blocking.
    async fn read_file(&self, path: &str, offset: u64, limit: usize) -> Result<FileChunk, Error>;

    /// Writes a whole file atomically (temporary name, then rename) and creates its parents; keeps an existing mode.
    async fn write_file(&self, path: &str, bytes: &[u8]) -> Result<(), Error>;

    /// Removes a file or a symlink, never its target; directories are refused.
    async fn remove_file(&self, path: &str) -> Result<(), Error>;

    /// Lists a directory, sorted by path, `depth` levels deep (1: only its entries), at most `limit` entries.
    async fn list_directory(
        &self,
        path: &str,
        depth: u32,
        limit: usize,
    ) -> Result<BoundedList<WorkspaceEntry>, Error>;

    /// Searches file contents, except in `.git` and ignored files.
    async fn search_contents(&self, spec: SearchSpec) -> Result<BoundedList<SearchMatch>, Error>;

    /// Returns the files with paths that match a glob, sorted, except `.git` and ignored files.
    async fn find_files(&self, glob: &str, limit: usize) -> Result<BoundedList<WorkspaceEntry>, Error>;
}

/// An open sandbox with its workspace. Dropping the last handle ends the sandbox.
#[async_trait]
pub trait Workspace: WorkspaceFiles {
    /// Returns the isolation that the sandbox really has.
    fn report(&self) -> SandboxReport;

    /// Runs a command. All processes it started are gone when this returns, unless `spec` keeps them.
    async fn exec(&self, spec: ExecSpec, output: &dyn OutputSink) -> Result<ExecResult, Error>;

    /// Takes a snapshot of the workspace: tracked, ignored and untracked files of any size, modes, symlinks, empty
    /// directories, deletions, `.git`. Durable when this returns. Equal workspaces give equal snapshots.
    async fn snapshot(&self) -> Result<SnapshotId, Error>;

    /// Takes a snapshot like [`Workspace::snapshot`], but returns as soon as the workspace was read, while the snapshot
    /// is still being flushed. No durable data may refer to the snapshot before it is durable itself.
    async fn start_snapshot(&self) -> Result<(SnapshotId, FlushHandle), Error> {
        Ok((self.snapshot().await?, FlushHandle::done()))
    }

    /// Returns the connection attempts of the sandbox since the last call.
    fn drain_egress_records(&self) -> Vec<EgressRecord>;
}
