//! Forge made from its configuration: which adapters with which options, and the frozen plan of a run.

use crate::accounts;
use crate::sandbox;
use crate::scratch::Scratch;
use crate::{Error, Forge, Parts, Redactor, SystemClock};
use forge_config::Loaded;
use forge_models::{Key, Models, ProviderOptions, ScriptSource};
use forge_policy::context;
use forge_policy::route::{self, Candidate, Wish};
use forge_ports::Clock;
use forge_types::{CommandRules, CostRule, Limits, ModelSettings, Money, Plan, RetryRule, Route};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The version of [`Plan`] that this version writes.
const PLAN_VERSION: u32 = 1;

/// A provider of which nothing is named goes by this name when only an address is.
const OWN_SERVER: &str = "custom";

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
        if loaded.settings.store.durable {
            return Self::open_in(loaded, loaded.dirs.data.clone(), Some(repo));
        }
        let scratch = Scratch::make()?;
        Ok(Self::open_in(loaded, scratch.path(), Some(repo))?.holding(scratch))
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
        let parts = Parts {
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
        let route = choose(loaded).await?;
        let facts = forge_models::facts(&route.provider, &route.model);
        let forge_tools::Selection { enabled: tools, disabled } =
            enabled_tools(&self.parts().tools, &loaded.settings.tools.enabled)?;
        let sandbox = self.sandbox_spec(loaded, repo, more_repos).await?;
        let settings = &loaded.settings;
        let own = settings.agent.system_prompt.as_deref();
        Ok(Plan {
            version: PLAN_VERSION,
            organization: None,
            fallbacks: Vec::new(),
            routing: None,
            reference: None,
            executor: forge_types::Executor::React,
            tool_layer: forge_types::ToolLayer::Real,
            system: context::system_prompt(&tools, &sandbox, own),
            settings: ModelSettings {
                max_tokens: Some(settings.model.max_tokens),
                temperature: settings.model.temperature.or(Some(settings.agent.temperature)),
                top_p: settings.model.top_p,
                timeout_ms: settings.model.timeout_seconds.saturating_mul(1000),
            },
            limits: limits(loaded),
            cost_rule: cost_rule(loaded),
            alert_percent: percent(settings.cost.alert_at),
            day_ceiling: settings.cost.max_per_day_usd.map(Money::from_usd),
            retry: RetryRule { base_ms: settings.model.retry_base_ms, ..RetryRule::default() },
            commands: CommandRules { allowed: settings.runtime.allowed_shell_commands.clone() },
            command_ms: settings.sandbox.command_timeout_seconds.saturating_mul(1000),
            config: loaded.as_json(),
            route,
            facts,
            tools,
            disabled,
            sandbox,
        })
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
    let mut options = forge_models::Options::default();
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

/// What the settings name. An address alone can only mean a server of the user's own: no vendor's key goes there.
fn wish(loaded: &Loaded) -> Wish {
    let model = &loaded.settings.model;
    let own = model.base_url.as_ref().map(|_| OWN_SERVER.to_owned());
    Wish { provider: model.provider.clone().or(own), model: model.name.clone() }
}

async fn choose(loaded: &Loaded) -> Result<Route, Error> {
    let wish = wish(loaded);
    let mut candidates: Vec<Candidate> =
        forge_models::vendors::VENDORS.iter().map(|vendor| candidate(loaded, vendor)).collect();
    let named = wish.provider.is_some();
    if !named && candidates.iter().all(|candidate| !candidate.usable) {
        // Nothing is named and no key is there: perhaps a server runs on this machine.
        let models = models(loaded, &Arc::default())?;
        for candidate in &mut candidates {
            if let Some(seen) = models.find(&candidate.provider).await {
                candidate.usable = true;
                let serves =
                    |name: &String| seen.models.iter().any(|m| m.split(':').next() == name.split(':').next());
                if !candidate.default_model.as_ref().is_some_and(serves) && !seen.models.is_empty() {
                    candidate.default_model = seen.models.first().cloned();
                }
            }
        }
    }
    Ok(route::choose(&wish, &candidates)?)
}

fn candidate(loaded: &Loaded, vendor: &forge_models::vendors::Vendor) -> Candidate {
    use forge_models::vendors::Detect;
    let own = loaded.settings.providers.get(vendor.name).and_then(|own| own.default_model.clone());
    let hint = match vendor.detect {
        Detect::Key => vendor.key_env.first().map_or_else(String::new, |name| format!("the key {name} (in the environment, or `forge secret set {name}`)")),
        Detect::Probe { .. } => {
            format!(
                "a running {} server{}",
                vendor.name,
                vendor.base_url.map_or_else(String::new, |u| format!(" at {u}"))
            )
        }
        Detect::Never => String::new(),
    };
    Candidate {
        provider: vendor.name.to_owned(),
        usable: matches!(vendor.detect, Detect::Key) && loaded.secrets.can_ask(vendor.name),
        default_model: own.or_else(|| vendor.default_model.map(str::to_owned)),
        hint,
    }
}

fn enabled_tools(
    registry: &forge_tools::Registry,
    enabled: &[String],
) -> Result<forge_tools::Selection, Error> {
    let allow = (!enabled.is_empty()).then_some(enabled);
    registry.select(allow).map_err(|error| Error::Invalid { what: format!("tools.enabled: {error}") })
}

fn limits(loaded: &Loaded) -> Limits {
    let (agent, runtime) = (&loaded.settings.agent, &loaded.settings.runtime);
    Limits {
        max_iterations: agent.max_iterations,
        max_tokens: agent.max_tokens_per_run,
        max_duration_ms: runtime.max_pipeline_duration_ms,
        max_cost: Money::from_usd(agent.max_cost_usd),
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
