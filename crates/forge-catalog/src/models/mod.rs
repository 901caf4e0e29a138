//! Facts about models: prices, context windows, reply limits, unsupported parameters, vocabularies.
//!
//! The built-in table is `models.json`; [`Catalog::parse`] reads another one in the same format. A model is looked up
//! by its exact name, then by the longest row name that it continues. An unknown model has no price, and the context
//! window of its family or of its provider.

mod parse;

use std::sync::{Arc, OnceLock};

use forge_types::{ModelFacts, Money, Price};

use crate::vendors::find_vendor;

pub use parse::CatalogError;

/// Context window in tokens assumed for models of unknown providers.
const DEFAULT_WINDOW_TOKENS: u64 = 128_000;

/// Sampling parameters that a model may refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SamplingParameter {
    /// The sampling temperature.
    Temperature,
    /// The threshold of nucleus sampling.
    TopP,
}

/// A published vocabulary, which defines a model's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vocabulary {
    /// The vocabulary of `gpt-4o` and later.
    O200kBase,
    /// The vocabulary of `gpt-4`, `gpt-3.5` and the embedding models.
    Cl100kBase,
}

impl Vocabulary {
    /// All vocabularies.
    pub const ALL: [Self; 2] = [Self::O200kBase, Self::Cl100kBase];

    /// Returns the published name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::O200kBase => "o200k_base",
            Self::Cl100kBase => "cl100k_base",
        }
    }
}

/// The purpose of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelPurpose {
    /// Conversations.
    Chat,
    /// Embeddings.
    Embedding,
}

/// A row of the table, with prices in dollars per million tokens.
#[derive(Clone, Debug, PartialEq)]
struct CatalogRow {
    provider: String,
    model: String,
    input: f64,
    output: f64,
    /// Price of cached input. The default is `input`, for a cache without a discount.
    cached: Option<f64>,
    /// Price of writing to the cache. The default is `input`, for a cache without a surcharge.
    cache_write: Option<f64>,
    window: Option<u64>,
    max_output: Option<u64>,
    refuses: Vec<SamplingParameter>,
    reasons: bool,
    vocabulary: Option<Vocabulary>,
    purpose: ModelPurpose,
}

/// Properties shared by models with the same name at all providers.
#[derive(Clone, Debug, PartialEq)]
struct ModelFamily {
    prefix: String,
    window: u64,
    vocabulary: Option<Vocabulary>,
}

/// The table of models.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalog {
    /// Date of the prices.
    pub as_of: String,
    /// Source of the prices.
    pub source: String,
    models: Vec<CatalogRow>,
    families: Vec<ModelFamily>,
}

impl Catalog {
    /// Returns the built-in table.
    pub fn builtin() -> &'static Arc<Self> {
        static BUILTIN_CATALOG: OnceLock<Arc<Catalog>> = OnceLock::new();
        BUILTIN_CATALOG.get_or_init(|| {
            Arc::new(Self::parse(include_str!("models.json")).expect("a test reads the embedded table"))
        })
    }

    /// Parses a table: a JSON object with `as_of` (a date), `source`, `models` and optionally `families`. Without
    /// families, the table has the built-in ones.
    ///
    /// # Errors
    /// The first error, with its row and field. Nothing is repaired: an uncertain price is worse than none.
    pub fn parse(text: &str) -> Result<Self, CatalogError> {
        parse::parse_catalog(text)
    }

    /// Returns the facts about a model: those of the exact match, else of the longest row name that the name continues
    /// (`gpt-4o` for `gpt-4o-2024-08-06`, not for `gpt-4omega`). An unknown model has no price, and the context window
    /// of its family or of its provider.
    pub fn model_facts(&self, provider: &str, model: &str) -> ModelFacts {
        let row = self.find_row(provider, model);
        ModelFacts {
            price: row.map(CatalogRow::price),
            window: row
                .and_then(|row| row.window)
                .or_else(|| self.find_family(model).map(|family| family.window))
                .or_else(|| find_vendor(provider).map(|vendor| vendor.window))
                .unwrap_or(DEFAULT_WINDOW_TOKENS),
            max_output: row.and_then(|row| row.max_output),
        }
    }

    /// Returns the vocabulary of a model, if it is published.
    pub fn vocabulary(&self, provider: &str, model: &str) -> Option<Vocabulary> {
        let own = self.find_row(provider, model).and_then(|row| row.vocabulary);
        own.or_else(|| self.find_family(model).and_then(|family| family.vocabulary))
    }

    /// Returns provider, name and purpose of each row, in the table's order. The name `*` means all models.
    pub fn list_models(&self) -> impl Iterator<Item = (&str, &str, ModelPurpose)> {
        self.models.iter().map(|row| (row.provider.as_str(), row.model.as_str(), row.purpose))
    }

    /// Returns whether a model refuses a sampling parameter.
    pub fn refuses_parameter(&self, provider: &str, model: &str, parameter: SamplingParameter) -> bool {
        self.find_row(provider, model).is_some_and(|row| row.refuses.contains(&parameter))
    }

    /// Returns whether a model supports reasoning in a form that can be requested.
    pub fn supports_reasoning(&self, provider: &str, model: &str) -> bool {
        self.find_row(provider, model).is_some_and(|row| row.reasons)
    }

    fn find_row(&self, provider: &str, model: &str) -> Option<&CatalogRow> {
        self.models
            .iter()
            .filter(|row| row.provider == provider && row.matches_model(model))
            .max_by_key(|row| row.model.len())
    }

    /// Returns the family with the longest matching prefix. The part before a slash names the model's vendor and is
    /// skipped.
    fn find_family(&self, model: &str) -> Option<&ModelFamily> {
        let name = model.rsplit('/').next().unwrap_or(model).to_ascii_lowercase();
        self.families
            .iter()
            .filter(|family| name.starts_with(&family.prefix))
            .max_by_key(|family| family.prefix.len())
    }
}

