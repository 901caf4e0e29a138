//! Forge made from its configuration: which adapters with which options, and the frozen plan of a run.

use crate::accounts;
use crate::executors;
use crate::origin;
use crate::routing::{Job, Planned, wish};
use crate::sandbox;
use crate::scratch::Scratch;
use crate::{Cooling, Error, Forge, Parts, Redactor, SystemClock, prices};
use forge_config::Loaded;
use forge_models::{Key, Models, ProviderOptions, ScriptSource};
use forge_ports::Clock;
use forge_types::{
    CommandRules, ContextRule, CostRule, Limits, ModelSettings, Money, Plan, RetryRule, ToolLayer,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The version of [`Plan`] that this version writes.
const PLAN_VERSION: u32 = 1;

impl Forge {
    /// Opens the store and makes everything ready; connects to nothing.
    ///
    /// # Errors
    /// If the data folder can't be used.
    pub fn open(loaded: &Loaded) -> Result<Self, Error> {
        Self::open_in(loaded, loaded.dirs.data.clone(), None)
    }

    /// As [`Forge::open`], for a new run on `repo`, whose box is begun beside all else. A run that is not to be kept gets
    /// a data folder in memory, which goes away with this value.
    ///
    /// # Errors
    /// If the data folder can't be used.
    pub fn open_to_run(loaded: &Loaded, repo: &Path) -> Result<Self, Error> {
        let soon = executors::may_need_box(loaded).then_some(repo);
        if loaded.settings.store.durable {
            return Self::open_in(loaded, loaded.dirs.data.clone(), soon);
        }
        let scratch = Scratch::make()?;
        Ok(Self::open_in(loaded, scratch.path(), soon)?.holding(scratch))
    }

    fn open_in(loaded: &Loaded, data: PathBuf, soon: Option<&Path>) -> Result<Self, Error> {
        let boxes = Arc::new(sandbox::backends(loaded, &data)?);
        if let Some(spec) = soon.and_then(|repo| sandbox::spec(loaded, repo, &[]).ok()) {
            boxes.begin(&spec);
        }
        let store = Arc::new(forge_store::Store::open(&forge_store::Options { data_dir: data.clone() })?);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let options = forge_queue::Options::new(data.clone());
        let worker = options.worker.clone();
        let queue = Arc::new(forge_queue::LocalQueue::new(options, store.clone(), clock.clone()));
        let redactor = Arc::new(Redactor::new(loaded.secrets.values()));
        let keys: Vec<(&str, String)> = forge_models::vendors::VENDORS
            .iter()
            .filter_map(|vendor| Some((vendor.name, accounts::credential(loaded, vendor.name)?)))
            .collect();
        let keys = keys.iter().map(|(name, key)| (*name, key.as_str()));
        let cooling = Arc::new(Cooling::shared(store.clone(), keys));
        let catalog = prices::current(loaded);
        let parts = Parts {
            cooling,
            ledger: store.clone(),
            count: Arc::new(move |request: &forge_types::ModelRequest| {
                let route = &request.route;
                let counter =
                    forge_models::tokens::Counter::in_catalog(&catalog, &route.provider, &route.model);
                counter.map(|counter| counter.count(request))
            }),
            journal: store,
            queue,
            model: Arc::new(models(loaded, &redactor)?),
            tools: Arc::new(tools(loaded)),
            sandbox: boxes.clone(),
            views: boxes,
            clock,
            redactor,
        };
        Ok(Self::assemble(parts, data, worker))
    }

    /// The plan of a new run on `repo`, as the configuration wants it.
    ///
    /// # Errors
    /// If no model can be chosen, a tool that is to be enabled does not exist, or the isolation that is asked for can't
    /// be had.
    pub async fn plan(&self, loaded: &Loaded, repo: &Path, more_repos: &[PathBuf]) -> Result<Plan, Error> {
        self.plan_for(loaded, repo, more_repos, &Job::code(String::new())).await
    }

    /// The plan of a new run on `repo` for this job, which decides whom it asks.
    ///
    /// # Errors
    /// As [`Forge::plan`].
    pub async fn plan_for(
        &self,
        loaded: &Loaded,
        repo: &Path,
        more_repos: &[PathBuf],
        job: &Job,
    ) -> Result<Plan, Error> {
        let executor = executors::executor(loaded)?;
        let planned = if executor.asks_model() {
            self.plan_route(loaded, job).await?
        } else {
            Planned::only(executors::own_route(&executor))
        };
        let mut tools = executors::tools(&executor, loaded, &self.parts().tools)?;
        let recall = executors::recall(&executor, loaded, &mut tools, &self.parts().tools);
        let forge_tools::Selection { enabled: tools, disabled } = tools;
        let settings = &loaded.settings;
        let (memory, memory_guard) = executors::memory_file(loaded, repo, &self.parts().clock);
        let pull_requests = origin::rules(loaded, repo);
        let mut plan = Plan {
            version: PLAN_VERSION,
            organization: planned.first.organization,
            fallbacks: planned.fallbacks,
            routing: planned.routing.map(Box::new),
            reference: planned.reference,
            executor,
            memory,
            memory_guard,
            pull_requests,
            tool_layer: if settings.tools.mock { ToolLayer::Mock } else { ToolLayer::Real },
            system: String::new(),
            settings: ModelSettings {
                max_tokens: Some(settings.model.max_tokens),
                temperature: settings.model.temperature.or(Some(settings.agent.temperature)),
                top_p: settings.model.top_p,
                timeout_ms: settings.model.timeout_seconds.saturating_mul(1000),
            },
            limits: limits(loaded),
            cost_rule: cost_rule(loaded),
            alert_percent: percent(settings.cost.alert_at),
            ceilings: Vec::new(),
            day_ceiling: settings.cost.max_per_day_usd.map(Money::from_usd),
            retry: RetryRule {
                tries: settings.model.tries,
                base_ms: settings.model.retry_base_ms,
                max_wait_ms: settings.model.max_wait_seconds.saturating_mul(1000),
                ..RetryRule::default()
            },
            context: ContextRule { compact_percent: percent(settings.memory.trigger_ratio), recall },
            commands: CommandRules { allowed: settings.runtime.allowed_shell_commands.clone() },
            command_ms: settings.sandbox.command_timeout_seconds.saturating_mul(1000),
            config: loaded.as_json(),
            route: planned.first.route,
            facts: planned.first.facts,
            tools,
            disabled,
            sandbox: executors::no_box(repo),
        };
        if plan.needs_box() {
            plan.sandbox = self.sandbox_spec(loaded, repo, more_repos).await?;
        }
        let facts = match executors::memory(&plan, &self.parts().clock) {
            Some(memory) => {
                let remembered = memory.recall().await;
                if let Some(warning) = remembered.warning {
                    tracing::warn!("{warning}");
                }
                remembered.facts
            }
            None => Vec::new(),
        };
        plan.system = executors::system(&plan, settings.agent.system_prompt.as_deref(), &facts);
        Ok(plan)
    }
}

/// The tools that the settings leave in, with what they are to know.
fn tools(loaded: &Loaded) -> forge_tools::Registry {
    let git = &loaded.settings.git;
    let usual = forge_tools::GitHub::default();
    forge_tools::with(&forge_tools::Options {
        git: if git.read_only { forge_tools::GitAccess::ReadOnly } else { forge_tools::GitAccess::Full },
        github: forge_tools::GitHub {
            api: git.api_url.as_ref().map_or(usual.api, |url| url.trim_end_matches('/').to_owned()),
            // The user named that server, so it may be reached; nothing else may.
            allow: git.api_url.iter().filter_map(|url| host_of(url)).collect(),
            token: loaded.secrets.pull_requests().map(|token| forge_tools::Token::new(token.expose())),
            proxy: None,
        },
    })
}

/// The host of an address, without port.
fn host_of(url: &str) -> Option<String> {
    let rest = url.split_once("://")?.1;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = match authority.strip_prefix('[') {
        Some(six) => six.split_once(']')?.0,
        None => authority.split(':').next()?,
    };
    (!host.is_empty()).then(|| host.to_ascii_lowercase())
}

/// The providers as they are set up. Tokens of logins are made known to `redactor` before they are used.
pub(crate) fn models(loaded: &Loaded, redactor: &Arc<Redactor>) -> Result<Models, Error> {
    let catalog = prices::current(loaded);
    let mut options = forge_models::Options { catalog: Some(catalog), ..forge_models::Options::default() };
    let wanted = wish(loaded).provider;
    for provider in provider_options(loaded, redactor) {
        let alone =
            forge_models::Options { providers: vec![provider.clone()], ..forge_models::Options::default() };
        match Models::new(&alone) {
            Ok(_) => options.providers.push(provider),
            // A provider that nobody asks for may be set up wrongly.
            Err(error) if wanted.as_deref() == Some(provider.name.as_str()) => {
                return Err(Error::Invalid { what: error.to_string() });
            }
            Err(error) => tracing::debug!(%error, "a provider is left out"),
        }
    }
    Models::new(&options).map_err(|error| Error::Invalid { what: error.to_string() })
}

fn provider_options(loaded: &Loaded, redactor: &Arc<Redactor>) -> Vec<ProviderOptions> {
    let settings = &loaded.settings;
    let wanted = wish(loaded).provider;
    forge_models::vendors::VENDORS
        .iter()
        .map(|vendor| {
            let own = settings.providers.get(vendor.name);
            let is_wanted = wanted.as_deref() == Some(vendor.name);
            let base_url = settings.model.base_url.clone().filter(|_| is_wanted);
            ProviderOptions {
                name: vendor.name.to_owned(),
                base_url: base_url.or_else(|| own.and_then(|own| own.base_url.clone())),
                key: loaded.secrets.get(vendor.name).map(|secret| Key::new(secret.expose())),
                bearer: accounts::bearer(loaded, vendor.name, redactor),
                organization: settings.model.organization_id.clone(),
                script: own.and_then(|own| own.script.clone()).map(ScriptSource::File),
            }
        })
        .collect()
}

fn limits(loaded: &Loaded) -> Limits {
    let (agent, runtime) = (&loaded.settings.agent, &loaded.settings.runtime);
    Limits {
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

fn cost_rule(loaded: &Loaded) -> CostRule {
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
