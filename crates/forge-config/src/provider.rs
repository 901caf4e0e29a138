//! The order in which providers are chosen when none is named (PROV-3).

/// Providers with keys: the first whose key is there is asked.
pub const KEYED_PROVIDERS: [&str; 4] = ["openai", "anthropic", "gemini", "openrouter"];

/// Local servers: without any key, the first that answers is asked.
pub const LOCAL_PROVIDERS: [&str; 2] = ["ollama", "llama_cpp"];
