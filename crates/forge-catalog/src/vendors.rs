//! The providers as data. No other file contains conditions on a provider's name.

use crate::wire_format::WireFormat;

/// Need of a provider for an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRule {
    /// Every request needs an API key.
    Required,
    /// An API key is sent if there is one.
    Optional,
    /// An API key is never sent.
    None,
}

/// Detection of a provider when the user names none (PROV-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetectionRule {
    /// Detected by an API key in the environment.
    Key,
    /// Detected by the server's answer at a path, which must be a JSON object with one of the members.
    Probe {
        /// Path below the base URL.
        path: &'static str,
        /// Members of which one must be present.
        members: &'static [&'static str],
    },
    /// Never detected.
    Never,
}

/// Interpretation of a base URL that has a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NestedBase {
    /// The path contains the API version already (`https://host/api/v1`).
    HasVersion,
    /// The version follows the path (`https://host/proxy` + `/v1/…`).
    WantsVersion,
}

/// Means of obtaining a reply in JSON that matches a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StructuredMode {
    /// A JSON Schema in the request.
    Schema,
    /// A grammar in the request, or one that the server derives from a JSON Schema.
    Grammar,
    /// A required call of a tool with the schema as its parameters.
    Tool,
    /// An instruction in the prompt.
    Instruction,
}

/// The API for embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbeddingApi {
    /// OpenAI's `POST …/embeddings`.
    OpenAi,
    /// Gemini's `POST …:batchEmbedContents`.
    Gemini,
    /// Ollama's `POST …/api/embed`.
    Ollama,
    /// No API for embeddings.
    None,
}

/// A suffix of a base URL that is a full endpoint.
#[derive(Clone, Copy, Debug)]
pub struct EndpointSuffix {
    /// Suffix without the part before the API version.
    pub ending: &'static str,
    /// Wire format of the endpoint; `None` if it does not serve conversations, so that the usual format is used.
    pub wire_format: Option<WireFormat>,
}

const fn native_endpoint(ending: &'static str, wire_format: WireFormat) -> EndpointSuffix {
    EndpointSuffix { ending, wire_format: Some(wire_format) }
}

const fn sibling_endpoint(ending: &'static str) -> EndpointSuffix {
    EndpointSuffix { ending, wire_format: None }
}

/// A provider.
#[derive(Debug)]
pub struct Vendor {
    /// Name in configuration, events and prices.
    pub name: &'static str,
    /// Alternative spellings of the name in settings.
    pub other_names: &'static [&'static str],
    /// Wire format, unless the base URL names another endpoint.
    pub wire_format: WireFormat,
    /// Base URL; `None` if it must be configured.
    pub base_url: Option<&'static str>,
    /// API version in paths.
    pub version: &'static str,
    /// Interpretation of a base URL that has a path.
    pub nested: NestedBase,
    /// Suffixes of base URLs that are full endpoints, longest first. They are cut off and select the wire format.
    pub endpoints: &'static [EndpointSuffix],
    /// Environment variables that hold the API key, canonical one first.
    pub key_env: &'static [&'static str],
    /// Environment variables that hold the base URL, canonical one first.
    pub base_url_env: &'static [&'static str],
    /// Need for an API key.
    pub key: KeyRule,
    /// Model used when none is named; `None` if it must be configured.
    pub default_model: Option<&'static str>,
    /// Detection of the provider.
    pub detect: DetectionRule,
    /// Header that names the organization.
    pub organization_header: Option<&'static str>,
    /// Name of the parameter that limits the reply in OpenAI's chat format.
    pub allowance: &'static str,
    /// Means of obtaining a reply in JSON in the usual wire format; the other formats have one each.
    pub structured: StructuredMode,
    /// API for embeddings.
    pub embedding: EmbeddingApi,
    /// Context window in tokens assumed for models that are not in the catalog.
    pub window: u64,
    /// Path of the list of models below the version, for connection tests; empty if there is none.
    pub models_path: &'static str,
}

