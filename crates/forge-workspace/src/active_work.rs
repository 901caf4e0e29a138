//! Work of the host for a run that ends when nobody wants it any more: because the future that waits for it was dropped,
//! or because the run is to stop.

use crate::blocking::run_blocking;
use forge_ports::sandbox::Error;
use forge_snapshot::{StopFlag, WorkBounds};
use forge_types::{RunId, WorkspaceLimits};
use std::sync::{Mutex, PoisonError};

/// How often work that has no look of its own is looked after.
const POLL_INTERVAL: std::time::Duration = std::time::Duration::from_millis(50);

/// What is under way in this process.
static ACTIVE_WORK: Mutex<Vec<(RunId, u64, StopFlag)>> = Mutex::new(Vec::new());
/// Numbers what is under way.
static NEXT_WORK_ID: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// A piece of work that somebody waits for. When this is dropped the work ends at its next look.
pub struct ActiveWork {
    number: u64,
    stop: StopFlag,
}

impl ActiveWork {
    /// Work for a run.
    pub fn new(run: RunId) -> Self {
        let number = NEXT_WORK_ID.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let stop = StopFlag::default();
        ACTIVE_WORK.lock().unwrap_or_else(PoisonError::into_inner).push((run, number, stop.clone()));
        Self { number, stop }
    }

    /// Returns when nobody wants the work any more.
    pub async fn wait_stopped(&self) {
        while !self.stop.is_stopped() {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// What the work may take.
    pub fn work_bounds(&self, limits: WorkspaceLimits) -> WorkBounds {
        WorkBounds::new(limits, self.stop.clone())
    }
}

impl Drop for ActiveWork {
    fn drop(&mut self) {
        self.stop.stop();
        ACTIVE_WORK
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(_, number, _)| *number != self.number);
    }
}

/// Ends everything that is under way for a run; who waits for it is told that it was stopped.
pub fn stop_run_work(run: RunId) {
    let under_way = ACTIVE_WORK.lock().unwrap_or_else(PoisonError::into_inner);
    under_way.iter().filter(|(owner, ..)| *owner == run).for_each(|(.., stop)| stop.stop());
}

/// Runs work for a run that may wait for a disk, within bounds.
pub async fn run_bounded<T: Send + 'static>(
    run: RunId,
    limits: WorkspaceLimits,
    work: impl FnOnce(&WorkBounds) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let wanted = ActiveWork::new(run);
    let bounds = wanted.work_bounds(limits);
    run_blocking(move || work(&bounds)).await
}