impl CatalogRow {
    fn matches_model(&self, model: &str) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn price(provider: &str, model: &str) -> Option<Price> {
        Catalog::builtin().model_facts(provider, model).price
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
    fn every_default_model_has_a_price() {
        for vendor in crate::vendors::VENDORS {
            if let Some(model) = vendor.default_model {
                assert!(price(vendor.name, model).is_some(), "{} {model}", vendor.name);
            }
        }
    }

    #[test]
    fn cache_writes_are_priced() {
        let sonnet = price("anthropic", "claude-sonnet-4-20250514").unwrap();
        assert_eq!((sonnet.cached_input, sonnet.cache_write), (300_000, 3_750_000));
    }

    #[test]
    fn windows_go_by_row_then_family_then_provider() {
        for (provider, model, window) in [
            ("openai", "gpt-4o-2024-08-06", 128_000),
            ("openai", "gpt-3.5-turbo-0125", 16_385),
            ("openai", "gpt-99", 128_000),
            ("anthropic", "claude-some-day", 200_000),
            ("gemini", "gemini-2.0-pro-exp", 1_000_000),
            ("gemini", "gemini-3-something", 1_000_000),
            ("custom", "llama3", 8_192),
            ("custom", "llama3.1:70b", 128_000),
            ("custom", "meta-llama/Llama-3.1-8B-Instruct", 128_000),
            ("custom", "Qwen/Qwen3-8B", 32_768),
            ("custom", "mistral-small", 32_768),
            ("openrouter", "deepseek/deepseek-chat", 64_000),
            ("custom", "codellama-13b", 16_384),
            ("custom", "something-new", 128_000),
            ("nobody", "something-new", 128_000),
            ("ollama", "llama3.1", 32_768),
            ("llama_cpp", "qwen3", 8_192),
        ] {
            assert_eq!(Catalog::builtin().model_facts(provider, model).window, window, "{provider} {model}");
        }
    }

    #[test]
    fn vocabularies_are_those_that_are_published() {
        for (model, vocabulary) in [
            ("gpt-5.2-2025-12-11", Some(Vocabulary::O200kBase)),
            ("gpt-4o-mini", Some(Vocabulary::O200kBase)),
            ("gpt-4.1", Some(Vocabulary::O200kBase)),
            ("o3-mini", Some(Vocabulary::O200kBase)),
            ("gpt-4-turbo", Some(Vocabulary::Cl100kBase)),
            ("text-embedding-3-small", Some(Vocabulary::Cl100kBase)),
            ("gpt-99", None),
        ] {
            assert_eq!(Catalog::builtin().vocabulary("openai", model), vocabulary, "{model}");
        }
        assert_eq!(Catalog::builtin().vocabulary("openrouter", "openai/gpt-4o"), Some(Vocabulary::O200kBase));
        assert_eq!(Catalog::builtin().vocabulary("anthropic", "claude-sonnet-4"), None);
    }
}
