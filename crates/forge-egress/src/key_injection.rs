//! Key injection: placeholders become keys in requests to one host, and keys become placeholders in its responses.

use super::key_encodings::{Echoes, Found};
use forge_types::EgressRules;
use hyper::header::{HeaderMap, HeaderValue};
use std::collections::BTreeMap;
use std::fmt;

/// Minimum length in bytes of a key that can be distinguished from ordinary text in a response.
const MIN_KEY_BYTES: usize = 4;

/// A key. Its debug output is redacted.
#[derive(Clone, PartialEq, Eq)]
pub struct EgressKey(String);

impl EgressKey {
    /// Wraps a key as it is sent.
    pub fn new(key: impl Into<String>) -> Self {
        Self(key.into())
    }
}

impl fmt::Debug for EgressKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// A text and its replacement.
type Replacement = (Vec<u8>, Vec<u8>);

/// Replacements sorted by length, longest first, so that a key that starts with another one is not mistaken for it.
#[derive(Clone, Default)]
pub(super) struct ReplacementTable(Vec<Replacement>);

impl ReplacementTable {
    fn new(mut pairs: Vec<Replacement>) -> Self {
        pairs.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.cmp(b)));
        pairs.dedup();
        Self(pairs)
    }

    fn match_at(&self, text: &[u8]) -> Option<&Replacement> {
        self.0.iter().find(|(from, _)| text.starts_with(from))
    }

    /// Returns the text with all replacements, or `None` if there were none.
    fn replace_all(&self, text: &[u8]) -> Option<Vec<u8>> {
        let (mut out, mut at, mut found) = (Vec::with_capacity(text.len()), 0, false);
        while let Some(&byte) = text.get(at) {
            if let Some((from, to)) = self.match_at(&text[at..]) {
                out.extend_from_slice(to);
                at += from.len();
                found = true;
            } else {
                out.push(byte);
                at += 1;
            }
        }
        found.then_some(out)
    }
}

/// The keys of one host.
#[derive(Clone)]
pub(super) struct KeyInjector {
    /// Placeholders to keys.
    out: ReplacementTable,
    /// Keys, in any form, to placeholders.
    back: Echoes,
}

/// An error in a key, which is named only by its variable.
pub(super) enum UnusableKey {
    Missing(String),
    Unusable(String, &'static str),
}

/// Returns the injectors for all hosts in the rules.
pub(super) fn injectors_by_host(
    rules: &EgressRules,
    keys: &BTreeMap<String, EgressKey>,
) -> Result<BTreeMap<String, KeyInjector>, UnusableKey> {
    let mut hosts: BTreeMap<String, Vec<Replacement>> = BTreeMap::new();
    for swap in &rules.keys {
        let variable = || swap.variable.clone();
        let key = &keys.get(&swap.variable).ok_or_else(|| UnusableKey::Missing(variable()))?.0;
        if key.len() < MIN_KEY_BYTES {
            return Err(UnusableKey::Unusable(variable(), "it has fewer than 4 characters"));
        }
        if key.bytes().any(|b| b < b' ' || b == 0x7f) {
            return Err(UnusableKey::Unusable(
                variable(),
                "it contains a line break or another control character",
            ));
        }
        let host = EgressRules::normalize_host(&swap.host).unwrap_or_else(|| swap.host.clone());
        hosts.entry(host).or_default().push((swap.placeholder().into_bytes(), key.clone().into_bytes()));
    }
    let swaps = |pairs: Vec<Replacement>| {
        let mut back = Echoes::default();
        for (placeholder, key) in &pairs {
            back.add(key, placeholder);
        }
        KeyInjector { out: ReplacementTable::new(pairs), back }
    };
    Ok(hosts.into_iter().map(|(host, pairs)| (host, swaps(pairs))).collect())
}

impl KeyInjector {
    /// Adds the keys to the headers of a request. Returns a redactor that replaces them in the response with the texts
    /// that the sandbox knows.
    pub(super) fn inject_into(&self, headers: &mut HeaderMap) -> KeyRedactor {
        let mut back = self.back.clone();
        for header in headers.values_mut() {
            let swapped = self.out.replace_all(header.as_bytes()).or_else(|| {
                let (word, swapped) = self.inject_basic(header.as_bytes())?;
                // An echo of the header would contain the key in this form.
                back.add_bytes(&swapped, &word);
                Some([b"Basic ".as_slice(), &swapped].concat())
            });
            // Keys contain no characters that are not allowed in a header.
            if let Some(Ok(value)) = swapped.map(HeaderValue::try_from) {
                *header = value;
            }
        }
        KeyRedactor { back, pending: Vec::new(), found: false }
    }

    /// Returns a redactor for responses to requests without keys.
    pub(super) fn response_redactor(&self) -> KeyRedactor {
        KeyRedactor { back: self.back.clone(), pending: Vec::new(), found: false }
    }

    /// Returns Basic credentials with a placeholder in them, as received and as sent.
    fn inject_basic(&self, value: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let (scheme, word) = value.split_at_checked(6)?;
        if !scheme.eq_ignore_ascii_case(b"basic ") {
            return None;
        }
        let word = word.trim_ascii();
        let swapped = self.out.replace_all(&base64_decode(word)?)?;
        Some((word.to_vec(), base64_encode(&swapped).into_bytes()))
    }
}

/// A redactor for keys in a stream. It holds back only bytes that may be the start of a key.
#[derive(Clone)]
pub(super) struct KeyRedactor {
    back: Echoes,
    pending: Vec<u8>,
    found: bool,
}

impl KeyRedactor {
    /// Adds bytes and returns those that can be forwarded.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut text = std::mem::take(&mut self.pending);
        text.extend_from_slice(bytes);
        let (out, used) = self.scan(&text, true);
        self.pending = text.split_off(used);
        out
    }

