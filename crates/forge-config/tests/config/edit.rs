//! `forge config get|set|path`: one key at a time, comments kept.

use crate::support::{Place, value};
use forge_config::edit::{EditError, EditTarget, config_locations, get_key, set_key};
use std::fs;

#[test]
fn one_key_is_shown_and_an_unknown_one_gets_a_hint() {
    let place = Place::new();
    let loaded = place.load();
    assert_eq!(get_key(&loaded, "sandbox.memory_limit").unwrap().value.as_deref(), Some("2g"));
    assert_eq!(get_key(&loaded, "agent.default_model").unwrap().key, "model.name");
    let error = get_key(&loaded, "sandbox.memory_limits").unwrap_err().to_string();
    assert!(error.contains("did you mean `sandbox.memory_limit`?"), "{error}");
}

#[test]
fn the_users_file_is_made_and_changed() {
    let place = Place::new();
    let edited = set_key(&place.dirs(), EditTarget::User, "sandbox.memory_limit", "4g").unwrap();
    assert_eq!(edited.path, place.root().join("home/.config/forge/forge.toml"));
    set_key(&place.dirs(), EditTarget::User, "agent.max_cost_usd", "2").unwrap();
    set_key(&place.dirs(), EditTarget::User, "providers.ollama.base_url", "http://127.0.0.1:1").unwrap();
    set_key(&place.dirs(), EditTarget::User, "name", "x").unwrap();
    let text = fs::read_to_string(&edited.path).unwrap();
    assert_eq!(
        text,
        "name = \"x\"\n[sandbox]\nmemory_limit = \"4g\"\n\n[agent]\nmax_cost_usd = 2.0\n\n\
         [providers.ollama]\nbase_url = \"http://127.0.0.1:1\"\n"
    );
    let loaded = place.load();
    assert_eq!(loaded.settings.sandbox.memory_limit, 4 << 30);
    assert_eq!(loaded.settings.name.as_deref(), Some("x"));
}

#[test]
fn comments_and_order_stay() {
    let place = Place::new();
    place.user("# top\n[agent] # limits\nmax_iterations = 3 # few\n\n# end\n");
    set_key(&place.dirs(), EditTarget::User, "agent.max_iterations", "4").unwrap();
    let text = fs::read_to_string(place.root().join("home/.config/forge/forge.toml")).unwrap();
    assert_eq!(text, "# top\n[agent] # limits\nmax_iterations = 4 # few\n\n# end\n");

    let path = place.write(
        "repo/forge.yaml",
        "# top\nagent: # limits\n    max_iterations: 3 # few\n\nsandbox:\n  env_vars: [A, B] # two\nname: 'it''s'\n",
    );
    let target = place.repo();
    for (key, value) in [
        ("agent.max_iterations", "4"),
        ("sandbox.env_vars", "C"),
        ("agent.on_limit", "wait"),
        ("model.name", "a: \"b\" # c"),
        ("providers.openai.default_model", "m"),
        ("language", "rust"),
    ] {
        set_key(&place.dirs(), EditTarget::Project(&target), key, value).unwrap();
    }
    assert_eq!(
        fs::read_to_string(path).unwrap(),
        "# top\nagent: # limits\n    on_limit: \"wait\"\n    max_iterations: 4 # few\n\nsandbox:\n  env_vars: [\"C\"] # two\n\
         name: 'it''s'\nmodel:\n  name: \"a: \\\"b\\\" # c\"\nproviders:\n  openai:\n    default_model: \"m\"\nlanguage: \"rust\"\n"
    );
    place.trust();
    assert_eq!(value(&place.load(), "model.name").0.as_deref(), Some("a: \"b\" # c"));
}

#[test]
fn what_can_not_be_changed_safely_is_left_alone() {
    let place = Place::new();
    for text in [
        "agent: {max_iterations: 3}\n",
        "agent:\n  max_iterations:\n    3\n",
        "- a\n",
        "agent: &x\n  on_limit: end\n",
    ] {
        let path = place.write("repo/forge.yaml", text);
        let error = set_key(&place.dirs(), EditTarget::Project(&place.repo()), "agent.max_iterations", "4")
            .unwrap_err();
        assert!(matches!(error, EditError::ByHand { .. }), "{text}: {error}");
        assert!(error.to_string().contains("add `agent.max_iterations: 4` there yourself"));
        assert_eq!(fs::read_to_string(path).unwrap(), text);
    }
    let error =
        set_key(&place.dirs(), EditTarget::User, "agent.max_iterations", "0").unwrap_err().to_string();
    assert!(error.contains("expected a whole number from 1 to 10000, found `0`"), "{error}");
    let empty = Place::new();
    let error = set_key(&empty.dirs(), EditTarget::Project(&empty.repo()), "name", "x").unwrap_err();
    assert_eq!(error.next_step(), Some(forge_types::NextStep::InitProject));
}

#[test]
fn a_users_change_keeps_trust_and_gives_none() {
    let place = Place::new();
    place.project("[sandbox]\nnetwork_enabled = true\n");
    let change = |value| {
        set_key(&place.dirs(), EditTarget::Project(&place.repo()), "agent.max_iterations", value).unwrap()
    };
    change("4");
    assert!(!place.load().settings.sandbox.network_enabled);
    place.trust();
    change("5");
    assert!(place.load().settings.sandbox.network_enabled);
}

#[test]
fn places_are_listed_strongest_first() {
    let place = Place::new();
    place.project("");
    let found = config_locations(&place.sources()).unwrap();
    let shown: Vec<_> = found.iter().map(|found| (found.layer, found.exists)).collect();
    assert_eq!(shown, [("project", true), ("user", false), ("state", false)]);
}
