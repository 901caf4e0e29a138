//! What bad input gets: every fault at once, with its place and a way out.

use crate::support::Place;

#[test]
fn all_faults_of_all_sources_are_reported_at_once() {
    let mut place = Place::new();
    place.user("[agent]\nmax_iterations = 0\n\n[sandbox]\nmemory_limit = \"2x\"\n");
    place.write("repo/forge.yaml", "agent:\n  max_iteration: 5\nsandbox:\n  network_enabled: \"yes\"\n");
    place.set("FORGE_MODEL_PROVIDER", "opanai").flag("agent.max_cost_usd", "lots", "--max-cost");
    assert_eq!(
        place.faults(),
        [
            "home/.config/forge/forge.toml:2: agent.max_iterations: expected a whole number from 1 to 10000, found `0`",
            "home/.config/forge/forge.toml:5: sandbox.memory_limit: expected a size from 64m to 64t, such as `2g`, \
             found `2x`; the unit `x` is not one of k, m, g, t",
            "repo/forge.yaml:2: expected a known key, found `agent.max_iteration`; \
             did you mean `agent.max_iterations`?",
            "repo/forge.yaml:4: sandbox.network_enabled: expected true or false, found the text `yes`; \
             write true or false, without quotes",
            "FORGE_MODEL_PROVIDER: model.provider: expected one of `openai`, `anthropic`, `gemini`, `openrouter`, \
             `ollama`, `llama_cpp`, `custom`, `scripted`, found `opanai`; did you mean `openai`?",
            "--max-cost: agent.max_cost_usd: expected a number from 0.000001 to 1000000, found `lots`",
        ]
    );
}

