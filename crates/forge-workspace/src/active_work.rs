//! Work of the host for a run that ends when it is no longer needed: because the future that waits for it was dropped,
//! or because the run is to stop.

use crate::blocking::run_blocking;
use forge_ports::sandbox::Error;
use forge_snapshot::{StopFlag, WorkBounds};
use forge_types::{RunId, WorkspaceLimits};
use parking_lot::Mutex;

/// Interval between checks whether work is still needed.
const POLL_INTERVAL: std::time::Duration = std::time::Duration::from_millis(50);

/// Work in progress in this process.
static ACTIVE_WORK: Mutex<Vec<(RunId, u64, StopFlag)>> = Mutex::new(Vec::new());
/// Next number for work in progress.
static NEXT_WORK_ID: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// A piece of work that a caller waits for. Dropping this ends the work at its next check.
pub struct ActiveWork {
    number: u64,
    stop: StopFlag,
}

impl ActiveWork {
    /// Registers work for a run.
    pub fn new(run: RunId) -> Self {
        let number = NEXT_WORK_ID.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let stop = StopFlag::default();
        ACTIVE_WORK.lock().push((run, number, stop.clone()));
        Self { number, stop }
    }

    /// Waits until the work is no longer needed.
    pub async fn wait_stopped(&self) {
        while !self.stop.is_stopped() {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Returns the bounds of the work.
    pub fn work_bounds(&self, limits: WorkspaceLimits) -> WorkBounds {
        WorkBounds::new(limits, self.stop.clone())
    }
}

impl Drop for ActiveWork {
    fn drop(&mut self) {
        self.stop.stop();
        ACTIVE_WORK.lock().retain(|(_, number, _)| *number != self.number);
    }
}

/// Stops all work in progress for a run; its callers get [`Error::Stopped`].
pub fn stop_run_work(run: RunId) {
    let under_way = ACTIVE_WORK.lock();
    under_way.iter().filter(|(owner, ..)| *owner == run).for_each(|(.., stop)| stop.stop());
}

/// Runs blocking work for a run within bounds.
pub async fn run_bounded<T: Send + 'static>(
    run: RunId,
    limits: WorkspaceLimits,
    work: impl FnOnce(&WorkBounds) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let wanted = ActiveWork::new(run);
    let bounds = wanted.work_bounds(limits);
    run_blocking(move || work(&bounds)).await
}
