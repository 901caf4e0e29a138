//! Models that a run may ask: settings, keys, cooldowns and weights, combined for the pure routing decision.

use crate::{Error, Project, executors};
use forge_catalog::tiers;
use forge_catalog::vendors::{DetectionRule, KeyRule, OWN_SERVER, ROUTER_DEFAULT_SERVER, VENDORS, Vendor};
use forge_config::{ClassifierKind, FallbackEntry, ResolvedConfig, TierMode, ValueOrigin};
use forge_policy::route::complexity::Thresholds;
use forge_policy::route::escalation::EscalationStep;
use forge_policy::route::{
    self, ModelPreference, PinnedModel, ProviderAccess, ProviderInfo, RouteTarget, RoutingRequest,
    TierDefaults, TierModels,
};
use forge_ports::routing::ProviderHealth;
use forge_types::{
    Cooldown, ModelFacts, ModelRoute, ModelTarget, ReferenceModel, RoutingChoice, TaskKind, Timestamp,
    WeightRow,
};

pub use forge_policy::route::RoutingDecision as Choice;

/// The age in milliseconds up to which a provider's answer says something about its health (PROV-10).
pub(crate) const HEALTH_MAX_AGE_MS: u64 = 300_000;

/// A job that needs a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutingJob {
    /// The kind of work.
    pub task_type: TaskKind,
    /// The task in the user's words.
    pub task: String,
    /// The number of the repair attempt; 0 if it is no repair.
    pub repair_attempt: u32,
    /// The seed for random choices; `None` derives it from the time.
    pub seed: Option<u64>,
}

impl RoutingJob {
    /// Creates a job for code, as of a run without a pipeline.
    pub fn code_task(task: impl Into<String>) -> Self {
        Self::task_of_kind(TaskKind::Code, task)
    }

    /// Creates a job of this kind.
    pub fn task_of_kind(task_type: TaskKind, task: impl Into<String>) -> Self {
        Self { task_type, task: task.into(), repair_attempt: 0, seed: None }
    }
}

/// The network access that the routing decision may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbePolicy {
    /// Local servers are probed, and a model may be the classifier.
    Network,
    /// No server or model is asked.
    Nothing,
}

/// Data remembered between runs.
struct RoutingHistory {
    cooldowns: Vec<Cooldown>,
    weights: Vec<WeightRow>,
    health: Vec<ProviderHealth>,
    now: Timestamp,
}

/// The routing decision in the form that a plan holds.
pub(crate) struct PlannedRoute {
    pub(crate) first: ModelTarget,
    pub(crate) fallbacks: Vec<ModelTarget>,
    pub(crate) routing: Option<RoutingChoice>,
    pub(crate) reference: Option<ReferenceModel>,
}

impl PlannedRoute {
    /// Creates the route of a run that asks no provider.
    pub(crate) fn synthetic((route, facts): (ModelRoute, ModelFacts)) -> Self {
        let first = ModelTarget { route, facts, organization: None };
        Self { first, fallbacks: Vec::new(), routing: None, reference: None }
    }
}

impl Project {
    /// Explains what each stage of the routing decision contributes for a job, without asking any provider.
    ///
    /// # Errors
    /// If no model can be chosen.
    pub async fn explain_route(&self, job: &RoutingJob) -> Result<Choice, Error> {
        self.choose_route(job, ProbePolicy::Nothing).await
    }

    /// Classifies a task by its text alone, with the reason: the part of the decision that needs no provider.
    pub fn classify_by_text(&self, task: &str) -> (forge_types::Tier, String) {
        let settings = &self.config().settings.routing;
        let thresholds =
            Thresholds { simple: settings.simple_threshold, complex: settings.complex_threshold };
        let signals = forge_policy::route::complexity::find_signals(task);
        (signals.tier(thresholds), signals.describe())
    }

