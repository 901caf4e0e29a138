//! Choice of the provider and model (PROV-3, ROUTE-1 to ROUTE-6).
//!
//! [`base_route`] is the choice without routing: the configured model, else the first usable provider. [`choose_route`]
//! is the full choice in five stages over values, each with its reasons. Neither sends a request.

pub mod complexity;
pub mod escalation;
mod stages;
#[cfg(test)]
mod tests;
pub mod weights;

pub use stages::{
    Classification, PinnedModel, RouteTarget, RoutingDecision, RoutingRequest, TierModels, choose_route,
};

use forge_types::{ModelRoute, NextStep, Tier};

/// The availability of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderAccess {
    /// The provider's key is present.
    Key,
    /// No key is needed, and the user configured the address or the server answered.
    Reachable,
    /// No key is needed, and no provider has a key: a run would probe the server.
    Unprobed,
    /// No key is needed, and the server was not probed. The provider is used only if named.
    NoKeyNeeded,
    /// Something is missing, such as a key.
    Missing(String),
}

/// Facts about a provider at the time of the choice. Providers are listed in the fixed order in which they are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderInfo {
    /// The provider's name.
    pub name: String,
    /// The provider's availability.
    pub access: ProviderAccess,
    /// The model used if none is named.
    pub default_model: Option<String>,
    /// The models used for each tier, where they differ from the default.
    pub tiers: TierDefaults,
    /// A hint how to make the provider usable, such as the variable of its key; empty if it is never chosen
    /// automatically.
    pub hint: String,
    /// The fault found by the last health check.
    pub unhealthy: Option<String>,
}

/// A provider's models by tier (ROUTE-6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TierDefaults {
    /// For simple tasks.
    pub simple: Option<String>,
    /// For medium tasks.
    pub medium: Option<String>,
    /// For hard tasks.
    pub hard: Option<String>,
    /// Rank among the providers for simple and medium tasks; `None` if the provider is not one of them.
    pub simple_rank: Option<u32>,
    /// Rank among the providers for hard tasks.
    pub hard_rank: Option<u32>,
}

impl ProviderInfo {
    /// Returns whether the provider may be chosen without being named.
    pub const fn is_usable(&self) -> bool {
        matches!(self.access, ProviderAccess::Key | ProviderAccess::Reachable | ProviderAccess::Unprobed)
    }

    /// Returns what a named provider lacks, if anything.
    pub fn missing_reason(&self) -> Option<&str> {
        match &self.access {
            ProviderAccess::Missing(why) => Some(why),
            ProviderAccess::Key
            | ProviderAccess::Reachable
            | ProviderAccess::Unprobed
            | ProviderAccess::NoKeyNeeded => None,
        }
    }

    /// Returns the provider's rank for a tier.
    pub const fn tier_rank(&self, tier: Tier) -> Option<u32> {
        match tier {
            Tier::Simple | Tier::Medium => self.tiers.simple_rank,
            Tier::Hard => self.tiers.hard_rank,
        }
    }

    /// Returns the provider's model for a tier.
    pub fn model_for(&self, tier: Tier) -> Option<&str> {
        let own = match tier {
            Tier::Simple => &self.tiers.simple,
            Tier::Medium => &self.tiers.medium,
            Tier::Hard => &self.tiers.hard,
        };
        own.as_deref().or(self.default_model.as_deref())
    }
}

/// The user's model preference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelPreference {
    /// The provider, if named.
    pub provider: Option<String>,
    /// The model, if named; may include its provider as `provider/model`.
    pub model: Option<String>,
}

/// The reason why no model was chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The named provider does not exist.
    #[error("unknown provider `{name}` (known: {})", known.join(", "))]
    UnknownProvider {
        /// The requested name.
        name: String,
        /// The existing providers.
        known: Vec<String>,
    },
    /// The provider has no default model.
    #[error("provider {provider} has no default model")]
    NoModel {
        /// The provider.
        provider: String,
    },
    /// Candidates are configured, but each lacks something.
    #[error("no model is available: {}. Set one of these keys", candidates.join("; "))]
    NoneCanBeAsked {
        /// The candidates, each with what it lacks.
        candidates: Vec<String>,
    },
    /// No provider is configured or was found.
    #[error("no model provider is configured. Set up one of these: {}", hints.join(", "))]
    Nothing {
        /// The ways to configure one.
        hints: Vec<String>,
    },
}

