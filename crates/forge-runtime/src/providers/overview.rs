//! Overview of all providers: keys, reachability, cooldowns, context windows and prices.

use crate::providers::prices;
use crate::providers::routing::{ProjectSettings, configuration_hash, has_address, is_fresh};
use crate::{Error, Project};
use forge_catalog::vendors::{DetectionRule, KeyRule, VENDORS, Vendor, vendor_names};
use forge_models::{ConnectionTest, ModelProviders};
use forge_policy::cooldown;
use forge_ports::routing::ProviderHealth;
use forge_types::{Cooldown, ErrorKind, Timestamp};
use serde::Serialize;
use std::time::Duration;

/// The time limit for probing one provider.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// The message for a provider that did not answer in time: it may be healthy but far away.
const SLOW_MESSAGE: &str = "no answer within 2 s";

/// The required freshness of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Answers from the last 300 s are used.
    Cached,
    /// Every provider is asked anew.
    New,
}

/// A price in dollars per million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PerMillion {
    /// The price of prompt tokens.
    pub input: f64,
    /// The price of reply tokens.
    pub output: f64,
    /// The price of prompt tokens read from the provider's cache.
    pub cached_input: f64,
}

/// An active cooldown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ActiveCooldown {
    /// The end of the cooldown.
    pub until: Timestamp,
    /// Seconds until then.
    pub remaining_seconds: u64,
    /// The kind of error that caused it.
    pub reason: ErrorKind,
    /// The message of the provider.
    pub message: String,
    /// The number of consecutive failures.
    pub failures: u32,
}

/// The row of a provider.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProviderRow {
    /// The provider's name.
    pub provider: String,
    /// Whether the provider requires a key.
    pub needs_key: bool,
    /// Whether a key or a login exists.
    pub has_key: bool,
    /// The source of the key, such as `OPENAI_API_KEY (environment)`.
    pub key_from: Option<String>,
    /// Whether the provider answers as it should; absent if it was not asked.
    pub reachable: Option<bool>,
    /// The provider's message, or the reason that it was not asked.
    pub message: String,
    /// Milliseconds until the answer.
    pub latency_ms: Option<u64>,
    /// The time of the check.
    pub checked_at: Option<Timestamp>,
    /// The model that is used if none is named.
    pub default_model: Option<String>,
    /// The active cooldown, if any.
    pub cooldown: Option<ActiveCooldown>,
    /// The context window of that model in tokens.
    pub window: Option<u64>,
    /// The price of that model, if known.
    pub price: Option<PerMillion>,
}

/// The overview of all providers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProviderOverview {
    /// The model that a run here asks first, as `provider/model`; absent if no model can be asked.
    pub first: Option<String>,
    /// The fallbacks, in order.
    pub then: Vec<String>,
    /// The reason that no model can be asked.
    pub fault: Option<String>,
    /// The day of the price table.
    pub prices_as_of: String,
    /// The providers, in their fixed order.
    pub providers: Vec<ProviderRow>,
}

/// The outcome of a connection test (PROV-10).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelTest {
    /// Whether the provider answered and accepted the key.
    pub success: bool,
    /// The provider's message.
    pub message: String,
    /// Milliseconds until the answer.
    pub latency_ms: u64,
}

