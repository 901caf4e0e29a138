//! The forms in which a host may return a key: as sent, or encoded in one of the ways in which texts are embedded in
//! other texts.

use super::escapes::{Text, begins};
use std::sync::Arc;

/// Minimum length of a form that is encoded or broken into lines; shorter ones would be found in ordinary responses.
const MIN_FORM_BYTES: usize = 8;
/// Maximum number of characters between two of a key: a line break with the prefix of the next line, or a separator in
/// hex.
const MAX_BETWEEN: usize = 64;
/// Characters allowed between two bytes in hex.
const BETWEEN_BYTES: &[u8] = b" \t\r\n:,;-_'\"";
/// Characters allowed before a continued line: indentation, or the marks of quotations, comments and diffs.
const BEFORE_LINE: &[u8] = b" \t>|+-#*/";

/// The digits of base64 (RFC 4648, 4 and 5).
const BASE64_STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const BASE64_URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// An encoding of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writing {
    /// As text, with any escapes.
    Text,
    /// As hex digits in either case.
    Hex,
    /// As exactly these bytes.
    Bytes,
}

/// One encoding of one key, and its placeholder.
struct Echo {
    writing: Writing,
    /// Whether letters of both cases match, which in `signs` are in lower case.
    any_case: bool,
    /// For each character, the alternative code sequences that encode it.
    signs: Vec<Vec<Vec<u32>>>,
    placeholder: Vec<u8>,
}

/// A match at the beginning of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// No key.
    None,
    /// A possible key, if more text follows.
    Open,
    /// A key with this end, and its placeholder.
    Key(usize, &'a [u8]),
}

/// All patterns searched for in the responses of a host.
#[derive(Clone)]
pub(super) struct Echoes {
    list: Vec<Arc<Echo>>,
    firsts: [bool; 256],
}

impl Default for Echoes {
    fn default() -> Self {
        Self { list: Vec::new(), firsts: [false; 256] }
    }
}

impl Echoes {
    /// Adds a key to the search, in all its forms.
    pub(super) fn add(&mut self, key: &[u8], placeholder: &[u8]) {
        let Ok(text) = std::str::from_utf8(key) else { return self.add_bytes(key, placeholder) };
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut forms = vec![Echo::of(Writing::Text, text), Echo::of(Writing::Hex, &hex)];
        for digits in [BASE64_STANDARD, BASE64_URL_SAFE] {
            forms.extend((0..3).map(|before| Echo::of(Writing::Text, &base64_digits(key, before, digits))));
        }
        forms.extend([u16::to_le_bytes, u16::to_be_bytes].map(|order| {
            let bytes: Vec<u8> = text.encode_utf16().flat_map(order).collect();
            Echo::of_bytes(&bytes)
        }));
        let encoded = forms.split_off(1);
        forms.extend(encoded.into_iter().filter(|form| form.signs.len() >= MIN_FORM_BYTES));
        for form in forms {
            self.push(form, placeholder);
        }
    }

    /// Adds these bytes to the search, unencoded.
    pub(super) fn add_bytes(&mut self, bytes: &[u8], placeholder: &[u8]) {
        self.push(Echo::of_bytes(bytes), placeholder);
    }

    fn push(&mut self, echo: Echo, placeholder: &[u8]) {
        for (byte, first) in self.firsts.iter_mut().enumerate() {
            let byte = u8::try_from(byte).unwrap_or_default();
            *first |= echo.begins_with(byte) || (echo.writing != Writing::Bytes && begins(byte));
        }
        self.list.push(Arc::new(Echo { placeholder: placeholder.to_vec(), ..echo }));
    }

    /// Returns a search for the same regardless of case, in texts that are in lower case.
    pub(super) fn to_lower_case(&self) -> Self {
        let mut lower = Self::default();
        for echo in &self.list {
            let mut signs = echo.signs.clone();
            for code in signs.iter_mut().flatten().flatten() {
                *code = fold_code(*code);
            }
            lower.push(
                Echo { signs, any_case: true, writing: echo.writing, placeholder: Vec::new() },
                &echo.placeholder,
            );
        }
        lower
    }

    /// Returns the number of leading bytes at which no match can start.
    pub(super) fn skip(&self, text: &[u8]) -> usize {
        text.iter().position(|&byte| self.firsts[usize::from(byte)]).unwrap_or(text.len())
    }

