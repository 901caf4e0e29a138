//! Decoded readings of a text: with escapes and entities resolved, line breaks removed, or hex digits joined.
//!
//! Programs wrap and escape their output in more ways than could be listed. So a text is also searched without one or
//! more of these layers, and every position in a reading maps back to the original text.

use std::ops::Range;

/// Maximum number of escape layers that are resolved.
const MAX_LAYERS: usize = 4;
/// Separators between hex digits in the output of `xxd` and `od`, in certificates and in source code.
const HEX_SEPARATORS: &[u8] = b" \t\r\n:,;-_'\"";

/// Prefixes of quoted lines that are not followed by a space.
const SIGNS: [char; 8] = ['+', '-', '>', '<', '|', '#', '*', ':'];

/// One reading of a text.
pub(super) struct DecodedText {
    pub(super) text: String,
    /// For each byte of `text`, the part of the original that it represents.
    places: Vec<Range<usize>>,
    /// Position in `text` from which it is incomplete and could continue, for example `\u00` at the end.
    pub(super) cut: usize,
}

/// The readings of a text.
pub(super) struct DecodedTexts {
    /// With one layer of escapes resolved, with two, and so on.
    pub(super) layers: Vec<DecodedText>,
    /// With the encoding or wrapping of words removed.
    pub(super) words: Vec<DecodedText>,
    /// As hex digits.
    pub(super) hex: Vec<DecodedText>,
}

impl DecodedText {
    fn identity(text: &str) -> Self {
        let places = (0..text.len()).map(|at| at..at + 1).collect();
        Self { text: text.to_owned(), places, cut: text.len() }
    }

    /// Returns the part of the original that a part of the text represents.
    pub(super) fn original_range(&self, part: Range<usize>) -> Range<usize> {
        self.places[part.start].start..self.places[part.end - 1].end
    }

    /// Returns where in the original the text at `at` starts.
    pub(super) fn original_start(&self, at: usize) -> Option<usize> {
        self.places.get(at).map(|place| place.start)
    }

    /// Decodes the text once more; `unit` classifies the unit at the start of a remaining text. Returns `None` if every
    /// unit is plain.
    fn decode_with(&self, unit: impl Fn(&str) -> DecodedUnit) -> Option<Self> {
        let (mut text, mut places) = (String::with_capacity(self.text.len()), Vec::new());
        let (mut at, mut changed, mut cut) = (0, false, None);
        while let Some(c) = self.text[at..].chars().next() {
            // A unit cut off in one reading is cut off in all later ones and joins nothing before it.
            let rest = if at < self.cut { &self.text[at..self.cut] } else { &self.text[at..] };
            if at >= self.cut {
                cut = cut.or(Some(text.len()));
            }
            let mut put = |c: char, length: usize| {
                let place = self.original_range(at..at + length);
                text.push(c);
                places.extend(std::iter::repeat_n(place, c.len_utf8()));
            };
            match unit(rest) {
                DecodedUnit::Itself => put(c, c.len_utf8()),
                DecodedUnit::Decoded(length, c) => {
                    put(c, length);
                    changed = true;
                    at += length;
                    continue;
                }
                DecodedUnit::Nothing(length) => {
                    changed = true;
                    at += length;
                    continue;
                }
                DecodedUnit::Loose(length) => {
                    changed = true;
                    cut = cut.or(Some(text.len()));
                    at += length;
                    continue;
                }
                DecodedUnit::Cut => {
                    cut = cut.or(Some(text.len()));
                    let c = self.text[at..].chars().next().unwrap_or(c);
                    let place = self.original_range(at..at + c.len_utf8());
                    text.push(c);
                    places.extend(std::iter::repeat_n(place, c.len_utf8()));
                }
            }
            at += c.len_utf8();
        }
        let cut = cut.unwrap_or(text.len());
        (changed || cut < text.len()).then_some(Self { text, places, cut })
    }
}

/// The unit at one position.
enum DecodedUnit {
    /// A plain character.
    Itself,
    /// This number of bytes, which encode a character.
    Decoded(usize, char),
    /// This number of bytes, which encode nothing.
    Nothing(usize),
    /// Like `Nothing`, but further text may belong to the unit.
    Loose(usize),
    /// The beginning of a unit that continues beyond the text.
    Cut,
}

/// Completeness of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Nothing follows, or what follows does not matter.
    Whole,
    /// The last line may continue.
    Open,
}

