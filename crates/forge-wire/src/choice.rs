//! What is told of the choice of a model: who was chosen, who failed, and who is asked next.

use super::{ModelFailed, ModelRouted, PlanFacts};
use forge_types::{
    Effect, Event, EventKind, ModelCall, ModelRoute, RejectedCandidate, RouteStage, Timestamp,
};

impl PlanFacts {
    /// Whom a call of this target asks.
    pub(super) fn route_of(&self, target: u32) -> &ModelRoute {
        let other = target.checked_sub(1).and_then(|at| self.fallbacks.get(at as usize));
        other.unwrap_or(&self.route)
    }

    /// What is told when `call` asks somebody who was not named before; `before` is who was asked last.
    pub(super) fn routed_event(&self, call: &ModelCall, before: Option<u32>) -> Option<ModelRouted> {
        let routing = self.routing.as_deref()?;
        let route = self.route_of(call.target);
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
        [] => "those before it can be asked again".to_owned(),
        passed => passed.iter().map(describe_rejection).collect::<Vec<_>>().join("; "),
    }
}

fn describe_rejection(rejected: &RejectedCandidate) -> String {
    format!("{}/{}: {}", rejected.provider, rejected.model, rejected.reason)
}

/// A failure of a model's call with what follows from it: when somebody is asked next, and who, if somebody else.
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
            failed.next =
                facts.filter(|_| call.target != target).map(|f| f.route_of(call.target).to_string());
        }
        EventKind::StatusChanged { until: Some(until), .. } => {
            failed.retry_in_ms = Some(until.millis_since(at));
        }
        _ => {}
    }
    (at, failed)
}