/// Provider assumed when only an address is configured: the user's own server.
pub const OWN_SERVER: &str = "custom";
/// Provider with replies from a file.
pub const SCRIPTED_PROVIDER: &str = "scripted";
/// Provider that a router uses by default (PROV-3).
pub const ROUTER_DEFAULT_SERVER: &str = "llama_cpp";

/// Endpoints of OpenAI and of compatible servers.
const OPENAI_ENDPOINTS: &[EndpointSuffix] = &[
    native_endpoint("/chat/completions", WireFormat::OpenAi),
    sibling_endpoint("/completions"),
    native_endpoint("/responses", WireFormat::Responses),
    sibling_endpoint("/embeddings"),
];

/// Endpoints that the user's own server may have.
const ALL_ENDPOINTS: &[EndpointSuffix] = &[
    native_endpoint("/chat/completions", WireFormat::OpenAi),
    sibling_endpoint("/completions"),
    native_endpoint("/responses", WireFormat::Responses),
    native_endpoint("/messages", WireFormat::Anthropic),
    native_endpoint("/api/generate", WireFormat::Generate),
    native_endpoint("/api/chat", WireFormat::Ollama),
    native_endpoint("/completion", WireFormat::Completion),
    sibling_endpoint("/embeddings"),
];

/// All providers, in the fixed order of detection.
pub const VENDORS: &[Vendor] = &[
    Vendor {
        name: "openai",
        other_names: &[],
        wire_format: WireFormat::OpenAi,
        base_url: Some("https://api.openai.com/v1"),
        version: "/v1",
        nested: NestedBase::HasVersion,
        endpoints: OPENAI_ENDPOINTS,
        key_env: &["OPENAI_API_KEY"],
        base_url_env: &["OPENAI_BASE_URL"],
        key: KeyRule::Required,
        default_model: Some("gpt-5.2-2025-12-11"),
        detect: DetectionRule::Key,
        organization_header: Some("openai-organization"),
        allowance: "max_completion_tokens",
        structured: StructuredMode::Schema,
        embedding: EmbeddingApi::OpenAi,
        window: 128_000,
        models_path: "/models",
    },
    Vendor {
        name: "anthropic",
        other_names: &[],
        wire_format: WireFormat::Anthropic,
        base_url: Some("https://api.anthropic.com"),
        version: "/v1",
        nested: NestedBase::WantsVersion,
        endpoints: &[native_endpoint("/messages", WireFormat::Anthropic)],
        key_env: &["ANTHROPIC_API_KEY"],
        base_url_env: &["ANTHROPIC_BASE_URL"],
        key: KeyRule::Required,
        default_model: Some("claude-sonnet-4-20250514"),
        detect: DetectionRule::Key,
        organization_header: None,
        allowance: "max_tokens",
        structured: StructuredMode::Tool,
        embedding: EmbeddingApi::None,
        window: 200_000,
        models_path: "/models",
    },
    Vendor {
        name: "gemini",
        other_names: &["google"],
        wire_format: WireFormat::Gemini,
        base_url: Some("https://generativelanguage.googleapis.com"),
        version: "/v1beta",
        nested: NestedBase::WantsVersion,
        endpoints: &[sibling_endpoint("/models")],
        key_env: &["GEMINI_API_KEY", "GOOGLE_API_KEY"],
        base_url_env: &["GEMINI_BASE_URL", "GOOGLE_GEMINI_BASE_URL"],
        key: KeyRule::Required,
        default_model: Some("gemini-2.5-flash"),
        detect: DetectionRule::Key,
        organization_header: None,
        allowance: "max_tokens",
        structured: StructuredMode::Schema,
        embedding: EmbeddingApi::Gemini,
        window: 200_000,
        models_path: "/models",
    },
    Vendor {
        name: "openrouter",
        other_names: &[],
        wire_format: WireFormat::OpenAi,
        base_url: Some("https://openrouter.ai/api/v1"),
        version: "/v1",
        nested: NestedBase::HasVersion,
        endpoints: OPENAI_ENDPOINTS,
        key_env: &["OPENROUTER_API_KEY"],
        base_url_env: &["OPENROUTER_URL"],
        key: KeyRule::Required,
        default_model: Some("openai/gpt-4o-mini"),
        detect: DetectionRule::Key,
        organization_header: None,
        allowance: "max_tokens",
        structured: StructuredMode::Schema,
        embedding: EmbeddingApi::OpenAi,
        window: 128_000,
        models_path: "/key",
    },
    Vendor {
        name: "ollama",
        other_names: &[],
        wire_format: WireFormat::Ollama,
        base_url: Some("http://localhost:11434"),
        version: "/api",
        nested: NestedBase::WantsVersion,
        endpoints: &[
            native_endpoint("/api/generate", WireFormat::Generate),
            native_endpoint("/api/chat", WireFormat::Ollama),
            sibling_endpoint("/api/tags"),
            native_endpoint("/v1/chat/completions", WireFormat::OpenAi),
            native_endpoint("/v1", WireFormat::OpenAi),
        ],
        key_env: &[],
        base_url_env: &["OLLAMA_BASE_URL", "OLLAMA_URL"],
        key: KeyRule::None,
        default_model: Some("llama3"),
        detect: DetectionRule::Probe { path: "/api/tags", members: &["models"] },
        organization_header: None,
        allowance: "max_tokens",
        structured: StructuredMode::Schema,
        embedding: EmbeddingApi::Ollama,
        window: 16_384,
        models_path: "/tags",
    },
    Vendor {
        name: ROUTER_DEFAULT_SERVER,
        other_names: &["llama-cpp", "llama.cpp"],
        wire_format: WireFormat::OpenAi,
        base_url: Some("http://127.0.0.1:8080"),
        version: "/v1",
        nested: NestedBase::HasVersion,
        endpoints: &[
            native_endpoint("/chat/completions", WireFormat::OpenAi),
            sibling_endpoint("/completions"),
            native_endpoint("/responses", WireFormat::Responses),
            native_endpoint("/messages", WireFormat::Anthropic),
            native_endpoint("/completion", WireFormat::Completion),
            sibling_endpoint("/embeddings"),
            sibling_endpoint("/props"),
        ],
        key_env: &[],
        base_url_env: &["LLAMA_CPP_URL"],
        key: KeyRule::None,
        default_model: Some("default"),
        detect: DetectionRule::Probe {
            path: "/props",
            members: &["default_generation_settings", "total_slots", "model_path"],
        },
        organization_header: None,
        allowance: "max_tokens",
        structured: StructuredMode::Grammar,
        embedding: EmbeddingApi::OpenAi,
        window: 8_192,
        models_path: "/models",
    },
    Vendor {
        name: OWN_SERVER,
        other_names: &[],
        wire_format: WireFormat::OpenAi,
        base_url: None,
        version: "/v1",
        nested: NestedBase::HasVersion,
        endpoints: ALL_ENDPOINTS,
        key_env: &[],
        base_url_env: &[],
        key: KeyRule::Optional,
        default_model: None,
        detect: DetectionRule::Never,
        organization_header: None,
        allowance: "max_tokens",
        structured: StructuredMode::Instruction,
        embedding: EmbeddingApi::OpenAi,
        window: 128_000,
        models_path: "/models",
    },
    Vendor {
        name: SCRIPTED_PROVIDER,
        other_names: &[],
        wire_format: WireFormat::Scripted,
        base_url: None,
        version: "",
        nested: NestedBase::WantsVersion,
        endpoints: &[],
        key_env: &[],
        base_url_env: &[],
        key: KeyRule::None,
        default_model: Some("scripted"),
        detect: DetectionRule::Never,
        organization_header: None,
        allowance: "",
        structured: StructuredMode::Instruction,
        embedding: EmbeddingApi::None,
        window: 200_000,
        models_path: "",
    },
];

