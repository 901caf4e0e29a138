//! Budgets near their limits: releasing the reservations of dead runs, and counting the tokens of prompts
//! exactly.

use super::RunDriver;
use crate::effects::resolve_request;
use forge_policy::{budget, context};
use forge_types::{Decision, EventKind, LimitKind, ModelCall, RunState, RunStatus, WaitingFor};

impl RunDriver {
    /// Releases the reservations on an account of runs that no process works on: their calls died with their
    /// process. Returns whether there were any.
    pub(super) async fn release_stale_reservations(&self, account: &str) -> bool {
        let Ok(holders) = self.parts.ledger.holders(account).await else { return false };
        let mut freed = false;
        for (run, _) in holders.into_iter().filter(|(run, _)| *run != self.state().run) {
            // Without a claim, which would make a concurrent resume of the run fail. If the run is resumed meanwhile,
            // the release is refused.
            let Ok(Some(fence)) = self.parts.queue.idle_fence(run).await else { continue };
            freed |= self.parts.ledger.release_run(run, fence).await.is_ok();
        }
        freed
    }

    /// Decides again with an exact token count of the prompt, if the decision was that a limit is reached.
    pub(super) async fn recount_exactly(&self, state: &RunState, decision: &Decision) -> Option<Decision> {
        if !reaches_limit(decision) {
            return None;
        }
        let call = ModelCall {
            iteration: state.iterations,
            attempt: 1,
            max_tokens: 1,
            not_before: None,
            input_estimate: 0,
            target: state.target,
            passed: Vec::new(),
        };
        let mut request = context::model_request(state, self.plan.agent()?, &call);
        resolve_request(&self.blobs, &mut request).await.ok()?;
        let count = self.parts.count_tokens.clone();
        let tokens = tokio::task::spawn_blocking(move || count(&request)).await.ok()??;
        let mut counted = state.clone();
        counted.last_measured_prompt =
            Some((budget::adjusted_count(state, state.target, tokens), state.message_bytes));
        Some(self.decide(&counted))
    }
}

/// Returns whether the decision ends or parks the run because the next call would exceed a limit.
fn reaches_limit(decision: &Decision) -> bool {
    let ends = decision.finish.as_ref().is_some_and(|finish| {
        finish.status == RunStatus::TimedOut
            && matches!(finish.limit, Some(LimitKind::Cost | LimitKind::Tokens))
    });
    let parks = decision
        .record
        .iter()
        .any(|event| matches!(event, EventKind::StatusChanged { waiting_for: Some(WaitingFor::Budget), .. }));
    ends || parks
}