    /// Returns the match at the beginning of a text; `more` means that further text may follow. The longest match wins,
    /// so a key that starts with another one is not mistaken for it.
    pub(super) fn at(&self, text: &[u8], more: bool) -> Found<'_> {
        let Some(&first) = text.first() else { return Found::None };
        // Decoded once for all echoes; most escapes encode characters at which no key starts.
        let signs = begins(first).then(|| Text(text).read(0));
        let mut longest = Found::None;
        for echo in &self.list {
            let may_begin = echo.begins_with(first)
                || signs.as_ref().is_some_and(|signs| {
                    echo.writing != Writing::Bytes
                        && (signs.cut || signs.found.iter().any(|(code, _)| echo.starts(*code)))
                });
            if !may_begin {
                continue;
            }
            let (end, cut) = echo.find(text);
            if cut && more {
                return Found::Open;
            }
            if let Some(end) = end
                && !matches!(longest, Found::Key(other, _) if other >= end)
            {
                longest = Found::Key(end, &echo.placeholder);
            }
        }
        longest
    }
}

impl Echo {
    fn of(writing: Writing, text: &str) -> Self {
        let (any_case, signs) = (writing == Writing::Hex, text.chars().map(ways).collect());
        Self { writing, any_case, signs, placeholder: Vec::new() }
    }

    fn of_bytes(bytes: &[u8]) -> Self {
        let signs = bytes.iter().map(|&byte| vec![vec![byte.into()]]).collect();
        Self { writing: Writing::Bytes, any_case: false, signs, placeholder: Vec::new() }
    }

    fn starts(&self, code: u32) -> bool {
        let code = self.fold_case(code);
        self.signs.first().is_some_and(|ways| ways.iter().any(|way| way.first() == Some(&code)))
    }

    fn begins_with(&self, byte: u8) -> bool {
        self.starts(byte.into())
    }

    fn fold_case(&self, code: u32) -> u32 {
        if self.any_case { fold_code(code) } else { code }
    }

    /// Returns the end of a match at the beginning of a text, and whether a longer text could match as well.
    fn find(&self, text: &[u8]) -> (Option<usize>, bool) {
        let mut reading = Reading { text: Text(text), echo: self, cut: false };
        let mut places = vec![0];
        for (number, ways) in self.signs.iter().enumerate() {
            let mut next = Vec::new();
            for place in places {
                for start in if number == 0 { vec![place] } else { reading.between(place, number) } {
                    for way in ways {
                        next.extend(reading.follow(start, way));
                    }
                }
            }
            next.sort_unstable();
            next.dedup();
            places = next;
            if places.is_empty() {
                break;
            }
        }
        (places.last().copied(), reading.cut)
    }
}

fn fold_code(code: u32) -> u32 {
    u8::try_from(code).map_or(code, |byte| byte.to_ascii_lowercase().into())
}

/// Returns the code sequences for a character: its own code, its UTF-8 bytes, or its UTF-16 halves. Forms encode a
/// space as a plus.
fn ways(c: char) -> Vec<Vec<u32>> {
    let (mut utf8, mut utf16) = ([0; 4], [0; 2]);
    let mut ways = vec![
        vec![c.into()],
        c.encode_utf8(&mut utf8).bytes().map(u32::from).collect(),
        c.encode_utf16(&mut utf16).iter().map(|&half| half.into()).collect(),
    ];
    if c == ' ' {
        ways.push(vec!['+'.into()]);
    }
    ways.sort();
    ways.dedup();
    ways
}

/// A text being searched for one echo.
struct Reading<'a> {
    text: Text<'a>,
    echo: &'a Echo,
    /// Whether the end of the text was reached while a match could have continued.
    cut: bool,
}

impl Reading<'_> {
    fn next(&mut self, at: usize) -> Vec<(u32, usize)> {
        if self.echo.writing == Writing::Bytes {
            let byte = self.text.0.get(at);
            self.cut |= byte.is_none();
            return byte.map(|&byte| (byte.into(), at + 1)).into_iter().collect();
        }
        let signs = self.text.read(at);
        self.cut |= signs.cut;
        signs.found
    }

    /// Returns the ends of this code sequence.
    fn follow(&mut self, at: usize, codes: &[u32]) -> Vec<usize> {
        let mut ends = vec![at];
        for wanted in codes {
            let mut next = Vec::new();
            for at in ends {
                let found = self.next(at);
                next.extend(
                    found.into_iter().filter(|(c, _)| self.echo.fold_case(*c) == *wanted).map(|(_, e)| e),
                );
            }
            ends = next;
        }
        ends
    }

    /// Returns the positions at which the next character may start.
    fn between(&mut self, at: usize, number: usize) -> Vec<usize> {
        let broken = match self.echo.writing {
            Writing::Hex if number.is_multiple_of(2) => true,
            Writing::Text => self.echo.signs.len() >= MIN_FORM_BYTES,
            _ => false,
        };
        // Fast path: text consists mostly of letters, and no separator but `0x` starts like one.
        let plain = self.text.0.get(at).is_some_and(|byte| byte.is_ascii_alphanumeric() && *byte != b'0');
        if !broken || plain {
            return vec![at];
        }
        let mut starts = vec![at];
        let mut last = vec![Between { at, ..Between::default() }];
        for _ in 0..MAX_BETWEEN {
            let mut longer = Vec::new();
            for between in last {
                let found = self.next(between.at);
                longer.extend(found.into_iter().filter_map(|(code, end)| between.then(self.echo, code, end)));
            }
            longer.sort_unstable();
            longer.dedup();
            starts.extend(longer.iter().filter(|between| between.may_end()).map(|between| between.at));
            if longer.is_empty() {
                break;
            }
            last = longer;
        }
        starts.sort_unstable();
        starts.dedup();
        starts
    }
}

