//! Fallbacks, thresholds and tiers: how they are written, and what is said of wrong ones.

use crate::support::Place;

#[test]
fn fallbacks_are_written_as_texts_tables_or_one_variable() {
    let mut place = Place::new();
    let read = |place: &Place| place.load().settings.model.fallbacks;
    assert!(read(&place).is_empty() && !place.load().is_set("model.fallbacks"));
    place.user("[model]\nfallbacks = ['anthropic', 'ollama:llama3:8b']\n");
    assert_eq!(read(&place), ["anthropic", "ollama:llama3:8b"]);
    place.user("[[model.fallbacks]]\nprovider = 'openai'\nname = 'gpt-4o'\norganization_id = 'org-1'\n");
    assert_eq!(read(&place), ["openai:gpt-4o organization_id=org-1"]);
    std::fs::remove_file(place.root().join("home/.config/forge/forge.toml")).unwrap();
    place.write(
        "home/.config/forge/forge.yaml",
        "model:\n  fallbacks:\n    - provider: gemini\n    - anthropic:x\n",
    );
    assert_eq!(read(&place), ["gemini", "anthropic:x"]);
    place.set("FORGE_MODEL_FALLBACKS", "anthropic:NAME, gemini:NAME");
    assert_eq!(read(&place), ["anthropic:NAME", "gemini:NAME"]);
    place.set("FORGE_MODEL_FALLBACKS", "none");
    assert!(read(&place).is_empty() && place.load().is_set("model.fallbacks"));
}

#[test]
fn wrong_fallbacks_are_named_with_their_place() {
    let place = Place::new();
    let fault = |text: &str| {
        place.user(text);
        place.faults().join("\n")
    };
    let at = "home/.config/forge/forge.toml:";
    let unknown = fault("[model]\nfallbacks = ['antropic']\n");
    assert!(unknown.starts_with(&format!("{at}2: model.fallbacks: ")), "{unknown}");
    assert!(
        unknown.contains("found the unknown provider `antropic`; did you mean `anthropic`?"),
        "{unknown}"
    );
    let itself = fault("[model]\nprovider = 'openai'\nfallbacks = ['gemini', 'openai:gpt-4o']\n");
    assert!(itself.contains(":3: model.fallbacks: expected providers other than model.provider"), "{itself}");
    let twice = fault("[model]\nfallbacks = ['gemini', 'gemini:x']\n");
    assert!(twice.contains("found `gemini` twice"), "{twice}");
    let table = fault("[model]\nfallbacks = [{provider = 'gemini', modle = 'x'}]\n");
    assert!(table.contains("found an invalid entry: unknown key `modle`"), "{table}");
    let custom = fault("[model]\nfallbacks = ['custom:x']\n");
    assert!(custom.contains("set providers.custom.base_url"), "{custom}");
    let number = fault("[model]\nfallbacks = [3]\n");
    assert!(number.contains("expected a list of `provider:model`"), "{number}");
}

#[test]
fn a_flag_may_name_whom_the_file_falls_back_to() {
    let mut place = Place::new();
    place.user("[model]\nprovider = 'openai'\nfallbacks = ['anthropic']\n");
    place.flag("model.provider", "anthropic", "--provider");
    assert_eq!(place.load().settings.model.fallbacks, ["anthropic"]);
}

#[test]
fn thresholds_out_of_order_and_out_of_range_are_refused() {
    let mut place = Place::new();
    place.user("[routing]\nsimple_threshold = 0.8\n");
    assert_eq!(
        place.faults(),
        [
            "home/.config/forge/forge.toml:2: routing.simple_threshold: expected less than routing.complex_threshold, \
          which is 0.7, found `0.8`; the thresholds must be in ascending order: swap or change them"
        ]
    );
    place.user("[routing]\nsimple_threshold = 0.5\ncomplex_threshold = 0.5\n");
    assert!(place.faults()[0].contains(":3: routing.complex_threshold: expected more than"));
    place.user("[routing]\ncomplex_threshold = 1.5\n");
    assert!(place.faults()[0].contains("expected a number from 0 to 1, found `1.5`"));
    place.user("");
    place.set("COMPLEXITY_SIMPLE_THRESHOLD", "0.4").set("DEFAULT_COMPLEX_MODEL", "openai/gpt-4o");
    let routing = place.load().settings.routing;
    assert_eq!((routing.simple_threshold, routing.complex_model.as_deref()), (0.4, Some("openai/gpt-4o")));
}

#[test]
fn models_of_tiers_and_agents_name_their_provider() {
    let place = Place::new();
    place.user(
        "[routing]\nsimple_model = 'gpt-4o'\ncomplex_model = 'opanai/gpt-4o'\n\n[agents.coder]\npin = true\n",
    );
    let faults = place.faults().join("\n");
    assert!(faults.contains(":2: routing.simple_model: expected a known provider and a model"), "{faults}");
    assert!(faults.contains("did you mean `openai/gpt-4o`?"), "{faults}");
    assert!(faults.contains(":6: agents.coder.pin: expected a model in agents.coder.model"), "{faults}");
}