/// Returns the names of all providers, in the fixed order of detection.
pub fn vendor_names() -> impl Iterator<Item = &'static str> {
    VENDORS.iter().map(|vendor| vendor.name)
}

/// Returns the vendor with this name.
pub fn find_vendor(name: &str) -> Option<&'static Vendor> {
    VENDORS.iter().find(|vendor| vendor.name == name)
}

/// Address and wire format of a provider, parsed from a base URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderAddress {
    /// Base URL without trailing slash, query and endpoint.
    pub base: String,
    /// Wire format at this address.
    pub wire_format: WireFormat,
    /// API version that precedes paths; empty if the base contains it already.
    version: &'static str,
}

impl ProviderAddress {
    /// Returns the URL of `path` (which begins with a slash) below the API version.
    pub fn url(&self, path: &str) -> String {
        format!("{}{}{path}", self.base, self.version)
    }
}

impl Vendor {
    /// Parses a base URL. A full endpoint is cut to its base and selects the wire format.
    pub fn parse_address(&self, given: &str) -> ProviderAddress {
        let given = given.trim();
        let given = given.split(['?', '#']).next().unwrap_or(given).trim_end_matches('/');
        let ending = self.endpoints.iter().find(|endpoint| given.ends_with(endpoint.ending));
        match ending {
            Some(EndpointSuffix { ending, wire_format: Some(wire_format) }) => {
                // A full endpoint includes the API version, even if that is empty.
                let path = if ending.ends_with(wire_format.path()) { wire_format.path() } else { "" };
                ProviderAddress {
                    base: given[..given.len() - path.len()].to_owned(),
                    wire_format: *wire_format,
                    version: "",
                }
            }
            Some(EndpointSuffix { ending, wire_format: None }) => {
                self.default_address(&given[..given.len() - ending.len()])
            }
            None => self.default_address(given),
        }
    }

