//! The five stages: pin, complexity, weights, availability, escalation.

use super::complexity::{Thresholds, signals};
use super::escalation::{Climb, Rung, climb};
use super::weights::{Draw, draw};
use super::{Error, Provider, Wish, base};
use crate::cooldown;
use forge_types::{
    Cooldown, Price, Rejected, Route, RouteStage, Routing, StageVerdict, TaskKind, Tier, Timestamp, WeightRow,
};

/// A model that somebody named for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The model.
    pub route: Route,
    /// By what, such as `--model`.
    pub by: String,
}

/// The models of the tiers, where tiers are in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TierModels {
    /// For simple tasks.
    pub simple: Option<Route>,
    /// For tasks in between; those of simple tasks if it is not set.
    pub medium: Option<Route>,
    /// For hard tasks.
    pub hard: Option<Route>,
}

impl TierModels {
    fn of(&self, tier: Tier) -> Option<&Route> {
        match tier {
            Tier::Simple => self.simple.as_ref(),
            Tier::Medium => self.medium.as_ref().or(self.simple.as_ref()),
            Tier::Hard => self.hard.as_ref(),
        }
    }
}

/// A model's own opinion of how hard a task is.
#[derive(Clone, Debug, PartialEq)]
pub struct Classified {
    /// The tier.
    pub level: Tier,
    /// From 0 to 1.
    pub confidence: f64,
    /// Why.
    pub reasoning: String,
}

/// Somebody else to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alternative {
    /// The model.
    pub route: Route,
    /// The organization that is charged, if it differs.
    pub organization: Option<String>,
}

/// All that the choice depends on.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// What kind of work it is for.
    pub task_type: TaskKind,
    /// The task in the user's words.
    pub task: &'a str,
    /// What the settings name.
    pub wish: &'a Wish,
    /// What somebody insists on.
    pub pin: Option<&'a Pin>,
    /// The agent's own model, which is the first of its candidates.
    pub agent: Option<&'a Route>,
    /// All providers, in their fixed order.
    pub providers: &'a [Provider],
    /// The models of the tiers; `None` if tiers are not in use.
    pub tiers: Option<&'a TierModels>,
    /// Where the lines between the tiers are.
    pub thresholds: Thresholds,
    /// What a model thought of the task, if one was asked; else why its opinion could not be had.
    pub classified: Option<&'a Result<Classified, String>>,
    /// Recorded outcomes.
    pub weights: &'a [WeightRow],
    /// Share of choices by lot.
    pub explore: f64,
    /// Whom to ask when the choice can't be had; `None`: everybody with a key.
    pub fallbacks: Option<&'a [Alternative]>,
    /// Stronger and stronger models.
    pub ladder: &'a [Rung],
    /// Whether a pinned model is escalated too.
    pub escalate_pinned: bool,
    /// Which repair this is for; 0: none.
    pub repair_attempt: u32,
    /// What a model charges, if that is known.
    pub price: &'a dyn Fn(&Route) -> Option<Price>,
    /// Providers that are left alone.
    pub cooling: &'a [Cooldown],
    /// What chance is drawn from.
    pub seed: u64,
    /// The time.
    pub now: Timestamp,
}

/// The choice: who is asked now, with all reasons, and everybody whom the run may ask, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The choice and its reasons.
    pub routing: Routing,
    /// The preferred model first, then those to fall back to, each provider once.
    pub targets: Vec<Alternative>,
}

/// Chooses.
///
/// # Errors
/// [`Error`] if nothing is configured, or what is named does not exist.
pub fn choose(question: &Question<'_>) -> Result<Answer, Error> {
    let mut run = Stages { question, stages: Vec::new(), rejected: Vec::new(), by: RouteStage::Pin };
    let pinned = run.pin();
    let tier = run.complexity(pinned.is_some());
    let mut set = match pinned {
        Some(route) => vec![route],
        None => run.candidates(tier)?,
    };
    run.weights(&mut set, tier, pinned_or(question));
    let targets = run.available(set, tier)?;
    let (targets, chosen) = run.escalate(targets);
    Ok(run.answer(tier, targets, &chosen))
}

const fn pinned_or(question: &Question<'_>) -> bool {
    question.pin.is_some()
}

struct Stages<'a, 'q> {
    question: &'a Question<'q>,
    stages: Vec<StageVerdict>,
    rejected: Vec<Rejected>,
    /// The last stage that changed the choice.
    by: RouteStage,
}

