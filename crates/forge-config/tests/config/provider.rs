//! Provider, model and address belong together; keys belong to their providers.

use crate::support::Place;
use forge_config::{ForgeSettings, keyed_providers};

fn model(settings: &ForgeSettings) -> (Option<&str>, Option<&str>, Option<&str>) {
    let model = &settings.model;
    (model.provider.as_deref(), model.name.as_deref(), model.base_url.as_deref())
}

#[test]
fn keys_are_found_by_the_vendors_names() {
    let mut place = Place::new();
    assert_eq!(place.load().secrets.values_to_redact().count(), 0);
    place
        .set("OPENROUTER_API_KEY", "k-router")
        .set("GOOGLE_API_KEY", "k-google")
        .set("OPENAI_API_KEY", "k-openai");
    let secrets = place.load().secrets;
    let found: Vec<_> = keyed_providers().filter_map(|provider| secrets.variable_of(provider)).collect();
    assert_eq!(found, ["OPENAI_API_KEY", "GOOGLE_API_KEY", "OPENROUTER_API_KEY"]);
    place.set("GEMINI_API_KEY", "k-gemini");
    assert_eq!(place.load().secrets.variable_of("gemini"), Some("GEMINI_API_KEY"));
}

#[test]
fn another_provider_does_not_inherit_model_and_address() {
    let mut place = Place::new();
    place.user("[model]\nprovider = \"custom\"\nbase_url = \"http://own.test/v1\"\nname = \"own-model\"\n");
    place.flag("model.provider", "google", "--provider");
    let loaded = place.load();
    assert_eq!(model(&loaded.settings), (Some("gemini"), None, None));
    let messages: Vec<_> = loaded.notices.iter().map(|notice| notice.message.clone()).collect();
    let name = "forge.toml:4: model.name is ignored: it is for custom, but --provider selects gemini";
    assert!(messages[0].contains(name), "{messages:?}");
    assert!(messages[1].contains("model.base_url is ignored"));

    // An address alone is for a server of one's own, too: no vendor's key may go there.
    place.user("[model]\nbase_url = \"http://own.test/v1\"\nname = \"m\"\n");
    assert_eq!(model(&place.load().settings), (Some("gemini"), Some("m"), None));

    // The same provider, or what the same layer or a stronger one says, stays.
    let mut place = Place::new();
    place.set("FORGE_MODEL_BASE_URL", "http://own.test/v1").set("FORGE_MODEL_NAME", "m");
    place.flag("model.provider", "custom", "--provider");
    assert_eq!(model(&place.load().settings), (Some("custom"), Some("m"), Some("http://own.test/v1")));
    place.user("[model]\nprovider = \"ollama\"\nname = \"n\"\n");
    let fault = place.faults().remove(0);
    assert!(fault.contains("FORGE_MODEL_BASE_URL: model.base_url is ignored: it is for ollama"), "{fault}");
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
