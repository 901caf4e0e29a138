//! The five stages of routing: pin, complexity, weights, availability, escalation.

use super::complexity::{Thresholds, find_signals};
use super::escalation::{EscalationOutcome, EscalationStep, escalate_route};
use super::weights::{WeightedDraw, draw_candidate};
use super::{Error, ModelPreference, ProviderInfo, base_route};
use crate::cooldown;
use forge_types::{
    Cooldown, ModelRoute, Price, RejectedCandidate, RouteStage, RoutingChoice, StageVerdict, TaskKind, Tier,
    Timestamp, WeightRow,
};

/// A pinned model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedModel {
    /// The model.
    pub route: ModelRoute,
    /// The source of the pin, such as `--model`.
    pub by: String,
}

/// The models of the tiers, if tiers are in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TierModels {
    /// For simple tasks.
    pub simple: Option<ModelRoute>,
    /// For medium tasks; defaults to the model for simple tasks.
    pub medium: Option<ModelRoute>,
    /// For hard tasks.
    pub hard: Option<ModelRoute>,
}

impl TierModels {
    fn for_tier(&self, tier: Tier) -> Option<&ModelRoute> {
        match tier {
            Tier::Simple => self.simple.as_ref(),
            Tier::Medium => self.medium.as_ref().or(self.simple.as_ref()),
            Tier::Hard => self.hard.as_ref(),
        }
    }
}

/// A model's estimate of a task's difficulty.
#[derive(Clone, Debug, PartialEq)]
pub struct Classification {
    /// The tier.
    pub level: Tier,
    /// Confidence from 0 to 1.
    pub confidence: f64,
    /// The reasoning.
    pub reasoning: String,
}

/// A target to fall back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTarget {
    /// The model.
    pub route: ModelRoute,
    /// The organization that is charged, if it differs.
    pub organization: Option<String>,
}

/// The inputs of the choice.
#[derive(Clone, Copy)]
pub struct RoutingRequest<'a> {
    /// The kind of work.
    pub task_type: TaskKind,
    /// The task, in the user's words.
    pub task: &'a str,
    /// The configured preference.
    pub preference: &'a ModelPreference,
    /// The pinned model.
    pub pin: Option<&'a PinnedModel>,
    /// The agent's own model, which is its first candidate.
    pub agent: Option<&'a ModelRoute>,
    /// All providers, in their fixed order.
    pub providers: &'a [ProviderInfo],
    /// The models of the tiers; `None` if tiers are not in use.
    pub tiers: Option<&'a TierModels>,
    /// Thresholds between the tiers.
    pub thresholds: Thresholds,
    /// A model's estimate of the task if one was asked, or the reason why there is none.
    pub classified: Option<&'a Result<Classification, String>>,
    /// Recorded outcomes.
    pub weights: &'a [WeightRow],
    /// Share of choices made at random.
    pub explore: f64,
    /// Fallbacks when the choice is unavailable; `None` for all providers with a key.
    pub fallbacks: Option<&'a [RouteTarget]>,
    /// Escalation steps, each with a stronger model.
    pub escalation_steps: &'a [EscalationStep],
    /// Whether pinned models are escalated too.
    pub escalate_pinned: bool,
    /// Number of the repair attempt; 0 for none.
    pub repair_attempt: u32,
    /// Returns a model's price, if known.
    pub price: &'a dyn Fn(&ModelRoute) -> Option<Price>,
    /// Cooldowns of providers.
    pub cooldowns: &'a [Cooldown],
    /// Seed of the random choices.
    pub seed: u64,
    /// The current time.
    pub now: Timestamp,
}

/// The decision: the choice with all its reasons, and every target that the run may use, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutingDecision {
    /// The choice and its reasons.
    pub routing: RoutingChoice,
    /// The preferred model first, then its fallbacks, each provider once.
    pub targets: Vec<RouteTarget>,
}

