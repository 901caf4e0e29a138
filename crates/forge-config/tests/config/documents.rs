//! The schema, the settings and the committed examples say the same (CFG-N3).

use crate::support::Place;
use forge_config::schema::{KEYS, SettingValue, find_key};
use std::collections::BTreeSet;
use std::path::Path;

/// Returns the text of a committed document, which is rendered from the schema.
fn committed(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn every_key_has_a_field_and_every_field_a_key() {
    let settings = serde_json::to_value(Place::new().load().settings).unwrap();
    let mut fields = BTreeSet::new();
    paths(&settings, "", &mut fields);
    let keys: BTreeSet<String> = KEYS.iter().map(|key| key.path.to_owned()).collect();
    assert_eq!(keys.difference(&fields).collect::<Vec<_>>(), [""; 0]);
    // A provider's section has the fields of all providers; those that do not concern it have no key.
    let extra: Vec<_> = fields.difference(&keys).filter(|field| !field.starts_with("providers.")).collect();
    assert_eq!(extra, [""; 0]);
    assert_eq!(keys.len(), KEYS.len(), "no key comes twice");
}

fn paths(value: &serde_json::Value, prefix: &str, out: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (name, inner) in map {
                let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                paths(inner, &path, out);
            }
        }
        _ => {
            out.insert(prefix.to_owned());
        }
    }
}

#[test]
fn defaults_are_valid_and_are_what_an_empty_configuration_gives() {
    let place = Place::new();
    let loaded = place.load();
    assert_eq!(loaded.values.len(), KEYS.len());
    for (key, resolved) in KEYS.iter().zip(&loaded.values) {
        let default = key.default_value();
        assert_eq!(
            resolved.value,
            default.as_ref().map(|value| key.kind.format_value(value)),
            "{}",
            key.path
        );
        let Some(default) = default else { continue };
        if default == SettingValue::List(Vec::new()) {
            continue;
        }
        let mut again = Place::new();
        again.flag(key.path, &key.kind.format_value(&default), "--default");
        let mut settings = again.try_load().unwrap_or_else(|faults| panic!("{faults}")).settings;
        settings.providers.clone_from(&loaded.settings.providers);
        assert_eq!(settings, loaded.settings, "{}", key.path);
    }
}

#[test]
fn the_specified_defaults_hold() {
    for (key, default) in [
        ("agent.max_iterations", "25"),
        ("agent.max_tokens_per_run", "200000"),
        ("agent.max_cost_usd", "1.0"),
        ("agent.max_tool_calls_per_turn", "10"),
        ("agent.temperature", "0.0"),
        ("model.max_tokens", "4096"),
        ("model.timeout_seconds", "120"),
        ("providers.openai.default_model", "gpt-5.2-2025-12-11"),
        ("providers.anthropic.default_model", "claude-sonnet-4-20250514"),
        ("providers.gemini.default_model", "gemini-2.5-flash"),
        ("providers.openrouter.default_model", "openai/gpt-4o-mini"),
        ("providers.ollama.default_model", "llama3"),
        ("providers.llama_cpp.default_model", "default"),
        ("sandbox.backend", "auto"),
        ("sandbox.memory_limit", "2g"),
        ("sandbox.pids", "1024"),
        ("sandbox.timeout_seconds", "300"),
        ("sandbox.command_timeout_seconds", "120"),
        ("sandbox.tmp_size", "1g"),
        ("sandbox.network_enabled", "false"),
        ("sandbox.allow_unisolated", "false"),
        ("runtime.max_pipeline_duration_ms", "600000"),
        ("runtime.max_shell_commands", "50"),
        ("cost.alert_at", "0.8"),
        ("logging.level", "info"),
        ("logging.format", "text"),
    ] {
        let key = find_key(key).unwrap();
        assert_eq!(key.kind.format_value(&key.default_value().unwrap()), default, "{}", key.path);
    }
}

#[test]
fn the_examples_load_without_faults_and_change_nothing() {
    let mut place = Place::new();
    let defaults = place.load().settings;
    let (yaml_example, env_example) = (committed("forge.yaml.example"), committed(".env.example"));
    place.config_path = Some(place.write("example.yaml", &yaml_example));
    assert_eq!(place.load().settings, defaults);
    // Samples of keys without a default are valid too.
    let samples: String = yaml_example
        .lines()
        .map(|line| match line.trim_start().strip_prefix("# ") {
            Some(code)
                if code.split(':').next().is_some_and(|name| !name.contains(' ')) && code.contains(": ") =>
            {
                format!("{}{code}\n", " ".repeat(line.len() - line.trim_start().len()))
            }
            _ => format!("{line}\n"),
        })
        .collect();
    place.config_path = Some(place.write("samples.yaml", &samples));
    assert_eq!(place.load().settings.model.provider.as_deref(), Some("openai"));

    place.config_path = None;
    let set: String = env_example
        .lines()
        .filter_map(|line| line.strip_prefix('#').filter(|line| !line.starts_with(' ')))
        .fold(String::new(), |text, line| text + line + "\n");
    assert!(set.lines().count() > KEYS.len());
    place.env_file = Some(place.write("example.env", &set));
    let loaded = place.load();
    assert_eq!(loaded.settings, defaults);
    assert!(loaded.notices.is_empty(), "{:?}", loaded.notices);
}