impl Stages<'_, '_> {
    fn say(&mut self, stage: RouteStage, choice: Option<&Route>, acted: bool, reason: impl Into<String>) {
        if acted {
            self.by = stage;
        }
        self.stages.push(StageVerdict { stage, choice: choice.cloned(), acted, reason: reason.into() });
    }

    fn reject(&mut self, route: &Route, reason: impl Into<String>) {
        if !self.rejected.iter().any(|one| one.provider == route.provider && one.model == route.model) {
            self.rejected.push(Rejected::new(route, reason));
        }
    }

    fn pin(&mut self) -> Option<Route> {
        let pin = self.question.pin;
        match pin {
            Some(pin) => {
                let reason = format!("{} names it", pin.by);
                self.say(RouteStage::Pin, Some(&pin.route), true, reason);
            }
            None => self.say(RouteStage::Pin, None, false, "nothing names a model for good"),
        }
        pin.map(|pin| pin.route.clone())
    }

    /// The tier is always told; it chooses only where tiers are in use and nothing is pinned.
    fn complexity(&mut self, pinned: bool) -> Tier {
        let question = self.question;
        let heuristic = signals(question.task);
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
                    "by heuristic, since the classifier could not be asked ({fault}): {}",
                    heuristic.describe()
                ),
            ),
            None => (heuristic.tier(question.thresholds), heuristic.describe()),
        };
        let choice = match (pinned, question.tiers) {
            (true, _) => question.pin.map(|pin| &pin.route),
            (false, tiers) => tiers.and_then(|tiers| tiers.of(tier)),
        };
        let acted = !pinned && choice.is_some();
        let effect = match (pinned, question.tiers) {
            (true, _) => "; the model is pinned",
            (false, None) => "; no tier has a model of its own",
            (false, Some(_)) if acted => "",
            (false, Some(_)) => "; this tier has no model of its own",
        };
        let choice = choice.cloned();
        self.say(RouteStage::Complexity, choice.as_ref(), acted, format!("{tier}: {why}{effect}"));
        tier
    }

    /// The set of candidates, the preferred one first.
    fn candidates(&mut self, tier: Tier) -> Result<Vec<Route>, Error> {
        let question = self.question;
        let mut set = Vec::new();
        set.extend(question.agent.cloned());
        set.extend(question.tiers.and_then(|tiers| tiers.of(tier)).cloned());
        if set.is_empty() {
            match base(question.wish, question.providers) {
                Ok(route) => set.push(route),
                // A tier's provider may still be there.
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
                usable.filter_map(|provider| Some((provider.place(tier)?, provider))).collect();
            serving.sort_by_key(|(place, _)| *place);
            set.extend(serving.into_iter().filter_map(|(_, provider)| default_of(provider, tier)));
        }
        let mut seen: Vec<Route> = Vec::new();
        set.retain(|route| {
            let new = !seen.contains(route);
            seen.push(route.clone());
            new
        });
        Ok(set)
    }

    /// Recorded outcomes choose among the first candidate and those that have a row.
    fn weights(&mut self, set: &mut Vec<Route>, tier: Tier, pinned: bool) {
        let question = self.question;
        if pinned {
            return self.say(RouteStage::Weights, set.first(), false, "the model is pinned");
        }
        let has_row = |route: &Route| {
            question
                .weights
                .iter()
                .any(|row| row.task_type == question.task_type && row.tier == tier && row.route() == *route)
        };
        let first = set.first().cloned();
        let lots: Vec<Route> = set
            .iter()
            .filter(|route| Some(*route) == first.as_ref() || has_row(route))
            .filter(|route| self.missing(route).is_none())
            .cloned()
            .collect();
        let drawn = draw(question.weights, question.task_type, tier, &lots, question.explore, question.seed);
        let (at, why) = match drawn {
            Draw::TooFew(known) => {
                let why = format!(
                    "{known} of at least {} outcomes are known for {}: passed on",
                    super::weights::FEWEST_OUTCOMES,
                    question.task_type
                );
                return self.say(RouteStage::Weights, first.as_ref(), false, why);
            }
            Draw::Only => {
                let why = "no other candidate has a weight";
                return self.say(RouteStage::Weights, first.as_ref(), false, why);
            }
            Draw::Weighted { at, of } => {
                (at, format!("drawn with weight {:.2} of {:.2} (seed {})", of.0, of.1, question.seed))
            }
            Draw::Explored { at } => {
                (at, format!("explored by lot among {} (seed {})", lots.len(), question.seed))
            }
        };
        let Some(chosen) = lots.get(at).cloned() else { return };
        for lost in lots.iter().filter(|route| **route != chosen) {
            let weight = super::weights::weight(question.weights, question.task_type, tier, lost);
            self.reject(lost, format!("not drawn (weight {weight:.2})"));
        }
        set.retain(|route| *route != chosen);
        set.insert(0, chosen.clone());
        self.say(RouteStage::Weights, Some(&chosen), true, why);
    }

    fn missing(&self, route: &Route) -> Option<String> {
        match self.question.providers.iter().find(|provider| provider.name == route.provider) {
            Some(provider) => provider.missing().map(str::to_owned),
            None => Some("there is no such provider".to_owned()),
        }
    }

    fn unhealthy(&self, route: &Route) -> Option<String> {
        let provider = self.question.providers.iter().find(|provider| provider.name == route.provider);
        provider.and_then(|provider| provider.unhealthy.clone())
    }

    /// Who can be asked, the preferred first, each provider once; those that were not well come last.
    fn available(&mut self, set: Vec<Route>, tier: Tier) -> Result<Vec<Alternative>, Error> {
        let preferred = set.first().cloned();
        let mut targets: Vec<Alternative> = Vec::new();
        let pinned = self.question.pin.is_some();
        for other in self.order(set, tier) {
            let route = other.route.clone();
            // What is pinned is asked without a key too: its own answer says what is missing.
            if let Some(why) = self.missing(&route).filter(|_| !(pinned && targets.is_empty())) {
                self.reject(&route, why);
            } else if targets.iter().any(|target| target.route == route) {
            } else if targets.iter().any(|target| target.route.provider == route.provider) {
                self.reject(&route, format!("another model of {} is asked", route.provider));
            } else {
                targets.push(other);
            }
        }
        // What somebody insists on is asked first all the same.
        let kept = usize::from(pinned).min(targets.len());
        if targets.len() > 1 {
            let rest = targets.split_off(kept);
            let (well, unwell): (Vec<_>, Vec<_>) =
                rest.into_iter().partition(|target| self.unhealthy(&target.route).is_none());
            for target in &unwell {
                let why = self.unhealthy(&target.route).unwrap_or_default();
                self.reject(&target.route, format!("it was not well when it was last looked at: {why}"));
            }
            targets.extend(well.into_iter().chain(unwell));
        }
        let Some(chosen) = self.first_awake(&targets) else {
            return Err(self.nobody());
        };
        for target in targets.iter().take_while(|target| target.route != chosen) {
            if let Some(cooldown) = self.cooling(&target.route).cloned() {
                self.reject(
                    &target.route,
                    format!("left alone until {} ({})", cooldown.until, cooldown.reason),
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
                let reason = reason.map_or("it can't be asked", |one| one.reason.as_str());
                format!("{preferred} is passed over: {reason}")
            }
            (None, _) => "the first that serves this tier and can be asked".to_owned(),
            (Some(_), false) if self.cooling(&chosen).is_some() && targets.len() == 1 => {
                "it is to be left alone, and is asked all the same: nobody else is there".to_owned()
            }
            (Some(_), false) if self.cooling(&chosen).is_some() => {
                "everybody is to be left alone for a while".to_owned()
            }
            (Some(_), false) => "it can be asked".to_owned(),
        };
        // The choice is this stage's own where no stage before it made one.
        let acted = moved || !self.stages.iter().any(|stage| stage.acted);
        let why = if acted && !moved { self.default_reason(&chosen) } else { why };
        self.say(RouteStage::Availability, Some(&chosen), acted, why);
        Ok(targets)
    }

    fn default_reason(&self, chosen: &Route) -> String {
        if self.question.agent == Some(chosen) {
            return format!("agents.{}.model names it", self.question.task_type.agent());
        }
        let wish = self.question.wish;
        if wish.provider.is_some() || wish.model.is_some() {
            return "the settings name it".to_owned();
        }
        let provider = self.question.providers.iter().find(|provider| provider.name == chosen.provider);
        if provider.is_some_and(|provider| provider.access == super::Access::Unseen) {
            return format!(
                "no key is there; a run would look whether the server of {} answers",
                chosen.provider
            );
        }
        format!("{} is the first provider that can be asked", chosen.provider)
    }

    /// The set, then those to fall back to.
    fn order(&self, set: Vec<Route>, tier: Tier) -> Vec<Alternative> {
        let question = self.question;
        let plain = |route| Alternative { route, organization: None };
        let mut all: Vec<Alternative> = set.into_iter().map(plain).collect();
        match question.fallbacks {
            Some(configured) => {
                // The user's list is the list: of the set only the choice itself stays, unless it has no key.
                let usable = all.iter().position(|one| self.missing(&one.route).is_none()).unwrap_or(0);
                all.truncate(usable + 1);
                all.extend(configured.iter().cloned());
            }
            None => {
                let listed = |name: &str| all.iter().any(|one| one.route.provider == name);
                let others =
                    question.providers.iter().filter(|other| other.is_usable() && !listed(&other.name));
                let model = |provider: &Provider| match question.tiers {
                    Some(_) => default_of(provider, tier),
                    None => provider
                        .default_model
                        .clone()
                        .map(|model| Route { provider: provider.name.clone(), model }),
                };
                let others: Vec<_> = others.filter_map(model).map(plain).collect();
                all.extend(others);
            }
        }
        all
    }

    fn cooling(&self, route: &Route) -> Option<&Cooldown> {
        cooldown::holding(self.question.cooling, &route.provider, self.question.now)
    }

    /// The first that is not left alone; a single one is asked all the same, as is the first if all are.
    fn first_awake(&self, targets: &[Alternative]) -> Option<Route> {
        let awake = targets.iter().find(|target| self.cooling(&target.route).is_none());
        awake.or_else(|| targets.first()).map(|target| target.route.clone())
    }

    fn nobody(&self) -> Error {
        let candidates =
            self.rejected.iter().map(|one| format!("{}/{}: {}", one.provider, one.model, one.reason));
        Error::NoneCanBeAsked { candidates: candidates.collect() }
    }

    fn escalate(&mut self, mut targets: Vec<Alternative>) -> (Vec<Alternative>, Route) {
        let question = self.question;
        let chosen = self.first_awake(&targets).expect("the stage before gives at least one");
        let stage = RouteStage::Escalation;
        if question.pin.is_some() && !question.escalate_pinned {
            self.say(stage, Some(&chosen), false, "the model is pinned (routing.escalate_pinned)");
            return (targets, chosen);
        }
        let price = (question.price)(&chosen);
        match climb(question.ladder, &chosen, price, question.repair_attempt) {
            Climb::NotYet => {
                let why = format!("repair attempt {}: from the second on", question.repair_attempt);
                self.say(stage, Some(&chosen), false, why);
            }
            Climb::Top => {
                self.say(stage, Some(&chosen), false, "no stronger model of the chain can be asked");
            }
            Climb::PriceUnknown => {
                let why = "its price is not known, so it can't be told which model of the chain is above it";
                self.say(stage, Some(&chosen), false, why);
            }
            Climb::To(at) => {
                let rung = question.ladder[at].route.clone();
                let skipped = question.ladder[..at].iter().filter(|rung| rung.missing.is_some());
                for rung in skipped.cloned().collect::<Vec<_>>() {
                    self.reject(&rung.route, rung.missing.unwrap_or_default());
                }
                self.reject(
                    &chosen,
                    format!("repair attempt {} asks a stronger model", question.repair_attempt),
                );
                let why = format!("repair attempt {}: up from {chosen}", question.repair_attempt);
                self.say(stage, Some(&rung), true, why);
                targets.retain(|target| target.route.provider != rung.provider);
                targets.insert(0, Alternative { route: rung.clone(), organization: None });
                return (targets, rung);
            }
        }
        (targets, chosen)
    }

    fn answer(self, tier: Tier, targets: Vec<Alternative>, chosen: &Route) -> Answer {
        let last = self.stages.iter().rev().find(|stage| stage.acted);
        let reason = last.map_or_else(String::new, |stage| stage.reason.clone());
        let rejected = self.rejected.into_iter();
        let rejected = rejected.filter(|one| one.provider != chosen.provider || one.model != chosen.model);
        Answer {
            routing: Routing {
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

fn default_of(provider: &Provider, tier: Tier) -> Option<Route> {
    let model = provider.model_for(tier)?.to_owned();
    Some(Route { provider: provider.name.clone(), model })
}
