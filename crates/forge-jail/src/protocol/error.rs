//! Errors of the crate, with messages that a user can act on.

use forge_jail_protocol::{FileFault, IsolationLayer, LayerReport, StartFault};
use std::io;
use std::path::PathBuf;

/// A failure of the sandbox or of a request to it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The description of the sandbox is invalid.
    #[error("the sandbox description is not valid: {0}")]
    Spec(String),
    /// A required isolation layer is missing on this machine.
    #[error("this machine cannot isolate commands: {}", format_blockers(.0))]
    Refused(Vec<LayerReport>),
    /// The file system of the workspace cannot show its files under another owner.
    #[error(
        "the file system of {} ({fs}) does not support id-mapped mounts, which root needs so that the box never \
         runs as root; run forge as the ordinary user who owns the workspace, or move it to ext4, xfs or btrfs",
        path.display()
    )]
    IdMap {
        /// The workspace.
        path: PathBuf,
        /// Name or magic number of the file system.
        fs: String,
    },
    /// This directory or machine does not support a copy-on-write workspace; a copy of the directory works everywhere.
    #[error("no copy-on-write view of the workspace: {why}")]
    Overlay {
        /// The operation that the kernel refused, and the path.
        why: String,
    },
    /// The image cannot be used as a root directory.
    #[error("the image cannot be used: {why}")]
    Image {
        /// The problem, and a possible remedy.
        why: String,
    },
    /// A step of building the sandbox failed for a reason other than a missing layer.
    #[error("the sandbox could not be built: {step}: {source}")]
    Build {
        /// The step.
        step: String,
        /// The cause.
        source: io::Error,
    },
    /// The init binary could not be started, or does not respond as an init.
    #[error("the sandbox init {} did not start: {why}", exe.display())]
    Init {
        /// The binary.
        exe: PathBuf,
        /// The reason.
        why: String,
    },
    /// The peer that connected is not a process visible to this one.
    #[error(
        "the container's init is no process of this machine: the engine runs elsewhere or in a virtual machine, \
         and open files cannot be passed to it; use an engine on this machine"
    )]
    Foreign,
    /// The sandbox is gone.
    #[error("the sandbox died ({0}); what ran in it was killed")]
    Died(String),
    /// The request or the reply could not be passed on.
    #[error("talking to the sandbox failed while {doing}: {source}")]
    Communication {
        /// The operation that failed.
        doing: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The sandbox sent a reply that does not match the request.
    #[error("the sandbox gave an answer that does not fit the request: {0}")]
    Protocol(String),
    /// The command could not be started.
    #[error("{0}")]
    Start(StartFault),
    /// A file operation was refused or failed.
    #[error("{0}")]
    File(FileFault),
}

impl Error {
    /// Returns the missing layers, if they are what stopped the sandbox.
    #[must_use]
    pub fn missing_layers(&self) -> Vec<IsolationLayer> {
        match self {
            Self::Refused(reports) => reports.iter().filter(|r| r.blocks_start()).map(|r| r.layer).collect(),
            Self::IdMap { .. } => vec![IsolationLayer::IdMappedMount],
            _ => Vec::new(),
        }
    }
}

fn format_blockers(reports: &[LayerReport]) -> String {
    let lines: Vec<String> = reports.iter().filter(|r| r.blocks_start()).map(ToString::to_string).collect();
    lines.join("; ")
}
