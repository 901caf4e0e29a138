//! What can go wrong, in words a person can act on.

use std::io;
use std::path::PathBuf;

use crate::isolation_layer::{IsolationLayer, LayerReport};
use crate::wire::{FileFault, StartFault};

/// A failure of the box or of a request to it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The description of the box is wrong.
    #[error("the sandbox description is not valid: {0}")]
    Spec(String),
    /// A layer of isolation that no box goes without is missing on this machine.
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
    /// A copy-on-write view cannot be had of this folder or on this machine; a copy of the folder works everywhere.
    #[error("no copy-on-write view of the workspace: {why}")]
    Overlay {
        /// What the kernel refused, where.
        why: String,
    },
    /// The image cannot be used as a root folder.
    #[error("the image cannot be used: {why}")]
    Image {
        /// What is wrong with it, and what can be done.
        why: String,
    },
    /// A step of building the box failed for a reason that is no missing layer.
    #[error("the sandbox could not be built: {step}: {source}")]
    Build {
        /// What was being done.
        step: String,
        /// The cause.
        source: io::Error,
    },
    /// The binary that plays the init could not be started, or is not one that answers as init.
    #[error("the sandbox init {} did not start: {why}", exe.display())]
    Init {
        /// The binary.
        exe: PathBuf,
        /// What happened.
        why: String,
    },
    /// What connected is no process that this one can see.
    #[error(
        "the container's init is no process of this machine: the engine runs elsewhere or in a virtual machine, \
         and open files cannot be passed to it; use an engine on this machine"
    )]
    Foreign,
    /// The box is gone.
    #[error("the sandbox died ({0}); what ran in it was killed")]
    Died(String),
    /// The request or the reply could not be passed on.
    #[error("talking to the sandbox failed while {doing}: {source}")]
    Communication {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The box answered with something that does not belong to the request.
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
    /// The layers that are missing, if that is what stopped the box.
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
