//! What is known of models: prices, windows, longest replies, parameters they refuse. Data in `models.json`.

use std::sync::OnceLock;

use forge_types::{ModelFacts, Money, Price};
use serde::Deserialize;

use crate::vendors::vendor;

/// Sampling parameters that a model may refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Refused {
    Temperature,
    TopP,
}

/// A row: prices in dollars per million tokens.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    provider: String,
    model: String,
    input: f64,
    output: f64,
    /// Defaults to `input`: a cache that gives no rebate.
    cached: Option<f64>,
    /// Defaults to `input`: a cache that charges nothing for writing.
    cache_write: Option<f64>,
    window: Option<u64>,
    max_output: Option<u64>,
    #[serde(default)]
    refuses: Vec<Refused>,
}

/// The table of models.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalog {
    /// The day on which the prices were looked up.
    pub as_of: String,
    /// Where they come from.
    pub source: String,
    models: Vec<Row>,
}

/// The table that is built in.
pub fn catalog() -> &'static Catalog {
    static TABLE: OnceLock<Catalog> = OnceLock::new();
    TABLE.get_or_init(|| {
        serde_json::from_str(include_str!("models.json")).expect("a test reads the embedded table")
    })
}

impl Catalog {
    /// What is known of a model: exact match, then the longest row that the name continues (`gpt-4o` for
    /// `gpt-4o-2024-08-06`, not for `gpt-4omega`), else unknown: no price, the provider's usual window.
    pub fn facts(&self, provider: &str, model: &str) -> ModelFacts {
        let row = self.row(provider, model);
        ModelFacts {
            price: row.map(Row::price),
            window: row
                .and_then(|row| row.window)
                .or_else(|| vendor(provider).map(|vendor| vendor.window))
                .unwrap_or(32_768),
            max_output: row.and_then(|row| row.max_output),
        }
    }

    pub(crate) fn refuses(&self, provider: &str, model: &str, parameter: Refused) -> bool {
        self.row(provider, model).is_some_and(|row| row.refuses.contains(&parameter))
    }

    fn row(&self, provider: &str, model: &str) -> Option<&Row> {
        self.models
            .iter()
            .filter(|row| row.provider == provider && row.covers(model))
            .max_by_key(|row| row.model.len())
    }
}

impl Row {
    fn covers(&self, model: &str) -> bool {
        self.model == "*"
            || model
                .strip_prefix(self.model.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', ':', '@']))
    }

    fn price(&self) -> Price {
        // A dollar per million tokens is a millionth of a dollar per token.
        let per_token = |per_million: f64| Money::from_usd(per_million / 1e6).0;
        Price {
            input: per_token(self.input),
            output: per_token(self.output),
            cached_input: per_token(self.cached.unwrap_or(self.input)),
            cache_write: per_token(self.cache_write.unwrap_or(self.input)),
        }
    }
}

/// What is known of a model, by the built-in table.
pub fn facts(provider: &str, model: &str) -> ModelFacts {
    catalog().facts(provider, model)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(provider: &str, model: &str) -> Option<Price> {
        facts(provider, model).price
    }

    #[test]
    fn exact_then_longest_prefix_then_unknown() {
        let mini = price("openai", "gpt-4o-mini").unwrap();
        assert_eq!((mini.input, mini.output, mini.cached_input), (150_000, 600_000, 75_000));
        assert_eq!(price("openai", "gpt-4o-mini-2024-07-18"), Some(mini));
        assert_ne!(price("openai", "gpt-4o-2024-08-06"), Some(mini));
        assert_eq!(price("openai", "gpt-4omega"), None);
        assert_eq!(price("openai", "gpt-99"), None);
        assert_eq!(price("anthropic", "gpt-4o"), None, "a name belongs to its provider");
    }

    #[test]
    fn what_runs_at_home_costs_nothing() {
        assert_eq!(price("ollama", "some-model:7b"), Some(Price::FREE));
        assert_eq!(price("llama_cpp", "default"), Some(Price::FREE));
        assert_eq!(price("custom", "whatever"), None);
    }

    #[test]
    fn every_default_model_has_a_price_and_every_row_a_vendor() {
        for vendor in crate::vendors::VENDORS {
            if let Some(model) = vendor.default_model {
                assert!(price(vendor.name, model).is_some(), "{} {model}", vendor.name);
            }
        }
        let table = catalog();
        assert!(!table.as_of.is_empty() && !table.source.is_empty());
        for row in &table.models {
            assert!(vendor(&row.provider).is_some(), "{}", row.provider);
            assert!(row.cached.unwrap_or(0.0) <= row.input, "{}", row.model);
        }
    }

    #[test]
    fn cache_writes_are_priced() {
        let sonnet = price("anthropic", "claude-sonnet-4-20250514").unwrap();
        assert_eq!((sonnet.cached_input, sonnet.cache_write), (300_000, 3_750_000));
    }
}
