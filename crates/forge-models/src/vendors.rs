//! The providers as data. No other file compares a provider's name with anything.

use crate::shape::Shape;

/// Whether a provider wants a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRule {
    /// Nothing works without one.
    Required,
    /// Sent if there is one.
    Optional,
    /// Never sent.
    None,
}

/// How a provider is found when the user names none (PROV-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detect {
    /// By a key in the environment.
    Key,
    /// By its own answer at this path, which must be a JSON object with one of these members.
    Probe {
        /// Path below the base URL.
        path: &'static str,
        /// Members of which one must be there.
        members: &'static [&'static str],
    },
    /// Never.
    Never,
}

/// What a base URL with a path of its own means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NestedBase {
    /// The path holds the API version already (`https://host/api/v1`).
    HasVersion,
    /// The version follows the path (`https://host/proxy` + `/v1/…`).
    WantsVersion,
}

/// One provider.
#[derive(Debug)]
pub struct Vendor {
    /// Its name in configuration, events and prices.
    pub name: &'static str,
    /// The wire shape it speaks.
    pub shape: Shape,
    /// Where it is; `None` must be configured.
    pub base_url: Option<&'static str>,
    /// The API version's place in paths.
    pub version: &'static str,
    /// What a base URL with a path means.
    pub nested: NestedBase,
    /// Endings of base URLs that are full endpoints and are cut off, longest first.
    pub endpoints: &'static [&'static str],
    /// Environment variables that hold the key, canonical one first.
    pub key_env: &'static [&'static str],
    /// Environment variables that hold the base URL, canonical one first.
    pub base_url_env: &'static [&'static str],
    /// Whether it wants a key.
    pub key: KeyRule,
    /// The model asked when none is named; `None` must be configured.
    pub default_model: Option<&'static str>,
    /// How it is found.
    pub detect: Detect,
    /// The header that names the organization.
    pub organization_header: Option<&'static str>,
    /// The name of the parameter that limits the reply.
    pub allowance: &'static str,
    /// Window in tokens assumed for models that the catalog does not know.
    pub window: u64,
    /// Path of the list of models below version, for connection tests; empty if there is none.
    pub models_path: &'static str,
}

const OPENAI_ENDPOINTS: &[&str] = &["/chat/completions", "/completions", "/responses", "/embeddings"];