/// Chooses a route.
///
/// # Errors
/// [`Error`] if nothing is configured, or a named provider or model does not exist.
pub fn choose_route(question: &RoutingRequest<'_>) -> Result<RoutingDecision, Error> {
    let mut run = RoutingStages { question, stages: Vec::new(), rejected: Vec::new(), by: RouteStage::Pin };
    let pinned = run.apply_pin();
    let tier = run.apply_complexity(pinned.is_some());
    let mut set = match pinned {
        Some(route) => vec![route],
        None => run.collect_candidates(tier)?,
    };
    run.apply_weights(&mut set, tier, is_pinned(question));
    let targets = run.filter_available(set, tier)?;
    let (targets, chosen) = run.apply_escalation(targets);
    Ok(run.into_decision(tier, targets, &chosen))
}

const fn is_pinned(question: &RoutingRequest<'_>) -> bool {
    question.pin.is_some()
}

struct RoutingStages<'a, 'q> {
    question: &'a RoutingRequest<'q>,
    stages: Vec<StageVerdict>,
    rejected: Vec<RejectedCandidate>,
    /// The last stage that changed the choice.
    by: RouteStage,
}

impl RoutingStages<'_, '_> {
    fn record_stage(
        &mut self,
        stage: RouteStage,
        choice: Option<&ModelRoute>,
        acted: bool,
        reason: impl Into<String>,
    ) {
        if acted {
            self.by = stage;
        }
        self.stages.push(StageVerdict { stage, choice: choice.cloned(), acted, reason: reason.into() });
    }

    fn reject(&mut self, route: &ModelRoute, reason: impl Into<String>) {
        if !self.rejected.iter().any(|one| one.provider == route.provider && one.model == route.model) {
            self.rejected.push(RejectedCandidate::new(route, reason));
        }
    }

    fn apply_pin(&mut self) -> Option<ModelRoute> {
        let pin = self.question.pin;
        match pin {
            Some(pin) => {
                let reason = format!("set by {}", pin.by);
                self.record_stage(RouteStage::Pin, Some(&pin.route), true, reason);
            }
            None => self.record_stage(RouteStage::Pin, None, false, "no model is pinned"),
        }
        pin.map(|pin| pin.route.clone())
    }

    /// Records the tier; uses it for the choice only if tiers are in use and nothing is pinned.
    fn apply_complexity(&mut self, pinned: bool) -> Tier {
        let question = self.question;
        let heuristic = find_signals(question.task);
        let (tier, why) = match question.classified {
            Some(Ok(said)) => (
                said.level,
                format!(
                    "the classifier says {} (confidence {:.2}): {}",
                    said.level, said.confidence, said.reasoning
                ),
            ),
            Some(Err(fault)) => (
                heuristic.tier(question.thresholds),
                format!(
                    "by heuristic, since the classifier was unavailable ({fault}): {}",
                    heuristic.describe()
                ),
            ),
            None => (heuristic.tier(question.thresholds), heuristic.describe()),
        };
        let choice = match (pinned, question.tiers) {
            (true, _) => question.pin.map(|pin| &pin.route),
            (false, tiers) => tiers.and_then(|tiers| tiers.for_tier(tier)),
        };
        let acted = !pinned && choice.is_some();
        let effect = match (pinned, question.tiers) {
            (true, _) => "; the model is pinned",
            (false, None) => "; no tier has a model of its own",
            (false, Some(_)) if acted => "",
            (false, Some(_)) => "; this tier has no model of its own",
        };
        let choice = choice.cloned();
        self.record_stage(RouteStage::Complexity, choice.as_ref(), acted, format!("{tier}: {why}{effect}"));
        tier
    }

