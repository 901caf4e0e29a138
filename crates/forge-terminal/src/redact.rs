//! Redaction of keys in events.

use forge_redact::redact_keys;
use forge_wire::WireEvent;
use std::borrow::Cow;

/// Redacts text that looks like a key. Must run before texts are truncated for display.
pub fn redact_event(event: &WireEvent) -> Cow<'_, WireEvent> {
    let Ok(json) = serde_json::to_string(event) else { return Cow::Borrowed(event) };
    match redact_keys(&json) {
        Cow::Borrowed(_) => Cow::Borrowed(event),
        Cow::Owned(clean) => match serde_json::from_str(&clean) {
            Ok(event) => Cow::Owned(event),
            // The printed text is redacted again.
            Err(_) => Cow::Borrowed(event),
        },
    }
}
