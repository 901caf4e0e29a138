//! Checks of routing and fallback settings that depend on each other.

use crate::error::{ConfigError, ValueOrigin};
use crate::schema::FallbackEntry;
use crate::settings::ForgeSettings;
use forge_catalog::vendors::{OWN_SERVER, SCRIPTED_PROVIDER};

/// Reports invalid combinations.
pub(crate) fn check_routing(
    settings: &ForgeSettings,
    origin: &dyn Fn(&str) -> ValueOrigin,
    faults: &mut Vec<ConfigError>,
) {
    check_thresholds(settings, origin, faults);
    check_fallbacks(settings, origin, faults);
    for (name, agent) in &settings.agents {
        let key = format!("agents.{name}.pin");
        if agent.pin && agent.model.is_none() {
            faults.push(
                ConfigError::new(origin(&key), format!("a model in agents.{name}.model to pin"), "none")
                    .with_key(&key)
                    .with_hint(format!("set agents.{name}.model, or remove the pin")),
            );
        }
    }
}

fn check_thresholds(
    settings: &ForgeSettings,
    origin: &dyn Fn(&str) -> ValueOrigin,
    faults: &mut Vec<ConfigError>,
) {
    let routing = &settings.routing;
    if routing.simple_threshold < routing.complex_threshold {
        return;
    }
    // The error belongs to the threshold that was set explicitly.
    let (simple, complex) = ("routing.simple_threshold", "routing.complex_threshold");
    let key = if origin(complex) == ValueOrigin::Default { simple } else { complex };
    let (expected, found) = if key == simple {
        (
            format!("less than routing.complex_threshold, which is {}", routing.complex_threshold),
            routing.simple_threshold,
        )
    } else {
        (
            format!("more than routing.simple_threshold, which is {}", routing.simple_threshold),
            routing.complex_threshold,
        )
    };
    faults.push(
        ConfigError::new(origin(key), expected, format!("`{found}`"))
            .with_key(key)
            .with_hint("the thresholds must be in ascending order: swap or change them"),
    );
}

fn check_fallbacks(
    settings: &ForgeSettings,
    origin: &dyn Fn(&str) -> ValueOrigin,
    faults: &mut Vec<ConfigError>,
) {
    let key = "model.fallbacks";
    let mut fault = |expected: &str, found: String, hint: String| {
        faults.push(ConfigError::new(origin(key), expected, found).with_key(key).with_hint(hint));
    };
    // A flag for one run may name a provider that is a fallback in the file; the entry is ignored then.
    let overrides = origin_strength(&origin("model.provider")) > origin_strength(&origin(key));
    let mut seen: Vec<String> = Vec::new();
    for text in &settings.model.fallbacks {
        let Ok(entry) = FallbackEntry::parse(text) else { continue };
        let provider = &entry.provider;
        if seen.contains(provider) {
            let hint = "keep one of the entries: an unavailable provider is skipped with all its models";
            fault("each provider once", format!("`{provider}` twice"), hint.to_owned());
        } else if settings.model.provider.as_ref() == Some(provider) && !overrides {
            let hint = "an unavailable provider is skipped with all its models: name other providers";
            let found = format!("`{text}`, and `{provider}` is model.provider");
            fault("providers other than model.provider", found, hint.to_owned());
        } else if provider == OWN_SERVER && !has_address(settings, provider) {
            let hint = "set providers.custom.base_url";
            fault("an address for `custom`", "none".to_owned(), hint.to_owned());
        } else if entry.name.is_none() && has_no_model(settings, provider) {
            let hint = format!("write `{provider}:MODEL`, or set providers.{provider}.default_model");
            fault("a model for each provider", format!("none for `{provider}`"), hint);
        }
        seen.push(provider.clone());
    }
}

const fn origin_strength(origin: &ValueOrigin) -> u8 {
    match origin {
        ValueOrigin::Default => 0,
        ValueOrigin::UserFile { .. } => 1,
        ValueOrigin::ProjectFile { .. } => 2,
        ValueOrigin::EnvFile { .. } => 3,
        ValueOrigin::Env { .. } => 4,
        ValueOrigin::Flag { .. } => 5,
    }
}

fn has_address(settings: &ForgeSettings, provider: &str) -> bool {
    settings.providers.get(provider).is_some_and(|own| own.base_url.is_some())
}

fn has_no_model(settings: &ForgeSettings, provider: &str) -> bool {
    provider != SCRIPTED_PROVIDER
        && settings.providers.get(provider).is_none_or(|own| own.default_model.is_none())
}
