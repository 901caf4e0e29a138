//! Which models of a provider serve tasks of which tier, as data (ROUTE-5, ROUTE-6).

/// A provider's models by tier, and its place among those that serve one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierRow {
    /// The provider.
    pub provider: &'static str,
    /// For simple tasks.
    pub simple: &'static str,
    /// For tasks in between.
    pub medium: &'static str,
    /// For hard tasks.
    pub hard: &'static str,
    /// Its place for simple tasks and those in between, the first is asked first.
    pub simple_place: u32,
    /// Its place for hard tasks.
    pub hard_place: u32,
}

/// All providers that have models for tiers.
pub const TIERS: &[TierRow] = &[
    TierRow {
        provider: "openai",
        simple: "gpt-4o-mini",
        medium: "gpt-4o-mini",
        hard: "gpt-4o",
        simple_place: 3,
        hard_place: 2,
    },
    TierRow {
        provider: "anthropic",
        simple: "claude-haiku-4-5",
        medium: "claude-sonnet-4-20250514",
        hard: "claude-sonnet-4-20250514",
        simple_place: 4,
        hard_place: 3,
    },
    TierRow {
        provider: "openrouter",
        simple: "openai/gpt-4o-mini",
        medium: "openai/gpt-4o-mini",
        hard: "openai/gpt-4o",
        simple_place: 1,
        hard_place: 1,
    },
    TierRow {
        provider: "ollama",
        simple: "llama3:8b",
        medium: "llama3:8b",
        hard: "llama3:70b",
        simple_place: 2,
        hard_place: 4,
    },
];

/// The model of simple and of hard tasks where tiers are switched on and none is configured.
pub const DEFAULT_TIER_MODEL: &str = "openai/gpt-4o-mini";

/// Stronger and stronger models, for repairs that failed.
pub const ESCALATION: &[&str] =
    &["openai/gpt-4o-mini", "openai/gpt-4o", "anthropic/claude-sonnet-4-20250514"];

/// The row of a provider.
pub fn tiers(provider: &str) -> Option<&'static TierRow> {
    TIERS.iter().find(|row| row.provider == provider)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::facts;
    use crate::vendors::vendor;

    #[test]
    fn every_model_has_a_provider_and_a_price() {
        let rungs = ESCALATION.iter().chain([&DEFAULT_TIER_MODEL]).filter_map(|name| name.split_once('/'));
        let rows = TIERS.iter().flat_map(|row| [row.simple, row.medium, row.hard].map(|m| (row.provider, m)));
        for (provider, model) in rungs.chain(rows) {
            assert!(vendor(provider).is_some(), "{provider}");
            assert!(facts(provider, model).price.is_some(), "{provider}/{model}");
        }
    }

    #[test]
    fn escalation_goes_up() {
        let prices = ESCALATION.iter().filter_map(|name| name.split_once('/'));
        let prices: Vec<_> = prices.filter_map(|(p, m)| facts(p, m).price).map(|p| p.input).collect();
        assert!(prices.is_sorted() && prices.len() == ESCALATION.len(), "{prices:?}");
    }
}
