//! Wire events about the choice of a model: the chosen model, the failure of a model and the next one.

use super::{ModelFailed, ModelRouted, PlanFacts};
use forge_types::{
    Effect, Event, EventKind, ModelCall, ModelRoute, RejectedCandidate, RouteStage, Timestamp,
};

impl PlanFacts {
    /// Returns the provider and model of the target; `None` if the run calls none itself.
    pub(super) fn route_of(&self, target: u32) -> Option<&ModelRoute> {
        let other = target.checked_sub(1).and_then(|at| self.fallbacks.get(at as usize));
        other.or(self.route.as_ref())
    }

    /// Returns the event for a `call` to another target than `before`, the target of the previous call.
    pub(super) fn routed_event(&self, call: &ModelCall, before: Option<u32>) -> Option<ModelRouted> {
        let routing = self.routing.as_deref()?;
        let route = self.route_of(call.target)?;
        let as_planned = before.is_none() && routing.chosen == *route;
        let (stage, reason, rejected) = if as_planned {
            (routing.stage, routing.reason.clone(), routing.rejected.clone())
        } else {
            (RouteStage::Availability, routing_reason(call), call.passed.clone())
        };
        Some(ModelRouted {
            provider: route.provider.clone(),
            model: route.model.clone(),
            task_type: routing.task_type,
            tier: routing.tier,
            stage,
            reason,
            rejected,
        })
    }
}

fn routing_reason(call: &ModelCall) -> String {
    match call.passed.as_slice() {
        [] => "the preferred model is available again".to_owned(),
        passed => passed.iter().map(describe_rejection).collect::<Vec<_>>().join("; "),
    }
}

fn describe_rejection(rejected: &RejectedCandidate) -> String {
    format!("{}/{}: {}", rejected.provider, rejected.model, rejected.reason)
}

/// Completes a model failure with its consequence: the time of the next call, and its model if it is a different
/// one.
pub(super) fn follow_up(
    (at, target, mut failed): (Timestamp, u32, ModelFailed),
    event: &Event,
    facts: Option<&PlanFacts>,
) -> (Timestamp, ModelFailed) {
    match &event.kind {
        EventKind::Intended { what: Effect::CallModel(call), .. } => {
            if let Some(time) = call.not_before {
                failed.retry_in_ms = Some(time.millis_since(at));
            } else if call.target != target {
                failed.retry_in_ms = None;
            }
            failed.next = facts
                .filter(|_| call.target != target)
                .and_then(|f| Some(f.route_of(call.target)?.to_string()));
        }
        EventKind::StatusChanged { until: Some(until), .. } => {
            failed.retry_in_ms = Some(until.millis_since(at));
        }
        _ => {}
    }
    (at, failed)
}