    /// Chooses the models of a new run.
    pub(crate) async fn plan_route(&self, job: &RoutingJob) -> Result<PlannedRoute, Error> {
        let loaded = self.config();
        let choice = self.choose_route(job, ProbePolicy::Network).await?;
        let catalog = self.catalog();
        let target = |one: RouteTarget| ModelTarget {
            facts: catalog.model_facts(&one.route.provider, &one.route.model),
            route: one.route,
            organization: one.organization,
        };
        let mut targets = choice.targets.into_iter().map(target);
        let first = targets.next().ok_or_else(|| Error::internal("a routing decision without a model"))?;
        let fallbacks = targets.collect();
        Ok(PlannedRoute {
            first,
            fallbacks,
            routing: Some(choice.routing),
            reference: reference_price(loaded, catalog),
        })
    }

    async fn choose_route(&self, job: &RoutingJob, reach: ProbePolicy) -> Result<Choice, Error> {
        let loaded = self.config();
        let remembered = self.load_history().await;
        let wish = self.preference().clone();
        let providers = self.known_providers(&remembered, &wish, reach).await;
        let settings = &loaded.settings.routing;
        let tiers = tier_models(self.settings(), &providers)?;
        let agent = loaded.settings.agents.get(job.task_type.agent());
        let agent_model = agent.and_then(|agent| agent.model.as_deref());
        let agent_route = agent_model.map(|model| route::parse_route(model, &providers)).transpose()?;
        let pinned_agent = agent_route.as_ref().filter(|_| agent.is_some_and(|agent| agent.pin));
        let pin = pinned_model(
            loaded,
            job,
            &wish,
            &providers,
            pinned_agent,
            tiers.is_some() || agent_route.is_some(),
        )?;
        let fallbacks = configured_fallbacks(loaded, &providers, pin.as_ref(), &wish);
        let catalog = self.catalog();
        let price = |route: &ModelRoute| catalog.model_facts(&route.provider, &route.model).price;
        let ladder = escalation_steps(loaded, &providers, &price)?;
        let classified = match (settings.classifier, reach) {
            (ClassifierKind::Heuristic, _) => None,
            (ClassifierKind::Model, ProbePolicy::Nothing) => Some(Err("no model is asked here".to_owned())),
            (ClassifierKind::Model, ProbePolicy::Network) if pin.is_some() || tiers.is_none() => None,
            (ClassifierKind::Model, ProbePolicy::Network) => {
                let wanted = tiers.as_ref().and_then(|tiers| tiers.simple.clone());
                let by = wanted.map_or_else(|| route::base_route(&wish, &providers), Ok);
                Some(match by {
                    Ok(by) => {
                        crate::providers::classify::classify(self.parts().model.as_ref(), by, &job.task).await
                    }
                    Err(error) => Err(error.to_string()),
                })
            }
        };
        let question = RoutingRequest {
            task_type: job.task_type,
            task: &job.task,
            preference: &wish,
            pin: pin.as_ref(),
            agent: agent_route.as_ref(),
            providers: &providers,
            tiers: tiers.as_ref(),
            thresholds: Thresholds { simple: settings.simple_threshold, complex: settings.complex_threshold },
            classified: classified.as_ref(),
            weights: &remembered.weights,
            explore: loaded.settings.flywheel.explore,
            fallbacks: fallbacks.as_deref(),
            escalation_steps: &ladder,
            escalate_pinned: settings.escalate_pinned,
            repair_attempt: job.repair_attempt,
            price: &price,
            cooldowns: &remembered.cooldowns,
            seed: job.seed.unwrap_or_else(|| remembered.now.as_micros().unsigned_abs()),
            now: remembered.now,
        };
        Ok(route::choose_route(&question)?)
    }

    async fn load_history(&self) -> RoutingHistory {
        let now = self.parts().clock.now();
        let cooling = &self.parts().cooldowns;
        let (all, weights, health) =
            tokio::join!(cooling.current_cooldowns(now), cooling.list_weights(), cooling.list_health());
        RoutingHistory { cooldowns: all, weights, health, now }
    }

