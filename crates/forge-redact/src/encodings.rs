//! Common encodings of a secret.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Minimum length of a form; shorter ones would be found in ordinary text.
const MIN_FORM_BYTES: usize = 8;

/// Returns the secret itself, JSON-escaped (once and twice), percent-encoded, in hex, and in base64: alone or inside a
/// longer text such as `user:secret`.
pub(super) fn encoded_forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned()];
    let once = json_escape(secret);
    forms.push(json_escape(&once));
    forms.push(once);
    for (upper, plus) in [(true, false), (false, false), (true, true), (false, true)] {
        forms.push(percent_encode(secret, upper, plus));
    }
    let hex = hex_encode(secret);
    forms.push(hex.to_ascii_uppercase());
    forms.push(hex);
    for before in 0..3 {
        let bytes = [&vec![0; before][..], secret.as_bytes()].concat();
        for encoded in [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)] {
            forms.push(stable_base64(&encoded, before, bytes.len()).to_owned());
        }
    }
    // If unknown text follows, the last character may differ; a secret alone determines all of them.
    forms.extend([STANDARD_NO_PAD.encode(secret), URL_SAFE_NO_PAD.encode(secret)]);
    forms.retain(|form| form.len() >= MIN_FORM_BYTES);
    forms
}

/// Encodes the secret in lower-case hex.
pub(super) fn hex_encode(secret: &str) -> String {
    secret.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the base64 characters (six bits each) that depend on nothing before or after the secret.
fn stable_base64(encoded: &str, before: usize, length: usize) -> &str {
    let first = (before * 8).div_ceil(6);
    let last = length * 8 / 6;
    encoded.get(first..last).unwrap_or_default()
}

fn json_escape(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// Percent-encodes a text as in a query (RFC 3986), or as in a form, where a space is a plus.
fn percent_encode(text: &str, upper: bool, plus: bool) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b' ' if plus => out.push('+'),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte.into()),
            byte if upper => out.push_str(&format!("%{byte:02X}")),
            byte => out.push_str(&format!("%{byte:02x}")),
        }
        out
    })
}
