//! Variables: aliases, foreign ones, unknown ones, `--env` files.

use crate::support::{Place, value};
use forge_config::NoticeKind;

#[test]
fn aliases_of_the_environment_set_their_keys() {
    for (variable, text, key, shown) in [
        ("OPENAI_ORG_ID", "org-1", "model.organization_id", "org-1"),
        ("OPENAI_BASE_URL", "https://proxy.test/v1/", "providers.openai.base_url", "https://proxy.test/v1"),
        ("ANTHROPIC_BASE_URL", "http://a.test", "providers.anthropic.base_url", "http://a.test"),
        ("GOOGLE_GEMINI_BASE_URL", "http://g.test", "providers.gemini.base_url", "http://g.test"),
        (
            "OLLAMA_URL",
            "http://o.test:1/api/generate",
            "providers.ollama.base_url",
            "http://o.test:1/api/generate",
        ),
        ("OPENROUTER_URL", "https://r.test/api/v1", "providers.openrouter.base_url", "https://r.test/api/v1"),
        ("LLAMA_CPP_URL", "http://127.0.0.1:8080", "providers.llama_cpp.base_url", "http://127.0.0.1:8080"),
        ("ENABLED_TOOLS", "read_file, run_shell,", "tools.enabled", "read_file, run_shell"),
        ("LOG_LEVEL", "WARNING", "logging.level", "warn"),
        ("RUST_LOG", "info,forge=debug", "logging.level", "info,forge=debug"),
        ("AGENT_FORGE_AGENT_DEFAULT_MODEL", "m", "model.name", "m"),
        ("FORGE_SANDBOX_BACKEND", "bwrap", "sandbox.backend", "native"),
        ("FORGE_RUNTIME_MAX_PIPELINE_DURATION_MS", "1h30m", "runtime.max_pipeline_duration_ms", "5400000"),
        ("FORGE_AGENT_MAX_TOKENS_PER_RUN", "300_000", "agent.max_tokens_per_run", "300000"),
    ] {
        let mut place = Place::new();
        place.set(variable, text);
        assert_eq!(value(&place.load(), key), (Some(shown.to_owned()), variable.to_owned()));
    }
}

#[test]
fn variables_of_other_programs_do_no_harm() {
    let mut place = Place::new();
    place.set("LOG_FORMAT", "%d %m").set("RUST_LOG", "my_crate[span]=x").set("FORGE_AGENT_ON_LIMIT", "");
    let loaded = place.load();
    assert_eq!(loaded.settings.logging.level, "info");
    let passed: Vec<_> = loaded.notices.iter().map(|notice| (notice.kind, notice.key.as_deref())).collect();
    let over = NoticeKind::PassedOver;
    assert_eq!(passed, [(over, Some("logging.level")), (over, Some("logging.format"))]);
}

#[test]
fn unknown_variables_of_our_prefix_are_named_with_the_nearest() {
    let mut place = Place::new();
    place.set("FORGE_AGENT_MAX_ITERATION", "3").set("FORGE_SOAK", "1").set("FORGE_LOG", "x");
    place.set("FORGE_MY_KEY", "key-value").user("[providers.custom]\napi_key_env = \"FORGE_MY_KEY\"\n");
    let loaded = place.load();
    let messages: Vec<_> = loaded.notices.iter().map(ToString::to_string).collect();
    assert_eq!(
        messages,
        ["FORGE_AGENT_MAX_ITERATION in the environment is ignored: unknown key; \
             did you mean FORGE_AGENT_MAX_ITERATIONS?"]
    );
}

#[test]
fn an_env_file_fills_what_is_not_set() {
    let mut place = Place::new();
    let file =
        place.write("keys.env", "export OPENAI_API_KEY='from-file'\nANTHROPIC_API_KEY=\"a key\"\nSEEN=1\n");
    place.env_file = Some(file);
    place.user("[sandbox]\nenv_vars = [\"SEEN\"]\n");
    let loaded = place.load();
    assert_eq!(loaded.secrets.get("openai").unwrap().expose(), "from-file");
    assert_eq!(loaded.passthrough, [("SEEN".to_owned(), "1".to_owned())]);
    assert!(loaded.secrets.get("anthropic").is_none(), "a key with white space can't be sent");
    assert!(loaded.notices[0].message.contains("ANTHROPIC_API_KEY can't be used as the key of anthropic"));
    place.set("OPENAI_API_KEY", "from-shell");
    assert_eq!(place.load().secrets.get("openai").unwrap().expose(), "from-shell");

    place.write("keys.env", "fine=1\nno assignment sk-secret\n=x\n");
    let faults = place.faults();
    assert_eq!(faults.len(), 2);
    assert!(faults[0].starts_with("keys.env:2: expected NAME=value"));
    assert!(!faults[0].contains("sk-secret"));
}