    /// Describes all providers. Local servers are probed if there is no key and no provider is named.
    async fn known_providers(
        &self,
        remembered: &RoutingHistory,
        wish: &ModelPreference,
        reach: ProbePolicy,
    ) -> Vec<ProviderInfo> {
        let mut providers: Vec<ProviderInfo> =
            VENDORS.iter().map(|vendor| describe_provider(self.settings(), vendor, remembered)).collect();
        let any_key = providers.iter().any(|provider| provider.access == ProviderAccess::Key);
        if any_key {
            // A server with a URL from the user is as good as a key.
            for (provider, vendor) in providers.iter_mut().zip(VENDORS) {
                let probed = matches!(vendor.detect, DetectionRule::Probe { .. });
                if probed
                    && provider.access == ProviderAccess::NoKeyNeeded
                    && has_address(self.settings(), vendor)
                {
                    provider.access = ProviderAccess::Reachable;
                }
            }
        } else if wish.provider.is_none() {
            match reach {
                ProbePolicy::Network => self.probe_local_servers(&mut providers).await,
                // A run would probe; here the recorded health must suffice.
                ProbePolicy::Nothing => providers.iter_mut().zip(VENDORS).for_each(|(provider, vendor)| {
                    if matches!(vendor.detect, DetectionRule::Probe { .. }) {
                        let sick = provider.unhealthy.clone();
                        provider.access = sick.map_or(ProviderAccess::Unprobed, ProviderAccess::Missing);
                    }
                }),
            }
        }
        providers
    }

    async fn probe_local_servers(&self, providers: &mut [ProviderInfo]) {
        for provider in providers {
            let Some(seen) = self.providers().find_local_server(&provider.name).await else { continue };
            provider.access = ProviderAccess::Reachable;
            let serves =
                |name: &String| seen.models.iter().any(|m| m.split(':').next() == name.split(':').next());
            if !provider.default_model.as_ref().is_some_and(serves) && !seen.models.is_empty() {
                provider.default_model = seen.models.first().cloned();
            }
        }
    }
}

/// The settings of a project, with the preference that they state.
#[derive(Clone, Copy)]
pub(crate) struct ProjectSettings<'a> {
    pub(crate) config: &'a ResolvedConfig,
    pub(crate) preference: &'a ModelPreference,
}

/// Returns the model preference of the settings. A URL alone means the user's own server, to which no vendor's
/// key is sent. A router uses the server on which the form of replies can be enforced, unless something else is
/// named.
pub(crate) fn model_preference(loaded: &ResolvedConfig) -> ModelPreference {
    let model = &loaded.settings.model;
    let own = model.base_url.as_ref().map(|_| OWN_SERVER.to_owned());
    let router =
        (executors::uses_router(loaded) && model.name.is_none()).then(|| ROUTER_DEFAULT_SERVER.to_owned());
    let own = own.or(router);
    // A router is meant for a small local model (PROV-3); a model name may include its provider.
    let names_one = |name: &String| {
        name.split_once('/').is_some_and(|(provider, _)| VENDORS.iter().any(|vendor| vendor.name == provider))
    };
    let local = crate::executors::uses_router(loaded) && !model.name.as_ref().is_some_and(names_one);
    let usual = local.then(|| ROUTER_DEFAULT_SERVER.to_owned());
    ModelPreference { provider: model.provider.clone().or(own).or(usual), model: model.name.clone() }
}

pub(crate) fn has_address(project: ProjectSettings<'_>, vendor: &Vendor) -> bool {
    let loaded = project.config;
    let model = &loaded.settings.model;
    let own = loaded.settings.providers.get(vendor.name);
    own.is_some_and(|own| own.base_url.is_some())
        || (model.base_url.is_some() && project.preference.provider.as_deref() == Some(vendor.name))
}

fn provider_access(project: ProjectSettings<'_>, vendor: &Vendor) -> ProviderAccess {
    let loaded = project.config;
    let has_key = loaded.secrets.can_ask(vendor.name);
    let own = loaded.settings.providers.get(vendor.name);
    match vendor.detect {
        DetectionRule::Key if has_key => ProviderAccess::Key,
        DetectionRule::Key => {
            let variable = vendor.key_env.first().copied().unwrap_or("its key");
            ProviderAccess::Missing(format!("no key ({variable} is not set)"))
        }
        DetectionRule::Probe { .. } => ProviderAccess::NoKeyNeeded,
        DetectionRule::Never if vendor.base_url.is_none() && vendor.key == KeyRule::Optional => {
            if has_address(project, vendor) {
                ProviderAccess::NoKeyNeeded
            } else {
                ProviderAccess::Missing(format!("no address (providers.{}.base_url)", vendor.name))
            }
        }
        DetectionRule::Never if own.is_some_and(|own| own.script.is_some()) => ProviderAccess::NoKeyNeeded,
        DetectionRule::Never => {
            ProviderAccess::Missing(format!("no script (providers.{}.script)", vendor.name))
        }
    }
}

