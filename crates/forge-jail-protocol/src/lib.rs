//! The vocabulary of `forge-jail`: the description of a sandbox ([`JailSpec`]), the requests to its init
//! ([`JailRequest`]), the replies ([`JailReply`]), and the reports about isolation layers ([`LayerReport`]).
//!
//! This crate contains data and the rules for it. It starts no process, opens no file, and knows neither the mechanism
//! behind the description nor the socket that messages travel through, so code that only describes a sandbox, or works
//! inside of one, needs nothing else.

mod file;
mod isolation_layer;
mod programs;
mod raw_bytes;
mod reply;
mod request;
mod spec;

pub use file::{FaultKind, FileFault, FileStat, JailFileKind};
pub use isolation_layer::{DisabledProtection, IsolationLayer, JailLayerState, LayerReport};
pub use programs::{
    MULTI_CALL_BINARIES, ProgramRequirements, SHELLS, WrittenCode, collect_requirements, file_name,
    written_code,
};
pub use raw_bytes::RawBytes;
pub use reply::{ExecEnd, ExecOutcome, JailReply, StartFault};
pub use request::{
    BackgroundProcesses, FinalSymlink, JailCommand, JailRequest, RemovalScope, ReplaceExisting, SyncToDisk,
};
pub use spec::{
    ExaminedSource, FileIdentity, HELPER_PATH, HOME_PATH, HostBind, JailLimits, JailSpec, MissingSource,
    NetworkAccess, OverlayAttributes, RootMode, WORKSPACE_PATH, WorkspaceRoot,
};