impl Project {
    /// Returns the overview. Providers with keys and local servers are probed concurrently, each for two
    /// seconds at most.
    ///
    /// # Errors
    /// If the providers are misconfigured.
    pub async fn provider_overview(&self, freshness: Freshness) -> Result<ProviderOverview, Error> {
        let models = self.providers();
        let catalog = self.catalog();
        let now = self.parts().clock.now();
        let cooling = self.parts().cooldowns.current_cooldowns(now).await;
        let health = self.parts().cooldowns.list_health().await;
        let mut looks = Vec::new();
        for vendor in VENDORS.iter().filter(|vendor| is_listed(self.settings(), vendor)) {
            let known = health.iter().find(|seen| seen.provider == vendor.name);
            let known =
                known.filter(|seen| freshness == Freshness::Cached && is_fresh(self.settings(), seen, now));
            looks.push((vendor, known.cloned(), check_askable(self.settings(), vendor)));
        }
        let seen = futures::future::join_all(looks.iter().map(|(vendor, known, may)| async move {
            match (known, may) {
                (Some(known), _) => Some(known.clone()),
                (None, Ok(())) => Some(probe_provider(self.settings(), models, vendor, now).await),
                (None, Err(_)) => None,
            }
        }))
        .await;
        let mut providers = Vec::new();
        for ((vendor, known, may), seen) in looks.iter().zip(seen) {
            if let Some(seen) = seen.as_ref().filter(|seen| known.is_none() && seen.message != SLOW_MESSAGE) {
                self.parts().cooldowns.record_health(seen.clone()).await;
            }
            let row = provider_row(self.settings(), vendor, seen, may.clone().err(), &cooling, now, catalog);
            providers.push(row);
        }
        let job = crate::RoutingJob::code_task(String::new());
        let (first, then, fault) = match self.explain_route(&job).await {
            Ok(choice) => {
                let chosen = choice.routing.chosen;
                let others = choice.targets.iter().filter(|target| target.route != chosen);
                let then = others.map(|target| target.route.to_string()).collect();
                (Some(chosen.to_string()), then, None)
            }
            Err(error) => (None, Vec::new(), Some(error.to_string())),
        };
        Ok(ProviderOverview { first, then, fault, prices_as_of: catalog.as_of.clone(), providers })
    }

    /// Tests `name`, a provider or `provider/model`. An answer ends the provider's cooldown.
    ///
    /// # Errors
    /// If there is no such provider, or the providers are misconfigured.
    pub async fn test_model(&self, name: &str) -> Result<ModelTest, Error> {
        let (provider, model) = match name.split_once('/') {
            Some((provider, model)) => (provider, Some(model)),
            None => (name, None),
        };
        let Some(vendor) = VENDORS.iter().find(|vendor| vendor.name == provider) else {
            let known: Vec<_> = vendor_names().collect();
            let what = format!("there is no provider `{provider}` (available: {})", known.join(", "));
            return Err(Error::Invalid { what });
        };
        if let Err(why) = check_askable(self.settings(), vendor) {
            return Ok(ModelTest {
                success: false,
                message: format!("{provider} was not asked: {why}"),
                latency_ms: 0,
            });
        }
        let ConnectionTest { success, message, latency_ms } =
            self.providers().test_connection(provider, model).await;
        let now = self.parts().clock.now();
        if success {
            self.parts().cooldowns.record_answer(provider, now).await;
        }
        if model.is_none() {
            self.parts()
                .cooldowns
                .record_health(health_record(
                    self.settings(),
                    provider,
                    success,
                    message.clone(),
                    latency_ms,
                    now,
                ))
                .await;
        }
        Ok(ModelTest { success, message, latency_ms })
    }
}

/// Returns whether a provider is listed: those that are neither configured nor detectable are not.
fn is_listed(project: ProjectSettings<'_>, vendor: &Vendor) -> bool {
    let loaded = project.config;
    let own = loaded.settings.providers.get(vendor.name);
    vendor.detect != DetectionRule::Never
        || project.preference.provider.as_deref() == Some(vendor.name)
        || own.is_some_and(|own| own.base_url.is_some() || own.script.is_some())
}

/// Checks whether the provider can be asked; the error is the reason if not.
fn check_askable(project: ProjectSettings<'_>, vendor: &Vendor) -> Result<(), String> {
    let loaded = project.config;
    if vendor.key == KeyRule::Required && !loaded.secrets.can_ask(vendor.name) {
        let variable = vendor.key_env.first().copied().unwrap_or("its key");
        return Err(format!("no key ({variable} is not set)"));
    }
    if vendor.base_url.is_none()
        && vendor.detect == DetectionRule::Never
        && vendor.key == KeyRule::Optional
        && !has_address(project, vendor)
    {
        return Err(format!("no address (providers.{}.base_url)", vendor.name));
    }
    Ok(())
}

