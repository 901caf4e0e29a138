//! The workspace of tools that need none: it refuses every use, so that no sandbox is opened for them.

use forge_ports::async_trait;
use forge_ports::sandbox::{
    BoundedList, Error, ExecResult, ExecSpec, FileChunk, OutputSink, SearchMatch, SearchSpec, Workspace,
    WorkspaceEntry, WorkspaceFiles,
};
use forge_types::{EgressRecord, SandboxReport, SnapshotId};

/// A workspace that refuses every use.
pub(crate) struct NoWorkspace;

fn no_workspace_error<T>() -> Result<T, Error> {
    Err(Error::Invalid { why: "this run has no workspace".to_owned() })
}

#[async_trait]
impl WorkspaceFiles for NoWorkspace {
    async fn read_file(&self, _: &str, _: u64, _: usize) -> Result<FileChunk, Error> {
        no_workspace_error()
    }

    async fn write_file(&self, _: &str, _: &[u8]) -> Result<(), Error> {
        no_workspace_error()
    }

    async fn remove_file(&self, _: &str) -> Result<(), Error> {
        no_workspace_error()
    }

    async fn list_directory(&self, _: &str, _: u32, _: usize) -> Result<BoundedList<WorkspaceEntry>, Error> {
        no_workspace_error()
    }

    async fn search_contents(&self, _: SearchSpec) -> Result<BoundedList<SearchMatch>, Error> {
        no_workspace_error()
    }

    async fn find_files(&self, _: &str, _: usize) -> Result<BoundedList<WorkspaceEntry>, Error> {
        no_workspace_error()
    }
}

#[async_trait]
impl Workspace for NoWorkspace {
    fn report(&self) -> SandboxReport {
        SandboxReport::default()
    }

    async fn exec(&self, _: ExecSpec, _: &dyn OutputSink) -> Result<ExecResult, Error> {
        no_workspace_error()
    }

    async fn snapshot(&self) -> Result<SnapshotId, Error> {
        no_workspace_error()
    }

    fn drain_egress_records(&self) -> Vec<EgressRecord> {
        Vec::new()
    }
}
