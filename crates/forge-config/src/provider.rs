//! The order in which providers are tried when none is configured (PROV-3).

use forge_catalog::vendors::{DetectionRule, VENDORS};

/// Returns the providers with API keys: the first one with a key is used.
pub fn keyed_providers() -> impl Iterator<Item = &'static str> {
    VENDORS.iter().filter(|vendor| vendor.detect == DetectionRule::Key).map(|vendor| vendor.name)
}

/// Returns the local servers: without any API key, the first one that answers is used.
pub fn local_providers() -> impl Iterator<Item = &'static str> {
    let local = |detect: &DetectionRule| matches!(detect, DetectionRule::Probe { .. });
    VENDORS.iter().filter(move |vendor| local(&vendor.detect)).map(|vendor| vendor.name)
}
