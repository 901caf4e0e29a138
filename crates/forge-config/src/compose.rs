//! Settings as the values that a run's plan is made of.

use crate::load::Loaded;
use forge_types::{
    CommandRules, CostRule, Limits, ModelSettings, Money, NetworkPolicy, RetryRule, SandboxLimits,
    SandboxSpec,
};
use std::path::Path;

impl Loaded {
    /// The limits of a run.
    pub fn limits(&self) -> Limits {
        let (agent, runtime) = (&self.settings.agent, &self.settings.runtime);
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

    /// What a cost ceiling does where the price is unknown: strict only for a ceiling that somebody set.
    pub fn cost_rule(&self) -> CostRule {
        let set = self.is_set("agent.max_cost_usd") || self.is_set("cost.max_per_day_usd");
        match (set, self.settings.cost.allow_unknown) {
            (false, _) => CostRule::Default,
            (true, false) => CostRule::Strict,
            (true, true) => CostRule::AllowUnknown,
        }
    }

    /// The share of a budget, in percent, at which an alert is shown.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the schema keeps it from 0 to 1"
    )]
    pub fn alert_percent(&self) -> u8 {
        (self.settings.cost.alert_at * 100.0).round() as u8
    }

    /// The ceiling of all runs of a day.
    pub fn day_ceiling(&self) -> Option<Money> {
        self.settings.cost.max_per_day_usd.map(Money::from_usd)
    }

    /// Settings of model calls.
    pub fn model_settings(&self) -> ModelSettings {
        let model = &self.settings.model;
        ModelSettings {
            max_tokens: Some(model.max_tokens),
            temperature: Some(model.temperature.unwrap_or(self.settings.agent.temperature)),
            top_p: model.top_p,
            timeout_ms: model.timeout_seconds.saturating_mul(1000),
        }
    }

    /// Retries of model calls.
    pub fn retry(&self) -> RetryRule {
        RetryRule { base_ms: self.settings.model.retry_base_ms, ..RetryRule::default() }
    }

    /// Rules for commands.
    pub fn commands(&self) -> CommandRules {
        CommandRules { allowed: self.settings.runtime.allowed_shell_commands.clone() }
    }

    /// The time of a command that asks for none, in milliseconds: never more than what any may ask for.
    pub fn command_ms(&self) -> u64 {
        let sandbox = &self.settings.sandbox;
        sandbox.command_timeout_seconds.min(sandbox.timeout_seconds).saturating_mul(1000)
    }

    /// The box for runs on `repo`, which must be absolute. `backend` is what `auto` was resolved to.
    pub fn sandbox_spec(&self, repo: &Path, backend: &str) -> SandboxSpec {
        let sandbox = &self.settings.sandbox;
        SandboxSpec {
            backend: backend.to_owned(),
            repo: repo.to_owned(),
            mode: self.settings.workspace.mode,
            network: if sandbox.network_enabled { NetworkPolicy::Host } else { NetworkPolicy::Off },
            limits: SandboxLimits {
                memory_bytes: sandbox.memory_limit,
                pids: sandbox.pids,
                cpus: sandbox.cpu_limit,
                tmp_bytes: sandbox.tmp_size,
                command_ms: sandbox.timeout_seconds.saturating_mul(1000),
            },
            reveal: self.settings.workspace.reveal.clone(),
            env: self.passthrough.clone(),
            read_only: sandbox.read_only_paths.clone(),
            allow_unisolated: sandbox.allow_unisolated,
        }
    }
}