/// The characters between two characters of a key, so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Between {
    at: usize,
    /// The last character, if it affects the next one.
    last: Option<char>,
    /// Whether there was a line break. Only one is allowed: two end a paragraph or an event of a stream, and a stream
    /// must not be held back until the next event.
    broken: bool,
}

impl Between {
    fn may_end(self) -> bool {
        !matches!(self.last, Some('0' | '\\' | '='))
    }

    fn then(self, echo: &Echo, code: u32, end: usize) -> Option<Self> {
        let byte = u8::try_from(code).ok()?;
        let hex = echo.writing == Writing::Hex;
        let next = |last: Option<char>| Some(Self { at: end, last, ..self });
        match (self.last, byte) {
            // Digits follow.
            (Some('x' | '%'), _) => None,
            (Some('0'), b'x' | b'X') | (Some('\\'), b'x') if hex => next(Some('x')),
            (Some('0'), _) => None,
            (Some('\r'), b'\n') => next(Some('\n')),
            // After these characters the line continues on the next one.
            (Some('=' | '\\'), byte) if !matches!(byte, b'\r' | b'\n') => None,
            (_, b'\r' | b'\n') if !self.broken => {
                Some(Self { at: end, last: Some(char::from(byte)), broken: true })
            }
            (_, b'\r' | b'\n') => None,
            (_, b'0' | b'\\' | b'%') if hex => next(Some(char::from(byte))),
            (None, b'=' | b'\\') if !hex && !self.broken => next(Some(char::from(byte))),
            (_, byte) if hex && BETWEEN_BYTES.contains(&byte) => next(None),
            (_, byte) if self.broken && BEFORE_LINE.contains(&byte) => next(None),
            _ => None,
        }
    }
}

