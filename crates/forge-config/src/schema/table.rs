//! The keys of the providers.

use super::key::{DefaultValue, SchemaKey, TrustRule};
use super::kind::KeyKind;
use super::rows::{api_key_schema, base_url_schema, default_model_schema, env_alias};

/// Names of providers with their alternative spellings.
pub(crate) const PROVIDER_KIND: KeyKind = KeyKind::Choice(&[
    ("openai", &[]),
    ("anthropic", &[]),
    ("gemini", &["google"]),
    ("openrouter", &[]),
    ("ollama", &[]),
    ("llama_cpp", &["llama-cpp", "llama.cpp"]),
    ("custom", &[]),
    ("scripted", &[]),
]);

/// Keys of all providers, in the order of the documentation.
pub(crate) const PROVIDER_KEYS: &[SchemaKey] = &[
    api_key_schema("providers.openai.api_key_env", DefaultValue::Text("OPENAI_API_KEY")),
    default_model_schema("providers.openai.default_model", DefaultValue::Text("gpt-5.2-2025-12-11")),
    base_url_schema("providers.openai.base_url").with_env(&[env_alias("OPENAI_BASE_URL")]),
    api_key_schema("providers.anthropic.api_key_env", DefaultValue::Text("ANTHROPIC_API_KEY")),
    default_model_schema("providers.anthropic.default_model", DefaultValue::Text("claude-sonnet-4-20250514")),
    base_url_schema("providers.anthropic.base_url").with_env(&[env_alias("ANTHROPIC_BASE_URL")]),
    api_key_schema("providers.gemini.api_key_env", DefaultValue::Text("GEMINI_API_KEY")),
    default_model_schema("providers.gemini.default_model", DefaultValue::Text("gemini-2.5-flash")),
    base_url_schema("providers.gemini.base_url")
        .with_env(&[env_alias("GEMINI_BASE_URL"), env_alias("GOOGLE_GEMINI_BASE_URL")]),
    api_key_schema("providers.openrouter.api_key_env", DefaultValue::Text("OPENROUTER_API_KEY")),
    default_model_schema("providers.openrouter.default_model", DefaultValue::Text("openai/gpt-4o-mini")),
    base_url_schema("providers.openrouter.base_url").with_env(&[env_alias("OPENROUTER_URL")]),
    api_key_schema("providers.ollama.api_key_env", DefaultValue::Unset),
    default_model_schema("providers.ollama.default_model", DefaultValue::Text("llama3")),
    base_url_schema("providers.ollama.base_url")
        .with_env(&[env_alias("OLLAMA_BASE_URL"), env_alias("OLLAMA_URL")]),
    api_key_schema("providers.llama_cpp.api_key_env", DefaultValue::Unset),
    default_model_schema("providers.llama_cpp.default_model", DefaultValue::Text("default")),
    base_url_schema("providers.llama_cpp.base_url").with_env(&[env_alias("LLAMA_CPP_URL")]),
    api_key_schema("providers.custom.api_key_env", DefaultValue::Unset),
    default_model_schema("providers.custom.default_model", DefaultValue::Unset),
    base_url_schema("providers.custom.base_url"),
    SchemaKey::new(
        "providers.scripted.script",
        KeyKind::Path,
        DefaultValue::Unset,
        TrustRule::Ask,
        "File with the replies of the scripted provider.",
    ),
];