/// All providers, in the fixed order in which they are looked for.
pub const VENDORS: &[Vendor] = &[
    Vendor {
        name: "openai",
        shape: Shape::OpenAi,
        base_url: Some("https://api.openai.com/v1"),
        version: "/v1",
        nested: NestedBase::HasVersion,
        endpoints: OPENAI_ENDPOINTS,
        key_env: &["OPENAI_API_KEY"],
        base_url_env: &["OPENAI_BASE_URL"],
        key: KeyRule::Required,
        default_model: Some("gpt-5.2-2025-12-11"),
        detect: Detect::Key,
        organization_header: Some("openai-organization"),
        allowance: "max_completion_tokens",
        window: 128_000,
        models_path: "/models",
    },
    Vendor {
        name: "anthropic",
        shape: Shape::Anthropic,
        base_url: Some("https://api.anthropic.com"),
        version: "/v1",
        nested: NestedBase::WantsVersion,
        endpoints: &["/v1/messages", "/messages"],
        key_env: &["ANTHROPIC_API_KEY"],
        base_url_env: &["ANTHROPIC_BASE_URL"],
        key: KeyRule::Required,
        default_model: Some("claude-sonnet-4-20250514"),
        detect: Detect::Key,
        organization_header: None,
        allowance: "max_tokens",
        window: 200_000,
        models_path: "/models",
    },
    Vendor {
        name: "gemini",
        shape: Shape::Gemini,
        base_url: Some("https://generativelanguage.googleapis.com"),
        version: "/v1beta",
        nested: NestedBase::WantsVersion,
        endpoints: &["/v1beta/models", "/models"],
        key_env: &["GEMINI_API_KEY", "GOOGLE_API_KEY"],
        base_url_env: &["GEMINI_BASE_URL", "GOOGLE_GEMINI_BASE_URL"],
        key: KeyRule::Required,
        default_model: Some("gemini-2.5-flash"),
        detect: Detect::Key,
        organization_header: None,
        allowance: "maxOutputTokens",
        window: 200_000,
        models_path: "/models",
    },
    Vendor {
        name: "openrouter",
        shape: Shape::OpenAi,
        base_url: Some("https://openrouter.ai/api/v1"),
        version: "/v1",
        nested: NestedBase::HasVersion,
        endpoints: OPENAI_ENDPOINTS,
        key_env: &["OPENROUTER_API_KEY"],
        base_url_env: &["OPENROUTER_URL"],
        key: KeyRule::Required,
        default_model: Some("openai/gpt-4o-mini"),
        detect: Detect::Key,
        organization_header: None,
        allowance: "max_tokens",
        window: 128_000,
        models_path: "/key",
    },
    Vendor {
        name: "ollama",
        shape: Shape::Ollama,
        base_url: Some("http://localhost:11434"),
        version: "/api",
        nested: NestedBase::WantsVersion,
        endpoints: &["/api/generate", "/api/chat", "/api/tags", "/v1/chat/completions", "/v1"],
        key_env: &[],
        base_url_env: &["OLLAMA_BASE_URL", "OLLAMA_URL"],
        key: KeyRule::None,
        default_model: Some("llama3"),
        detect: Detect::Probe { path: "/api/tags", members: &["models"] },
        organization_header: None,
        allowance: "num_predict",
        window: 16_384,
        models_path: "/tags",
    },
    Vendor {
        name: "llama_cpp",
        shape: Shape::OpenAi,
        base_url: Some("http://127.0.0.1:8080"),
        version: "/v1",
        nested: NestedBase::HasVersion,
        endpoints: &["/v1/chat/completions", "/chat/completions", "/completion", "/v1/completions", "/props"],
        key_env: &[],
        base_url_env: &["LLAMA_CPP_URL"],
        key: KeyRule::None,
        default_model: Some("default"),
        detect: Detect::Probe {
            path: "/props",
            members: &["default_generation_settings", "total_slots", "model_path"],
        },
        organization_header: None,
        allowance: "max_tokens",
        window: 8_192,
        models_path: "/models",
    },
    Vendor {
        name: "custom",
        shape: Shape::OpenAi,
        base_url: None,
        version: "/v1",
        nested: NestedBase::HasVersion,
        endpoints: OPENAI_ENDPOINTS,
        key_env: &[],
        base_url_env: &[],
        key: KeyRule::Optional,
        default_model: None,
        detect: Detect::Never,
        organization_header: None,
        allowance: "max_tokens",
        window: 32_768,
        models_path: "/models",
    },
    Vendor {
        name: "scripted",
        shape: Shape::Scripted,
        base_url: None,
        version: "",
        nested: NestedBase::WantsVersion,
        endpoints: &[],
        key_env: &[],
        base_url_env: &[],
        key: KeyRule::None,
        default_model: Some("scripted"),
        detect: Detect::Never,
        organization_header: None,
        allowance: "",
        window: 200_000,
        models_path: "",
    },
];

/// The vendor of this name.
pub fn vendor(name: &str) -> Option<&'static Vendor> {
    VENDORS.iter().find(|vendor| vendor.name == name)
}

impl Vendor {
    /// `base` without a trailing slash and without an endpoint that this vendor is known to serve below it.
    pub fn cut_base(&self, base: &str) -> String {
        let mut base = base.trim().trim_end_matches('/');
        base = base.split(['?', '#']).next().unwrap_or(base).trim_end_matches('/');
        if let Some(ending) = self.endpoints.iter().find(|ending| base.ends_with(**ending)) {
            base = base[..base.len() - ending.len()].trim_end_matches('/');
        }
        base.to_owned()
    }

    /// The URL of `path` (which begins with a slash) below the API version of a cut base URL.
    pub fn url(&self, base: &str, path: &str) -> String {
        let after_scheme = base.split_once("://").map_or(base, |(_, rest)| rest);
        let own_path = after_scheme.find('/').map_or("", |at| &after_scheme[at..]);
        let has_version = own_path.ends_with(self.version)
            || (self.nested == NestedBase::HasVersion && !own_path.is_empty());
        let version = if has_version { "" } else { self.version };
        format!("{base}{version}{path}")
    }
}
