//! Outcomes of model calls, recorded for their providers.

use super::RunDriver;
use crate::effects::EffectResult;
use forge_types::{Effect, EffectId, EffectStart, ErrorInfo, Outcome, RunState, RunStatus};

/// The outcome of a call to a provider, by its target's index in the plan.
pub(super) enum ProviderOutcome {
    Answered(u32),
    Failed(u32, ErrorInfo),
}

impl RunDriver {
    /// Refreshes the cooldowns. A run without fallbacks does not need them.
    pub(super) async fn refresh_cooldowns(&mut self) {
        if self.plan.agent().is_some_and(|plan| !plan.agent.fallbacks.is_empty()) {
            self.cooldowns = self.parts.cooldowns.current_cooldowns(self.parts.clock.now()).await;
        }
    }

    /// Returns the outcomes of model calls among those that have just arrived.
    pub(super) fn provider_outcomes(
        &self,
        state: &RunState,
        outcomes: &[(EffectId, EffectResult)],
    ) -> Vec<ProviderOutcome> {
        let heard = outcomes.iter().filter_map(|(effect, done)| {
            let Effect::CallModel(call) = &state.open.get(effect)?.what else { return None };
            match &done.outcome {
                Outcome::Replied { .. } => Some(ProviderOutcome::Answered(call.target)),
                Outcome::ModelFailed { error } => Some(ProviderOutcome::Failed(call.target, error.clone())),
                _ => None,
            }
        });
        heard.collect()
    }

    /// Records outcomes: a provider that failed and is not asked again in this turn was given up; one that
    /// answered is healthy.
    pub(super) async fn record_outcomes(
        &self,
        heard: Vec<ProviderOutcome>,
        starts: &[EffectStart],
        ended: Option<RunStatus>,
    ) {
        let asked = |target: u32| {
            starts.iter().any(|start| matches!(&start.what, Effect::CallModel(call) if call.target == target))
        };
        let now = self.parts.clock.now();
        let Some(plan) = self.plan.agent() else { return };
        for heard in heard {
            match heard {
                ProviderOutcome::Answered(target) => {
                    self.parts
                        .cooldowns
                        .record_answer(&plan.agent.target_at(target).route.provider, now)
                        .await;
                }
                // A run that was cancelled or reached a limit would have asked again.
                ProviderOutcome::Failed(target, error)
                    if !asked(target) && matches!(ended, None | Some(RunStatus::Failed)) =>
                {
                    let provider = &plan.agent.target_at(target).route.provider;
                    self.parts.cooldowns.record_failure(provider, &error, now).await;
                }
                ProviderOutcome::Failed(..) => {}
            }
        }
    }
}
