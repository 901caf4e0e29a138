//! Waiting for the host within a turn: for a box, a snapshot, an apply. Nobody else looks at commands and deadlines
//! meanwhile, so this does; what is no longer wanted is stopped, and its answer says so.

use super::RunDriver;
use forge_policy::budget;
use forge_ports::Journal;
use forge_types::{RunCommand, RunId, RunState};
use std::future::Future;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::watch;

/// A run that is ending has so long for each look at its workspace.
const FINAL_WORK_TIMEOUT: Duration = Duration::from_secs(5);
/// Work that was stopped before it began to listen is stopped again after this time.
const STOP_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// How long work of the host may take.
#[derive(Clone, Copy)]
pub(super) enum WorkDeadline {
    /// Until the run's time is over.
    Deadline,
    /// So long, and somewhat longer if the run is over already.
    End,
}

impl RunDriver {
    /// Waits for `work`, and stops it when the run is to end.
    pub(super) async fn run_until_stopped<T>(
        &self,
        state: &RunState,
        until: WorkDeadline,
        work: impl Future<Output = T>,
    ) -> T {
        let mut work = pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = self.wait_for_stop(state, until) => {}
        }
        loop {
            self.parts.workspaces.stop_run_work(state.run);
            let clock = &self.parts.clock;
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = clock.sleep_until(clock.now().after(STOP_RETRY_INTERVAL)) => {}
            }
        }
    }

    /// Returns when the run has no more time, or somebody cancels it.
    async fn wait_for_stop(&self, state: &RunState, until: WorkDeadline) {
        let clock = &self.parts.clock;
        let now = clock.now();
        let limits = budget::limits(state, &self.plan);
        let left = Duration::from_millis(limits.max_duration_ms.saturating_sub(state.worked_ms(now)));
        // Who has cancelled has waited long enough.
        let left = match (until, state.cancel.is_some()) {
            (WorkDeadline::Deadline, _) => left,
            (WorkDeadline::End, false) => left.max(FINAL_WORK_TIMEOUT),
            (WorkDeadline::End, true) => FINAL_WORK_TIMEOUT,
        };
        let alarm = clock.sleep_until(now.after(left));
        if state.cancel.is_some() {
            return alarm.await;
        }
        tokio::select! {
            () = alarm => {}
            () = wait_for_cancel(self.parts.journal.as_ref(), state.run, self.commands.clone()) => {}
        }
    }
}

/// Returns when somebody cancels the run, from what `commands` has not told yet.
pub(super) async fn wait_for_cancel(journal: &dyn Journal, run: RunId, mut commands: watch::Receiver<u64>) {
    while commands.changed().await.is_ok() {
        let inbox = journal.inbox(run).await.unwrap_or_default();
        if inbox.iter().any(|(_, command)| matches!(command, RunCommand::Cancel { .. })) {
            return;
        }
    }
    std::future::pending().await
}