/// Returns the base64 digits (six bits each) that depend only on the key when `before` bytes, modulo three, precede it.
fn base64_digits(key: &[u8], before: usize, digits: &[u8; 64]) -> String {
    let bytes = [&vec![0; before][..], key].concat();
    let bit = |at: usize| bytes[at / 8] >> (7 - at % 8) & 1;
    let first = (before * 8).div_ceil(6);
    let digit = |at: usize| (at * 6..at * 6 + 6).fold(0, |value, at| value << 1 | usize::from(bit(at)));
    (first..bytes.len() * 8 / 6).map(|at| char::from(digits[digit(at)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "sk-a+b/c=\"d<0123";

    fn each(write: impl Fn(u8) -> String) -> String {
        KEY.bytes().map(write).collect()
    }

    /// Returns the key in the forms that encoders produce.
    fn written() -> Vec<String> {
        let hex = |between: &str| KEY.bytes().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(between);
        let all_percent = each(|b| format!("%{b:02X}"));
        let json = each(|b| format!("\\u{b:04x}"));
        vec![
            KEY.to_owned(),
            "sk-a%2Bb%2Fc%3D%22d%3C0123".into(),
            "sk-a%2bb/c%3d%22d%3c0123".into(),
            "sk-a%252Bb%252Fc%253D%2522d%253C0123".into(),
            "sk-a+b\\/c=\\\"d<0123".into(),
            "sk-a+b/c=\\\\\\\"d<0123".into(),
            "sk-a\\u002bb\\u002fc\\u003d\\u0022d\\u003c0123".into(),
            "sk-a+b/c=&quot;d&lt;0123".into(),
            "sk-a&plus;b&sol;c&equals;&#34;d&lt;0123".into(),
            "sk-a+b/c=\\u0026quot;d&amp;lt;0123".into(),
            all_percent.replace('%', "%25"),
            all_percent,
            json.replace('\\', "\\\\"),
            json,
            each(|b| format!("&#x{b:x};")),
            each(|b| format!("&#{b};")),
            each(|b| format!("\\x{b:02x}")),
            each(|b| format!("\\{b:03o}")),
            "sk-a+b/\nc=\"d<0123".into(),
            "sk-a+b/\r\n    c=\"d<0123".into(),
            "sk-a+b/=\nc=\"d<0123".into(),
            "sk-a+b/\\nc=\\\"d<0123".into(),
            hex(""),
            hex("").to_uppercase(),
            hex(" "),
            hex(":"),
            hex("\n"),
            hex(", 0x"),
            hex(",\n        0x"),
            // `printf 'user:KEY!' | base64`: as it is, broken at every fourth digit, and in JSON.
            "dXNlcjpzay1hK2IvYz0iZDwwMTIzIQ==".into(),
            "dXNl\ncjpz\nay1h\nK2Iv\nYz0i\nZDww\nMTIz\nIQ==".into(),
            "dXNlcjpzay1h\r\n> K2IvYz0iZDwwMTIzIQ==".into(),
            "dXNlcjpzay1h\\nK2IvYz0iZDwwMTIzIQ==".into(),
            each(|b| format!("{}\0", char::from(b))),
            each(|b| format!("\0{}", char::from(b))),
        ]
    }

    fn echoes() -> Echoes {
        let mut echoes = Echoes::default();
        echoes.add(KEY.as_bytes(), b"KEY");
        echoes
    }

    /// Returns the output for a text that arrives in pieces of this length.
    fn passed(echoes: &Echoes, text: &[u8], piece: usize) -> Vec<u8> {
        let (mut out, mut held) = (Vec::new(), Vec::new());
        let pieces = text.chunks(piece).map(|piece| (piece, true)).chain([(&b""[..], false)]);
        for (piece, more) in pieces {
            held.extend_from_slice(piece);
            let mut at = 0;
            while at < held.len() {
                match echoes.at(&held[at..], more) {
                    Found::Open => break,
                    Found::Key(length, to) => {
                        out.extend_from_slice(to);
                        at += length;
                    }
                    Found::None => {
                        out.push(held[at]);
                        at += 1;
                    }
                }
            }
            held.drain(..at);
        }
        out
    }

    #[test]
    fn a_key_is_found_however_encoders_write_it() {
        let echoes = echoes();
        for form in written() {
            for text in
                [format!("<{form}>"), format!("s{form}%"), format!("{form}\\"), format!("\\n{form}&#")]
            {
                let whole = passed(&echoes, text.as_bytes(), text.len());
                let shown = String::from_utf8_lossy(&whole);
                assert_eq!(shown.matches("KEY").count(), 1, "{text:?}: {shown:?}");
                for piece in [1, 2, 3, 7] {
                    assert_eq!(
                        passed(&echoes, text.as_bytes(), piece),
                        whole,
                        "{text:?} in pieces of {piece}"
                    );
                }
            }
        }
    }

    #[test]
    fn keys_with_other_letters_and_with_escapes_in_them_are_found() {
        for (key, forms) in [
            (
                "p\u{e4}ss-\u{1f511}-word",
                vec![
                    "p\u{e4}ss-\u{1f511}-word",
                    "p%C3%A4ss-%F0%9F%94%91-word",
                    "p\\u00e4ss-\\ud83d\\udd11-word",
                    "p&#228;ss-&#x1f511;-word",
                ],
            ),
            (
                "a%41\\n b&amp;c",
                vec!["a%41\\n b&amp;c", "a%2541%5Cn+b%26amp;c", "a%41\\\\n b&amp;c", "a%41\\n b&amp;amp;c"],
            ),
        ] {
            let mut echoes = Echoes::default();
            echoes.add(key.as_bytes(), b"KEY");
            for form in forms {
                let shown = passed(&echoes, format!("<{form}>").as_bytes(), 3);
                assert_eq!(String::from_utf8_lossy(&shown), "<KEY>", "{form}");
            }
        }
    }

    #[test]
    fn what_is_no_key_is_passed_on_at_once() {
        let echoes = echoes();
        for text in [
            "data: s\n\n",
            "data: c2st\n\n",
            "data: 73\n\n",
            "sk-a+b\n\n/c=\"d<0123",
            "100% of \"C:\\dir\" & more",
            "%zz &; \\y",
        ] {
            let mut at = 0;
            while at < text.len() {
                assert_eq!(echoes.at(&text.as_bytes()[at..], true), Found::None, "{text:?} at {at}");
                at += 1;
            }
        }
        // A short key is not searched for in encoded forms.
        let mut short = Echoes::default();
        short.add(b"abcd", b"KEY");
        assert_eq!(passed(&short, b"YWJj ab\ncd abcd", 2), b"YWJj ab\ncd KEY");
    }

    proptest! {
        #[test]
        fn however_a_text_is_cut_the_same_passes(
            parts in proptest::collection::vec((0..40_usize, "[a-f0-9sk%&\\\\u=\n ]{0,4}"), 0..5),
            piece in 1..9_usize,
        ) {
            let (echoes, written) = (echoes(), written());
            let part = |(form, text): &(usize, String)| written.get(*form).cloned().unwrap_or_default() + text;
            let text: String = parts.iter().map(part).collect();
            let whole = passed(&echoes, text.as_bytes(), text.len().max(1));
            prop_assert_eq!(passed(&echoes, text.as_bytes(), piece), whole);
        }
    }
}
