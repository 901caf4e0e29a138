//! What looks like a key is shown to nobody.

use forge_runtime::redact_keys;
use forge_types::wire::WireEvent;
use std::borrow::Cow;

/// The event without what looks like a key. Its texts may be cut for showing, so this comes before that.
pub(crate) fn redact_event(event: &WireEvent) -> Cow<'_, WireEvent> {
    let Ok(json) = serde_json::to_string(event) else { return Cow::Borrowed(event) };
    match redact_keys(&json) {
        Cow::Borrowed(_) => Cow::Borrowed(event),
        Cow::Owned(clean) => match serde_json::from_str(&clean) {
            Ok(event) => Cow::Owned(event),
            // What is printed of it is masked once more.
            Err(_) => Cow::Borrowed(event),
        },
    }
}
