//! Faults of routing and fallbacks that only several settings together show.

use crate::fault::{Fault, Origin};
use crate::schema::Fallback;
use crate::settings::Settings;

/// Adds what is wrong with them.
pub(crate) fn check(settings: &Settings, origin: &dyn Fn(&str) -> Origin, faults: &mut Vec<Fault>) {
    thresholds(settings, origin, faults);
    fallbacks(settings, origin, faults);
    for (name, agent) in &settings.agents {
        let key = format!("agents.{name}.pin");
        if agent.pin && agent.model.is_none() {
            faults.push(
                Fault::new(origin(&key), format!("a model in agents.{name}.model to pin"), "none")
                    .key(&key)
                    .hint(format!("set agents.{name}.model, or leave the pin out")),
            );
        }
    }
}

fn thresholds(settings: &Settings, origin: &dyn Fn(&str) -> Origin, faults: &mut Vec<Fault>) {
    let routing = &settings.routing;
    if routing.simple_threshold < routing.complex_threshold {
        return;
    }
    // The one that somebody set is at fault.
    let (simple, complex) = ("routing.simple_threshold", "routing.complex_threshold");
    let key = if origin(complex) == Origin::Default { simple } else { complex };
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
        Fault::new(origin(key), expected, format!("`{found}`"))
            .key(key)
            .hint("a task is simple from the one on and hard from the other on: swap or move them"),
    );
}

fn fallbacks(settings: &Settings, origin: &dyn Fn(&str) -> Origin, faults: &mut Vec<Fault>) {
    let key = "model.fallbacks";
    let mut fault = |expected: &str, found: String, hint: String| {
        faults.push(Fault::new(origin(key), expected, found).key(key).hint(hint));
    };
    // A flag for one run may name whom the file falls back to; the entry is passed over then.
    let overrides = strength(&origin("model.provider")) > strength(&origin(key));
    let mut seen: Vec<String> = Vec::new();
    for text in &settings.model.fallbacks {
        let Ok(entry) = Fallback::parse(text) else { continue };
        let provider = &entry.provider;
        if seen.contains(provider) {
            let hint =
                "keep one of the entries: a provider that can't be had is left alone with all its models";
            fault("each provider once", format!("`{provider}` twice"), hint.to_owned());
        } else if settings.model.provider.as_ref() == Some(provider) && !overrides {
            let hint = "a provider that can't be had is left alone with all its models: name other providers";
            let found = format!("`{text}`, and `{provider}` is model.provider itself");
            fault("other providers than the first", found, hint.to_owned());
        } else if provider == "custom" && !has_address(settings, provider) {
            let hint = "set providers.custom.base_url";
            fault("an address for `custom`", "none".to_owned(), hint.to_owned());
        } else if entry.name.is_none() && has_no_model(settings, provider) {
            let hint = format!("write `{provider}:MODEL`, or set providers.{provider}.default_model");
            fault("a model for each provider", format!("none for `{provider}`"), hint);
        }
        seen.push(provider.clone());
    }
}

const fn strength(origin: &Origin) -> u8 {
    match origin {
        Origin::Default => 0,
        Origin::UserFile { .. } => 1,
        Origin::ProjectFile { .. } => 2,
        Origin::EnvFile { .. } => 3,
        Origin::Env { .. } => 4,
        Origin::Flag { .. } => 5,
    }
}

fn has_address(settings: &Settings, provider: &str) -> bool {
    settings.providers.get(provider).is_some_and(|own| own.base_url.is_some())
}

fn has_no_model(settings: &Settings, provider: &str) -> bool {
    provider != "scripted" && settings.providers.get(provider).is_none_or(|own| own.default_model.is_none())
}