impl Error {
    /// Returns the steps that the user can take.
    pub fn next_steps(&self) -> Vec<NextStep> {
        match self {
            Self::UnknownProvider { .. } => Vec::new(),
            Self::NoModel { .. } => vec![NextStep::ChooseModel],
            Self::NoneCanBeAsked { .. } => vec![NextStep::SetSecret { name: None }, NextStep::ChooseModel],
            Self::Nothing { .. } => vec![NextStep::SetSecret { name: None }, NextStep::ChooseProvider],
        }
    }
}

/// Returns the choice without routing: the user's preference, else the first usable provider in the fixed order.
///
/// # Errors
/// [`Error`] if the preference can't be met or no provider is usable.
pub fn base_route(wish: &ModelPreference, providers: &[ProviderInfo]) -> Result<ModelRoute, Error> {
    let (provider, model) = split_preference(wish, providers);
    let provider = match &provider {
        Some(name) => find_provider(name, providers)?,
        None => providers
            .iter()
            .find(|provider| provider.is_usable())
            .ok_or_else(|| Error::Nothing { hints: usage_hints(providers) })?,
    };
    let model = model
        .or_else(|| provider.default_model.clone())
        .ok_or_else(|| Error::NoModel { provider: provider.name.clone() })?;
    Ok(ModelRoute { provider: provider.name.clone(), model })
}

/// Parses a route such as `openai/gpt-4o`, or a bare `gpt-4o` (at the first usable provider).
///
/// # Errors
/// [`Error`] as for [`base_route`].
pub fn parse_route(text: &str, providers: &[ProviderInfo]) -> Result<ModelRoute, Error> {
    base_route(&ModelPreference { provider: None, model: Some(text.to_owned()) }, providers)
}

fn find_provider<'a>(name: &str, providers: &'a [ProviderInfo]) -> Result<&'a ProviderInfo, Error> {
    providers.iter().find(|provider| provider.name == name).ok_or_else(|| Error::UnknownProvider {
        name: name.to_owned(),
        known: providers.iter().map(|provider| provider.name.clone()).collect(),
    })
}

fn usage_hints(providers: &[ProviderInfo]) -> Vec<String> {
    providers.iter().map(|provider| provider.hint.clone()).filter(|hint| !hint.is_empty()).collect()
}

/// Splits a model such as `anthropic/claude…` into provider and model, unless a provider was named: model names at
/// OpenRouter contain a slash.
fn split_preference(wish: &ModelPreference, providers: &[ProviderInfo]) -> (Option<String>, Option<String>) {
    if let (None, Some(model)) = (&wish.provider, &wish.model)
        && let Some((provider, rest)) = model.split_once('/')
        && !rest.is_empty()
        && providers.iter().any(|known| known.name == provider)
    {
        return (Some(provider.to_owned()), Some(rest.to_owned()));
    }
    (wish.provider.clone(), wish.model.clone())
}

#[cfg(test)]
mod base_tests {
    use super::*;

    fn providers(usable: &[&str]) -> Vec<ProviderInfo> {
        ["openai", "anthropic", "gemini", "openrouter", "ollama", "llama_cpp", "custom"]
            .iter()
            .map(|name| ProviderInfo {
                name: (*name).into(),
                access: if usable.contains(name) {
                    ProviderAccess::Key
                } else {
                    ProviderAccess::Missing("no key".into())
                },
                default_model: (*name != "custom").then(|| format!("{name}-model")),
                tiers: TierDefaults::default(),
                hint: format!("{name} key"),
                unhealthy: None,
            })
            .collect()
    }

    fn check(provider: &str, model: &str, usable: &[&str], expected: &str) {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let wish = ModelPreference { provider: some(provider), model: some(model) };
        let got = match base_route(&wish, &providers(usable)) {
            Ok(route) => route.to_string(),
            Err(error) => error.to_string(),
        };
        assert!(got.starts_with(expected), "{got}");
    }

    #[test]
    fn the_order_is_fixed_and_names_win() {
        check("", "", &["gemini", "openrouter", "ollama"], "gemini/gemini-model");
        check("", "", &["ollama", "llama_cpp"], "ollama/ollama-model");
        check("", "", &["anthropic", "openai"], "openai/openai-model");
        check("ollama", "", &["openai"], "ollama/ollama-model");
        check("", "anthropic/claude-x", &["openai"], "anthropic/claude-x");
        check("openrouter", "anthropic/claude-x", &["openai"], "openrouter/anthropic/claude-x");
        check("", "gpt-x", &["openai"], "openai/gpt-x");
        check("custom", "", &[], "provider custom has no default model");
        check("nope", "", &[], "unknown provider `nope`");
        check("", "", &[], "no model provider is configured");
    }
}
