//! The order in which providers are tried when none is configured (PROV-3).

/// Providers with API keys: the first one with a key is used.
pub const KEYED_PROVIDERS: [&str; 4] = ["openai", "anthropic", "gemini", "openrouter"];

/// Local servers: without any API key, the first one that answers is used.
pub const LOCAL_PROVIDERS: [&str; 2] = ["ollama", "llama_cpp"];