    /// Returns the candidates, the preferred one first.
    fn collect_candidates(&mut self, tier: Tier) -> Result<Vec<ModelRoute>, Error> {
        let question = self.question;
        let mut set = Vec::new();
        set.extend(question.agent.cloned());
        set.extend(question.tiers.and_then(|tiers| tiers.for_tier(tier)).cloned());
        if set.is_empty() {
            match base_route(question.preference, question.providers) {
                Ok(route) => set.push(route),
                // The tier's own provider may still be available.
                Err(error @ Error::Nothing { .. }) if question.tiers.is_none() => return Err(error),
                Err(Error::Nothing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let rows =
            question.weights.iter().filter(|row| row.task_type == question.task_type && row.tier == tier);
        set.extend(rows.map(WeightRow::route));
        if question.tiers.is_some() {
            let usable = question.providers.iter().filter(|provider| provider.is_usable());
            let mut serving: Vec<_> =
                usable.filter_map(|provider| Some((provider.tier_rank(tier)?, provider))).collect();
            serving.sort_by_key(|(place, _)| *place);
            set.extend(serving.into_iter().filter_map(|(_, provider)| default_route(provider, tier)));
        }
        let mut seen: Vec<ModelRoute> = Vec::new();
        set.retain(|route| {
            let new = !seen.contains(route);
            seen.push(route.clone());
            new
        });
        Ok(set)
    }

    /// Chooses by recorded outcomes among the first candidate and those that have a row.
    fn apply_weights(&mut self, set: &mut Vec<ModelRoute>, tier: Tier, pinned: bool) {
        let question = self.question;
        if pinned {
            return self.record_stage(RouteStage::Weights, set.first(), false, "the model is pinned");
        }
        let has_row = |route: &ModelRoute| {
            question
                .weights
                .iter()
                .any(|row| row.task_type == question.task_type && row.tier == tier && row.route() == *route)
        };
        let first = set.first().cloned();
        let lots: Vec<ModelRoute> = set
            .iter()
            .filter(|route| Some(*route) == first.as_ref() || has_row(route))
            .filter(|route| self.missing_reason(route).is_none())
            .cloned()
            .collect();
        let drawn = draw_candidate(
            question.weights,
            question.task_type,
            tier,
            &lots,
            question.explore,
            question.seed,
        );
        let (at, why) = match drawn {
            WeightedDraw::TooFew(known) => {
                let why = format!(
                    "{known} of the required {} outcomes are recorded for {}: skipped",
                    super::weights::MIN_OUTCOMES,
                    question.task_type
                );
                return self.record_stage(RouteStage::Weights, first.as_ref(), false, why);
            }
            WeightedDraw::Only => {
                let why = "no other candidate has a weight";
                return self.record_stage(RouteStage::Weights, first.as_ref(), false, why);
            }
            WeightedDraw::Weighted { at, of } => {
                (at, format!("drawn with weight {:.2} of {:.2} (seed {})", of.0, of.1, question.seed))
            }
            WeightedDraw::Explored { at } => {
                (at, format!("explored at random among {} (seed {})", lots.len(), question.seed))
            }
        };
        let Some(chosen) = lots.get(at).cloned() else { return };
        for lost in lots.iter().filter(|route| **route != chosen) {
            let weight = super::weights::model_weight(question.weights, question.task_type, tier, lost);
            self.reject(lost, format!("not drawn (weight {weight:.2})"));
        }
        set.retain(|route| *route != chosen);
        set.insert(0, chosen.clone());
        self.record_stage(RouteStage::Weights, Some(&chosen), true, why);
    }

    fn missing_reason(&self, route: &ModelRoute) -> Option<String> {
        match self.question.providers.iter().find(|provider| provider.name == route.provider) {
            Some(provider) => provider.missing_reason().map(str::to_owned),
            None => Some("unknown provider".to_owned()),
        }
    }

    fn unhealthy_reason(&self, route: &ModelRoute) -> Option<String> {
        let provider = self.question.providers.iter().find(|provider| provider.name == route.provider);
        provider.and_then(|provider| provider.unhealthy.clone())
    }

    /// Returns the available targets, the preferred one first, each provider once; unhealthy providers come last.
    fn filter_available(&mut self, set: Vec<ModelRoute>, tier: Tier) -> Result<Vec<RouteTarget>, Error> {
        let preferred = set.first().cloned();
        let mut targets: Vec<RouteTarget> = Vec::new();
        let pinned = self.question.pin.is_some();
        for other in self.order_targets(set, tier) {
            let route = other.route.clone();
            // A pinned model is asked even without a key: the provider's own error names what is missing.
            if let Some(why) = self.missing_reason(&route).filter(|_| !(pinned && targets.is_empty())) {
                self.reject(&route, why);
            } else if targets.iter().any(|target| target.route == route) {
            } else if targets.iter().any(|target| target.route.provider == route.provider) {
                self.reject(&route, format!("another model of {} is used", route.provider));
            } else {
                targets.push(other);
            }
        }
        // A pinned model is asked first even if it is unhealthy.
        let kept = usize::from(pinned).min(targets.len());
        if targets.len() > 1 {
            let rest = targets.split_off(kept);
            let (well, unwell): (Vec<_>, Vec<_>) =
                rest.into_iter().partition(|target| self.unhealthy_reason(&target.route).is_none());
            for target in &unwell {
                let why = self.unhealthy_reason(&target.route).unwrap_or_default();
                self.reject(&target.route, format!("unhealthy at the last check: {why}"));
            }
            targets.extend(well.into_iter().chain(unwell));
        }
        let Some(chosen) = self.first_available(&targets) else {
            return Err(self.none_available_error());
        };
        for target in targets.iter().take_while(|target| target.route != chosen) {
            if let Some(cooldown) = self.active_cooldown(&target.route).cloned() {
                self.reject(
                    &target.route,
                    format!("in cooldown until {} ({})", cooldown.until, cooldown.reason),
                );
            }
        }
        let moved = preferred.as_ref() != Some(&chosen);
        let why = match (&preferred, moved) {
            (Some(preferred), true) => {
                let reason = self
                    .rejected
                    .iter()
                    .find(|one| one.provider == preferred.provider && one.model == preferred.model);
                let reason = reason.map_or("unavailable", |one| one.reason.as_str());
                format!("{preferred} is skipped: {reason}")
            }
            (None, _) => "the first available model for this tier".to_owned(),
            (Some(_), false) if self.active_cooldown(&chosen).is_some() && targets.len() == 1 => {
                "in cooldown, but asked anyway: there is no other candidate".to_owned()
            }
            (Some(_), false) if self.active_cooldown(&chosen).is_some() => {
                "all candidates are in cooldown".to_owned()
            }
            (Some(_), false) => "available".to_owned(),
        };
        // The choice is this stage's own if no earlier stage made one.
        let acted = moved || !self.stages.iter().any(|stage| stage.acted);
        let why = if acted && !moved { self.default_reason(&chosen) } else { why };
        self.record_stage(RouteStage::Availability, Some(&chosen), acted, why);
        Ok(targets)
    }

    fn default_reason(&self, chosen: &ModelRoute) -> String {
        if self.question.agent == Some(chosen) {
            return format!("set by agents.{}.model", self.question.task_type.agent());
        }
        let wish = self.question.preference;
        if wish.provider.is_some() || wish.model.is_some() {
            return "set in the configuration".to_owned();
        }
        let provider = self.question.providers.iter().find(|provider| provider.name == chosen.provider);
        if provider.is_some_and(|provider| provider.access == super::ProviderAccess::Unprobed) {
            return format!("no key is set; a run would probe the server of {}", chosen.provider);
        }
        format!("{} is the first available provider", chosen.provider)
    }

    /// Returns the candidates, followed by the fallbacks.
    fn order_targets(&self, set: Vec<ModelRoute>, tier: Tier) -> Vec<RouteTarget> {
        let question = self.question;
        let plain = |route| RouteTarget { route, organization: None };
        let mut all: Vec<RouteTarget> = set.into_iter().map(plain).collect();
        match question.fallbacks {
            Some(configured) => {
                // The user's list is final: of the candidates only the choice itself is kept, unless its key is
                // missing.
                let usable =
                    all.iter().position(|one| self.missing_reason(&one.route).is_none()).unwrap_or(0);
                all.truncate(usable + 1);
                all.extend(configured.iter().cloned());
            }
            None => {
                let listed = |name: &str| all.iter().any(|one| one.route.provider == name);
                let others =
                    question.providers.iter().filter(|other| other.is_usable() && !listed(&other.name));
                let model = |provider: &ProviderInfo| match question.tiers {
                    Some(_) => default_route(provider, tier),
                    None => provider
                        .default_model
                        .clone()
                        .map(|model| ModelRoute { provider: provider.name.clone(), model }),
                };
                let others: Vec<_> = others.filter_map(model).map(plain).collect();
                all.extend(others);
            }
        }
        all
    }

    fn active_cooldown(&self, route: &ModelRoute) -> Option<&Cooldown> {
        cooldown::active_cooldown(self.question.cooldowns, &route.provider, self.question.now)
    }

    /// Returns the first target that is not in cooldown; the first of all if there is only one or if all are cooling.
    fn first_available(&self, targets: &[RouteTarget]) -> Option<ModelRoute> {
        let awake = targets.iter().find(|target| self.active_cooldown(&target.route).is_none());
        awake.or_else(|| targets.first()).map(|target| target.route.clone())
    }

    fn none_available_error(&self) -> Error {
        let candidates =
            self.rejected.iter().map(|one| format!("{}/{}: {}", one.provider, one.model, one.reason));
        Error::NoneCanBeAsked { candidates: candidates.collect() }
    }

    fn apply_escalation(&mut self, mut targets: Vec<RouteTarget>) -> (Vec<RouteTarget>, ModelRoute) {
        let question = self.question;
        let chosen = self.first_available(&targets).expect("the stage before gives at least one");
        let stage = RouteStage::Escalation;
        if question.pin.is_some() && !question.escalate_pinned {
            self.record_stage(stage, Some(&chosen), false, "the model is pinned (routing.escalate_pinned)");
            return (targets, chosen);
        }
        let price = (question.price)(&chosen);
        match escalate_route(question.escalation_steps, &chosen, price, question.repair_attempt) {
            EscalationOutcome::NotYet => {
                let why =
                    format!("repair attempt {}: escalation starts with the second", question.repair_attempt);
                self.record_stage(stage, Some(&chosen), false, why);
            }
            EscalationOutcome::Top => {
                self.record_stage(stage, Some(&chosen), false, "no stronger model of the chain is available");
            }
            EscalationOutcome::PriceUnknown => {
                let why = "its price is unknown, so no model of the chain is known to be stronger";
                self.record_stage(stage, Some(&chosen), false, why);
            }
            EscalationOutcome::To(at) => {
                let rung = question.escalation_steps[at].route.clone();
                let skipped = question.escalation_steps[..at].iter().filter(|rung| rung.missing.is_some());
                for rung in skipped.cloned().collect::<Vec<_>>() {
                    self.reject(&rung.route, rung.missing.unwrap_or_default());
                }
                self.reject(
                    &chosen,
                    format!("repair attempt {} uses a stronger model", question.repair_attempt),
                );
                let why = format!("repair attempt {}: up from {chosen}", question.repair_attempt);
                self.record_stage(stage, Some(&rung), true, why);
                targets.retain(|target| target.route.provider != rung.provider);
                targets.insert(0, RouteTarget { route: rung.clone(), organization: None });
                return (targets, rung);
            }
        }
        (targets, chosen)
    }

    fn into_decision(self, tier: Tier, targets: Vec<RouteTarget>, chosen: &ModelRoute) -> RoutingDecision {
        let last = self.stages.iter().rev().find(|stage| stage.acted);
        let reason = last.map_or_else(String::new, |stage| stage.reason.clone());
        let rejected = self.rejected.into_iter();
        let rejected = rejected.filter(|one| one.provider != chosen.provider || one.model != chosen.model);
        RoutingDecision {
            routing: RoutingChoice {
                task_type: self.question.task_type,
                tier,
                chosen: chosen.clone(),
                stage: self.by,
                reason,
                rejected: rejected.collect(),
                stages: self.stages,
            },
            targets,
        }
    }
}

fn default_route(provider: &ProviderInfo, tier: Tier) -> Option<ModelRoute> {
    let model = provider.model_for(tier)?.to_owned();
    Some(ModelRoute { provider: provider.name.clone(), model })
}