fn describe_provider(
    project: ProjectSettings<'_>,
    vendor: &'static Vendor,
    remembered: &RoutingHistory,
) -> ProviderInfo {
    let loaded = project.config;
    let own = loaded.settings.providers.get(vendor.name).and_then(|own| own.default_model.clone());
    let hint = match vendor.detect {
        DetectionRule::Key => {
            vendor.key_env.first().map_or_else(String::new, |name| format!("the key {name}"))
        }
        DetectionRule::Probe { .. } => {
            let place = vendor.base_url.map_or_else(String::new, |url| format!(" at {url}"));
            format!("a running {} server{place}", vendor.name)
        }
        DetectionRule::Never => String::new(),
    };
    let row = tiers::find_tiers(vendor.name);
    let model = |pick: fn(&tiers::TierRow) -> &'static str| row.map(|row| pick(row).to_owned());
    let seen = remembered.health.iter().find(|seen| seen.provider == vendor.name);
    let sick = seen.filter(|seen| !seen.ok && is_fresh(project, seen, remembered.now));
    ProviderInfo {
        name: vendor.name.to_owned(),
        access: provider_access(project, vendor),
        default_model: own.or_else(|| vendor.default_model.map(str::to_owned)),
        tiers: TierDefaults {
            simple: model(|row| row.simple),
            medium: model(|row| row.medium),
            hard: model(|row| row.hard),
            simple_rank: row.map(|row| row.simple_rank),
            hard_rank: row.map(|row| row.hard_rank),
        },
        hint,
        unhealthy: sick.map(|seen| seen.message.clone()),
    }
}

/// Returns whether recorded health still counts: it is recent, and address and key are the same.
pub(crate) fn is_fresh(project: ProjectSettings<'_>, seen: &ProviderHealth, now: Timestamp) -> bool {
    seen.configuration == configuration_hash(project, &seen.provider)
        && now.millis_since(seen.at) < HEALTH_MAX_AGE_MS
        && seen.at <= now
}

/// Returns a hash of the settings that a provider's answer depends on.
pub(crate) fn configuration_hash(project: ProjectSettings<'_>, provider: &str) -> String {
    let loaded = project.config;
    let own = loaded.settings.providers.get(provider).and_then(|own| own.base_url.as_deref());
    let wanted = project.preference.provider.as_deref() == Some(provider);
    let base = loaded.settings.model.base_url.as_deref().filter(|_| wanted).or(own).unwrap_or_default();
    let key = crate::providers::logins::credential_id(loaded, provider).unwrap_or_default();
    forge_engine::credential_fingerprint(&format!("{provider} at {base}"), &key)
}

fn tier_models(
    project: ProjectSettings<'_>,
    providers: &[ProviderInfo],
) -> Result<Option<TierModels>, Error> {
    let loaded = project.config;
    let settings = &loaded.settings.routing;
    let set = [&settings.simple_model, &settings.medium_model, &settings.complex_model];
    let active = match settings.tiers {
        TierMode::Off => false,
        TierMode::On => true,
        TierMode::Auto => set.iter().any(|model| model.is_some()),
    };
    if !active {
        return Ok(None);
    }
    let named = |model: Option<&str>| model.map(|model| route::parse_route(model, providers)).transpose();
    let wish = project.preference;
    let unnamed = settings.tiers == TierMode::On && wish.provider.is_none() && wish.model.is_none();
    let default = unnamed.then_some(tiers::DEFAULT_TIER_MODEL);
    Ok(Some(TierModels {
        simple: named(settings.simple_model.as_deref().or(default))?,
        medium: named(settings.medium_model.as_deref())?,
        hard: named(settings.complex_model.as_deref().or(default))?,
    }))
}

