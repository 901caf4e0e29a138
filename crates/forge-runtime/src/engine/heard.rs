//! What the answers of models say about their providers.

use super::Drive;
use super::perform::Done;
use forge_policy::agent::Start;
use forge_types::{Effect, EffectId, ErrorInfo, Outcome, RunState, RunStatus};

/// What a provider did, by its target's place in the plan.
pub(super) enum Heard {
    Answered(u32),
    Failed(u32, ErrorInfo),
}

impl Drive {
    /// Who is left alone now. A run that has nobody else to ask need not know.
    pub(super) async fn look_who_is_left_alone(&mut self) {
        if !self.plan.fallbacks.is_empty() {
            self.cooling = self.parts.cooling.all(self.parts.clock.now()).await;
        }
    }

    /// The answers among the outcomes that have just arrived.
    pub(super) fn heard(&self, state: &RunState, outcomes: &[(EffectId, Done)]) -> Vec<Heard> {
        let heard = outcomes.iter().filter_map(|(effect, done)| {
            let Effect::CallModel(call) = &state.open.get(effect)?.what else { return None };
            match &done.outcome {
                Outcome::Replied { .. } => Some(Heard::Answered(call.target)),
                Outcome::ModelFailed { error } => Some(Heard::Failed(call.target, error.clone())),
                _ => None,
            }
        });
        heard.collect()
    }

    /// A provider that failed and is not asked again in this turn was given up; one that answered is well.
    pub(super) async fn learn(&self, heard: Vec<Heard>, starts: &[Start], ended: Option<RunStatus>) {
        let asked = |target: u32| {
            starts.iter().any(|start| matches!(&start.what, Effect::CallModel(call) if call.target == target))
        };
        let now = self.parts.clock.now();
        for heard in heard {
            match heard {
                Heard::Answered(target) => {
                    self.parts.cooling.answered(&self.plan.target(target).route.provider, now).await;
                }
                // A run that was cancelled or reached a limit would have asked again.
                Heard::Failed(target, error)
                    if !asked(target) && matches!(ended, None | Some(RunStatus::Failed)) =>
                {
                    let provider = &self.plan.target(target).route.provider;
                    self.parts.cooling.gave_up(provider, &error, now).await;
                }
                Heard::Failed(..) => {}
            }
        }
    }
}