/// Returns all readings of a text except the text itself.
pub(super) fn decode_all(text: &str, reach: Reach) -> DecodedTexts {
    let mut layers = vec![DecodedText::identity(text)];
    while layers.len() <= MAX_LAYERS {
        let last = &layers[layers.len() - 1];
        let Some(next) = last.text.contains('\\').then(|| last.decode_with(decode_escape)).flatten() else {
            break;
        };
        layers.push(next);
    }
    let mut words = Vec::new();
    for layer in &layers {
        words.extend(layer.text.contains("\\0").then(|| layer.decode_with(octal)).flatten());
        words.extend(layer.text.contains('%').then(|| layer.decode_with(decode_percent)).flatten());
        words.extend(layer.text.contains('&').then(|| layer.decode_with(decode_entity)).flatten());
        let wraps = layer.text.contains(['\n', '\r']);
        words.extend(wraps.then(|| layer.decode_with(join_wrapped_line)).flatten());
        let (words_before, signs_before) = match reach {
            Reach::Whole => before_words(&layer.text),
            Reach::Open => (wraps, wraps),
        };
        words.extend(words_before.then(|| layer.decode_with(wrap_after_words)).flatten());
        words.extend(signs_before.then(|| layer.decode_with(wrap_after_signs)).flatten());
    }
    // Double percent-encoding, and wrapping below it.
    let again: Vec<DecodedText> = words
        .iter()
        .filter(|view| view.text.contains(['%', '\n', '\r']))
        .filter_map(|view| view.decode_with(decode_percent).or_else(|| view.decode_with(join_wrapped_line)))
        .collect();
    words.extend(again);
    let hex = layers.iter().filter_map(|layer| layer.decode_with(normalize_hex)).collect();
    layers.remove(0);
    DecodedTexts { layers, words, hex }
}

/// Decodes an escape of JSON, C or a shell.
fn decode_escape(rest: &str) -> DecodedUnit {
    let Some(body) = rest.strip_prefix('\\') else { return DecodedUnit::Itself };
    let Some(kind) = body.chars().next() else { return DecodedUnit::Cut };
    let number = |from: usize, count: usize, radix: u32| -> DecodedUnit {
        let digits = body.bytes().skip(from).take(count);
        if !digits.clone().all(|digit| char::from(digit).is_digit(radix)) {
            return DecodedUnit::Itself;
        }
        if digits.count() < count {
            return DecodedUnit::Cut;
        }
        let code = u32::from_str_radix(&body[from..from + count], radix).ok();
        code.and_then(char::from_u32)
            .map_or(DecodedUnit::Itself, |c| DecodedUnit::Decoded(1 + from + count, c))
    };
    match kind {
        'n' => DecodedUnit::Decoded(2, '\n'),
        'r' => DecodedUnit::Decoded(2, '\r'),
        't' => DecodedUnit::Decoded(2, '\t'),
        '"' | '\'' | '\\' | '/' => DecodedUnit::Decoded(2, kind),
        'u' | 'x' if body[1..].starts_with('{') => braced(body),
        'u' => number(1, 4, 16),
        'U' => number(1, 8, 16),
        'x' => number(1, 2, 16),
        '0'..='3' => number(0, 3, 8),
        '4'..='7' => number(0, 2, 8),
        // `printf %q` writes characters that are special to a shell in this way.
        kind if kind.is_ascii_punctuation() || kind == ' ' => DecodedUnit::Decoded(2, kind),
        _ => DecodedUnit::Itself,
    }
}

/// Decodes an octal number of `echo -e` and `printf %b`, which has a zero before its three digits.
fn octal(rest: &str) -> DecodedUnit {
    const DIGITS: usize = 3;
    let Some(body) = rest.strip_prefix("\\0") else {
        return if rest == "\\" { DecodedUnit::Cut } else { DecodedUnit::Itself };
    };
    let digits = body.bytes().take(DIGITS).take_while(|byte| matches!(byte, b'0'..=b'7')).count();
    if digits == body.len() && digits < DIGITS {
        return DecodedUnit::Cut;
    }
    let code =
        body.get(..DIGITS).filter(|_| digits == DIGITS).and_then(|body| u32::from_str_radix(body, 8).ok());
    code.and_then(char::from_u32).map_or(DecodedUnit::Itself, |c| DecodedUnit::Decoded(2 + DIGITS, c))
}

/// Decodes a character number in braces after `u` or `x`.
fn braced(body: &str) -> DecodedUnit {
    const MOST_DIGITS: usize = 8;
    let number = &body[2..];
    let digits = number.bytes().take(MOST_DIGITS + 1).take_while(u8::is_ascii_hexdigit).count();
    if digits == number.len() {
        return DecodedUnit::Cut;
    }
    let code = u32::from_str_radix(&number[..digits], 16).ok().and_then(char::from_u32);
    match code.filter(|_| number[digits..].starts_with('}')) {
        Some(c) => DecodedUnit::Decoded(digits + 4, c),
        None => DecodedUnit::Itself,
    }
}

fn decode_percent(rest: &str) -> DecodedUnit {
    let Some(body) = rest.strip_prefix('%') else { return DecodedUnit::Itself };
    let digits = body.bytes().take(2);
    if !digits.clone().all(|digit| digit.is_ascii_hexdigit()) {
        return DecodedUnit::Itself;
    }
    if digits.count() < 2 {
        return DecodedUnit::Cut;
    }
    // Only ASCII: bytes of longer characters are left as they are.
    match u8::from_str_radix(&body[..2], 16) {
        Ok(byte) if byte.is_ascii() => DecodedUnit::Decoded(3, char::from(byte)),
        _ => DecodedUnit::Itself,
    }
}

