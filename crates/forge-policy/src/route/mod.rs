//! Which provider and model is asked (PROV-3, ROUTE-1 to ROUTE-6).
//!
//! [`base()`] is the choice without any routing: what the settings name, else the first provider that can be asked.
//! [`choose`] is the whole of it, five stages over values, each with its reasons. Neither asks anybody anything.

pub mod complexity;
pub mod escalation;
mod stages;
#[cfg(test)]
mod tests;
pub mod weights;

pub use stages::{
    Classification, PinnedModel, RouteTarget, RoutingDecision, RoutingRequest, TierModels, choose_route,
};

use forge_types::{ModelRoute, Tier};

/// Whether a provider can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderAccess {
    /// Its key is there.
    Key,
    /// It needs no key, and the user gave its address or its server answered.
    Reachable,
    /// It needs no key, and nobody has one: a run would look whether its server answers.
    Unprobed,
    /// It needs no key; whether a server is there is not known. It is asked if it is named.
    NoKeyNeeded,
    /// Something is missing.
    Missing(String),
}

/// What is known of a provider when one is chosen. Providers stand in the fixed order in which they are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderInfo {
    /// Its name.
    pub name: String,
    /// Whether it can be asked.
    pub access: ProviderAccess,
    /// The model used if none is named.
    pub default_model: Option<String>,
    /// The models used for each tier, where they differ from that.
    pub tiers: TierDefaults,
    /// What makes it usable, such as the name of its key's variable; empty if it is never chosen by itself.
    pub hint: String,
    /// Why it was not well when it was last looked at.
    pub unhealthy: Option<String>,
}

/// A provider's models by tier (ROUTE-6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TierDefaults {
    /// For simple tasks.
    pub simple: Option<String>,
    /// For tasks in between.
    pub medium: Option<String>,
    /// For hard tasks.
    pub hard: Option<String>,
    /// Its place among the providers that serve simple tasks and those in between; `None`: not among them.
    pub simple_rank: Option<u32>,
    /// Its place among those that serve hard tasks.
    pub hard_rank: Option<u32>,
}

impl ProviderInfo {
    /// Whether it is chosen although nobody named it.
    pub const fn is_usable(&self) -> bool {
        matches!(self.access, ProviderAccess::Key | ProviderAccess::Reachable | ProviderAccess::Unprobed)
    }

    /// Why it can't be asked although it was named.
    pub fn missing_reason(&self) -> Option<&str> {
        match &self.access {
            ProviderAccess::Missing(why) => Some(why),
            ProviderAccess::Key
            | ProviderAccess::Reachable
            | ProviderAccess::Unprobed
            | ProviderAccess::NoKeyNeeded => None,
        }
    }

    /// Its place among the providers that serve a tier.
    pub const fn tier_rank(&self, tier: Tier) -> Option<u32> {
        match tier {
            Tier::Simple | Tier::Medium => self.tiers.simple_rank,
            Tier::Hard => self.tiers.hard_rank,
        }
    }

    /// Its model for a tier.
    pub fn model_for(&self, tier: Tier) -> Option<&str> {
        let own = match tier {
            Tier::Simple => &self.tiers.simple,
            Tier::Medium => &self.tiers.medium,
            Tier::Hard => &self.tiers.hard,
        };
        own.as_deref().or(self.default_model.as_deref())
    }
}

/// What the user asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelPreference {
    /// The provider, if one was named.
    pub provider: Option<String>,
    /// The model, if one was named; may hold its provider as `provider/model`.
    pub model: Option<String>,
}

/// Why no model was chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The named provider does not exist.
    #[error("there is no provider `{name}` (there are: {})", known.join(", "))]
    UnknownProvider {
        /// The name.
        name: String,
        /// Those that exist.
        known: Vec<String>,
    },
    /// The provider has no model by default.
    #[error("provider {provider} has no default model: name one with --model")]
    NoModel {
        /// The provider.
        provider: String,
    },
    /// Candidates are configured, and each lacks something.
    #[error(
        "no model can be asked: {}. Set one of these keys, or name another model with --model",
        candidates.join("; ")
    )]
    NoneCanBeAsked {
        /// Each with what it lacks.
        candidates: Vec<String>,
    },
    /// Nothing is configured and nothing was found.
    #[error(
        "no model provider is configured. Any of these gives one: {}; or name one with --provider",
        hints.join(", ")
    )]
    Nothing {
        /// What gives one.
        hints: Vec<String>,
    },
}

/// The choice without routing: what the user named, else the first usable provider in the fixed order.
///
/// # Errors
/// [`Error`] says what is missing.
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

/// The route that a text such as `openai/gpt-4o` or a bare `gpt-4o` (of the first usable provider) names.
///
/// # Errors
/// [`Error`] as [`base()`].
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

/// `--model anthropic/claude…` names the provider too, unless a provider was named: OpenRouter's models hold a
/// slash of their own.
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
        check("nope", "", &[], "there is no provider `nope`");
        check("", "", &[], "no model provider is configured");
    }
}
