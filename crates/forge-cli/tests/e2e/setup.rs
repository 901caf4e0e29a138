//! Commands around runs: configuration, trust, init, validate, doctor, tools, completions, manual.

use crate::harness::World;

#[test]
fn values_are_shown_with_their_origin() {
    let mut world = World::new();
    world.file("forge.yaml", "agent:\n  max_iterations: 7\n");
    world.set("FORGE_MODEL_MAX_TOKENS", "999");
    let shown = world.forge(&["config", "--json"]).exits(0).json();
    let of = |key: &str| format!("{} {}", shown[key]["value"], shown[key]["origin"]);
    assert!(
        of("agent.max_iterations").starts_with("\"7\" \"")
            && of("agent.max_iterations").contains("forge.yaml:2")
    );
    assert_eq!(of("model.max_tokens"), "\"999\" \"FORGE_MODEL_MAX_TOKENS\"");
    assert!(of("sandbox.pids").ends_with("\"default\""), "{}", of("sandbox.pids"));
}

#[test]
fn a_value_is_set_in_a_file_and_read_back() {
    let world = World::new();
    world.file("forge.yaml", "# mine\nagent:\n  max_iterations: 7\n");
    world.forge(&["config", "set", "agent.max_iterations", "9"]).exits(0);
    assert_eq!(world.forge(&["config", "get", "agent.max_iterations"]).exits(0).out, "9\n");
    assert!(world.read("forge.yaml").contains("# mine"));
    world.forge(&["config", "set", "--user", "model.name", "mine"]).exits(0);
    assert_eq!(world.forge(&["config", "get", "model.name"]).exits(0).out, "mine\n");
    world.forge(&["config", "set", "agent.max_iterations", "lots"]).exits(2).says(&["whole number"]);
    world.forge(&["config", "get", "agent.max_iteration"]).exits(2).says(&["agent.max_iterations"]);
}

#[test]
fn all_unknown_keys_are_named_at_once_with_the_nearest_known_one() {
    let world = World::new();
    world.file(
        "forge.yaml",
        "agent:\n  max_iteration: 7\nmodle:\n  name: x\nsandbox:\n  network_enabled: maybe\n",
    );
    for words in [&["validate"][..], &["config", "validate"], &["run", "x"], &["config", "show"]] {
        world.forge(words).exits(2).says(&[
            "max_iteration",
            "max_iterations",
            "modle",
            "network_enabled",
            "true or false",
            "forge.yaml:2",
        ]);
    }
}

#[test]
fn init_makes_a_project_that_is_valid_and_trusted_and_overwrites_nothing() {
    let world = World::new();
    world.file("Cargo.toml", "[package]\n");
    world.forge(&["init", "shop", "--yes"]).exits(0).shows(&["created", "forge.yaml", ".gitignore"]);
    assert!(world.read("forge.yaml").contains("shop") && world.read("forge.yaml").contains("rust"));
    world.forge(&["validate"]).exits(0).shows(&["valid"]);
    let trust = world.forge(&["trust", "--show", "--json"]).exits(0).json();
    assert_eq!(trust["standing"], "trusted");
    let before = world.read("forge.yaml");
    world.forge(&["init", "other", "--yes"]).exits(0).shows(&["exists, unchanged"]);
    assert_eq!(world.read("forge.yaml"), before);
    let toml = World::new();
    toml.forge(&["init", "--yes", "--format", "toml", "-l", "node"]).exits(0);
    assert!(toml.read("forge.toml").contains("node"));
    // Spelled as the setting may be spelled.
    let spelled = World::new();
    spelled.forge(&["init", "--yes", "--format", "toml", "-l", "typescript"]).exits(0);
    assert!(
        spelled.read("forge.toml").contains("node") && !spelled.read("forge.toml").contains("typescript")
    );
}

#[test]
fn init_asks_nothing_without_a_terminal() {
    World::new().forge(&["init"]).exits(0);
}

#[test]
fn trust_asks_only_a_person() {
    let world = World::new();
    world.file("forge.yaml", "model:\n  base_url: http://127.0.0.1:1/v1\n");
    let shown = world.forge(&["trust"]).exits(2).says(&["forge trust --yes"]);
    assert!(shown.out.contains("base_url"), "{}", shown.out);
    world.forge(&["trust", "--yes"]).exits(0).shows(&["trusted"]);
    world.forge(&["trust"]).exits(0).shows(&["is trusted"]);
    world.file("forge.yaml", "model:\n  base_url: http://127.0.0.1:2/v1\n");
    world.forge(&["trust", "--show"]).exits(0).shows(&["has changed"]);
    world.forge(&["trust", "--revoke"]).exits(0).shows(&["no longer trusted"]);
    world.forge(&["trust", "--revoke"]).exits(0).shows(&["was not trusted"]);
}

#[test]
fn doctor_names_what_is_missing_and_never_a_key() {
    let mut world = World::new();
    let none = world.forge(&["doctor"]).exits(1).shows(&["OPENAI_API_KEY", "Not ready: ", "sandbox:"]);
    assert!(none.out.contains("FAIL"));
    world.set("ANTHROPIC_API_KEY", crate::harness::KEY);
    let some = world.forge(&["doctor", "--json"]);
    assert!(!some.out.contains(crate::harness::KEY));
    let checks = some.json()["checks"].as_array().unwrap().clone();
    let anthropic = checks.iter().find(|check| check["name"] == "provider: anthropic").unwrap();
    assert_eq!(anthropic["state"], "ok");
}

#[test]
fn tools_are_listed_and_described_by_any_of_their_names() {
    let world = World::new();
    let list = world.forge(&["tool", "list"]).exits(0);
    for tool in
        ["read_file", "write_file", "edit_file", "list_directory", "search_code", "find_files", "run_shell"]
    {
        assert!(list.out.contains(tool), "{}", list.out);
    }
    world.forge(&["tool", "describe", "file_read"]).exits(0).shows(&["read_file", "path", "required"]);
    world.forge(&["tool", "describe", "teleport"]).exits(2).says(&["no tool `teleport`", "run_shell"]);
}

#[test]
fn completions_and_the_manual_are_made_from_the_arguments() {
    let world = World::new();
    for (shell, mark) in [("bash", "complete -F"), ("zsh", "#compdef forge"), ("fish", "complete -c forge")] {
        world.forge(&["completions", shell]).exits(0).shows(&[mark, "max-iterations"]);
    }
    world.forge(&["completions", "tcl"]).exits(2);
    world.forge(&["man"]).exits(0).shows(&[".TH forge 1", "FORGE RUN", "max\\-iterations"]);
}

#[test]
fn nothing_is_written_outside_the_folders_of_the_user_and_the_project() {
    let world = World::new();
    for words in [&["list"][..], &["doctor"], &["config"], &["status"]] {
        world.forge(words);
    }
    assert_eq!(std::fs::read_dir(world.path("home")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(world.repo()).unwrap().count(), 0);
}

#[test]
fn what_boxes_left_behind_is_removed_and_named() {
    let world = World::new();
    assert!(world.forge(&["sandbox", "prune", "--json"]).exits(0).json()["removed"].is_array());
    // Boxes of other tests may have been killed just now.
    let said = world.forge(&["sandbox", "prune"]).exits(0).out;
    assert!(said.starts_with("Nothing to remove") || said.starts_with("removed "), "{said}");
}
