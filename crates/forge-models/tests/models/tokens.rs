//! Counting tokens: known counts, and what holds for every text.

use std::sync::Arc;

use forge_catalog::Catalog;
use forge_models::tokens::VocabularyCounter;
use forge_types::{Message, ModelRequest, ModelRoute, ModelSettings, ReplyFormat, Role, ToolResultPart};
use proptest::prelude::*;

fn find_counter(provider: &str, model: &str) -> Option<VocabularyCounter> {
    VocabularyCounter::in_catalog(Catalog::builtin(), provider, model)
}

fn counter() -> VocabularyCounter {
    find_counter("openai", "gpt-4o").unwrap()
}

fn request(messages: Vec<Message>) -> ModelRequest {
    ModelRequest {
        route: ModelRoute { provider: "openai".to_owned(), model: "gpt-4o".to_owned() },
        system: "You are careful.".to_owned(),
        messages: messages.into_iter().map(Arc::new).collect(),
        tools: Vec::new(),
        settings: ModelSettings { max_tokens: None, temperature: None, top_p: None, timeout_ms: 1 },
        format: ReplyFormat::Text,
        organization: None,
    }
}

#[test]
fn models_without_a_public_vocabulary_have_no_counter() {
    assert!(find_counter("anthropic", "claude-sonnet-4-20250514").is_none());
    assert!(find_counter("gemini", "gemini-2.5-flash").is_none());
    assert!(find_counter("ollama", "llama3").is_none());
    let known = find_counter("openai", "gpt-3.5-turbo").unwrap();
    assert_eq!(format!("{known:?}"), "Counter(cl100k_base)");
}

/// Counts that OpenAI's own guide names for this vocabulary.
#[test]
fn published_counts_are_met() {
    let cl100k = find_counter("openai", "gpt-4").unwrap();
    assert_eq!(cl100k.count_text("tiktoken is great!"), 6);
    assert_eq!(cl100k.count_text("antidisestablishmentarianism"), 6);
    assert_eq!(counter().count_text("hello world"), 2);
    assert_eq!(counter().count_text(""), 0);
}

#[test]
fn a_request_counts_all_that_it_holds() {
    let short = counter().count_request(&request(vec![Message::user("hello world")]));
    assert!(
        (9..=20).contains(&short),
        "two texts of five tokens in all and what stands around them: {short}"
    );
    let result = ToolResultPart {
        call_id: "c".to_owned(),
        name: "read_file".to_owned(),
        content: "hello world ".repeat(1000).into(),
        ok: true,
    };
    let long = counter().count_request(&request(vec![Message::user("hello world"), Message::tool(result)]));
    assert!((short + 2_000..short + 2_100).contains(&long), "{long}");
    let said = Message { role: Role::Assistant, parts: Vec::new() };
    assert!(counter().count_request(&request(vec![said])) < short);
}

/// Texts on which counting goes wrong easily: long runs of one thing, and a text that is counted twice.
#[test]
fn runs_of_one_character_are_counted() {
    for text in [" ".repeat(300_000), "a".repeat(100_000), "\n".repeat(100_000), "🦀".repeat(20_000)] {
        let count = counter().count_text(&text);
        assert!(count > 0 && count <= text.len() as u64);
        assert_eq!(counter().count_text(&text), count);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_text_has_more_tokens_than_bytes(text in "\\PC{0,300}|[ \\t\\n\\r]{0,300}|.{0,300}") {
        let count = counter().count_text(&text);
        prop_assert!(count <= text.len() as u64);
        prop_assert!(text.is_empty() || count > 0);
    }
}