async fn probe_provider(
    project: ProjectSettings<'_>,
    models: &ModelProviders,
    vendor: &Vendor,
    now: Timestamp,
) -> ProviderHealth {
    if let DetectionRule::Probe { .. } = vendor.detect {
        let started = tokio::time::Instant::now();
        let found = models.find_local_server(vendor.name).await;
        let latency = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let message = match &found {
            Some(seen) if seen.models.is_empty() => "running".to_owned(),
            Some(seen) => format!("running; models: {}", seen.models.join(", ")),
            None => "no server answers".to_owned(),
        };
        return health_record(project, vendor.name, found.is_some(), message, latency, now);
    }
    match tokio::time::timeout(PROBE_TIMEOUT, models.test_connection(vendor.name, None)).await {
        Ok(test) => health_record(project, vendor.name, test.success, test.message, test.latency_ms, now),
        Err(_) => {
            let limit = u64::try_from(PROBE_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
            health_record(project, vendor.name, false, SLOW_MESSAGE.to_owned(), limit, now)
        }
    }
}

fn health_record(
    project: ProjectSettings<'_>,
    provider: &str,
    ok: bool,
    message: String,
    latency_ms: u64,
    at: Timestamp,
) -> ProviderHealth {
    let configuration = configuration_hash(project, provider);
    ProviderHealth { provider: provider.to_owned(), ok, message, latency_ms, at, configuration }
}

fn provider_row(
    project: ProjectSettings<'_>,
    vendor: &Vendor,
    seen: Option<ProviderHealth>,
    not_asked: Option<String>,
    cooling: &[Cooldown],
    now: Timestamp,
    catalog: &forge_catalog::Catalog,
) -> ProviderRow {
    let loaded = project.config;
    let settings = &loaded.settings;
    let named = project.preference;
    let own = settings.providers.get(vendor.name).and_then(|own| own.default_model.clone());
    let wished = named.model.clone().filter(|_| named.provider.as_deref() == Some(vendor.name));
    let default_model = wished.or(own).or_else(|| vendor.default_model.map(str::to_owned));
    let facts = default_model.as_deref().map(|model| catalog.model_facts(vendor.name, model));
    let key_from = match (loaded.secrets.variable_of(vendor.name), loaded.secrets.origin_of(vendor.name)) {
        (Some(variable), Some(origin)) => Some(format!("{variable} ({origin})")),
        _ if loaded.secrets.is_logged_in(vendor.name) => Some("login".to_owned()),
        _ => None,
    };
    ProviderRow {
        provider: vendor.name.to_owned(),
        needs_key: vendor.key == KeyRule::Required,
        has_key: loaded.secrets.can_ask(vendor.name),
        key_from,
        reachable: seen.as_ref().map(|seen| seen.ok),
        message: seen.as_ref().map(|seen| seen.message.clone()).or(not_asked).unwrap_or_default(),
        latency_ms: seen.as_ref().map(|seen| seen.latency_ms),
        checked_at: seen.as_ref().map(|seen| seen.at),
        cooldown: cooldown::active_cooldown(cooling, vendor.name, now).map(|row| ActiveCooldown {
            until: row.until,
            remaining_seconds: row.until.millis_since(now).div_ceil(1_000),
            reason: row.reason,
            message: row.message.clone(),
            failures: row.failures,
        }),
        window: facts.as_ref().map(|facts| facts.window),
        price: facts.and_then(|facts| facts.price).map(|price| PerMillion {
            input: prices::per_million(price.input),
            output: prices::per_million(price.output),
            cached_input: prices::per_million(price.cached_input),
        }),
        default_model,
    }
}