    fn default_address(&self, base: &str) -> ProviderAddress {
        let base = base.trim_end_matches('/');
        let after_scheme = base.split_once("://").map_or(base, |(_, rest)| rest);
        let own_path = after_scheme.find('/').map_or("", |at| &after_scheme[at..]);
        let has_version = own_path.ends_with(self.version)
            || (self.nested == NestedBase::HasVersion && !own_path.is_empty());
        let version = if has_version { "" } else { self.version };
        ProviderAddress { base: base.to_owned(), wire_format: self.wire_format, version }
    }

    /// Returns the URL of a vendor-specific path (list of models, embeddings). It is at the vendor's usual API,
    /// whichever endpoint the address names.
    pub fn vendor_url(&self, address: &ProviderAddress, path: &str) -> String {
        if address.wire_format == self.wire_format {
            return address.url(path);
        }
        format!("{}{}{path}", self.root_url(address), self.version)
    }

    /// Returns the address outside any API version, where local servers identify themselves.
    pub fn root_url<'a>(&self, address: &'a ProviderAddress) -> &'a str {
        let versions = [self.version, "/v1", "/api"].into_iter().filter(|version| !version.is_empty());
        let base = address.base.as_str();
        versions.filter_map(|version| base.strip_suffix(version)).next().unwrap_or(base)
    }

    /// Returns the means of obtaining a reply in JSON in this wire format, with the given number of tools.
    pub fn structured_mode(&self, wire_format: WireFormat, tools: usize) -> StructuredMode {
        match wire_format {
            // The vendor's own models can be required to call a tool; other servers with this format may not enforce
            // it.
            WireFormat::Anthropic if self.structured == StructuredMode::Tool => StructuredMode::Tool,
            WireFormat::Anthropic => StructuredMode::Instruction,
            // These formats constrain every reply, which excludes tool calls, or refuse the combination.
            WireFormat::Gemini | WireFormat::Ollama | WireFormat::Generate | WireFormat::Completion
                if tools > 0 =>
            {
                StructuredMode::Instruction
            }
            WireFormat::Gemini | WireFormat::Ollama | WireFormat::Generate => StructuredMode::Schema,
            WireFormat::Completion => StructuredMode::Grammar,
            WireFormat::OpenAi | WireFormat::Responses | WireFormat::Scripted => match self.structured {
                StructuredMode::Grammar if tools > 0 => StructuredMode::Instruction,
                own => own,
            },
        }
    }
}
