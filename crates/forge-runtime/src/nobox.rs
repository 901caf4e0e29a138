//! The workspace of tools that touch nothing: every use of it is refused, so nothing is opened for them.

use forge_ports::async_trait;
use forge_ports::sandbox::{
    Entry, Error, ExecResult, ExecSpec, FileChunk, Files, Listing, Match, OutputSink, SearchSpec, Workspace,
};
use forge_types::{EgressRecord, SandboxReport, SnapshotId};

/// No workspace at all.
pub(crate) struct NoBox;

fn refused<T>() -> Result<T, Error> {
    Err(Error::Invalid { why: "this run has no workspace".to_owned() })
}

#[async_trait]
impl Files for NoBox {
    async fn read(&self, _: &str, _: u64, _: usize) -> Result<FileChunk, Error> {
        refused()
    }

    async fn write(&self, _: &str, _: &[u8]) -> Result<(), Error> {
        refused()
    }

    async fn remove(&self, _: &str) -> Result<(), Error> {
        refused()
    }

    async fn list(&self, _: &str, _: u32, _: usize) -> Result<Listing<Entry>, Error> {
        refused()
    }

    async fn search(&self, _: SearchSpec) -> Result<Listing<Match>, Error> {
        refused()
    }

    async fn find(&self, _: &str, _: usize) -> Result<Listing<Entry>, Error> {
        refused()
    }
}

#[async_trait]
impl Workspace for NoBox {
    fn report(&self) -> SandboxReport {
        SandboxReport::default()
    }

    async fn exec(&self, _: ExecSpec, _: &dyn OutputSink) -> Result<ExecResult, Error> {
        refused()
    }

    async fn snapshot(&self) -> Result<SnapshotId, Error> {
        refused()
    }

    fn reached(&self) -> Vec<EgressRecord> {
        Vec::new()
    }
}
