//! No output holds a key.

use crate::support::Place;
use forge_config::{Environment, edit};
use forge_testkit::scale;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(scale::sample_or_all(64, 10_000)))]

    #[test]
    fn keys_are_shown_nowhere(key in "[A-Za-z0-9_-]{12,60}", wrong in any::<bool>()) {
        let mut place = Place::new();
        place.set("OPENAI_API_KEY", &key).set("FORGE_CUSTOM", &key);
        // The same key in places where people paste it by mistake.
        place.set("FORGE_AGENT_SYSTEM_PROMPT", &format!("use {key} please"));
        place.set("FORGE_MODEL_NAME", &key).set("LOG_FORMAT", &key);
        place.project(&format!("[agent]\nsystem_prompt = \"the key {key}\"\n"));
        if wrong {
            place.set("FORGE_MODEL_BASE_URL", &format!("https://user:{key}@host"));
            place.set("FORGE_WORKSPACE_MODE", &key);
            let faults = place.try_load().unwrap_err();
            let shown = format!("{faults} {faults:?}");
            prop_assert!(!shown.contains(&key), "shown: {}", shown);
        } else {
            let loaded = place.load();
            let shown = format!("{:?} {:?} {:?}", loaded.values, loaded.notices, loaded.secrets);
            prop_assert!(!shown.contains(&key), "shown: {}", shown);
            prop_assert!(!loaded.to_plan_json().to_string().contains(&key));
            let get = edit::get_key(&loaded, "model.name").unwrap();
            prop_assert_eq!(get.value.as_deref(), Some("***REDACTED***"));
            prop_assert_eq!(loaded.secrets.values_to_redact().collect::<Vec<_>>(), [key.as_str()]);
        }
    }
}

#[test]
fn what_looks_like_a_key_is_not_repeated_in_a_fault() {
    let place = Place::new();
    place
        .user("[providers.openai]\napi_key_env = \"sk-abcdefghij\"\n[model]\nprovider = \"sk-ant-abcdef\"\n");
    let faults = place.faults().join("\n");
    assert!(!faults.contains("abcdef"), "{faults}");
    assert!(faults.contains("put the key into an environment variable"));
}

#[test]
fn debug_forms_hold_names_only() {
    let env: Environment = [("OPENAI_API_KEY", "secret-value")].into_iter().collect();
    assert_eq!(format!("{env:?}"), "{\"OPENAI_API_KEY\"}");
    assert_eq!(format!("{}", forge_config::SecretValue::new("secret-value")), "***REDACTED***");
    let parsed = forge_config::dotenv::parse("A=secret-value").unwrap();
    assert!(!format!("{parsed:?}").contains("secret-value"));
}
