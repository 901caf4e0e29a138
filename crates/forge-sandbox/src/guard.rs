//! A workspace whose credentials are covered before any request is served, also those that come to be while it is open.
//!
//! Covers lie over files from the moment at which a box opens, and no process in it could add one. So if something has to be
//! covered that is not, it is written down, the box is closed and opened again with the same specification, and the request is
//! served there. That is so for every backend.

use crate::door::blocking;
use crate::view::{Covers, View};
use forge_ports::sandbox::{
    Entry, Error, ExecResult, ExecSpec, FileChunk, Listing, Match, OutputSink, SearchSpec,
};
use forge_ports::{Durable, Files, Workspace, async_trait};
use forge_types::{EgressRecord, SandboxReport, SnapshotId};
use futures::future::BoxFuture;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{RwLock, RwLockReadGuard};

/// So often a box is opened again before one request; then it is given up.
const MAX_REOPENS: usize = 5;

/// An open box that can be closed.
#[async_trait]
pub(crate) trait Held: Workspace {
    /// The view that it is open on, as long as it has it.
    fn view(&self) -> Option<Arc<View>>;

    /// Ends it; all of it is gone when this returns, unless somebody else has it as well.
    async fn end(self: Arc<Self>);
}

/// Opens the box once more.
pub(crate) type Reopen = Box<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn Held>, Error>> + Send + Sync>;

/// See the module.
pub(crate) struct Guard {
    /// Held by every request while it is served, and alone while the box is opened again.
    gate: RwLock<()>,
    open: Mutex<Option<Open>>,
    reopen: Reopen,
    /// What closed boxes reached and nobody asked for.
    reached: Mutex<Vec<EgressRecord>>,
    /// What the last box was.
    report: Mutex<SandboxReport>,
}

#[derive(Clone)]
struct Open {
    held: Arc<dyn Held>,
    covers: Arc<Covers>,
}

/// A request that is being served.
struct Entered<'a> {
    open: Open,
    _pass: RwLockReadGuard<'a, ()>,
}

impl Guard {
    /// Opens a sandbox at a snapshot by `open`, which also opens it once more, as it then stands. One without a view is
    /// given back as it is.
    pub(crate) async fn open<H, F>(
        at: Option<SnapshotId>,
        open: impl Fn(Option<SnapshotId>) -> F + Send + Sync + 'static,
    ) -> Result<Arc<dyn Workspace>, Error>
    where
        H: Held + 'static,
        F: Future<Output = Result<Arc<H>, Error>> + Send + 'static,
    {
        let held: Arc<dyn Held> = open(at).await?;
        let reopen: Reopen = Box::new(move || {
            let again = open(None);
            Box::pin(async move { Ok(again.await? as Arc<dyn Held>) })
        });
        Ok(Self::over(held, reopen))
    }

    fn over(held: Arc<dyn Held>, reopen: Reopen) -> Arc<dyn Workspace> {
        let Some(view) = held.view() else { return held };
        let report = Mutex::new(held.report());
        let open = Mutex::new(Some(Open { held, covers: view.covers() }));
        Arc::new(Self { gate: RwLock::new(()), open, reopen, reached: Mutex::default(), report })
    }

    fn current(&self) -> Option<Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The box, when all that has to be covered is.
    async fn enter(&self) -> Result<Entered<'_>, Error> {
        for _ in 0..MAX_REOPENS {
            let pass = self.gate.read().await;
            let Some(open) = self.current() else { return Err(gone("it was not opened again")) };
            if open.covers.is_quiet() {
                return Ok(Entered { open, _pass: pass });
            }
            let covers = Arc::clone(&open.covers);
            if !blocking(move || Ok(covers.has_news())).await? {
                return Ok(Entered { open, _pass: pass });
            }
            drop((pass, open));
            self.open_again().await?;
        }
        Err(gone("files that look like secrets come to be in the repository all the time"))
    }

    async fn open_again(&self) -> Result<(), Error> {
        let _alone = self.gate.write().await;
        let Some(open) = self.current() else { return Ok(()) };
        let covers = Arc::clone(&open.covers);
        if !blocking(move || Ok(covers.has_news())).await? {
            // Another request saw to it.
            return Ok(());
        }
        let view = open.held.view().ok_or_else(|| gone("another box has its workspace"))?;
        blocking(move || view.keep_covers()).await?;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.reached.lock().unwrap_or_else(PoisonError::into_inner).extend(open.held.reached());
        open.held.end().await;
        let held = (self.reopen)().await?;
        let Some(view) = held.view() else { return Err(gone("it has no workspace")) };
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = held.report();
        let opened = Open { held, covers: view.covers() };
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
        Ok(())
    }

    /// The box for something that writes.
    async fn enter_to_write(&self) -> Result<Entered<'_>, Error> {
        let entered = self.enter().await?;
        entered.open.covers.begin_writing();
        Ok(entered)
    }
}

impl Entered<'_> {
    /// What was written meanwhile is the run's own.
    async fn wrote(self) -> Result<(), Error> {
        let covers = self.open.covers;
        if covers.must_pass_over() {
            blocking(move || {
                covers.pass_over();
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}

fn gone(why: &str) -> Error {
    Error::Died { why: why.to_owned() }
}

#[async_trait]
impl Workspace for Guard {
    fn report(&self) -> SandboxReport {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let more = self.current().map(|open| open.covers.warnings()).unwrap_or_default();
        report.warnings.extend(more);
        report
    }

    async fn exec(&self, spec: ExecSpec, output: &dyn OutputSink) -> Result<ExecResult, Error> {
        let entered = self.enter_to_write().await?;
        let done = entered.open.held.exec(spec, output).await;
        entered.wrote().await?;
        done
    }

    async fn snapshot(&self) -> Result<SnapshotId, Error> {
        let _pass = self.gate.read().await;
        let open = self.current().ok_or_else(|| gone("it was not opened again"))?;
        open.held.snapshot().await
    }

    async fn take_snapshot(&self) -> Result<(SnapshotId, Durable), Error> {
        let _pass = self.gate.read().await;
        let open = self.current().ok_or_else(|| gone("it was not opened again"))?;
        open.held.take_snapshot().await
    }

    fn reached(&self) -> Vec<EgressRecord> {
        let mut reached = std::mem::take(&mut *self.reached.lock().unwrap_or_else(PoisonError::into_inner));
        reached.extend(self.current().map(|open| open.held.reached()).unwrap_or_default());
        reached
    }
}

#[async_trait]
impl Files for Guard {
    async fn read(&self, path: &str, offset: u64, limit: usize) -> Result<FileChunk, Error> {
        self.enter().await?.open.held.read(path, offset, limit).await
    }

    async fn write(&self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        let entered = self.enter_to_write().await?;
        let done = entered.open.held.write(path, bytes).await;
        entered.wrote().await?;
        done
    }

    async fn list(&self, path: &str, depth: u32, limit: usize) -> Result<Listing<Entry>, Error> {
        self.enter().await?.open.held.list(path, depth, limit).await
    }

    async fn search(&self, spec: SearchSpec) -> Result<Listing<Match>, Error> {
        self.enter().await?.open.held.search(spec).await
    }

    async fn find(&self, glob: &str, limit: usize) -> Result<Listing<Entry>, Error> {
        self.enter().await?.open.held.find(glob, limit).await
    }

    async fn remove(&self, path: &str) -> Result<(), Error> {
        let entered = self.enter_to_write().await?;
        let done = entered.open.held.remove(path).await;
        entered.wrote().await?;
        done
    }
}