/// Returns the pinned model: from a flag in any case, from an agent's pin, or from the settings unless
/// something more specific (tiers, an agent's own model) is configured.
fn pinned_model(
    loaded: &ResolvedConfig,
    job: &RoutingJob,
    wish: &ModelPreference,
    providers: &[ProviderInfo],
    agent: Option<&ModelRoute>,
    particular: bool,
) -> Result<Option<PinnedModel>, Error> {
    let origins = ["model.name", "model.provider", "model.base_url"]
        .map(|key| (key, loaded.origin_of(key).filter(|origin| **origin != ValueOrigin::Default)));
    let flag = origins.iter().find_map(|(_, origin)| match origin {
        Some(ValueOrigin::Flag { name }) => Some(name.clone()),
        _ => None,
    });
    let by = match (flag, agent) {
        (Some(flag), _) => flag,
        (None, Some(route)) => {
            let by = format!("agents.{}.pin", job.task_type.agent());
            return Ok(Some(PinnedModel { route: route.clone(), by }));
        }
        (None, None) if particular => return Ok(None),
        (None, None) => {
            let set =
                origins.iter().find_map(|(key, origin)| origin.map(|origin| format!("{key} ({origin})")));
            let Some(set) = set else { return Ok(None) };
            set
        }
    };
    Ok(Some(PinnedModel { route: route::base_route(wish, providers)?, by }))
}

/// Returns the configured fallbacks. Users who chose their own server did not choose to send their code
/// elsewhere: then only listed providers are asked.
fn configured_fallbacks(
    loaded: &ResolvedConfig,
    providers: &[ProviderInfo],
    pin: Option<&PinnedModel>,
    wish: &ModelPreference,
) -> Option<Vec<RouteTarget>> {
    if !loaded.is_set("model.fallbacks") {
        let named = pin.map(|pin| pin.route.provider.as_str()).or(wish.provider.as_deref());
        let own = named.and_then(|name| VENDORS.iter().find(|vendor| vendor.name == name));
        return own.filter(|vendor| vendor.detect != DetectionRule::Key).map(|_| Vec::new());
    }
    let entries = loaded.settings.model.fallbacks.iter().filter_map(|text| FallbackEntry::parse(text).ok());
    let alternative = |entry: FallbackEntry| {
        let default = providers.iter().find(|provider| provider.name == entry.provider);
        let model = entry.name.or_else(|| default.and_then(|provider| provider.default_model.clone()))?;
        let route = ModelRoute { provider: entry.provider, model };
        Some(RouteTarget { route, organization: entry.organization_id })
    };
    Some(entries.filter_map(alternative).collect())
}

fn escalation_steps(
    loaded: &ResolvedConfig,
    providers: &[ProviderInfo],
    price: &dyn Fn(&ModelRoute) -> Option<forge_types::Price>,
) -> Result<Vec<EscalationStep>, Error> {
    let own = &loaded.settings.routing.escalation;
    let names: Vec<&str> = if own.is_empty() {
        tiers::ESCALATION_MODELS.to_vec()
    } else {
        own.iter().map(String::as_str).collect()
    };
    let rung = |name: &str| {
        let route = route::parse_route(name, providers)?;
        let provider = providers.iter().find(|provider| provider.name == route.provider);
        let missing = provider.and_then(|provider| provider.missing_reason().map(str::to_owned));
        Ok(EscalationStep { price: price(&route), route, missing })
    };
    names.into_iter().map(rung).collect()
}

/// Returns the model that costs are compared with, if its price is known.
fn reference_price(loaded: &ResolvedConfig, catalog: &forge_catalog::Catalog) -> Option<ReferenceModel> {
    let name = loaded.settings.cost.reference_model.as_str();
    let whole = name.split_once('/').filter(|(provider, _)| VENDORS.iter().any(|v| v.name == *provider));
    let routes: Vec<ModelRoute> = match whole {
        Some((provider, model)) => vec![ModelRoute { provider: provider.into(), model: model.into() }],
        None => VENDORS.iter().map(|v| ModelRoute { provider: v.name.into(), model: name.into() }).collect(),
    };
    let priced = |route: ModelRoute| {
        let price = catalog.model_facts(&route.provider, &route.model).price?;
        // A local model costs nothing under every name.
        (price != forge_types::Price::FREE).then_some(ReferenceModel { route, price })
    };
    routes.into_iter().find_map(priced)
}
