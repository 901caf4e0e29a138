//! Settings of the limits of a run, the model, its providers, and tools.

use super::definition::settings;
use crate::schema::providers::PROVIDER_KIND;
use forge_types::OnLimit;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

settings! {
    /// Settings of `[agent]`, the limits of a run.
    pub struct AgentSettings in "agent." {
        keys AGENT_KEYS:
        /// Largest number of model turns in a run.
        max_iterations: u32 = Int(25), int_kind(1, 10_000), Lower, with_env(env_alias("AGENT_MAX_ITERATIONS")),
            with_flags("--max-iterations");
        /// Largest number of tokens in a run: replies plus prompts, without cached input.
        max_tokens_per_run: u64 = Int(200_000), int_kind(1, 1_000_000_000), Lower, with_flags("--max-tokens");
        /// Largest cost of a run's model calls in US dollars. Once it is set, models of unknown price are refused (see
        /// `cost.allow_unknown`).
        max_cost_usd: f64 = Number(1.0), number_kind(MIN_USD, 1_000_000.0), Lower, with_flags("--max-cost");
        /// Largest number of tool calls accepted from one reply; further calls are refused.
        max_tool_calls_per_turn: u32 = Int(10), int_kind(1, 128), Lower;
        /// Action when a limit is reached: `end` ends the run as timed out, `wait` pauses it until the limit is raised.
        on_limit: OnLimit = Text("end"), KeyKind::Choice(&[("end", &[]), ("wait", &[])]), Towards(&["end", "wait"]);
        /// Sampling temperature if `model.temperature` is not set.
        temperature: f64 = Number(0.0), number_kind(0.0, 2.0), Ask;
        /// Text appended to the built-in system prompt.
        system_prompt: Option<String> = Unset, KeyKind::Text(TextLines::Multiple), Ask;

        keys STUB_KEYS:
        /// Replies of the executor `stub`, one per line; `\n` in a line is a line break.
        stub_replies: Option<String> = Unset, KeyKind::Text(TextLines::Multiple), Ask;
    }
}

settings! {
    /// Settings of `[model]`, the model and how it is called.
    pub struct ModelConfig in "model." {
        keys MODEL_KEYS:
        /// Provider of the model. Unset: the first of openai, anthropic, gemini and openrouter with an API key, else a
        /// running local ollama or llama.cpp server.
        provider: Option<String> = Unset, PROVIDER_KIND, Ask, with_env(env_alias("FORGE_PROVIDER")),
            with_paths("agent.default_provider"), with_flags("--provider");
        /// Name of the model, as the provider spells it. Unset: the provider's `default_model`.
        name: Option<String> = Unset, ONE_LINE, Ask,
            with_env(foreign_alias("LLM_MODEL"), foreign_alias("MODEL_NAME"), foreign_alias("AGENT_MODEL")),
            with_paths("agent.default_model"), with_flags("--model");
        /// Address of the chosen provider's server; overrides `providers.<p>.base_url`. Without a provider, it selects
        /// `custom`.
        base_url: Option<String> = Unset, KeyKind::Url, Ask, with_flags("--base-url");
        /// Maximum length of a reply in tokens.
        max_tokens: u64 = Int(4096), int_kind(1, 1_000_000), Lower;
        /// Sampling temperature. Unset: `agent.temperature`.
        temperature: Option<f64> = Unset, number_kind(0.0, 2.0), Ask;
        /// Nucleus sampling threshold. Unset: not sent.
        top_p: Option<f64> = Unset, number_kind(0.0, 1.0), Ask;
        /// Longest time that the server may send nothing, before the first byte and between two bytes.
        timeout_seconds: u64 = Int(120), seconds_kind(1, 3600), Ask;
        /// Organization that OpenAI bills.
        organization_id: Option<String> = Unset, ONE_LINE, Ask, with_env(env_alias("OPENAI_ORG_ID"));
        /// First delay before a failed model call is retried; it doubles with each retry, up to 30 s.
        retry_base_ms: u64 = Int(2000), millis_kind(1, 30_000), Ask;

        keys FALLBACK_KEYS:
        /// Models to use, in order, when the configured model is unavailable: `provider`, `provider:model`, or a table
        /// of `provider`, `name` and `organization_id`. Unset: every provider with an API key. `none`: no fallback.
        fallbacks: Vec<String> = Empty, KeyKind::List(ListElement::Fallback), Ask;
        /// Largest number of attempts of one model call at one provider.
        tries: u32 = Int(5), int_kind(1, 20), Ask;
        /// Longest total time that one model call may spend waiting between attempts.
        max_wait_seconds: u64 = Int(300), seconds_kind(1, 3_600), Ask;
    }
}

/// Settings of `[providers.<p>]`, which apply to one provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderSettings {
    /// Variable that holds the API key.
    pub api_key_env: Option<String>,
    /// Model used where `model.name` is not set.
    pub default_model: Option<String>,
    /// Address of the server, if it differs from the provider's own.
    pub base_url: Option<String>,
    /// File with the replies of the scripted provider.
    pub script: Option<PathBuf>,
}

settings! {
    /// Settings of `[tools]`.
    #[derive(Eq)]
    pub struct ToolSettings in "tools." {
        keys TOOL_KEYS:
        /// Tools that the model may call. Empty: all built-in tools (`forge tool list`).
        enabled: Vec<String> = Empty, KeyKind::List(ListElement::Name), FewerOfAll,
            with_env(foreign_alias("ENABLED_TOOLS"));

        keys MOCK_KEYS:
        /// Whether tools are only simulated: each call returns its arguments, and nothing is executed.
        mock: bool = Bool(false), KeyKind::Bool, Ask, with_flags("--mock-tools");

        sections:
        create_pr: CreatePrSettings;
    }
}

settings! {
    /// Settings of `[tools.create_pr]`, for pull requests.
    #[derive(Eq)]
    pub struct CreatePrSettings in "tools.create_pr." {
        keys CREATE_PR_KEYS:
        /// Repositories, each as `owner/name`, that pull requests may target or come from, in addition to the remote
        /// `origin`; list a fork here to open pull requests from it.
        repositories: Vec<String> = Empty, KeyKind::List(ListElement::Repository), Ask;
    }
}
