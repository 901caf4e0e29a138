//! Stoppable host work within a turn, such as opening a sandbox, a snapshot or an apply. The loop does not
//! check commands and deadlines meanwhile, so this module does; work that is no longer wanted is stopped and
//! returns an error.

use super::RunDriver;
use forge_policy::budget;
use forge_ports::Journal;
use forge_types::{RunCommand, RunId, RunState};
use std::future::Future;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::watch;

/// The time that an ending run gets for each operation on its workspace.
const FINAL_WORK_TIMEOUT: Duration = Duration::from_secs(5);
/// The time that the reversal of a partial apply gets: it takes as long as the apply, and a repository with a part of a
/// result is worse than a wait.
const REVERT_TIMEOUT: Duration = Duration::from_secs(120);
/// The interval at which work is stopped again, in case it did not listen yet.
const STOP_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// The time limit of host work.
#[derive(Clone, Copy)]
pub(super) enum WorkDeadline {
    /// The run's own time limit.
    Deadline,
    /// The run's time limit, but at least [`FINAL_WORK_TIMEOUT`], and no more than that after a cancel.
    End,
    /// [`REVERT_TIMEOUT`], also after a cancel.
    Revert,
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

    /// Waits until the run's time is over or a command cancels it.
    async fn wait_for_stop(&self, state: &RunState, until: WorkDeadline) {
        let clock = &self.parts.clock;
        let now = clock.now();
        let limits = budget::limits(state, &self.plan.shared);
        let left = Duration::from_millis(limits.max_duration_ms.saturating_sub(state.worked_ms(now)));
        // A user who has cancelled should not wait longer than necessary.
        let left = match (until, state.cancel.is_some()) {
            (WorkDeadline::Revert, _) => REVERT_TIMEOUT,
            (WorkDeadline::Deadline, _) => left,
            (WorkDeadline::End, false) => left.max(FINAL_WORK_TIMEOUT),
            (WorkDeadline::End, true) => FINAL_WORK_TIMEOUT,
        };
        let alarm = clock.sleep_until(now.after(left));
        if state.cancel.is_some() || matches!(until, WorkDeadline::Revert) {
            return alarm.await;
        }
        tokio::select! {
            () = alarm => {}
            () = wait_for_cancel(self.parts.journal.as_ref(), state.run, self.commands.clone()) => {}
        }
    }
}

/// Waits until the run is cancelled by a command that `commands` has not signalled yet.
pub(super) async fn wait_for_cancel(journal: &dyn Journal, run: RunId, mut commands: watch::Receiver<u64>) {
    while commands.changed().await.is_ok() {
        let inbox = journal.inbox(run).await.unwrap_or_default();
        if inbox.iter().any(|(_, command)| matches!(command, RunCommand::Cancel { .. })) {
            return;
        }
    }
    std::future::pending().await
}
