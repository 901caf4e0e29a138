//! Whom to ask, as far as settings and keys tell.

use crate::support::Place;
use forge_config::{Candidate, Choice};

fn candidate(provider: &str, model: Option<&str>, base_url: Option<&str>) -> Candidate {
    let text = |text: Option<&str>| text.map(str::to_owned);
    Candidate { provider: provider.to_owned(), model: text(model), base_url: text(base_url) }
}

#[test]
fn a_named_provider_wins_then_keys_in_fixed_order_then_local_servers() {
    let mut place = Place::new();
    let local = [candidate("ollama", Some("llama3"), None), candidate("llama_cpp", Some("default"), None)];
    assert_eq!(place.load().provider_choice(), Choice::Probe(local.to_vec()));
    place.set("OPENROUTER_API_KEY", "k-router").set("GOOGLE_API_KEY", "k-google");
    let gemini = candidate("gemini", Some("gemini-2.5-flash"), None);
    assert_eq!(place.load().provider_choice(), Choice::Detected(gemini));
    assert_eq!(place.load().secrets.variable("gemini"), Some("GOOGLE_API_KEY"));
    place.set("GEMINI_API_KEY", "k-gemini").set("FORGE_MODEL_NAME", "mine");
    assert_eq!(place.load().secrets.variable("gemini"), Some("GEMINI_API_KEY"));
    assert_eq!(place.load().provider_choice(), Choice::Detected(candidate("gemini", Some("mine"), None)));
    place.flag("model.provider", "google", "--provider");
    assert_eq!(place.load().provider_choice(), Choice::Named(candidate("gemini", Some("mine"), None)));
}

#[test]
fn an_address_without_a_provider_never_gets_a_vendors_key() {
    let mut place = Place::new();
    place.set("OPENAI_API_KEY", "k-openai").set("FORGE_MODEL_BASE_URL", "http://127.0.0.1:9/v1/");
    let loaded = place.load();
    let custom = candidate("custom", None, Some("http://127.0.0.1:9/v1"));
    assert_eq!(loaded.provider_choice(), Choice::Named(custom));
    assert!(loaded.secrets.get("custom").is_none());
}

#[test]
fn another_provider_does_not_inherit_model_and_address() {
    let mut place = Place::new();
    place.user("[model]\nprovider = \"custom\"\nbase_url = \"http://own.test/v1\"\nname = \"own-model\"\n");
    place.set("OPENAI_API_KEY", "k-openai").flag("model.provider", "openai", "--provider");
    let loaded = place.load();
    let openai = candidate("openai", Some("gpt-5.2-2025-12-11"), None);
    assert_eq!(loaded.provider_choice(), Choice::Named(openai));
    let messages: Vec<_> = loaded.notices.iter().map(|notice| notice.message.clone()).collect();
    assert!(messages[0].contains(
        "forge.toml:4: model.name is not used: it was meant for custom, and --provider asks openai"
    ));
    assert!(messages[1].contains("model.base_url is not used"));

    // An address alone is for a server of one's own, too.
    place.user("[model]\nbase_url = \"http://own.test/v1\"\nname = \"m\"\n");
    assert_eq!(place.load().provider_choice(), Choice::Named(candidate("openai", Some("m"), None)));

    // The same provider, or what the same layer or a stronger one says, stays.
    let mut place = Place::new();
    place.set("FORGE_MODEL_BASE_URL", "http://own.test/v1").set("FORGE_MODEL_NAME", "m");
    place.flag("model.provider", "custom", "--provider");
    let custom = candidate("custom", Some("m"), Some("http://own.test/v1"));
    assert_eq!(place.load().provider_choice(), Choice::Named(custom));
    place.user("[model]\nprovider = \"ollama\"\nname = \"n\"\n");
    let fault = place.faults().remove(0);
    assert!(
        fault.contains("FORGE_MODEL_BASE_URL: model.base_url is not used: it was meant for ollama"),
        "{fault}"
    );
}

#[test]
fn the_variable_of_a_key_can_be_chosen() {
    let mut place = Place::new();
    place
        .user("[providers.openai]\napi_key_env = \"WORK_KEY\"\n[providers.custom]\napi_key_env = \"MINE\"\n");
    place.set("OPENAI_API_KEY", "private").set("WORK_KEY", " work\n").set("MINE", "mine");
    let secrets = place.load().secrets;
    assert_eq!(secrets.get("openai").unwrap().expose(), "work");
    assert_eq!(secrets.get("custom").unwrap().expose(), "mine");
}