#[test]
fn unknown_keys_get_the_hint_that_fits() {
    let place = Place::new();
    let hint = |text: &str| {
        place.project(text);
        place.faults().remove(0).split("; ").nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(hint("max_iterations = 3"), "did you mean `agent.max_iterations`?");
    assert_eq!(hint("[sandbx]\npids = 3"), "did you mean `sandbox.pids`?");
    assert_eq!(hint("[sandboxx]\nwhatever = 3"), "did you mean the section [sandbox]?");
    assert_eq!(
        hint("[cost]\nsomething_else = 'x'"),
        "[cost] has the keys alert_at, allow_unknown, max_per_day_usd, reference_model"
    );
    assert_eq!(hint("[scheduling]\nenabled = true"), "");
    assert_eq!(hint("agent = 3"), "`agent` is a section: put its keys below it");
    let quoted = hint("\"agent.max_iterations\" = 3");
    assert_eq!(quoted, "did you mean `agent.max_iterations`?", "a quoted name is one part, not two");
    place.project("[agent.max_iterations]\nx = 1");
    assert!(place.faults()[0].ends_with("expected a whole number from 1 to 10000, found a section"));
}

#[test]
fn files_that_are_no_configuration_are_named_with_their_line() {
    let place = Place::new();
    place.project("name = \"a\"\n[agent\n");
    assert!(
        place.faults()[0].starts_with("repo/forge.toml:2: expected a TOML file, found "),
        "{:?}",
        place.faults()
    );
    std::fs::remove_file(place.repo().join("forge.toml")).unwrap();
    place.write("repo/forge.yaml", "name: a\nagent: [\n");
    assert!(place.faults()[0].starts_with("repo/forge.yaml:"));
    place.write("repo/forge.yaml", "just text\n");
    assert!(place.faults()[0].contains("expected `key: value` lines"));
    place.write("repo/forge.yaml", "name: a\nname: b\n");
    assert!(place.faults()[0].contains("duplicate"));
    place.write("repo/forge.yaml", &"#".repeat(300_000));
    assert!(place.faults()[0].contains("found more than 256 KiB"));
    place.write("repo/forge.toml", "");
    assert_eq!(
        place.faults(),
        ["repo: expected one configuration file, found forge.toml and forge.yaml; remove one of them"]
    );
    std::fs::remove_file(place.repo().join("forge.toml")).unwrap();
    std::fs::remove_file(place.repo().join("forge.yaml")).unwrap();
    std::fs::create_dir(place.repo().join("forge.toml")).unwrap();
    assert_eq!(place.faults(), ["repo/forge.toml: expected a readable text file, found a directory"]);
}

#[test]
fn texts_that_unfold_or_nest_without_end_are_faults() {
    let references = |level: usize| vec![format!("*a{}", level - 1); 9].join(",");
    let unfolding: String =
        (1..30).map(|level| format!("a{level}: &a{level} [{}]\n", references(level))).collect();
    let texts = [
        ("bomb.yaml", format!("a0: &a0 [x]\n{unfolding}")),
        ("itself.yaml", "a: &a [*a]\n".to_owned()),
        ("deep.yaml", "[".repeat(20_000)),
        ("deeper.yaml", "- ".repeat(20_000)),
        ("deep.toml", format!("a = {}", "[".repeat(20_000))),
        ("dots.toml", format!("{} = 1", vec!["a"; 50_000].join("."))),
    ];
    for (name, text) in texts {
        let mut place = Place::new();
        place.config_path = Some(place.write(name, &text));
        let faults = place.try_load().err().unwrap_or_else(|| panic!("{name} is taken"));
        assert!(faults.to_string().contains(name), "{name}: {faults}");
    }
}

#[test]
fn settings_that_do_not_go_together_are_faults() {
    let place = Place::new();
    place.user(
        "[sandbox]\nbackend = \"process\"\ntimeout_seconds = 10\ncommand_timeout_seconds = 20\nenv_vars = [\"OPENAI_API_KEY\"]\n\
         [model]\nprovider = \"custom\"\n",
    );
    let faults = place.faults();
    assert_eq!(faults.len(), 4, "{faults:?}");
    assert!(faults[0].contains("at most sandbox.timeout_seconds, which is 10, found `20`"));
    assert!(faults[1].contains("set sandbox.allow_unisolated = true"));
    assert!(faults[2].contains("keys never enter the sandbox"));
    assert!(faults[3].contains("set model.base_url"));
    place.user("[model]\nprovider = \"scripted\"\n");
    assert!(place.faults()[0].contains("set providers.scripted.script"));
}

#[test]
fn values_keep_their_types_and_ranges() {
    let place = Place::new();
    let fault = |text: &str| {
        place.user(text);
        place.faults().remove(0)
    };
    assert!(fault("name = 5").contains("found `5`; put it in quotes"));
    assert!(fault("agent.max_iterations = \"25\"").contains("write it without quotes"));
    assert!(fault("agent.max_iterations = 2.5").contains("found `2.5`"));
    assert!(fault("agent.temperature = nan").contains("found `NaN`"));
    assert!(fault("tools.enabled = \"a\"").contains("put it in brackets"));
    assert!(fault("tools.enabled = [1]").contains("found the entry `1`"));
    assert!(fault("workspace.reveal = [\"../x\"]").contains("the entry `../x`"));
    assert!(fault("model.base_url = \"example.com/v1\"").contains("put http:// or https:// in front"));
    assert!(fault("model.timeout_seconds = \"1500ms\"").contains("it must be whole seconds"));
    assert!(fault("model.name = \"\"").contains("omit the key"));
    assert!(fault("name = \"a\\u001b[31m\"").contains("\\u{1b}"));
    assert!(fault("[[agent]]\nmax_iterations = 1").contains("found `agent`"));
    place.user("agent.max_cost_usd = 2\nmodel.timeout_seconds = \"2m\"\nsandbox.memory_limit = 1073741824\n");
    let loaded = place.load();
    assert_eq!(loaded.settings.model.timeout_seconds, 120);
    assert_eq!(crate::support::value(&loaded, "sandbox.memory_limit").0.as_deref(), Some("1g"));
}

#[test]
fn a_file_with_very_many_faults_is_answered_in_short() {
    let place = Place::new();
    let text: String = (0..5_000).map(|index| format!("key_{index} = {index}\n")).collect();
    place.project(&text);
    let faults = place.try_load().unwrap_err();
    assert_eq!(faults.0.len(), 5_000);
    assert!(faults.to_string().ends_with("… and 4900 more"));
}

#[test]
fn settings_that_can_not_be_examined_are_not_settings_that_were_never_made() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let place = Place::new();
    place.user("[runtime]\nallowed_shell_commands = [\"ls\"]\n");
    let (own, kept) = (place.root().join("home/.config/forge"), place.root().join("kept"));
    std::fs::rename(&own, &kept).unwrap();
    for target in ["forge", "/nowhere/forge"] {
        symlink(target, &own).unwrap();
        let faults = place.faults();
        assert!(faults[0].starts_with("home/.config/forge/forge.toml: expected"), "{faults:?}");
        std::fs::remove_file(&own).unwrap();
    }
    assert!(place.try_load().is_ok(), "without the directory there are no settings");
    std::fs::rename(&kept, &own).unwrap();
    std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o000)).unwrap();
    // Root may search every directory.
    if own.join("forge.toml").metadata().is_err() {
        let faults = place.faults();
        assert!(faults[0].contains("ermission"), "{faults:?}");
    }
    std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o700)).unwrap();
}
