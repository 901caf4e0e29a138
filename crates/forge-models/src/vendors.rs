//! The providers as data. No other file compares a provider's name with anything.

use crate::wire_format::WireFormat;

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
pub enum DetectionRule {
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

/// How a provider is made to answer in JSON that fits a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StructuredMode {
    /// It takes a JSON Schema.
    Schema,
    /// It takes a grammar, or makes one from a JSON Schema.
    Grammar,
    /// By a tool that it has to call, whose parameters are the schema.
    Tool,
    /// By being told to.
    Instruction,
}

/// How a provider turns texts into vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbeddingApi {
    /// `POST …/embeddings` as OpenAI has it.
    OpenAi,
    /// `POST …:batchEmbedContents`.
    Gemini,
    /// `POST …/api/embed`.
    Ollama,
    /// Not at all.
    None,
}

/// An ending of a base URL that is a full endpoint.
#[derive(Clone, Copy, Debug)]
pub struct EndpointSuffix {
    /// The ending, without what stands before the API version.
    pub ending: &'static str,
    /// The shape that is spoken there; `None`: it is no place for conversations, and the usual one is taken.
    pub shape: Option<WireFormat>,
}

const fn native_endpoint(ending: &'static str, shape: WireFormat) -> EndpointSuffix {
    EndpointSuffix { ending, shape: Some(shape) }
}

const fn sibling_endpoint(ending: &'static str) -> EndpointSuffix {
    EndpointSuffix { ending, shape: None }
}

/// One provider.
#[derive(Debug)]
pub struct Vendor {
    /// Its name in configuration, events and prices.
    pub name: &'static str,
    /// The wire shape it speaks unless its base URL names another endpoint.
    pub shape: WireFormat,
    /// Where it is; `None` must be configured.
    pub base_url: Option<&'static str>,
    /// The API version's place in paths.
    pub version: &'static str,
    /// What a base URL with a path means.
    pub nested: NestedBase,
    /// Endings of base URLs that are full endpoints; they are cut off and choose the shape. Longest first.
    pub endpoints: &'static [EndpointSuffix],
    /// Environment variables that hold the key, canonical one first.
    pub key_env: &'static [&'static str],
    /// Environment variables that hold the base URL, canonical one first.
    pub base_url_env: &'static [&'static str],
    /// Whether it wants a key.
    pub key: KeyRule,
    /// The model asked when none is named; `None` must be configured.
    pub default_model: Option<&'static str>,
    /// How it is found.
    pub detect: DetectionRule,
    /// The header that names the organization.
    pub organization_header: Option<&'static str>,
    /// The name of the parameter that limits the reply in OpenAI's chat shape.
    pub allowance: &'static str,
    /// How it is made to answer in JSON in its usual shape; the other shapes have one way each.
    pub structured: StructuredMode,
    /// How it turns texts into vectors.
    pub embedding: EmbeddingApi,
    /// Window in tokens assumed for models that the catalog does not know.
    pub window: u64,
    /// Path of the list of models below version, for connection tests; empty if there is none.
    pub models_path: &'static str,
}

/// Who is meant when nothing is named but an address: a server of the user's own.
pub const OWN_SERVER: &str = "custom";
/// Whom a router asks if nobody is named (PROV-3).
pub const ROUTER_DEFAULT_SERVER: &str = "llama_cpp";

/// What OpenAI serves, and those who follow it.
const OPENAI_ENDPOINTS: &[EndpointSuffix] = &[
    native_endpoint("/chat/completions", WireFormat::OpenAi),
    sibling_endpoint("/completions"),
    native_endpoint("/responses", WireFormat::Responses),
    sibling_endpoint("/embeddings"),
];

/// What a server of the user's own may serve.
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

/// All providers, in the fixed order in which they are looked for.
pub const VENDORS: &[Vendor] = &[
    Vendor {
        name: "openai",
        shape: WireFormat::OpenAi,
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
        shape: WireFormat::Anthropic,
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
        shape: WireFormat::Gemini,
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
        shape: WireFormat::OpenAi,
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
        shape: WireFormat::Ollama,
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
        name: "llama_cpp",
        shape: WireFormat::OpenAi,
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
        name: "custom",
        shape: WireFormat::OpenAi,
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
        name: "scripted",
        shape: WireFormat::Scripted,
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

/// The vendor of this name.
pub fn find_vendor(name: &str) -> Option<&'static Vendor> {
    VENDORS.iter().find(|vendor| vendor.name == name)
}

/// Where a provider is asked, and in which shape: a base URL taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderAddress {
    /// The base URL without trailing slash, query and endpoint.
    pub base: String,
    /// The shape that is spoken there.
    pub shape: WireFormat,
    /// The API version that paths get in front; empty if the base has one already.
    version: &'static str,
}

impl ProviderAddress {
    /// The URL of `path` (which begins with a slash) below the API version.
    pub fn url(&self, path: &str) -> String {
        format!("{}{}{path}", self.base, self.version)
    }
}

impl Vendor {
    /// Takes a base URL apart. One that is a full endpoint is cut to its base and chooses the shape.
    pub fn parse_address(&self, given: &str) -> ProviderAddress {
        let given = given.trim();
        let given = given.split(['?', '#']).next().unwrap_or(given).trim_end_matches('/');
        let ending = self.endpoints.iter().find(|endpoint| given.ends_with(endpoint.ending));
        match ending {
            Some(EndpointSuffix { ending, shape: Some(shape) }) => {
                // Whoever wrote the endpoint wrote the API version, be it empty.
                let path = if ending.ends_with(shape.path()) { shape.path() } else { "" };
                ProviderAddress {
                    base: given[..given.len() - path.len()].to_owned(),
                    shape: *shape,
                    version: "",
                }
            }
            Some(EndpointSuffix { ending, shape: None }) => {
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
        ProviderAddress { base: base.to_owned(), shape: self.shape, version }
    }

    /// The URL of a path of the vendor's own (its list of models, its embeddings), which is where its usual shape
    /// is, whichever endpoint the address names.
    pub fn vendor_url(&self, address: &ProviderAddress, path: &str) -> String {
        if address.shape == self.shape {
            return address.url(path);
        }
        format!("{}{}{path}", self.root_url(address), self.version)
    }

    /// The address past any API version: where local servers tell who they are.
    pub fn root_url<'a>(&self, address: &'a ProviderAddress) -> &'a str {
        let versions = [self.version, "/v1", "/api"].into_iter().filter(|version| !version.is_empty());
        let base = address.base.as_str();
        versions.filter_map(|version| base.strip_suffix(version)).next().unwrap_or(base)
    }

    /// How a reply in JSON is asked for in this shape, beside tools or without.
    pub(crate) fn structured_mode(&self, shape: WireFormat, tools: usize) -> StructuredMode {
        match shape {
            // A call can be demanded of the vendor's own models; other servers of this shape may not enforce it.
            WireFormat::Anthropic if self.structured == StructuredMode::Tool => StructuredMode::Tool,
            WireFormat::Anthropic => StructuredMode::Instruction,
            // These constrain every reply, so that none could be a tool call, or refuse both at once.
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