/// Decodes an HTML character reference.
fn decode_entity(rest: &str) -> DecodedUnit {
    const MAX_ENTITY_BYTES: usize = 8;
    let Some(body) = rest.strip_prefix('&') else { return DecodedUnit::Itself };
    let Some(end) = body.bytes().take(MAX_ENTITY_BYTES).position(|byte| byte == b';') else {
        let open =
            body.len() < MAX_ENTITY_BYTES && body.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'#');
        return if open { DecodedUnit::Cut } else { DecodedUnit::Itself };
    };
    let c = match &body[..end] {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        name => name.strip_prefix('#').and_then(|number| {
            let hex = number.strip_prefix(['x', 'X']);
            let code = hex.map_or_else(|| number.parse().ok(), |hex| u32::from_str_radix(hex, 16).ok());
            code.and_then(char::from_u32)
        }),
    };
    c.map_or(DecodedUnit::Itself, |c| DecodedUnit::Decoded(end + 2, c))
}

/// Removes a line break and the following indentation, as inserted by encoders that wrap long lines.
fn join_wrapped_line(rest: &str) -> DecodedUnit {
    if !rest.starts_with(['\n', '\r']) {
        return DecodedUnit::Itself;
    }
    DecodedUnit::Nothing(rest.len() - rest.trim_start_matches(['\n', '\r', ' ', '\t']).len())
}

/// Returns whether any line after the first has words before its last word, and whether any has signs there.
fn before_words(text: &str) -> (bool, bool) {
    let (mut words, mut signs) = (false, false);
    for line in text.split(['\n', '\r']).skip(1) {
        let line = line.trim_end();
        let last = line.rfind([' ', '\t']).map_or(0, |at| at + 1);
        words |= !line[..last].trim_start().is_empty();
        signs |= sign_prefix_len(&line[last..]) > 0;
        if words && signs {
            break;
        }
    }
    (words, signs)
}

/// Removes a line break and everything before the last word of the next line: a line number, a time, a quotation mark.
fn wrap_after_words(rest: &str) -> DecodedUnit {
    if !rest.starts_with(['\n', '\r']) {
        return DecodedUnit::Itself;
    }
    let start = rest.len() - rest.trim_start_matches(['\n', '\r']).len();
    let line = &rest[start..];
    let end = line.find(['\n', '\r']);
    let body = line[..end.unwrap_or(line.len())].trim_end();
    let length = start + body.rfind([' ', '\t']).map_or(0, |at| at + 1);
    // Until the line has ended, any word may be the last one.
    if end.is_some() { DecodedUnit::Nothing(length) } else { DecodedUnit::Loose(length) }
}

/// Like [`wrap_after_words`], including the signs of `diff`, quotations and comments directly before the word.
fn wrap_after_signs(rest: &str) -> DecodedUnit {
    let (length, make): (usize, fn(usize) -> DecodedUnit) = match wrap_after_words(rest) {
        DecodedUnit::Nothing(length) => (length, DecodedUnit::Nothing),
        DecodedUnit::Loose(length) => (length, DecodedUnit::Loose),
        other => return other,
    };
    make(length + sign_prefix_len(&rest[length..]))
}

/// Returns the length of what is written directly before the last word of a line: the file and line number of `grep -n`,
/// and signs. No encoding has a colon among its characters.
fn sign_prefix_len(word: &str) -> usize {
    let end = word.find(char::is_whitespace).unwrap_or(word.len());
    let word = &word[..end];
    let named = word.rfind(':').map_or(0, |at| at + 1);
    // Lines next to a match: `FILE-NUMBER-`.
    let rest = &word[named..];
    let numbered = rest.match_indices('-').find_map(|(at, _)| {
        let digits = rest[at + 1..].bytes().take_while(u8::is_ascii_digit).count();
        (digits > 0 && rest[at + 1 + digits..].starts_with('-')).then_some(at + digits + 2)
    });
    let start = named + numbered.unwrap_or(0);
    let word = &word[start..];
    start + word.len() - word.trim_start_matches(SIGNS).len()
}

/// Converts hex digits to lower case and removes the separators between them.
fn normalize_hex(rest: &str) -> DecodedUnit {
    let bytes = rest.as_bytes();
    let prefix = |prefix: &[u8]| {
        bytes.starts_with(prefix) && bytes.get(prefix.len()).is_none_or(u8::is_ascii_hexdigit)
    };
    match bytes[0] {
        b'0' | b'\\' if bytes.len() == 1 => DecodedUnit::Cut,
        b'A'..=b'F' => DecodedUnit::Decoded(1, char::from(bytes[0].to_ascii_lowercase())),
        b'\\' if prefix(b"\\x") => DecodedUnit::Nothing(2),
        b'0' if prefix(b"0x") || prefix(b"0X") => DecodedUnit::Nothing(2),
        b'%' if prefix(b"%") => DecodedUnit::Nothing(1),
        byte if HEX_SEPARATORS.contains(&byte) => DecodedUnit::Nothing(1),
        _ => DecodedUnit::Itself,
    }
}
