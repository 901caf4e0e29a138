//! The models of each provider by task tier, as data (ROUTE-5, ROUTE-6).

/// The models of a provider by tier, and its rank among the providers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierRow {
    /// Name of the provider.
    pub provider: &'static str,
    /// Model for simple tasks.
    pub simple: &'static str,
    /// Model for tasks in between.
    pub medium: &'static str,
    /// Model for hard tasks.
    pub hard: &'static str,
    /// Rank for simple tasks and those in between; the lowest rank is used first.
    pub simple_rank: u32,
    /// Rank for hard tasks.
    pub hard_rank: u32,
}

/// All providers that have models for tiers.
pub const TIERS: &[TierRow] = &[
    TierRow {
        provider: "openai",
        simple: "gpt-4o-mini",
        medium: "gpt-4o-mini",
        hard: "gpt-4o",
        simple_rank: 3,
        hard_rank: 2,
    },
    TierRow {
        provider: "anthropic",
        simple: "claude-haiku-4-5",
        medium: "claude-sonnet-4-20250514",
        hard: "claude-sonnet-4-20250514",
        simple_rank: 4,
        hard_rank: 3,
    },
    TierRow {
        provider: "openrouter",
        simple: "openai/gpt-4o-mini",
        medium: "openai/gpt-4o-mini",
        hard: "openai/gpt-4o",
        simple_rank: 1,
        hard_rank: 1,
    },
    TierRow {
        provider: "ollama",
        simple: "llama3:8b",
        medium: "llama3:8b",
        hard: "llama3:70b",
        simple_rank: 2,
        hard_rank: 4,
    },
];

/// Model for simple and hard tasks if tiers are enabled and no model is configured.
pub const DEFAULT_TIER_MODEL: &str = "openai/gpt-4o-mini";

/// Escalation steps after failed repairs, from weaker to stronger models.
pub const ESCALATION_MODELS: &[&str] =
    &["openai/gpt-4o-mini", "openai/gpt-4o", "anthropic/claude-sonnet-4-20250514"];

/// Returns the row of a provider.
pub fn find_tiers(provider: &str) -> Option<&'static TierRow> {
    TIERS.iter().find(|row| row.provider == provider)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Catalog;
    use crate::vendors::find_vendor;

    fn price(provider: &str, model: &str) -> Option<forge_types::Price> {
        Catalog::builtin().model_facts(provider, model).price
    }

    #[test]
    fn every_model_has_a_provider_and_a_price() {
        let rungs =
            ESCALATION_MODELS.iter().chain([&DEFAULT_TIER_MODEL]).filter_map(|name| name.split_once('/'));
        let rows = TIERS.iter().flat_map(|row| [row.simple, row.medium, row.hard].map(|m| (row.provider, m)));
        for (provider, model) in rungs.chain(rows) {
            assert!(find_vendor(provider).is_some(), "{provider}");
            assert!(price(provider, model).is_some(), "{provider}/{model}");
        }
    }

    #[test]
    fn escalation_goes_up() {
        let prices = ESCALATION_MODELS.iter().filter_map(|name| name.split_once('/'));
        let prices: Vec<_> = prices.filter_map(|(p, m)| price(p, m)).map(|p| p.input).collect();
        assert!(prices.is_sorted() && prices.len() == ESCALATION_MODELS.len(), "{prices:?}");
    }
}
