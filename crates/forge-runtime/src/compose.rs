//! Composition of Forge from its configuration: the adapters with their options, and the frozen plan of a run.

use crate::executors;
use crate::providers::logins;
use crate::providers::prices;
use crate::providers::routing::{PlannedRoute, RoutingJob};
use crate::workspace::origin;
use crate::{CooldownCache, EngineParts, Error, Forge, Project, Redactor};
use forge_catalog::Catalog;
use forge_config::ResolvedConfig;
use forge_models::{ApiKey, ModelProviders, ProviderOptions, ScriptSource};
use forge_policy::route::ModelPreference;
use forge_sandbox::Backends;
use forge_types::{
    AgentPlan, CommandRules, ContextRule, CostRule, ModelSettings, Money, Plan, RetryRule, RunLimits,
    SharedPlan, ToolLayer,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Creates the adapters of a project, its providers, and the table of models and prices.
pub(crate) fn engine_parts(
    forge: &Forge,
    loaded: &ResolvedConfig,
    preference: &ModelPreference,
    backends: &Arc<Backends>,
) -> Result<(EngineParts, Arc<ModelProviders>, Arc<Catalog>), Error> {
    let redactor = Arc::new(Redactor::new(loaded.secrets.values_to_redact()));
    let keys: Vec<(&str, String)> = forge_catalog::vendors::VENDORS
        .iter()
        .filter_map(|vendor| Some((vendor.name, logins::credential_id(loaded, vendor.name)?)))
        .collect();
    let keys = keys.iter().map(|(name, key)| (*name, key.as_str()));
    let cooldowns = match &forge.routing {
        Some(store) => CooldownCache::shared(store.clone(), keys),
        None => CooldownCache::process_local(),
    };
    let catalog = prices::load_catalog(loaded);
    let providers = Arc::new(build_models(loaded, preference, &redactor, &catalog)?);
    let counted = Arc::clone(&catalog);
    let memory_clock = forge.clock.clone();
    let parts = EngineParts {
        open_memory: Arc::new(move |plan: &AgentPlan| executors::open_memory(plan, &memory_clock)),
        cooldowns: Arc::new(cooldowns),
        ledger: forge.ledger.clone(),
        count_tokens: Arc::new(move |request: &forge_types::ModelRequest| {
            let route = &request.route;
            let counter =
                forge_models::tokens::VocabularyCounter::in_catalog(&counted, &route.provider, &route.model);
            counter.map(|counter| counter.count_request(request))
        }),
        journal: forge.journal.clone(),
        queue: forge.queue.clone(),
        model: providers.clone(),
        tools: Arc::new(tool_registry(loaded)),
        sandbox: backends.clone(),
        workspaces: Arc::new(backends.workspaces()),
        clock: forge.clock.clone(),
        redactor,
        decide: Arc::new(forge_policy::decide),
    };
    Ok((parts, providers, catalog))
}

impl Project {
    /// Builds the plan of a new run on `repo` from the configuration.
    ///
    /// # Errors
    /// If no model can be chosen, a tool to be enabled does not exist, or the requested isolation is not
    /// available.
    pub async fn plan(&self, repo: &Path, more_repos: &[PathBuf]) -> Result<Plan, Error> {
        self.plan_for(repo, more_repos, &RoutingJob::code_task(String::new())).await
    }

    /// Builds the plan of a new run on `repo` for `job`, which decides the models.
    ///
    /// # Errors
    /// As [`Project::plan`].
    pub async fn plan_for(
        &self,
        repo: &Path,
        more_repos: &[PathBuf],
        job: &RoutingJob,
    ) -> Result<Plan, Error> {
        let (shared, agent) = self.plan_agent(repo, more_repos, job).await?;
        Ok(Plan::for_agent(shared, agent))
    }

    /// Builds both parts of the plan of [`Project::plan_for`], for a caller that changes the agent's part.
    pub(crate) async fn plan_agent(
        &self,
        repo: &Path,
        more_repos: &[PathBuf],
        job: &RoutingJob,
    ) -> Result<(SharedPlan, AgentPlan), Error> {
        // First of all, because choosing a model may already ask one.
        self.refuse_own_places(std::iter::once(repo).chain(more_repos.iter().map(PathBuf::as_path)))?;
        let (loaded, settings) = (self.config(), &self.config().settings);
        let mut agent = self.agent_plan(repo, job).await?;
        let sandbox = if agent.needs_sandbox() {
            self.sandbox_spec(repo, more_repos).await?
        } else {
            executors::no_sandbox_spec(repo)
        };
        let shared = SharedPlan {
            limits: run_limits(loaded),
            cost_rule: cost_rule(loaded),
            alert_percent: percent(settings.cost.alert_at),
            ceilings: Vec::new(),
            day_ceiling: settings.cost.max_per_day_usd.map(Money::from_usd),
            pull_requests: origin::pull_request_rules(loaded, repo),
            command_ms: settings.sandbox.command_timeout_seconds.saturating_mul(1000),
            config: loaded.to_plan_json(),
            sandbox,
        };
        let facts = match executors::open_memory(&agent, &self.parts().clock) {
            Some(memory) => {
                let remembered = memory.load_all().await;
                if let Some(warning) = remembered.warning {
                    tracing::warn!("{warning}");
                }
                remembered.facts
            }
            None => Vec::new(),
        };
        let own = settings.agent.system_prompt.as_deref();
        agent.system = executors::system_prompt(&agent, &shared.sandbox, own, &facts);
        Ok((shared, agent))
    }

    /// Builds the agent's part of a plan, without its system prompt.
    async fn agent_plan(&self, repo: &Path, job: &RoutingJob) -> Result<AgentPlan, Error> {
        let (loaded, settings) = (self.config(), &self.config().settings);
        let executor = executors::select_executor(loaded)?;
        let planned = if executor.asks_model() {
            self.plan_route(job).await?
        } else {
            PlannedRoute::synthetic(executors::synthetic_route(&executor))
        };
        let mut tools = executors::select_tools(&executor, loaded, &self.parts().tools)?;
        let recall = executors::recall_tool(&executor, loaded, &mut tools, &self.parts().tools);
        let forge_ports::tool_registry::ToolSelection { enabled: tools, disabled } = tools;
        let (memory, memory_guard) = executors::memory_file(loaded, repo, &self.parts().clock);
        Ok(AgentPlan {
            first: planned.first,
            fallbacks: planned.fallbacks,
            routing: planned.routing.map(Box::new),
            reference: planned.reference,
            executor,
            memory,
            memory_guard,
            tool_layer: if settings.tools.mock { ToolLayer::Mock } else { ToolLayer::Real },
            system: String::new(),
            settings: ModelSettings {
                max_tokens: Some(settings.model.max_tokens),
                temperature: settings.model.temperature.or(Some(settings.agent.temperature)),
                top_p: settings.model.top_p,
                timeout_ms: settings.model.timeout_seconds.saturating_mul(1000),
            },
            retry: RetryRule {
                tries: settings.model.tries,
                base_ms: settings.model.retry_base_ms,
                max_wait_ms: settings.model.max_wait_seconds.saturating_mul(1000),
                ..RetryRule::default()
            },
            context: ContextRule { compact_percent: percent(settings.memory.trigger_ratio), recall },
            commands: CommandRules { allowed: settings.runtime.allowed_shell_commands.clone() },
            tools,
            disabled,
        })
    }
}

/// Creates the tool registry with the options from the settings.
fn tool_registry(loaded: &ResolvedConfig) -> forge_ports::ToolRegistry {
    let git = &loaded.settings.git;
    let usual = forge_tools::GitHubOptions::default();
    forge_tools::builtin_tools_with(&forge_tools::ToolOptions {
        git: if git.read_only { forge_tools::GitAccess::ReadOnly } else { forge_tools::GitAccess::Full },
        github: forge_tools::GitHubOptions {
            api: git.api_url.as_ref().map_or(usual.api, |url| url.trim_end_matches('/').to_owned()),
            // The user configured this server, so it may be reached; no other may.
            allow: git.api_url.iter().filter_map(|url| host_of(url)).collect(),
            token: loaded
                .secrets
                .pull_request_token()
                .map(|token| forge_tools::GitHubToken::new(token.expose())),
            proxy: None,
        },
    })
}

/// Returns the host of a URL, without its port.
fn host_of(url: &str) -> Option<String> {
    let rest = url.split_once("://")?.1;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = match authority.strip_prefix('[') {
        Some(six) => six.split_once(']')?.0,
        None => authority.split(':').next()?,
    };
    (!host.is_empty()).then(|| host.to_ascii_lowercase())
}

/// Creates the configured providers. Tokens of logins are added to `redactor` before they are used.
pub(crate) fn build_models(
    loaded: &ResolvedConfig,
    preference: &ModelPreference,
    redactor: &Arc<Redactor>,
    catalog: &Arc<Catalog>,
) -> Result<ModelProviders, Error> {
    let (models, faults) = ModelProviders::new(&forge_models::Options {
        providers: provider_options(loaded, preference, redactor),
        catalog: Some(Arc::clone(catalog)),
        ..forge_models::Options::default()
    });
    let wanted = preference.provider.as_deref();
    for error in faults {
        // A provider that is not requested may be misconfigured.
        if wanted == Some(error.provider()) {
            return Err(Error::Invalid { what: error.to_string() });
        }
        tracing::debug!(%error, "skipping a misconfigured provider");
    }
    Ok(models)
}

fn provider_options(
    loaded: &ResolvedConfig,
    preference: &ModelPreference,
    redactor: &Arc<Redactor>,
) -> Vec<ProviderOptions> {
    let settings = &loaded.settings;
    let wanted = preference.provider.as_deref();
    forge_catalog::vendors::VENDORS
        .iter()
        .map(|vendor| {
            let own = settings.providers.get(vendor.name);
            let is_wanted = wanted == Some(vendor.name);
            let base_url = settings.model.base_url.clone().filter(|_| is_wanted);
            ProviderOptions {
                name: vendor.name.to_owned(),
                base_url: base_url.or_else(|| own.and_then(|own| own.base_url.clone())),
                key: loaded.secrets.get(vendor.name).map(|secret| ApiKey::new(secret.expose())),
                bearer: logins::login_bearer(loaded, vendor.name, redactor),
                organization: settings.model.organization_id.clone(),
                script: own.and_then(|own| own.script.clone()).map(ScriptSource::File),
            }
        })
        .collect()
}

fn run_limits(loaded: &ResolvedConfig) -> RunLimits {
    let (agent, runtime) = (&loaded.settings.agent, &loaded.settings.runtime);
    RunLimits {
        max_iterations: agent.max_iterations,
        max_tokens: agent.max_tokens_per_run,
        max_duration_ms: runtime.max_pipeline_duration_ms,
        max_cost: Money::from_usd(agent.max_cost_usd),
        day_cost: None,
        max_tool_calls_per_turn: agent.max_tool_calls_per_turn,
        max_shell_commands: runtime.max_shell_commands,
        on_limit: agent.on_limit,
    }
}

fn cost_rule(loaded: &ResolvedConfig) -> CostRule {
    if loaded.settings.cost.allow_unknown {
        CostRule::AllowUnknown
    } else if loaded.is_set("agent.max_cost_usd") || loaded.is_set("cost.max_per_day_usd") {
        CostRule::Strict
    } else {
        CostRule::Default
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the share lies between 0 and 1")]
fn percent(share: f64) -> u8 {
    (share.clamp(0.0, 1.0) * 100.0).round() as u8
}