    /// Returns the remaining bytes at the end of the stream.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        let text = std::mem::take(&mut self.pending);
        self.scan(&text, false).0
    }

    /// Redacts a complete text; returns `None` if it contained no key.
    pub(super) fn redact_complete(&self, text: &[u8]) -> Option<Vec<u8>> {
        let mut scrubber = Self { back: self.back.clone(), pending: Vec::new(), found: false };
        let (clean, _) = scrubber.scan(text, false);
        scrubber.found.then_some(clean)
    }

    /// Returns a redactor for texts that are in lower case.
    pub(super) fn to_lower_case(&self) -> Self {
        Self { back: self.back.to_lower_case(), pending: Vec::new(), found: false }
    }

    fn scan(&mut self, text: &[u8], more: bool) -> (Vec<u8>, usize) {
        let mut out = Vec::with_capacity(text.len());
        let mut at = 0;
        loop {
            let skip = self.back.skip(&text[at..]);
            out.extend_from_slice(&text[at..at + skip]);
            at += skip;
            let Some(&byte) = text.get(at) else { return (out, at) };
            match self.back.at(&text[at..], more) {
                Found::Open => return (out, at),
                Found::Key(length, to) => {
                    out.extend_from_slice(to);
                    at += length;
                    self.found = true;
                }
                Found::None => {
                    out.push(byte);
                    at += 1;
                }
            }
        }
    }
}

const BASE64_ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Encodes bytes as base64 with padding (RFC 4648, 4).
pub(super) fn base64_encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().enumerate().fold(0_u32, |n, (i, &b)| n | u32::from(b) << (16 - 8 * i));
        for i in 0..4 {
            let digit = BASE64_ALPHABET[(bits >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= group.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

fn base64_decode(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let mut out = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    let (mut bits, mut count) = (0_u32, 0);
    for digit in digits {
        let value = BASE64_ALPHABET.iter().position(|a| a == digit)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use forge_types::KeySwap;
    use proptest::prelude::*;

    fn swaps(keys: &[(&str, &str)]) -> KeyInjector {
        let allow = ["h.test".to_owned()];
        let swap =
            |(variable, _): &(&str, &str)| KeySwap { host: "h.test".into(), variable: (*variable).into() };
        let rules = EgressRules::new(&allow, keys.iter().map(swap).collect()).unwrap();
        let keys = keys.iter().map(|(v, k)| ((*v).to_owned(), EgressKey::new(*k))).collect();
        injectors_by_host(&rules, &keys).ok().unwrap().remove("h.test").unwrap()
    }

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(hyper::header::AUTHORIZATION, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn the_longer_placeholder_wins() {
        let swaps = swaps(&[("KEY", "sk-one"), ("KEY_2", "sk-one-two")]);
        let mut sent = headers("forge-key-key-2,forge-key-key");
        swaps.inject_into(&mut sent);
        assert_eq!(sent["authorization"].as_bytes(), b"sk-one-two,sk-one");
    }

    #[test]
    fn basic_credentials_are_opened_and_their_echo_too() {
        let swaps = swaps(&[("T", "ghp_0123456789")]);
        let before = format!("Basic {}", base64_encode(b"user:forge-key-t"));
        let mut sent = headers(&before);
        let scrubber = swaps.inject_into(&mut sent);
        let after = format!("Basic {}", base64_encode(b"user:ghp_0123456789"));
        assert_eq!(sent["authorization"].as_bytes(), after.as_bytes());
        assert_eq!(scrubber.redact_complete(after.as_bytes()).unwrap(), before.as_bytes());
    }

    #[test]
    fn only_what_may_be_a_key_is_held_back() {
        let swaps = swaps(&[("T", "secret-key")]);
        let mut scrubber = swaps.inject_into(&mut headers("x"));
        assert_eq!(scrubber.push(b"event: s"), b"event: ");
        assert_eq!(scrubber.push(b"o\n\n"), b"so\n\n");
        assert_eq!(scrubber.push(b"secret-"), b"");
        assert_eq!(scrubber.push(b"keys"), b"forge-key-t");
        assert_eq!(scrubber.finish(), b"s");
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", EgressKey::new("sk-very-secret")), "Secret(***)");
    }

    proptest! {
        #[test]
        fn base64_comes_back(bytes: Vec<u8>) {
            prop_assert_eq!(base64_decode(base64_encode(&bytes).as_bytes()).unwrap(), bytes);
        }

        #[test]
        fn no_text_makes_basic_credentials_panic(text: Vec<u8>) {
            let _ = base64_decode(&text);
            let _ = swaps(&[("T", "abcd")]).inject_basic(&[b"Basic ".as_slice(), &text].concat());
        }

        #[test]
        fn however_an_answer_is_cut_no_key_comes_through(
            pieces in proptest::collection::vec("(abca|abcabd|a|b|c|d|abcabc){0,4}", 0..12),
        ) {
            let swaps = swaps(&[("X", "abcabd"), ("Y", "abcabcd")]);
            let mut scrubber = swaps.inject_into(&mut HeaderMap::new());
            let text = pieces.concat();
            let mut out = Vec::new();
            for piece in &pieces {
                out.extend(scrubber.push(piece.as_bytes()));
            }
            out.extend(scrubber.finish());
            let out = String::from_utf8(out).unwrap();
            prop_assert!(!out.contains("abcabd") && !out.contains("abcabcd"), "{} from {}", out, text);
            let whole = scrubber.redact_complete(text.as_bytes()).map_or(text, |t| String::from_utf8(t).unwrap());
            prop_assert_eq!(out, whole);
        }
    }
}
