//! A workspace in which credentials are masked before any request is served, including those created while it is open.
//!
//! Masks are mounted over files when a sandbox opens, and no process in it could add one. So if another file must be
//! masked, the mask is saved, the sandbox is closed and reopened with the same specification, and the request is served
//! there. This applies to every backend.

use forge_ports::sandbox::{
    BoundedList, Error, ExecResult, ExecSpec, FileChunk, OutputSink, SearchMatch, SearchSpec, WorkspaceEntry,
};
use forge_ports::{FlushHandle, Workspace, WorkspaceFiles, async_trait};
use forge_types::{EgressRecord, SandboxReport, SnapshotId};
use forge_workspace::run_blocking;
use forge_workspace::{RunWorkspace, SecretMasks};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::{RwLock, RwLockReadGuard};

/// Maximum number of times that a sandbox is reopened before one request; after that the request fails.
const MAX_REOPENS: usize = 5;

/// An open sandbox that can be closed.
#[async_trait]
pub(crate) trait ClosableSandbox: Workspace {
    /// Returns the workspace that the sandbox is open on, as long as it has one.
    fn run_workspace(&self) -> Option<Arc<RunWorkspace>>;

    /// Ends the sandbox; all of it is gone when this returns, unless other references to it exist.
    async fn shut_down(self: Arc<Self>);
}

/// A callback that reopens the sandbox.
pub(crate) type ReopenFn =
    Box<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn ClosableSandbox>, Error>> + Send + Sync>;

/// A workspace with its credentials masked; see the module.
pub(crate) struct GuardedWorkspace {
    /// Lock held by every request while it is served, and exclusively while the sandbox is reopened.
    gate: RwLock<()>,
    open: Mutex<Option<OpenSandbox>>,
    reopen: ReopenFn,
    /// Egress records of closed sandboxes that the caller has not drained.
    reached: Mutex<Vec<EgressRecord>>,
    /// Report on the last sandbox.
    report: Mutex<SandboxReport>,
}

#[derive(Clone)]
struct OpenSandbox {
    sandbox: Arc<dyn ClosableSandbox>,
    secret_masks: Arc<SecretMasks>,
}

/// A request that is being served.
struct ServedRequest<'a> {
    open: OpenSandbox,
    _pass: RwLockReadGuard<'a, ()>,
}

impl GuardedWorkspace {
    /// Opens a sandbox at a snapshot with `open`, which later also reopens it in its current state. A sandbox without a
    /// workspace is returned as it is.
    pub(crate) async fn open<H, F>(
        at: Option<SnapshotId>,
        open: impl Fn(Option<SnapshotId>) -> F + Send + Sync + 'static,
    ) -> Result<Arc<dyn Workspace>, Error>
    where
        H: ClosableSandbox + 'static,
        F: Future<Output = Result<Arc<H>, Error>> + Send + 'static,
    {
        let held: Arc<dyn ClosableSandbox> = open(at).await?;
        let reopen: ReopenFn = Box::new(move || {
            let again = open(None);
            Box::pin(async move { Ok(again.await? as Arc<dyn ClosableSandbox>) })
        });
        Ok(Self::from_sandbox(held, reopen))
    }

    fn from_sandbox(held: Arc<dyn ClosableSandbox>, reopen: ReopenFn) -> Arc<dyn Workspace> {
        let Some(view) = held.run_workspace() else { return held };
        let report = Mutex::new(held.report());
        let open = Mutex::new(Some(OpenSandbox { sandbox: held, secret_masks: view.secret_masks() }));
        Arc::new(Self { gate: RwLock::new(()), open, reopen, reached: Mutex::default(), report })
    }

    fn current_sandbox(&self) -> Option<OpenSandbox> {
        self.open.lock().clone()
    }

