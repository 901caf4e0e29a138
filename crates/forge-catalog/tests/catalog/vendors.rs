//! Vendors and base URLs.

use forge_catalog::vendors::{VENDORS, find_vendor};

#[test]
fn providers_are_looked_for_in_the_documented_order() {
    let names: Vec<_> = VENDORS.iter().map(|vendor| vendor.name).collect();
    assert_eq!(
        names,
        ["openai", "anthropic", "gemini", "openrouter", "ollama", "llama_cpp", "custom", "scripted"]
    );
}

#[test]
fn endpoints_are_cut_to_their_base() {
    use forge_catalog::WireFormat::{Anthropic, Completion, Gemini, Generate, Ollama, OpenAi, Responses};
    let chat = "/chat/completions";
    for (name, base, path, format, whole) in [
        ("openai", "https://api.openai.com/v1", chat, OpenAi, "https://api.openai.com/v1/chat/completions"),
        ("openai", "https://api.openai.com", chat, OpenAi, "https://api.openai.com/v1/chat/completions"),
        (
            "openai",
            "https://api.openai.com/v1/responses?x=1",
            "/responses",
            Responses,
            "https://api.openai.com/v1/responses",
        ),
        (
            "openrouter",
            "https://openrouter.ai/api/v1/chat/completions",
            chat,
            OpenAi,
            "https://openrouter.ai/api/v1/chat/completions",
        ),
        ("custom", "http://127.0.0.1:8000/", chat, OpenAi, "http://127.0.0.1:8000/v1/chat/completions"),
        ("custom", "https://host/openai/v2", chat, OpenAi, "https://host/openai/v2/chat/completions"),
        ("custom", "https://host/chat/completions", chat, OpenAi, "https://host/chat/completions"),
        ("custom", "https://host/v1/messages", "/messages", Anthropic, "https://host/v1/messages"),
        ("llama_cpp", "http://127.0.0.1:8080", chat, OpenAi, "http://127.0.0.1:8080/v1/chat/completions"),
        (
            "llama_cpp",
            "http://127.0.0.1:8080/completion/",
            "/completion",
            Completion,
            "http://127.0.0.1:8080/completion",
        ),
        (
            "llama_cpp",
            "http://127.0.0.1:8080/props",
            chat,
            OpenAi,
            "http://127.0.0.1:8080/v1/chat/completions",
        ),
        (
            "ollama",
            "http://localhost:11434/api/generate",
            "/generate",
            Generate,
            "http://localhost:11434/api/generate",
        ),
        ("ollama", "http://localhost:11434/api/chat", "/chat", Ollama, "http://localhost:11434/api/chat"),
        ("ollama", "http://localhost:11434/", "/chat", Ollama, "http://localhost:11434/api/chat"),
        ("ollama", "http://localhost:11434/v1", chat, OpenAi, "http://localhost:11434/v1/chat/completions"),
        (
            "anthropic",
            "https://api.anthropic.com",
            "/messages",
            Anthropic,
            "https://api.anthropic.com/v1/messages",
        ),
        (
            "anthropic",
            "https://proxy/anthropic",
            "/messages",
            Anthropic,
            "https://proxy/anthropic/v1/messages",
        ),
        (
            "anthropic",
            "https://api.anthropic.com/v1/messages",
            "/messages",
            Anthropic,
            "https://api.anthropic.com/v1/messages",
        ),
        ("gemini", "https://host/v1beta/", "/models/m:x", Gemini, "https://host/v1beta/models/m:x"),
        ("gemini", "https://host/v1beta/models", "/models/m:x", Gemini, "https://host/v1beta/models/m:x"),
    ] {
        let address = find_vendor(name).unwrap().parse_address(base);
        assert_eq!((address.url(path).as_str(), address.wire_format), (whole, format), "{name} {base}");
    }
}

#[test]
fn what_a_vendor_serves_beside_conversations_stays_where_it_is() {
    for (name, base, whole) in [
        ("ollama", "http://h/api/generate", "http://h/api/tags"),
        ("ollama", "http://h/v1", "http://h/api/tags"),
        ("ollama", "http://h", "http://h/api/tags"),
        ("llama_cpp", "http://h/completion", "http://h/v1/models"),
        ("llama_cpp", "http://h/v1/messages", "http://h/v1/models"),
        ("openai", "https://h/v1/responses", "https://h/v1/models"),
        ("custom", "https://h/openai/v2", "https://h/openai/v2/models"),
    ] {
        let vendor = find_vendor(name).unwrap();
        assert_eq!(
            vendor.vendor_url(&vendor.parse_address(base), vendor.models_path),
            whole,
            "{name} {base}"
        );
    }
}
