//! The run's sandbox: opened during the first claim or when an effect needs it, and reopened with the same
//! specification if it dies.

use forge_ports::sandbox::Error;
use forge_ports::{Clock, Sandbox, Workspace};
use forge_types::{ErrorInfo, ErrorKind, RunId, SandboxSpec, SnapshotId};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// The delay before a failed start is retried once (SBX-5).
const START_RETRY_DELAY: Duration = Duration::from_secs(5);

/// The sandbox of one run, opened on demand.
pub struct SandboxSession {
    sandbox: Arc<dyn Sandbox>,
    spec: SandboxSpec,
    run: RunId,
    open: Mutex<Option<Arc<dyn Workspace>>>,
    restore_point: Mutex<Option<SnapshotId>>,
}

impl SandboxSession {
    /// Creates a session without an open sandbox.
    pub fn new(sandbox: Arc<dyn Sandbox>, spec: SandboxSpec, run: RunId) -> Self {
        Self { sandbox, spec, run, open: Mutex::new(None), restore_point: Mutex::new(None) }
    }

    /// Sets the snapshot to restore when the sandbox is opened next; `None` leaves the workspace as it is.
    pub fn set_restore_point(&self, at: Option<SnapshotId>) {
        *self.restore_point.lock() = at;
    }

    fn restore_point(&self) -> Option<SnapshotId> {
        *self.restore_point.lock()
    }

    /// Returns whether the sandbox is open.
    pub fn is_open(&self) -> bool {
        self.workspace().is_some()
    }

    /// Returns the sandbox's workspace, if it is open.
    pub fn workspace(&self) -> Option<Arc<dyn Workspace>> {
        self.open.lock().clone()
    }

    /// Opens the sandbox, always with the run's own specification.
    ///
    /// # Errors
    /// If anything is missing: the sandbox is never opened with less isolation than requested.
    pub async fn open(&self, clock: &dyn Clock) -> Result<Arc<dyn Workspace>, ErrorInfo> {
        if let Some(workspace) = self.workspace() {
            return Ok(workspace);
        }
        let workspace = match self.sandbox.open(&self.spec, self.run, self.restore_point()).await {
            Ok(workspace) => workspace,
            Err(Error::Startup { .. } | Error::Died { .. }) => {
                clock.sleep_until(clock.now().after(START_RETRY_DELAY)).await;
                self.sandbox
                    .open(&self.spec, self.run, self.restore_point())
                    .await
                    .map_err(|error| to_error_info(&error))?
            }
            Err(error) => return Err(to_error_info(&error)),
        };
        *self.open.lock() = Some(workspace.clone());
        Ok(workspace)
    }

    /// Opens the sandbox if the first attempt succeeds; otherwise [`SandboxSession::open`] reports the error
    /// later.
    pub async fn try_open(&self) {
        if let Ok(workspace) = self.sandbox.open(&self.spec, self.run, self.restore_point()).await {
            *self.open.lock() = Some(workspace);
        }
    }

    /// Releases the sandbox, which ends with its last user.
    pub async fn close(&self) {
        let workspace = self.open.lock().take();
        if let Some(workspace) = workspace {
            // Ending a sandbox reaps processes and removes mounts, which must not block an async thread.
            let _ = tokio::task::spawn_blocking(move || drop(workspace)).await;
        }
    }
}

pub(crate) fn to_error_info(error: &Error) -> ErrorInfo {
    let kind = match error {
        Error::Missing { .. } => ErrorKind::BackendMissing,
        Error::Died { .. } => ErrorKind::Died,
        Error::Conflicts { .. } => ErrorKind::Conflict,
        Error::Ceiling { .. } => ErrorKind::BudgetExceeded,
        Error::Stopped => ErrorKind::Cancelled,
        Error::Startup { .. }
        | Error::View { .. }
        | Error::NoSpace { .. }
        | Error::NoBranch { .. }
        | Error::Path { .. }
        | Error::Invalid { .. } => ErrorKind::Startup,
    };
    ErrorInfo::fatal(kind, error.to_string()).with_next_steps(error.next_steps())
}