    /// Waits until every file that must be masked is, and returns the sandbox.
    async fn begin_request(&self) -> Result<ServedRequest<'_>, Error> {
        for _ in 0..MAX_REOPENS {
            let pass = self.gate.read().await;
            let Some(open) = self.current_sandbox() else {
                return Err(sandbox_died("it was not reopened"));
            };
            if open.secret_masks.is_quiet() {
                return Ok(ServedRequest { open, _pass: pass });
            }
            let covers = Arc::clone(&open.secret_masks);
            if !run_blocking(move || Ok(covers.has_new_secrets())).await? {
                return Ok(ServedRequest { open, _pass: pass });
            }
            drop((pass, open));
            self.reopen_sandbox().await?;
        }
        Err(sandbox_died("files that look like secrets keep appearing in the repository"))
    }

    async fn reopen_sandbox(&self) -> Result<(), Error> {
        let _alone = self.gate.write().await;
        let Some(open) = self.current_sandbox() else { return Ok(()) };
        let covers = Arc::clone(&open.secret_masks);
        if !run_blocking(move || Ok(covers.has_new_secrets())).await? {
            // Another request has done it already.
            return Ok(());
        }
        let view =
            open.sandbox.run_workspace().ok_or_else(|| sandbox_died("another sandbox has its workspace"))?;
        run_blocking(move || view.save_masks()).await?;
        self.open.lock().take();
        self.reached.lock().extend(open.sandbox.drain_egress_records());
        open.sandbox.shut_down().await;
        let held = (self.reopen)().await?;
        let Some(view) = held.run_workspace() else { return Err(sandbox_died("it has no workspace")) };
        *self.report.lock() = held.report();
        let opened = OpenSandbox { sandbox: held, secret_masks: view.secret_masks() };
        *self.open.lock() = Some(opened);
        Ok(())
    }

    /// Returns the sandbox for a request that writes.
    async fn begin_write_request(&self) -> Result<ServedRequest<'_>, Error> {
        let entered = self.begin_request().await?;
        entered.open.secret_masks.begin_writing();
        Ok(entered)
    }
}

impl ServedRequest<'_> {
    /// Accepts what was written meanwhile as the run's own.
    async fn finish_write(self) -> Result<(), Error> {
        let covers = self.open.secret_masks;
        if covers.finish_writing() {
            run_blocking(move || {
                covers.accept_changes();
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}

fn sandbox_died(why: &str) -> Error {
    Error::Died { why: why.to_owned() }
}

#[async_trait]
impl Workspace for GuardedWorkspace {
    fn report(&self) -> SandboxReport {
        let mut report = self.report.lock().clone();
        let more = self.current_sandbox().map(|open| open.secret_masks.warnings()).unwrap_or_default();
        report.warnings.extend(more);
        report
    }

    async fn exec(&self, spec: ExecSpec, output: &dyn OutputSink) -> Result<ExecResult, Error> {
        let entered = self.begin_write_request().await?;
        let done = entered.open.sandbox.exec(spec, output).await;
        entered.finish_write().await?;
        done
    }

    async fn snapshot(&self) -> Result<SnapshotId, Error> {
        let _pass = self.gate.read().await;
        let open = self.current_sandbox().ok_or_else(|| sandbox_died("it was not reopened"))?;
        open.sandbox.snapshot().await
    }

    async fn start_snapshot(&self) -> Result<(SnapshotId, FlushHandle), Error> {
        let _pass = self.gate.read().await;
        let open = self.current_sandbox().ok_or_else(|| sandbox_died("it was not reopened"))?;
        open.sandbox.start_snapshot().await
    }

    fn drain_egress_records(&self) -> Vec<EgressRecord> {
        let mut reached = std::mem::take(&mut *self.reached.lock());
        reached.extend(
            self.current_sandbox().map(|open| open.sandbox.drain_egress_records()).unwrap_or_default(),
        );
        reached
    }
}

#[async_trait]
impl WorkspaceFiles for GuardedWorkspace {
    async fn read_file(&self, path: &str, offset: u64, limit: usize) -> Result<FileChunk, Error> {
        self.begin_request().await?.open.sandbox.read_file(path, offset, limit).await
    }

    async fn write_file(&self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        let entered = self.begin_write_request().await?;
        let done = entered.open.sandbox.write_file(path, bytes).await;
        entered.finish_write().await?;
        done
    }

    async fn list_directory(
        &self,
        path: &str,
        depth: u32,
        limit: usize,
    ) -> Result<BoundedList<WorkspaceEntry>, Error> {
        self.begin_request().await?.open.sandbox.list_directory(path, depth, limit).await
    }

    async fn search_contents(&self, spec: SearchSpec) -> Result<BoundedList<SearchMatch>, Error> {
        self.begin_request().await?.open.sandbox.search_contents(spec).await
    }

    async fn find_files(&self, glob: &str, limit: usize) -> Result<BoundedList<WorkspaceEntry>, Error> {
        self.begin_request().await?.open.sandbox.find_files(glob, limit).await
    }

    async fn remove_file(&self, path: &str) -> Result<(), Error> {
        let entered = self.begin_write_request().await?;
        let done = entered.open.sandbox.remove_file(path).await;
        entered.finish_write().await?;
        done
    }
}
