//! Which source wins, and where a value says it came from.

use crate::support::{Place, value};
use forge_config::ValueOrigin;

#[test]
fn every_layer_wins_over_those_below_it() {
    let mut place = Place::new();
    let seen = |place: &Place| {
        let loaded = place.load();
        let (value, origin) = value(&loaded, "agent.max_iterations");
        (value.unwrap(), origin.rsplit('/').next().unwrap().to_owned(), loaded.settings.agent.max_iterations)
    };
    assert_eq!(seen(&place), ("25".into(), "default".into(), 25));
    place.user("# mine\n[agent]\nmax_iterations = 24\n");
    assert_eq!(seen(&place), ("24".into(), "forge.toml:3".into(), 24));
    place.write("repo/forge.yaml", "agent:\n\n  max_iterations: 23\n");
    assert_eq!(seen(&place), ("23".into(), "forge.yaml:3".into(), 23));
    let file = place.write("env", "OTHER=1\nFORGE_AGENT_MAX_ITERATIONS=22\n");
    place.env_file = Some(file);
    assert_eq!(seen(&place), ("22".into(), "env:2 (FORGE_AGENT_MAX_ITERATIONS)".into(), 22));
    place.set("AGENT_MAX_ITERATIONS", "21");
    assert_eq!(seen(&place), ("21".into(), "AGENT_MAX_ITERATIONS".into(), 21));
    place.set("AGENT_FORGE_AGENT_MAX_ITERATIONS", "20");
    assert_eq!(seen(&place).0, "20");
    place.set("FORGE_AGENT_MAX_ITERATIONS", "19");
    assert_eq!(seen(&place).1, "FORGE_AGENT_MAX_ITERATIONS");
    place.flag("agent.max_iterations", "18", "--max-iterations");
    assert_eq!(seen(&place), ("18".into(), "--max-iterations".into(), 18));
}

#[test]
fn config_replaces_the_project_file_and_not_the_users() {
    let mut place = Place::new();
    place.project("name = \"project\"\nlanguage = \"rust\"\n").user("[tools]\nenabled = [\"read_file\"]\n");
    let other = place.write("other.yaml", "name: other\n");
    place.config_path = Some(other);
    let settings = place.load().settings;
    assert_eq!(settings.name.as_deref(), Some("other"));
    assert_eq!(settings.language, None);
    assert_eq!(settings.tools.enabled, ["read_file"]);

    place.config_path = Some("missing.toml".into());
    assert!(
        place.faults()[0].contains("repo/missing.toml: expected a readable text file, found no such file")
    );
}

#[test]
fn other_spellings_of_a_key_work_and_the_canonical_one_wins() {
    let mut place = Place::new();
    place.user("[agent]\ndefault_provider = \"ollama\"\ndefault_model = \"a\"\n[model]\nname = \"b\"\n");
    let loaded = place.load();
    assert_eq!(loaded.settings.model.provider.as_deref(), Some("ollama"));
    assert_eq!(loaded.settings.model.name.as_deref(), Some("b"));
    assert!(
        loaded
            .notices
            .iter()
            .any(|notice| notice.message.contains("overrides agent.default_model in the same file"))
    );
    place.set("FORGE_PROVIDER", "anthropic").set("LLM_MODEL", "c").set("MODEL_NAME", "d");
    let loaded = place.load();
    assert_eq!(loaded.settings.model.provider.as_deref(), Some("anthropic"));
    assert_eq!(loaded.settings.model.name.as_deref(), Some("c"));
    place.set("FORGE_MODEL_NAME", "e");
    assert_eq!(place.load().settings.model.name.as_deref(), Some("e"));
}

#[test]
fn values_that_nobody_set_are_told_from_those_that_somebody_did() {
    let place = Place::new();
    assert!(!place.load().is_set("agent.max_cost_usd"));
    place.user("[agent]\nmax_cost_usd = 1.0\n");
    let loaded = place.load();
    assert!(loaded.is_set("agent.max_cost_usd"));
    assert!(matches!(loaded.origin_of("agent.max_cost_usd"), Some(ValueOrigin::UserFile { line: 2, .. })));
}

#[test]
fn values_are_kept_in_the_unit_of_their_key() {
    let mut place = Place::new();
    place.user(
        "[sandbox]\nmemory_limit = \"512m\"\ntimeout_seconds = \"1m\"\nnetwork_enabled = true\nenv_vars = [\"LANG\", \"GONE\"]\n\
         read_only_paths = [\"~/.cargo\", \"tools\"]\n[runtime]\nmax_pipeline_duration_ms = \"2s\"\n",
    );
    place.set("LANG", "C.UTF-8").set("SANDBOX_NETWORK_DISABLED", "true").set("SANDBOX_CPU_LIMIT", "1.5");
    let loaded = place.set("PATH", "/bin").load();
    let sandbox = &loaded.settings.sandbox;
    assert_eq!(
        (sandbox.memory_limit, sandbox.timeout_seconds, sandbox.cpu_limit),
        (512 << 20, 60, Some(1.5))
    );
    assert_eq!(loaded.settings.runtime.max_pipeline_duration_ms, 2_000);
    assert!(!sandbox.network_enabled, "SANDBOX_NETWORK_DISABLED is negated");
    assert_eq!(loaded.passthrough, [("LANG".to_owned(), "C.UTF-8".to_owned())]);
    let home = place.root().join("home");
    assert_eq!(sandbox.read_only_paths, [home.join(".cargo"), home.join(".config/forge/tools")]);
    assert_eq!(loaded.path.as_deref(), Some("/bin"));
}

#[test]
fn defaults_are_those_of_the_plan() {
    let settings = Place::new().load().settings;
    let limits = forge_types::RunLimits::default();
    assert_eq!(settings.agent.max_iterations, limits.max_iterations);
    assert_eq!(settings.agent.max_tokens_per_run, limits.max_tokens);
    assert_eq!(forge_types::Money::from_usd(settings.agent.max_cost_usd), limits.max_cost);
    assert_eq!(settings.agent.max_tool_calls_per_turn, limits.max_tool_calls_per_turn);
    assert_eq!(settings.agent.on_limit, limits.on_limit);
    assert_eq!(settings.runtime.max_pipeline_duration_ms, limits.max_duration_ms);
    assert_eq!(settings.runtime.max_shell_commands, limits.max_shell_commands);
    let sandbox = forge_types::SandboxLimits::default();
    assert_eq!(settings.sandbox.memory_limit, sandbox.memory_bytes);
    assert_eq!(settings.sandbox.pids, sandbox.pids);
    assert_eq!(settings.sandbox.cpu_limit, sandbox.cpus);
    assert_eq!(settings.sandbox.tmp_size, sandbox.tmp_bytes);
    assert_eq!(settings.sandbox.timeout_seconds * 1000, sandbox.command_ms);
    assert_eq!(settings.model.retry_base_ms, forge_types::RetryRule::default().base_ms);
}

#[test]
fn folders_follow_the_xdg_variables() {
    let mut place = Place::new();
    assert_eq!(place.dirs().data, place.root().join("home/.local/share/forge"));
    place.set("XDG_DATA_HOME", "/somewhere").set("XDG_CONFIG_HOME", "relative");
    assert_eq!(place.dirs().data, std::path::Path::new("/somewhere/forge"));
    assert_eq!(place.dirs().config, place.root().join("home/.config/forge"));
    place.unset("HOME");
    assert!(place.faults()[0].contains("set HOME, or set XDG_CONFIG_HOME"));
}
